"""An app at an OAuth 2.0 server, to which users connect their accounts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal
from urllib.parse import urlencode

from tokenmw.connections.app_client import AppClient, app_auth
from tokenmw.connections.device_codes import DEVICE_GRANT, DeviceCodes, read_device_pair
from tokenmw.connections.dialect import STANDARD, Dialect
from tokenmw.connections.endpoints import Endpoints
from tokenmw.connections.options import check_query, checked_params, checked_scope, checked_separator
from tokenmw.connections.pair_reader import read_refreshed
from tokenmw.errors import ConfigurationError, CredentialRejected
from tokenmw.options import checked_flag, checked_instance, optional_seconds
from tokenmw.providers.body_codes import RejectionCodes
from tokenmw.providers.grant_reader import bearer_rejected
from tokenmw.providers.oauth_client import OAuthClient
from tokenmw.providers.urls import checked_hosts
from tokenmw.redaction import FrozenValue, without_locals

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping

    from tokenmw.connections.pair import TokenPair
    from tokenmw.providers.base import OutgoingAnswer, OutgoingRequest
    from tokenmw.providers.client_auth import AuthMethod
    from tokenmw.providers.client_certificate import ClientCertificate
    from tokenmw.providers.dpop import DPoPKey
    from tokenmw.providers.http import TokenHTTP
    from tokenmw.providers.private_key_jwt import PrivateKeyJWT
    from tokenmw.providers.secret_sources import Secret
    from tokenmw.values import Token

__all__ = ["OAuthApp"]

_LIFETIME: Final = 3600.0  # seconds, of a token with a refresh token whose answer does not say
_FIXES: Final = {
    "invalid_grant": "the user has to connect again",
    "invalid_scope": "check scope",
    "unsupported_grant_type": "the server does not offer this grant to the client: check its registration",
}


class OAuthApp(FrozenValue):
    """A client of an OAuth 2.0 server that acts for users who have connected their accounts.

    >>> OAuthApp(issuer="https://accounts.google.com", client_id="crm", client_secret="…", scope="openid email")
    <OAuthApp crm>

    The module `tokenmw.connections.known_apps` has ready ones for some platforms.

    Args:
        issuer: The server's issuer, exactly as the server writes it. Its endpoints are then found by RFC 8414 or OpenID
            Connect Discovery. Default: `authorize_url` and `token_url` are given in its place.
        authorize_url: The authorization endpoint, to which browsers are sent. Default: as the issuer publishes it.
        token_url: The token endpoint. Default: as the issuer publishes it.
        revoke_url: The revocation endpoint (RFC 7009). Default: as the issuer publishes it; without one, `disconnect`
            only forgets the tokens.
        device_url: The device authorization endpoint (RFC 8628). Default: as the issuer publishes it.
        client_id: The client's id at the server.
        client_secret: The client's secret: text, a list while it is changed, or a `SecretSource`.
        auth_method: How the client authenticates, as of `ClientCredentials`; `"none"` for a public client, which has no
            secret and relies on PKCE. Default: `private_key_jwt` if `client_assertion` is given, else
            `client_secret_basic`; with `issuer`, as the server publishes it.
        client_assertion: A `PrivateKeyJWT`, or a function that returns a signed assertion, as of `ClientCredentials`.
        credential_id: A name for the key behind `client_assertion`. Default: none.
        scope: The scopes that each user is asked for, separated by spaces. Default: none, the server decides.
        scope_separator: What the server expects between scopes. Default: a space.
        params: More parameters of the authorization request, such as `{"access_type": "offline", "prompt":
            "consent"}`. A parameter that another option sets is refused. Default: none.
        token_params: More fields of each token request. Default: none.
        json: Whether token requests are sent as a JSON object. Default: False, a form.
        default_life: The lifetime in seconds of an access token whose answer does not say one. Default: 3600 s; a token
            that came without a refresh token then never expires.
        refresh_before: Seconds before expiry at which a new token is fetched in the background. Default: as of a
            provider.
        hosts: Host names to which auth objects send the token, as of `ClientCredentials`. Default: every host.
        form_encode_basic: Whether id and secret are form-encoded in the `Authorization` header. Default: True.
        allow_http: Allows plain HTTP to other machines. Default: False.
        allow_private: False refuses private addresses, for URLs that others choose. Default: True.
        log_description: Whether the log shows the server's `error_description` of a refusal. Default: False.
        dialect: What the platform does otherwise than OAuth 2.0. Default: nothing.
        certificate: A `ClientCertificate`, which connections to the server show (RFC 8705), as of `ClientCredentials`.
            Default: none.
        dpop: A `DPoPKey` to which the server binds codes and tokens (RFC 9449), as of `ClientCredentials`. All
            processes need the same key, because they use the same connections. Default: none, bearer tokens.

    Attributes:
        certificate, dpop: The options.
        client_id: The client's id.
        scope: The scopes, separated by spaces.
        issuer: The server's issuer, or "".
        hosts, refresh_before, allow_http, allow_private: The options.

    Raises:
        ConfigurationError: An option is missing, contradicts another one, or cannot work.
    """

    __slots__ = (
        "_client",
        "_params",
        "_rejection",
        "_separator",
        "allow_http",
        "allow_private",
        "certificate",
        "client_id",
        "dialect",
        "dpop",
        "hosts",
        "issuer",
        "refresh_before",
        "scope",
    )

    allow_http: bool
    allow_private: bool
    certificate: ClientCertificate | None
    client_id: str
    dialect: Dialect
    dpop: DPoPKey | None
    hosts: frozenset[str] | None
    issuer: str
    refresh_before: float | None
    scope: str
    _client: AppClient
    _params: Mapping[str, str]
    _rejection: RejectionCodes | None
    _separator: str

    @without_locals
    def __init__(
        self,
        *,
        issuer: str | None = None,
        authorize_url: str | None = None,
        token_url: str | None = None,
        revoke_url: str | None = None,
        device_url: str | None = None,
        client_id: str,
        client_secret: Secret | None = None,
        auth_method: AuthMethod | Literal["none"] | None = None,
        client_assertion: str | Callable[[], str | Awaitable[str]] | PrivateKeyJWT | None = None,
        credential_id: str | None = None,
        scope: str = "",
        scope_separator: str = " ",
        params: Mapping[str, str] | None = None,
        token_params: Mapping[str, str] | None = None,
        json: bool = False,
        default_life: float | None = None,
        refresh_before: float | None = None,
        hosts: Iterable[str] | None = None,
        form_encode_basic: bool = True,
        allow_http: bool = False,
        allow_private: bool = True,
        log_description: bool = False,
        dialect: Dialect = STANDARD,
        certificate: ClientCertificate | None = None,
        dpop: DPoPKey | None = None,
    ) -> None:
        name = type(self).__name__
        checked_flag(allow_http, option=f"{name}(allow_http=…)")
        checked_flag(allow_private, option=f"{name}(allow_private=…)")
        checked_flag(json, option=f"{name}(json=…)")
        endpoints = Endpoints(
            owner=name,
            issuer=issuer,
            urls={
                "authorize_url": authorize_url,
                "token_url": token_url,
                "revoke_url": revoke_url,
                "device_url": device_url,
            },
            allow_http=allow_http,
            allow_private=allow_private,
        )
        if not (endpoints.given("authorize_url") or endpoints.given("device_url")):
            raise ConfigurationError(f"{name} needs authorize_url=… (or device_url=…) beside token_url=….")
        auth = app_auth(
            client_id,
            provider=name,
            method=auth_method,
            issuer=issuer,
            secret=client_secret,
            assertion=client_assertion,
            credential_id=credential_id,
            form_encode_basic=form_encode_basic,
            certificate=certificate,
        )
        client = OAuthClient(
            auth,
            provider=name,
            token_url=token_url,
            issuer=issuer,
            allow_http=allow_http,
            allow_private=endpoints.allow_private,
            dpop=dpop,
        )
        if dpop is not None and not dpop.shareable:
            raise ConfigurationError(
                f"{name}(dpop=DPoPKey()) has a key that no other process has, and connections outlive a process: give "
                f"DPoPKey(file=…) or DPoPKey(key)."
            )
        put = object.__setattr__
        checked_instance(dialect, Dialect, option=f"{name}(dialect=…)", example="Dialect()")
        own = (dialect.client_parameter, dialect.scope_parameter)
        check_query(authorize_url, option=f"{name}(authorize_url=…)", also=own)
        put(self, "_params", checked_params(params, option=f"{name}(params=…)", of="authorization", also=own))
        put(self, "_separator", checked_separator(scope_separator, option=f"{name}(scope_separator=…)"))
        put(self, "allow_http", allow_http)
        put(self, "allow_private", endpoints.allow_private)
        put(self, "certificate", certificate)
        put(self, "client_id", client_id)
        put(self, "dialect", dialect)
        put(self, "dpop", dpop)
        put(self, "_rejection", _rejection(dialect))
        put(self, "hosts", checked_hosts(hosts, option=f"{name}(hosts=…)"))
        put(self, "issuer", endpoints.issuer)
        put(self, "refresh_before", optional_seconds(refresh_before, option=f"{name}(refresh_before=…)"))
        put(self, "scope", checked_scope(scope, option=f"{name}(scope=…)"))
        life = optional_seconds(default_life, option=f"{name}(default_life=…)") or _LIFETIME
        app_client = AppClient(
            client,
            endpoints=endpoints,
            reader=client.reader(default_life=life, fixes=_FIXES, log_description=log_description),
            dialect=dialect,
            as_json=json,
            params=checked_params(token_params, option=f"{name}(token_params=…)", of="token"),
        )
        put(self, "_client", app_client)

    @without_locals
    async def refresh(self, http: TokenHTTP, refresh_token: str, *, scope: str = "") -> TokenPair:
        """Spend a refresh token (RFC 6749 §6).

        Args:
            http: Sends the request.
            refresh_token: The refresh token.
            scope: A part of the granted scopes, separated by spaces; "": all that were granted.

        Raises:
            GrantRefused: The server refuses the refresh token: the user has to connect again.
            CredentialRejected: It refuses the client or the request.
            TokenUnavailable: It cannot be reached, is busy, or its response cannot be used. The refresh token may be
                spent nevertheless.
        """
        fields = {"grant_type": "refresh_token", "refresh_token": refresh_token}
        if scope:
            fields["scope"] = self._joined(scope)
        return await self._client.grant(http, fields, secret=refresh_token, read=read_refreshed)

    @without_locals
    async def exchange_code(self, http: TokenHTTP, code: str, *, verifier: str, redirect_uri: str) -> TokenPair:
        """Exchange an authorization code (RFC 6749 §4.1.3, RFC 7636 §4.5).

        Args:
            http: Sends the request.
            code: The code.
            verifier: The `code_verifier` whose challenge was in the authorization request.
            redirect_uri: The redirect URI of that request.

        Raises:
            GrantRefused: The server refuses the code.
            CredentialRejected: It refuses the client or the request.
            TokenUnavailable: It cannot be reached, is busy, or its response cannot be used.
        """
        fields = {"grant_type": "authorization_code", "code": code, "redirect_uri": redirect_uri}
        if self.dialect.pkce:
            fields["code_verifier"] = verifier
        return await self._client.grant(http, fields, secret=code)

    async def authorization_url(
        self, http: TokenHTTP, *, redirect_uri: str, state: str, challenge: str, nonce: str, scope: str
    ) -> str:
        """Return the URL to which the browser is sent (RFC 6749 §4.1.1).

        Raises:
            TokenUnavailable: The endpoint is not known now.
            CredentialRejected: The server has no such endpoint.
        """
        url = await self._client.endpoints.url(self._client.reach(http), "authorize_url")
        if not url:
            raise CredentialRejected(
                f"the server of {self._client.name} publishes no authorization endpoint: give authorize_url=…"
            )
        query = {
            "response_type": "code",
            self.dialect.client_parameter: self.client_id,
            "redirect_uri": redirect_uri,
            "state": state,
        }
        if scope:
            query[self.dialect.scope_parameter] = self._joined(scope)
        if self.dialect.pkce:
            query |= {"code_challenge": challenge, "code_challenge_method": "S256"}
        if nonce:
            query["nonce"] = nonce
        if self.dpop is not None:
            query["dpop_jkt"] = self.dpop.thumbprint  # the code is of no use without the key (RFC 9449 §10)
        return f"{url}{'&' if '?' in url else '?'}{urlencode({**query, **self._params})}"

    async def sends_issuer(self, http: TokenHTTP) -> bool:
        """Return whether the server promises an `iss` in each authorization response (RFC 9207 §3)."""
        return await self._client.endpoints.sends_issuer(self._client.reach(http))

    async def device_codes(self, http: TokenHTTP, *, scope: str) -> DeviceCodes:
        """Begin a device flow (RFC 8628 §3.1).

        Raises:
            CredentialRejected: The server refuses the client or the request, or has no endpoint for that.
            TokenUnavailable: It cannot be reached, is busy, or its response cannot be used.
        """
        fields = {"client_id": self.client_id, **({"scope": self._joined(scope)} if scope else {})}
        answer = await self._client.post(http, "device_url", fields, secret="")
        if answer is None:
            raise CredentialRejected(f"{self._client.name} has no device_url, and its server publishes none")
        return DeviceCodes(answer, answer.json())

    @without_locals
    async def exchange_device_code(self, http: TokenHTTP, device_code: str) -> TokenPair:
        """Ask whether the user has consented (RFC 8628 §3.4).

        Raises:
            DevicePending: The user has not decided yet.
            FlowProblem: The user has denied, or the code has expired.
            GrantRefused: The server does not know the device code.
            CredentialRejected: It refuses the client.
            TokenUnavailable: It cannot be reached, is busy, or its response cannot be used.
        """
        # `client_id` too: a confidential client may authenticate in the header (RFC 8628 §3.4).
        fields = {"grant_type": DEVICE_GRANT, "device_code": device_code, "client_id": self.client_id}
        return await self._client.grant(http, fields, secret=device_code, read=read_device_pair)

    @without_locals
    async def revoke(self, http: TokenHTTP, token: str, *, hint: Literal["access_token", "refresh_token"]) -> None:
        """Revoke a token (RFC 7009 §2.1); nothing happens if the server has no endpoint for that.

        Raises:
            CredentialRejected: The server refuses the client or the request.
            TokenUnavailable: It cannot be reached or is busy.
        """
        await self._client.post(http, "revoke_url", {"token": token, "token_type_hint": hint}, secret=token)

    def authorize(self, request: OutgoingRequest, token: Token) -> None:
        """Put an access token where the platform's API expects it."""
        if self.dialect.header:
            request.headers[self.dialect.header] = token.value
        else:
            request.headers["Authorization"] = token.authorization

    def is_rejected(self, answer: OutgoingAnswer) -> bool | None:
        """Return whether an API answered that the token is not valid; None if the body must be read first."""
        if bearer_rejected(answer):
            return True
        return False if self._rejection is None else self._rejection.match(answer)

    def _joined(self, scope: str) -> str:
        return self._separator.join(scope.split())

    def __repr__(self) -> str:
        return f"<OAuthApp {self.client_id}>"


def _rejection(dialect: Dialect) -> RejectionCodes | None:
    if not dialect.rejected_field:
        return None
    return RejectionCodes(code_field=dialect.rejected_field, codes=dialect.rejected, statuses=dialect.rejected_statuses)
