"""An OAuth 2.0 token endpoint: client credentials (RFC 6749 §4.4), token exchange (RFC 8693), JWT bearer (RFC 7523)."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, unquote_plus

from tokenmw.testing.provider_server.endpoint import TokenEndpoint, json_response
from tokenmw.testing.provider_server.subjects import JWT_BEARER, TOKEN_EXCHANGE, exchange_refusal, exchanged

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from tokenmw.testing.provider_server.fault import Fault
    from tokenmw.testing.provider_server.server import ProviderServer

__all__ = ["OAuth2Endpoint"]

_REPEATED = ("audience", "resource")  # RFC 8693 §2.1
_ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"


class OAuth2Endpoint(TokenEndpoint):
    """`POST /oauth2/token`, as strict as real servers.

    Assertions (RFC 7523 §2.2) are not verified, but each is accepted only once: real servers remember the `jti`.

    Attributes:
        decodes_basic: Whether id and secret in the `Authorization` header are form-decoded (RFC 6749 §2.3.1). Many
            real servers do not decode them.
        subject_error: The error code for a refused token of a user in a token exchange; RFC 8693 §2.2.2 has
            `invalid_request`, many real servers answer `invalid_grant`.
    """

    name = "oauth2"
    path = "/oauth2/token"

    def __init__(self, server: ProviderServer, *, life: float, renewal_window: float | None = None) -> None:
        super().__init__(server, life=life, renewal_window=renewal_window)
        self.decodes_basic = True
        self.subject_error = "invalid_request"
        self._assertions: set[str] = set()

    async def caller(self, request: Request) -> str:
        """Return the client id that a request names."""
        basic = self._basic(request)
        form = dict(parse_qsl((await request.body()).decode("latin-1")))
        return (basic or (form.get("client_id", ""),))[0]

    async def answer(self, request: Request, fault: Fault) -> Response:
        """Answer with a token, or with an error code (RFC 6749 §5)."""
        if request.headers.get("content-type", "").partition(";")[0] != "application/x-www-form-urlencoded":
            return _error("invalid_request")
        pairs = parse_qsl((await request.body()).decode("latin-1"), keep_blank_values=True)
        form = dict(pairs)
        basic = self._basic(request)
        methods = (basic is not None) + ("client_secret" in form) + ("client_assertion" in form)
        names = [name for name, _value in pairs if name not in _REPEATED]
        if len(set(names)) != len(names) or methods > 1:
            return _error("invalid_request")
        client = basic[0] if basic else form.get("client_id", "")
        if form.get("grant_type") == JWT_BEARER and not methods:
            pass  # the assertion is enough (RFC 7523 §3.1)
        elif not self._is_client(client, basic=basic, form=form):
            challenge = {"WWW_Authenticate": 'Basic realm="oauth2"'} if basic else {}
            return json_response({"error": "invalid_client"}, 401 if basic else 400, **challenge)
        grant_type = form.get("grant_type")
        if grant_type in (JWT_BEARER, TOKEN_EXCHANGE):
            return self._answer_for_user(form, client, fault)
        if grant_type != "client_credentials":
            return _error("unsupported_grant_type" if grant_type else "invalid_request")
        scope = form.get("scope", "")
        value, life = self.grant(client, scope=scope)
        content = {"access_token": value, "token_type": "Bearer", "expires_in": life}
        return json_response(fault.change(content | ({"scope": scope} if scope else {})))

    def _answer_for_user(self, form: dict[str, str], client: str, fault: Fault) -> Response:
        exchange = form["grant_type"] == TOKEN_EXCHANGE
        missing = exchange_refusal(form) if exchange else "" if form.get("assertion") else "invalid_request"
        if missing:
            return _error(missing)
        user = self.server.subjects.user(form["subject_token" if exchange else "assertion"])
        if user is None:
            return _error(self.subject_error if exchange else "invalid_grant")
        value, life = self.grant_for(user, client, scope=form.get("scope", ""))
        content = {"access_token": value, "token_type": "Bearer", "expires_in": life}
        return json_response(fault.change(exchanged(form, content) if exchange else content))

    def _basic(self, request: Request) -> tuple[str, str] | None:
        scheme, _, encoded = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "basic":
            return None
        try:
            client, _, secret = base64.b64decode(encoded, validate=True).decode().partition(":")
        except ValueError:  # not ASCII, not base64, or not UTF-8
            return ("", "")
        return (unquote_plus(client), unquote_plus(secret)) if self.decodes_basic else (client, secret)

    def _is_client(self, client: str, *, basic: tuple[str, str] | None, form: dict[str, str]) -> bool:
        assertion = form.get("client_assertion")
        if assertion is None:
            return self.server.knows(client, basic[1] if basic else form.get("client_secret", ""))
        if assertion in self._assertions or form.get("client_assertion_type") != _ASSERTION_TYPE:
            return False
        self._assertions.add(assertion)
        return self.server.knows(client, None)


def _error(code: str) -> Response:
    return json_response({"error": code, "error_description": f"{code} (test server)"}, 400)
