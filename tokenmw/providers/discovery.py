"""The token endpoint of a server that is known by its issuer (RFC 8414, OpenID Connect Discovery).

The endpoint is found when it is needed first, and kept as a token of this provider is: one request for all credentials
of a process, a longer backoff after each failure, a new request in the background before a day is over. It is not
shared through Redis, because anyone with access to Redis could then have secrets sent to another server.
"""

from __future__ import annotations

import re
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

from tokenmw.clock import SYSTEM_CLOCK
from tokenmw.errors import ConfigurationError, TokenUnavailable
from tokenmw.providers.base import Provider
from tokenmw.providers.http import read_url
from tokenmw.providers.urls import checked_private, checked_token_url
from tokenmw.redaction import without_locals
from tokenmw.values import Grant

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tokenmw.providers.answer import Answer
    from tokenmw.providers.client_auth import AuthMethod
    from tokenmw.providers.http import TokenHTTP
    from tokenmw.values import Token

__all__ = ["METHODS_FOUND", "MTLS", "ServerMetadata", "TokenEndpoint", "request_at_issuer"]

R = TypeVar("R")

_LIFETIME: Final = 86_400.0  # seconds; an endpoint that has moved is noticed before, by its answer
METHODS_FOUND: Final[tuple[AuthMethod, ...]] = ("client_secret_basic", "client_secret_post")
_DEFAULT_METHOD: Final = "client_secret_basic"  # of a server that does not say (RFC 8414 §2)
_ALIASES: Final = "mtls_endpoint_aliases"  # RFC 8705 §5
MTLS: Final = "mtls_"
"""What precedes an endpoint's name in the grant's `extra`, for clients with a certificate."""
_MTLS_URL: Final = f"{MTLS}token_endpoint"
_METHOD: Final = "auth_method"  # the field of the grant's `extra`
# Further fields of the document that the grant's `extra` has: endpoints for users, and RFC 9207.
_KEPT_URLS: Final = ("authorization_endpoint", "device_authorization_endpoint", "revocation_endpoint")
_SENDS_ISSUER: Final = "authorization_response_iss_parameter_supported"
# Seconds that the first request may take if there is to be a second one within `Limits.fetch_seconds`.
_TIME_FOR_TWO: Final = 1.0
_MOVED: Final = frozenset({404, 405, 410})
_VISIBLE: Final = re.compile(r"[!-~]{1,8000}")
_KEPT_URL: Final = re.compile(r"[!-~]{1,2000}")
_SHOWN: Final = 200  # characters of an issuer


@dataclass(frozen=True, slots=True)
class TokenEndpoint:
    """A token endpoint.

    Attributes:
        url: Its URL.
        method: How clients with a secret authenticate there; None if it accepts neither of the usual two methods.
        mtls_url: The URL for clients with a certificate; "": the same.
    """

    url: str
    method: AuthMethod | None = None
    mtls_url: str = ""

    @classmethod
    def of(cls, token: Token) -> TokenEndpoint:
        """Return the endpoint in a token of `ServerMetadata`."""
        method, mtls_url = token.extra.get(_METHOD), str(token.extra.get(_MTLS_URL, ""))
        return cls(token.value, cast("AuthMethod", method) if method in METHODS_FOUND else None, mtls_url)

    def url_for(self, certificate: object) -> str:
        """Return the URL for a client with a certificate, or with None."""
        return self.url if certificate is None else self.mtls_url or self.url


