"""An OAuth 2.0 token endpoint: client credentials (RFC 6749 §4.4), token exchange (RFC 8693), JWT bearer (RFC 7523).

The grants for users are in `user_grants`: codes, refresh tokens and device codes.
"""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qsl, unquote_plus, urlsplit

from starlette.responses import Response

from tokenmw.testing.provider_server.client_certificates import certificate_thumbprint
from tokenmw.testing.provider_server.dpop import DPoPCheck, ProofRefusedError
from tokenmw.testing.provider_server.endpoint import TokenEndpoint, json_response
from tokenmw.testing.provider_server.families import RefusedError
from tokenmw.testing.provider_server.subjects import JWT_BEARER, TOKEN_EXCHANGE, exchange_refusal, exchanged
from tokenmw.testing.provider_server.user_grants import CREDENTIALS, UserCredential, exchange, record

if TYPE_CHECKING:
    from starlette.requests import Request

    from tokenmw.testing.provider_server.families import Pair
    from tokenmw.testing.provider_server.fault import Fault
    from tokenmw.testing.provider_server.server import ProviderServer

__all__ = ["OAuth2Endpoint", "TokenRequest"]

_REPEATABLE: Final = frozenset({"audience", "resource"})  # RFC 8707 §2, RFC 8693 §2.1
_ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"


@dataclass(frozen=True)
class TokenRequest:
    """A form of a client that has proved itself.

    Attributes:
        client: The client.
        secret: The secret that it has sent, or "".
        form: The fields.
        resources: The values of `resource`, which may be repeated.
    """

    client: str
    secret: str
    form: dict[str, str]
    resources: tuple[str, ...] = ()


