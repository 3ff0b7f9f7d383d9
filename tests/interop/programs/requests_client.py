"""The client requests_oauth2client: tokens for several resources by each method, for a user, and bound to a key.

The argument is JSON: the `issuer`, the `client`, its `secret` and its private `key` as a JWK, the `resources`, and the
token of a `user`. Prints the token responses by method and by grant, the answers of the API to requests with a bound
token, and the name of the error of a wrong secret.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import requests
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


def client(authentication: Any) -> Any:
    # testing=True: the endpoint has no TLS.
    return OAuth2Client.from_discovery_endpoint(issuer=ISSUER, auth=authentication, testing=True)


def token(authentication: Any) -> dict[str, Any]:
    return client(authentication).client_credentials(scope="crm.read", resource=OPTIONS["resources"]).as_dict()


granted = {
    "client_secret_basic": token(ClientSecretBasic(CLIENT, SECRET)),
    "client_secret_post": token(ClientSecretPost(CLIENT, SECRET)),
    "client_secret_jwt": token(ClientSecretJwt(CLIENT, SECRET)),
    "private_key_jwt": token(PrivateKeyJwt(CLIENT, OPTIONS["key"])),
}
known = client(ClientSecretBasic(CLIENT, SECRET))
for_user = {
    "exchange": known.token_exchange(subject_token=OPTIONS["user"], subject_token_type="access_token").as_dict(),
    "assertion": known.jwt_bearer(OPTIONS["user"]).as_dict(),
}
bound = known.client_credentials(scope="crm.read", dpop=True)
urls = [f"{ISSUER}/api/orders/{number}?a=1" for number in range(3)]
calls = [requests.post(url, data="body", auth=bound, timeout=10).json() for url in urls]
try:
    token(ClientSecretPost(CLIENT, "wrong"))
    refused = ""
except OAuth2Error as error:
    refused = type(error).__name__
results = {"granted": granted, "for_user": for_user, "bound": bound.access_token, "calls": calls, "refused": refused}
print(json.dumps(results, default=str))