class ServerMetadata(Provider):
    """The metadata that a server publishes below its issuer. Its "token" is the URL of the token endpoint.

    Args:
        issuer: The issuer: an https URL, unless it is on this machine.
        provider: The class name of the provider that needs it, for error texts.
        allow_http: Whether issuer and token endpoint may be reached without TLS on other machines.
        allow_private: Whether they may have private addresses.

    Raises:
        ConfigurationError: The issuer is not such a URL, or it has a query.
    """

    __slots__ = ("allow_http", "allow_private", "issuer")

    kind = "oauth2_metadata"
    scheme = None
    shareable = False
    issuer: str

    @without_locals
    def __init__(self, issuer: str, *, provider: str, allow_http: bool, allow_private: bool) -> None:
        option = f"{provider}(issuer=…)"
        self.issuer = checked_token_url(issuer, option=option, allow_http=allow_http)
        if "?" in issuer:
            raise ConfigurationError(f"{option} has a query (?…), which an issuer never has (RFC 8414 §2): remove it.")
        if "/.well-known/" in issuer:
            raise ConfigurationError(
                f"{option} must be the issuer itself: leave out /.well-known/ and what follows it."
            )
        self.allow_http = allow_http
        self.allow_private = checked_private(allow_private, url=self.issuer, option=option)

    def identity(self) -> tuple[object, ...]:
        """Return the issuer, and where its endpoint may be."""
        return (self.issuer, self.allow_http, self.allow_private)

    @without_locals
    async def fetch(self, http: TokenHTTP) -> Grant:
        """Get the metadata of RFC 8414, or if there is none, those of OpenID Connect Discovery.

        Raises:
            TokenUnavailable: The server cannot be reached or is busy, it publishes no metadata, those of another
                issuer, or no token endpoint to which secrets may be sent.
        """
        begun = SYSTEM_CLOCK.monotonic()
        absent: list[str] = []
        unusable: list[TokenUnavailable] = []
        endpoint = ""
        # Read here, because a callable may make this object for each request.
        parsed = read_url(self.issuer)
        own = parsed.raw_path.decode("ascii").rstrip("/")
        for path in (f"/.well-known/oauth-authorization-server{own}", f"{own}/.well-known/openid-configuration"):
            try:
                answer = await http.request("GET", f"{parsed.scheme}://{parsed.netloc.decode('ascii')}{path}")
                answer.check_busy()
                if not 200 <= answer.status < 300 or answer.fields is None:
                    endpoint = answer.endpoint
                    absent.append(f"at {path} (HTTP {answer.status}, {answer.media_type})")
                else:
                    return self._grant(answer, answer.fields)
            except TokenUnavailable as error:
                unusable.append(error)
            if SYSTEM_CLOCK.monotonic() - begun > _TIME_FOR_TWO:
                break
        if unusable:
            raise unusable[-1]
        raise TokenUnavailable(
            f"{endpoint} publishes no metadata {' or '.join(absent)}: check issuer, or give token_url in its place",
            said=True,
        )

    def _grant(self, answer: Answer, fields: dict[str, Any]) -> Grant:
        issuer = fields.get("issuer")
        if issuer != self.issuer:
            raise TokenUnavailable(
                f"{answer.endpoint} publishes the metadata of another issuer{_difference(issuer, self.issuer)}: issuer "
                f"must be the same text (RFC 8414 §3.3)",
                said=True,
            )
        url = fields.get("token_endpoint")
        if not isinstance(url, str) or not _VISIBLE.fullmatch(url):
            raise TokenUnavailable(
                f"{answer.endpoint} publishes metadata without a token_endpoint: check issuer, or give token_url in "
                f"its place",
                said=True,
            )
        problem = self._problem_of(url)
        if problem:
            raise TokenUnavailable(f"{answer.endpoint} publishes a token endpoint that cannot be used: {problem}")
        extra = {_METHOD: _method_in(fields), **_kept(fields), **self._mtls_in(fields)}
        return Grant(url, expires_in=_LIFETIME, extra=extra)

    def _mtls_in(self, fields: dict[str, Any]) -> dict[str, str]:
        """Return the endpoints for clients with a certificate, as far as there are some and they may be used."""
        aliases = fields.get(_ALIASES)
        found = cast("dict[str, Any]", aliases) if isinstance(aliases, dict) else {}
        urls = {name: found.get(name) for name in ("token_endpoint", *_KEPT_URLS)}
        return {
            f"{MTLS}{name}": url
            for name, url in urls.items()
            if isinstance(url, str) and _KEPT_URL.fullmatch(url) and not self._problem_of(url)
        }

    def _problem_of(self, url: str) -> str:
        option = "its token_endpoint"
        try:
            checked_token_url(url, option=option, allow_http=self.allow_http)
            checked_private(self.allow_private, url=url, option=option)
        except ConfigurationError as error:
            return str(error).removesuffix(".")
        return ""


async def request_at_issuer(
    http: TokenHTTP, metadata: ServerMetadata, request: Callable[[TokenEndpoint, list[int]], Awaitable[R]]
) -> R:
    """Send a token request to the endpoint of an issuer; once more if the endpoint has moved.

    It seems to have moved if it answers 404, 405 or 410, or its host no longer has an address. Then the metadata are
    requested again, unless they are less than five seconds old or were requested for that reason a short time ago.

    Args:
        http: Gets the metadata.
        metadata: The issuer's metadata.
        request: Sends the token request to an endpoint, and appends the status of each answer to a list.

    Raises:
        CredentialRejected: As `request` raises it.
        TokenUnavailable: As `request` raises it, or there is no endpoint now.
    """
    found = await http.token(metadata)
    statuses: list[int] = []
    try:
        return await request(TokenEndpoint.of(found), statuses)
    except TokenUnavailable as error:
        if _MOVED.isdisjoint(statuses) and not isinstance(error.__cause__, socket.gaierror):
            raise
        refused = error
    await http.invalidate(found)
    again = await http.token(metadata)
    if again.value == found.value:
        raise refused
    return await request(TokenEndpoint.of(again), statuses)


def _method_in(fields: dict[str, Any]) -> str:
    supported = fields.get("token_endpoint_auth_methods_supported")
    if not isinstance(supported, list):
        return _DEFAULT_METHOD
    return next((method for method in METHODS_FOUND if method in supported), "")


def _kept(fields: dict[str, Any]) -> dict[str, Any]:
    urls = {name: fields.get(name) for name in _KEPT_URLS}
    kept = {name: url for name, url in urls.items() if isinstance(url, str) and _KEPT_URL.fullmatch(url)}
    return {**kept, _SENDS_ISSUER: fields.get(_SENDS_ISSUER) is True}


def _difference(given: object, expected: str) -> str:
    """Return the issuer that a server names, or in what it differs, for an error text."""
    if not isinstance(given, str):
        return " (it names none)"
    if given.rstrip("/") == expected.rstrip("/"):
        return ' (only the "/" at the end differs)'
    return f" ({given})" if len(given) <= _SHOWN and _VISIBLE.fullmatch(given) else ""
