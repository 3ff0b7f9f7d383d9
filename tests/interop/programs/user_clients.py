"""Authlib's client over httpx, and requests_oauth2client: tokens of users by code and by device, refreshed and revoked.

The argument is JSON: the `issuer`, the `client`, its `secret`, and its registered `callback`. A user consents without a
page. Prints what each library got.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

os.environ["AUTHLIB_INSECURE_TRANSPORT"] = "1"  # this machine is not reached by TLS

import httpx
import requests
from authlib.integrations.base_client import OAuthError
from authlib.integrations.httpx_client import OAuth2Client as AuthlibClient
from requests_oauth2client import BearerToken, ClientSecretBasic, InvalidGrant, OAuth2Client

OPTIONS = json.loads(sys.argv[1])
ISSUER, CLIENT, SECRET, CALLBACK = (OPTIONS[name] for name in ("issuer", "client", "secret", "callback"))


def redirect_of(url: str) -> str:
    return str(httpx.get(url, follow_redirects=False).headers["location"])


def with_authlib() -> dict[str, Any]:
    document = httpx.get(f"{ISSUER}/.well-known/openid-configuration").json()
    token_url = document["token_endpoint"]
    options = {"scope": "openid read", "redirect_uri": CALLBACK, "code_challenge_method": "S256"}
    with AuthlibClient(CLIENT, SECRET, **options) as session:
        verifier = "a verifier of at least 43 characters".replace(" ", "-") + "-0123456789"
        url, state = session.create_authorization_url(document["authorization_endpoint"], code_verifier=verifier)
        first = session.fetch_token(
            token_url, authorization_response=redirect_of(url), state=state, code_verifier=verifier
        )
        first = dict(first)
        second = dict(session.refresh_token(token_url, first["refresh_token"]))
        revoked = session.revoke_token(document["revocation_endpoint"], second["refresh_token"])
        try:
            session.refresh_token(token_url, second["refresh_token"])
            refused = ""
        except OAuthError as error:
            refused = error.error
    return {"tokens": [first, second], "revoked": revoked.status_code, "refused": refused}


def with_requests_oauth2client() -> dict[str, Any]:
    client = OAuth2Client.from_discovery_endpoint(
        issuer=ISSUER,
        auth=ClientSecretBasic(CLIENT, SECRET),
        redirect_uri=CALLBACK,
        testing=True,
        device_authorization_endpoint=f"{ISSUER}/oauth2/device",  # it does not read this one from the document
    )
    request = client.authorization_request(scope="openid read")
    # This verifies the state and the issuer of the redirect, and then the signature and the claims of the id token.
    response = request.validate_callback(redirect_of(str(request)))
    first = client.authorization_code(response)
    second = client.refresh_token(first)
    revoked = client.revoke_refresh_token(second)
    try:
        client.refresh_token(second)
        refused = ""
    except InvalidGrant as error:
        refused = type(error).__name__
    device = client.authorize_device(scope="read")
    form = {"user_code": device.user_code, "user": "eve", "decision": "allow"}
    requests.post(str(device.verification_uri), data=form, timeout=10).raise_for_status()
    by_device = client.device_code(device)
    return {
        "tokens": [_fields(first), _fields(second)],
        "nonce": first.id_token.nonce == request.nonce if first.id_token else False,
        "revoked": revoked,
        "refused": refused,
        "by_device": _fields(by_device),
    }


def _fields(token: BearerToken) -> dict[str, Any]:
    return token.as_dict()


print(json.dumps({"authlib": with_authlib(), "requests_oauth2client": with_requests_oauth2client()}, default=str))