class OAuth2Endpoint(TokenEndpoint):
    """`POST /oauth2/token`, as strict as real servers.

    Assertions (RFC 7523 §2.2) are not verified, but each is accepted only once: real servers remember the `jti`. With a
    JWT as assertion, its `sub` is the client.

    A client in `certificates` proves itself by the certificate in the header `X-Client-Cert` (RFC 8705), in PEM as
    nginx forwards it, or in base64. The token of each request with a certificate is bound to it.

    Attributes:
        certificates: The SHA-256 thumbprints (`x5t#S256`) of the certificates of clients that have no secret.
        decodes_basic: Whether id and secret in the `Authorization` header are form-decoded (RFC 6749 §2.3.1). Many
            real servers do not decode them.
        dpop: Verifies proofs (RFC 9449). A request with one gets a token that is bound to its key.
        subject_error: The error code for a refused token of a user in a token exchange; RFC 8693 §2.2.2 has
            `invalid_request`, many real servers answer `invalid_grant`.
    """

    name = "oauth2"
    path = "/oauth2/token"

    def __init__(self, server: ProviderServer, *, life: float, renewal_window: float | None = None) -> None:
        super().__init__(server, life=life, renewal_window=renewal_window)
        self.certificates: dict[str, str] = {}
        self.decodes_basic = True
        self.dpop = DPoPCheck()
        self.subject_error = "invalid_request"
        self._assertions: set[str] = set()

    async def caller(self, request: Request) -> str:
        """Return the client id that a request names."""
        basic = self._basic(request)
        form = dict(parse_qsl((await request.body()).decode("latin-1")))
        return basic[0] if basic else _client_of(form)

    async def received(self, request: Request, caller: str) -> None:
        """Record a code, a refresh token or a device code."""
        form = dict(parse_qsl((await request.body()).decode("latin-1")))
        field = CREDENTIALS.get(form.get("grant_type", ""))
        if field is not None:
            grant, value = form["grant_type"], form.get(field, "")
            record(self.server.users, request, grant=grant, value=value, client=caller)

    async def answer(self, request: Request, fault: Fault) -> Response:
        """Answer with a token, or with an error code (RFC 6749 §5)."""
        try:
            response = await self._answer(request, fault)
        except ProofRefusedError as refused:
            response = json_response({"error": refused.code, "error_description": refused.reason}, 400)
        return self.dpop.add_nonce(response)

    async def _answer(self, request: Request, fault: Fault) -> Response:
        asked = await self.authenticated(request)
        if isinstance(asked, Response):
            return asked
        form, client = asked.form, asked.client
        thumbprint = self.dpop.thumbprint(request)
        if form.get("grant_type") in CREDENTIALS:
            return self._answer_for_consent(request, asked, fault, thumbprint)
        if form.get("grant_type") in (JWT_BEARER, TOKEN_EXCHANGE):
            return self._answer_for_user(form, client, fault, thumbprint, certificate_thumbprint(request))
        problem = _problem(form, asked.resources)
        if problem:
            return _error(problem)
        scope = form.get("scope", "")
        bound = certificate_thumbprint(request)
        # A bound token is a new one each time: the one before may be bound to another certificate.
        if bound:
            value, life = self.grant_for("", client, scope=scope, thumbprint=thumbprint)
        else:
            value, life = self.grant(client, scope=scope, resources=asked.resources, thumbprint=thumbprint)
        self._bind(value, bound)
        content = {"access_token": value, "token_type": _type_of(thumbprint), "expires_in": life}
        return json_response(fault.change(content | ({"scope": scope} if scope else {})))

    async def authenticated(self, request: Request) -> TokenRequest | Response:
        """Return the form of a request, or the answer to a client that has not proved itself (RFC 6749 §2.3)."""
        if request.headers.get("content-type", "").partition(";")[0] != "application/x-www-form-urlencoded":
            return _error("invalid_request")
        pairs = parse_qsl((await request.body()).decode("latin-1"), keep_blank_values=True)
        form = dict(pairs)
        basic = self._basic(request)
        methods = (basic is not None) + ("client_secret" in form) + ("client_assertion" in form)
        once = [name for name, _ in pairs if name not in _REPEATABLE]
        if len(set(once)) != len(once) or methods > 1:
            return _error("invalid_request")
        client = basic[0] if basic else _client_of(form)
        if form.get("grant_type") == JWT_BEARER and not methods:
            pass  # the assertion is enough (RFC 7523 §3.1)
        elif client in self.certificates and not methods:
            if certificate_thumbprint(request) != self.certificates[client]:
                return json_response({"error": "invalid_client"}, 401)
        elif client in self.certificates or not self._is_client(client, basic=basic, form=form):
            challenge = {"WWW_Authenticate": 'Basic realm="oauth2"'} if basic else {}
            return json_response({"error": "invalid_client"}, 401 if basic else 400, **challenge)
        secret = basic[1] if basic else form.get("client_secret", "")
        return TokenRequest(client, secret, form, tuple(value for name, value in pairs if name == "resource"))

    def _answer_for_consent(self, request: Request, asked: TokenRequest, fault: Fault, thumbprint: str) -> Response:
        form = asked.form
        credential = UserCredential(
            grant=form["grant_type"],
            value=form.get(CREDENTIALS[form["grant_type"]], ""),
            client=asked.client,
            scope=form.get("scope", ""),
            redirect_uri=form.get("redirect_uri", ""),
            verifier=form.get("code_verifier", ""),
        )
        try:
            pair = exchange(self.server.users, self, request, credential)
        except RefusedError as refused:
            return _error(refused.code)
        issued = self.server.issued.find(pair.access_token)
        if issued is not None:
            issued.thumbprint, issued.certificate = thumbprint, certificate_thumbprint(request)
        content: dict[str, Any] = {
            "access_token": pair.access_token,
            "token_type": _type_of(thumbprint),
            "expires_in": pair.expires_in,
        }
        id_token = self._id_token(request, asked, pair) if "openid" in pair.scope.split() else ""
        more = {"refresh_token": pair.refresh_token, "scope": pair.scope, "id_token": id_token}
        return json_response(fault.change(content | {name: value for name, value in more.items() if value}))

    def _id_token(self, request: Request, asked: TokenRequest, pair: Pair) -> str:
        users, code = self.server.users, self.server.users.codes.find(asked.form.get("code", ""))
        return users.id_tokens.issue(
            pair,
            algorithm=users.id_token_algorithm,
            secret=(self.server.clients or {}).get(asked.client) or asked.secret,
            issuer=pair.family.issuer or self.server.oauth2_metadata.base(request),
            nonce=code.nonce if code is not None else "",
        )

    def _answer_for_user(
        self, form: dict[str, str], client: str, fault: Fault, thumbprint: str, bound: str
    ) -> Response:
        exchange = form["grant_type"] == TOKEN_EXCHANGE
        missing = exchange_refusal(form) if exchange else "" if form.get("assertion") else "invalid_request"
        if missing:
            return _error(missing)
        user = self.server.subjects.user(form["subject_token" if exchange else "assertion"])
        if user is None:
            return _error(self.subject_error if exchange else "invalid_grant")
        value, life = self.grant_for(user, client, scope=form.get("scope", ""), thumbprint=thumbprint)
        self._bind(value, bound)
        content = {"access_token": value, "token_type": _type_of(thumbprint), "expires_in": life}
        return json_response(fault.change(exchanged(form, content) if exchange else content))

    def _bind(self, value: str, certificate: str) -> None:
        issued = self.server.issued.find(value)
        if issued is not None:
            issued.certificate = certificate

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
        return client == (_subject_of(assertion) or client) and self.server.knows(client, None)


def _type_of(thumbprint: str) -> str:
    return "DPoP" if thumbprint else "Bearer"


def _client_of(form: dict[str, str]) -> str:
    """Return the client that a form names; with an assertion, `client_id` may be left out (RFC 7521 §4.2)."""
    return form.get("client_id") or _subject_of(form.get("client_assertion", ""))


def _subject_of(assertion: str) -> str:
    """Return the `sub` of a signed JWT, which is not verified; "" if the text is no JWT."""
    payload = assertion.split(".")[1] if assertion.count(".") == 2 else ""
    try:
        claims: Any = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
        return str(claims["sub"])
    except (ValueError, LookupError, TypeError):
        return ""


def _problem(form: dict[str, str], resources: tuple[str, ...]) -> str:
    if "grant_type" not in form:
        return "invalid_request"
    if form["grant_type"] != "client_credentials":
        return "unsupported_grant_type"
    absolute = all(urlsplit(one).scheme and "#" not in one for one in resources)
    return "" if absolute else "invalid_target"


def _error(code: str) -> Response:
    return json_response({"error": code, "error_description": f"{code} (test server)"}, 400)
