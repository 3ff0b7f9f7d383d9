"""The client requests_oauth2client: a token for several resources by each method, and the error of a wrong secret.

The argument is JSON: the `issuer`, the `client`, its `secret` and its private `key` as a JWK, and the `resources`.
Prints the token responses by method, and the name of the error.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from requests_oauth2client import (
    ClientSecretBasic,
    ClientSecretJwt,
    ClientSecretPost,
    OAuth2Client,
    OAuth2Error,
    PrivateKeyJwt,
)

OPTIONS = json.loads(sys.argv[1])
ISSUER, CLIENT, SECRET = (OPTIONS[name] for name in ("issuer", "client", "secret"))


def token(authentication: Any) -> dict[str, Any]:
    # testing=True: the endpoint has no TLS.
    client = OAuth2Client.from_discovery_endpoint(issuer=ISSUER, auth=authentication, testing=True)
    return client.client_credentials(scope="crm.read", resource=OPTIONS["resources"]).as_dict()


granted = {
    "client_secret_basic": token(ClientSecretBasic(CLIENT, SECRET)),
    "client_secret_post": token(ClientSecretPost(CLIENT, SECRET)),
    "client_secret_jwt": token(ClientSecretJwt(CLIENT, SECRET)),
    "private_key_jwt": token(PrivateKeyJwt(CLIENT, OPTIONS["key"])),
}
try:
    token(ClientSecretPost(CLIENT, "wrong"))
    refused = ""
except OAuth2Error as error:
    refused = type(error).__name__
print(json.dumps({"granted": granted, "refused": refused}, default=str))
