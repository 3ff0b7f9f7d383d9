"""The token server idpyoidc with token exchange (RFC 8693), on a free port of this machine. Prints its URL.

The argument is JSON: the `users`, the `clients` with their secrets, the `scopes` that these may have, and the
`directory` of the server's keys. `GET /tokens/{user}` returns a new access and refresh token of a user, as the first
client has them; `GET /known/{token}` what the server knows about a token; `GET /revoke/{token}` revokes it.
"""

from __future__ import annotations

import json
import sys
from typing import Any
from urllib.parse import unquote

from flask import Flask, Response, jsonify, request
from idpyoidc.message.oidc import AuthorizationRequest
from idpyoidc.server import Server
from idpyoidc.server.authn_event import create_authn_event
from idpyoidc.server.authz import AuthzHandling
from idpyoidc.server.client_authn import verify_client
from idpyoidc.server.configure import ASConfiguration
from idpyoidc.server.exception import UnAuthorizedClient
from idpyoidc.server.user_authn.authn_context import INTERNETPROTOCOLPASSWORD
from idpyoidc.server.user_info import UserInfo
from werkzeug.serving import make_server

OPTIONS = json.loads(sys.argv[1])
FIRST = next(iter(OPTIONS["clients"]))
KEYS = [{"type": "RSA", "key": "", "use": ["sig"]}, {"type": "EC", "crv": "P-256", "use": ["sig"]}]
MINTED = {"supports_minting": ["access_token", "refresh_token"], "expires_in": 600}
SIGNED = {"class": "idpyoidc.server.token.jwt_token.JWTToken", "kwargs": {"lifetime": 3600, "aud": ["https://api"]}}
CRYPT = {
    "kwargs": {"keys": {"key_defs": [{"type": "oct", "use": ["enc"], "kid": name} for name in ("password", "salt")]}}
}
CONFIGURATION = {
    "issuer": "https://idp.test/",
    "keys": {"uri_path": "jwks.json", "key_defs": KEYS},
    "endpoint": {
        "authorization": {
            "path": "authorization",
            "class": "idpyoidc.server.oauth2.authorization.Authorization",
            "kwargs": {},
        },
        "token": {
            "path": "token",
            "class": "idpyoidc.server.oauth2.token.Token",
            "kwargs": {"client_authn_method": ["client_secret_basic", "client_secret_post"]},
        },
    },
    "authentication": {
        "anon": {
            "acr": INTERNETPROTOCOLPASSWORD,
            "class": "idpyoidc.server.user_authn.user.NoAuthn",
            "kwargs": {"user": "ada"},
        }
    },
    "client_authn": verify_client,
    "userinfo": {"class": UserInfo, "kwargs": {"db": {user: {} for user in OPTIONS["users"]}}},
    "authz": {
        "class": AuthzHandling,
        "kwargs": {
            "grant_config": {
                "usage_rules": {"authorization_code": MINTED, "access_token": MINTED, "refresh_token": MINTED},
                "expires_in": 43200,
            }
        },
    },
    "token_handler_args": {
        "jwks_def": {"private_path": "token_jwks.json", "read_only": False, "key_defs": KEYS[1:]},
        "code": {"lifetime": 600, "kwargs": {"crypt_conf": CRYPT}},
        "token": SIGNED,
        "refresh": SIGNED,
    },
    "session_params": {"encrypter": CRYPT},
}
server = Server(ASConfiguration(conf=CONFIGURATION, base_path=OPTIONS["directory"]), cwd=OPTIONS["directory"])
context = server.context
context.map_supported_to_preferred()
for client, secret in OPTIONS["clients"].items():
    context.cdb[client] = {
        "client_secret": secret,
        "redirect_uris": [("https://app.example/callback", None)],
        "client_salt": "salt",
        "token_endpoint_auth_method": "client_secret_basic",
        "grant_types_supported": ["authorization_code", "urn:ietf:params:oauth:grant-type:token-exchange"],
        "response_types": ["code"],
        "allowed_scopes": OPTIONS["scopes"],
    }
endpoint = server.get_endpoint("token")
sessions = context.session_manager
app = Flask(__name__)


@app.post("/token")
def issue_token() -> Response:
    info = {"headers": {name.lower(): value for name, value in request.headers.items()}, "method": "POST", "url": ""}
    try:
        asked = endpoint.parse_request(request.form.to_dict(), info)
    except UnAuthorizedClient:
        return Response('{"error": "invalid_client"}', 401, mimetype="application/json")
    answered = asked if "error" in asked else endpoint.process_request(request=asked)
    if "error" in answered:
        return Response(json.dumps(answered.to_dict()), 400, mimetype="application/json")
    return Response(json.dumps(dict(answered["response_args"])), mimetype="application/json")


@app.get("/tokens/<user>")
def tokens_of(user: str) -> Response:
    asked = AuthorizationRequest(
        client_id=FIRST,
        redirect_uri="https://app.example/callback",
        scope=OPTIONS["scopes"],
        state="state",
        response_type="code",
    )
    session = sessions.create_session(create_authn_event(user), asked, user, client_id=FIRST)
    grant = context.authz(session, asked)
    identifier = sessions.encrypted_session_id(user, FIRST, grant.id)
    made = {}
    for name in ("access_token", "refresh_token"):
        token = grant.mint_token(
            session_id=identifier, context=context, token_class=name, token_handler=sessions.token_handler[name]
        )
        made[name] = token.value
    return jsonify(made)


def found(value: str) -> Any:
    session = sessions.get_session_info_by_token(unquote(value), handler_key="access_token")
    return session, sessions.find_token(session["branch_id"], unquote(value))


@app.get("/known/<token>")
def known(token: str) -> Response:
    session, one = found(token)
    return jsonify({"user": session["user_id"], "client": session["client_id"], "scope": one.scope})


@app.get("/revoke/<token>")
def revoke(token: str) -> Response:
    found(token)[1].revoke()
    return jsonify({})


http = make_server("127.0.0.1", 0, app)
print(f"http://127.0.0.1:{http.port}", flush=True)
http.serve_forever()
