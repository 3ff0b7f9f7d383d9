"""Authlib's token server, in Flask, on a free port of this machine. Prints its URL.

The argument is JSON: `clients` by id, each with its `method`, `secret` or public key `jwk`, and allowed `scope`; and
the `users` whose names an assertion of the JWT bearer grant may have as its subject.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass
from typing import Any

os.environ["AUTHLIB_INSECURE_TRANSPORT"] = "1"  # this machine is not reached by TLS

from authlib.integrations.flask_oauth2 import AuthorizationServer
from authlib.oauth2.rfc6749 import ClientMixin, grants
from authlib.oauth2.rfc6749.util import list_to_scope, scope_to_list
from authlib.oauth2.rfc7523 import JWTBearerClientAssertion, JWTBearerGrant
from flask import Flask, jsonify, request
from joserfc.jwk import OctKey, import_key
from werkzeug.serving import make_server

ASSERTED = "client_assertion_jwt"
"""Authlib's name for both methods with an assertion."""
ASSERTION_METHODS = ("client_secret_jwt", "private_key_jwt")


@dataclass
class Client(ClientMixin):
    client_id: str
    method: str
    secret: str = ""
    jwk: dict[str, Any] | None = None
    scope: str = ""

    def get_client_id(self) -> str:
        return self.client_id

    def get_allowed_scope(self, scope: str) -> str:
        allowed = set(self.scope.split())
        return list_to_scope([one for one in scope_to_list(scope or "") if one in allowed])

    def check_client_secret(self, client_secret: str) -> bool:
        return bool(self.secret) and client_secret == self.secret

    def check_endpoint_auth_method(self, method: str, endpoint: str) -> bool:
        return method == self.method or (method == ASSERTED and self.method in ASSERTION_METHODS)

    def check_grant_type(self, grant_type: str) -> bool:
        return True

    def key(self) -> Any:
        return import_key(self.jwk) if self.jwk else OctKey.import_key(self.secret)


OPTIONS = json.loads(sys.argv[1])
CLIENTS = {client: Client(client, **fields) for client, fields in OPTIONS["clients"].items()}
TOKENS: dict[str, dict[str, Any]] = {}
SEEN: set[tuple[str, str]] = set()


def token_urls() -> list[str]:
    return [f"{request.host_url}token"]


class Assertion(JWTBearerClientAssertion):
    def get_audiences(self) -> list[str]:
        return token_urls()

    def validate_jti(self, claims: Any, jti: str) -> bool:
        key = (claims["sub"], jti)
        new = key not in SEEN
        SEEN.add(key)
        return new

    def resolve_client_public_key(self, client: Client) -> Any:
        return client.key()


class ClientCredentialsGrant(grants.ClientCredentialsGrant):
    TOKEN_ENDPOINT_AUTH_METHODS = ("client_secret_basic", "client_secret_post", ASSERTED)


class UserGrant(JWTBearerGrant):
    def get_audiences(self) -> list[str]:
        return token_urls()

    def resolve_issuer_client(self, issuer: str) -> Client | None:
        return CLIENTS.get(issuer)

    def resolve_client_public_key(self, client: Client) -> Any:
        return client.key()

    def authenticate_user(self, subject: str) -> str | None:
        return subject if subject in OPTIONS["users"] else None

    def has_granted_permission(self, client: Client, user: str) -> bool:
        return True


def save_token(token: dict[str, Any], saved: Any) -> None:
    known = {"client": saved.client.client_id, "user": saved.user or "", "scope": token.get("scope", "")}
    TOKENS[token["access_token"]] = known


app = Flask(__name__)
app.config["OAUTH2_SCOPES_SUPPORTED"] = sorted({one for client in CLIENTS.values() for one in client.scope.split()})
app.config["OAUTH2_TOKEN_EXPIRES_IN"] = {"client_credentials": 1200, UserGrant.GRANT_TYPE: 700}
server = AuthorizationServer(app, query_client=CLIENTS.get, save_token=save_token)
server.register_client_auth_method(ASSERTED, Assertion())
server.register_grant(ClientCredentialsGrant)
server.register_grant(UserGrant)


@app.post("/token")
def issue_token() -> Any:
    return server.create_token_response()


@app.get("/known/<token>")
def known(token: str) -> Any:
    return jsonify(TOKENS[token])


http = make_server("127.0.0.1", 0, app, threaded=True)
print(f"http://127.0.0.1:{http.port}", flush=True)
http.serve_forever()
