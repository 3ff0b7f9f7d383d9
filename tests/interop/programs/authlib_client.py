"""Authlib's clients, over httpx and requests: a token by each method that signs, and the error of an unknown client.

The argument is JSON: the `url` of the token endpoint, the `client`, its `secret` and its private `key` in PEM, and a
`resource`. Prints, for each HTTP library, the token responses by method, and the error.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

os.environ["AUTHLIB_INSECURE_TRANSPORT"] = "1"  # this machine is not reached by TLS

from authlib.integrations.base_client import OAuthError
from authlib.integrations.httpx_client import OAuth2Client
from authlib.integrations.requests_client import OAuth2Session
from authlib.oauth2.rfc7523 import ClientSecretJWT, PrivateKeyJWT

OPTIONS = json.loads(sys.argv[1])
URL, CLIENT = OPTIONS["url"], OPTIONS["client"]


def token(library: Any, secret: str, method: Any, *, client: str = CLIENT) -> dict[str, Any]:
    with library(client, secret, scope="crm.read", token_endpoint_auth_method=method) as session:
        granted = session.fetch_token(URL, grant_type="client_credentials", resource=OPTIONS["resource"])
        return dict(granted)


def results(library: Any) -> dict[str, Any]:
    secret, key = OPTIONS["secret"], OPTIONS["key"]
    granted = {
        "client_secret_basic": token(library, secret, "client_secret_basic"),
        "client_secret_post": token(library, secret, "client_secret_post"),
        "client_secret_jwt": token(library, secret, ClientSecretJWT(URL)),
        "private_key_jwt": token(library, key, PrivateKeyJWT(URL)),
    }
    try:
        token(library, key, PrivateKeyJWT(URL), client="unknown")
        refused = ""
    except OAuthError as error:
        refused = error.error
    return {"granted": granted, "refused": refused}


print(json.dumps({"httpx": results(OAuth2Client), "requests": results(OAuth2Session)}))
