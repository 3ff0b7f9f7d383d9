"""Requests to token endpoints, bounded and without redirects, through a client of the program or of our own."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, Final, Protocol

import httpx

from tokenmw.errors import TokenUnavailable
from tokenmw.providers.answer import Answer, UnusableAnswer, read_body, retry_after
from tokenmw.providers.http_client import checked_client, library_of, problem_of_client
from tokenmw.providers.network.addresses import CLIENT_CERTIFICATE, ONLY_PUBLIC
from tokenmw.providers.network.failures import Progress, expects_https, failure_of, server_of
from tokenmw.providers.network.time_limit import time_limit
from tokenmw.providers.quiet_http import hide_http2_headers, hide_query
from tokenmw.providers.redirect_text import redirect_text
from tokenmw.redaction import Unpicklable, without_locals

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from tokenmw.clock import Clock
    from tokenmw.limits import Limits
    from tokenmw.providers.base import Provider
    from tokenmw.providers.client_certificate import ClientCertificate
    from tokenmw.providers.http_client import AsyncHTTPClient
    from tokenmw.providers.network.pinned import PinnedServer
    from tokenmw.values import Grant, Token

__all__ = ["Grants", "NestedTokens", "TokenHTTP", "ascii_host", "read_url"]

# The request ends before the fetch is cancelled, so that the error says what the request waited for. Connecting ends
# earlier, because httpx does not close the connection of a TLS handshake that is cancelled. Reading has nearly all of
# `fetch_seconds`: a response that arrives later is lost. The client's own limits of reading are longer: they discard
# what has arrived while this process was stopped.
_CONNECT_SHARE: Final = 0.9  # of `fetch_seconds`
_READ_MARGIN: Final = 0.02  # seconds before the end of `fetch_seconds`, at most a tenth of them
_CLIENT_READ: Final = 2.0  # times `fetch_seconds`


class NestedTokens(Protocol):
    """Gets the tokens of other providers, for `TokenHTTP.token`. A broker gives one to its `TokenHTTP`."""

    async def token(self, provider: Provider, /) -> Token:
        """Return a valid token, waiting for one if necessary."""
        ...

    async def invalidate(self, token: Token, /) -> None:
        """Stop using a token that was refused."""
        ...


class Grants(Protocol):
    """Gets the grants of providers that are more than one request, such as users' connections; see `with_grants`."""

    async def grant(self, provider: Any, http: TokenHTTP, /) -> Grant:
        """Return a grant of a provider."""
        ...


class TokenHTTP(Unpicklable):
    """Sends token requests through an httpx or httpx2 client, and turns every failure into `TokenUnavailable`.

    Of the client only the transport, proxies and TLS settings are used; its default headers, parameters, cookies,
    credentials, time-outs and redirects are not. The broker passes one to each provider's `fetch`::

        async def fetch(self, http: TokenHTTP) -> Grant:
            answer = await http.request("POST", self._url, data={"grant_type": "client_credentials"})
            answer.check_busy()
            fields = answer.json()
            return Grant(fields["access_token"], expires_in=lifetime(fields.get("expires_in")))

    Args:
        client: An `httpx.AsyncClient` or `httpx2.AsyncClient`. Sync clients are refused: they would block the event
            loop.
        limits: Bounds each request by `fetch_seconds` and each response by `answer_bytes`.
        clock: Reads a `Retry-After` date where the response has no `Date`.
        nested: Gets the tokens of other providers. Default: :meth:`token` raises, as in a test of a single provider.

    Raises:
        ConfigurationError: `client` is not an async client of either library.
    """

    __slots__ = (
        "_certificate",
        "_client",
        "_clock",
        "_grants",
        "_library",
        "_limits",
        "_may_send",
        "_nested",
        "_only_public",
        "_seconds",
    )

    def __init__(
        self, client: AsyncHTTPClient, *, limits: Limits, clock: Clock, nested: NestedTokens | None = None
    ) -> None:
        self._client = checked_client(client)
        self._library = library_of(client)
        self._limits = limits
        self._clock = clock
        self._nested = nested
        self._certificate: ClientCertificate | PinnedServer | None = None
        self._grants: Grants | None = None
        self._only_public = False
        self._seconds = limits.fetch_seconds
        self._may_send: Callable[[], bool] | None = None
        hide_http2_headers()

    def with_nested(self, nested: NestedTokens) -> TokenHTTP:
        """Return a `TokenHTTP` over the same client that gets the tokens of other providers from `nested`."""
        return self._with(_nested=nested)

    def with_grants(self, grants: Grants) -> TokenHTTP:
        """Return a `TokenHTTP` over the same client whose :meth:`grant` is that of `grants`."""
        return self._with(_grants=grants)

    def public_only(self) -> TokenHTTP:
        """Return a `TokenHTTP` over the same client that connects to public addresses only."""
        return self._with(_only_public=True)

    def with_certificate(self, certificate: ClientCertificate | PinnedServer) -> TokenHTTP:
        """Return a `TokenHTTP` over the same client that shows a client certificate, or accepts one of a server only.

        Its requests fail if the client is not the broker's own, or the URL has no TLS.
        """
        return self._with(_certificate=certificate)

    def with_seconds(self, seconds: float, *, may_send: Callable[[], bool] | None = None) -> TokenHTTP:
        """Return a `TokenHTTP` over the same client with another time limit for each request.

        Args:
            seconds: The limit, in place of `Limits.fetch_seconds`.
            may_send: Called directly before a request goes out, when the connection is made; if it returns False, the
                request is not sent. A process may have been suspended while it connected.
        """
        return self._with(_seconds=seconds, _may_send=may_send)

    def _with(self, **changes: Any) -> TokenHTTP:
        http = TokenHTTP(self._client, limits=self._limits, clock=self._clock, nested=self._nested)
        for name in ("_certificate", "_grants", "_only_public", "_seconds", "_may_send"):
            setattr(http, name, getattr(self, name))
        for name, value in changes.items():
            setattr(http, name, value)
        return http

    def time(self) -> float:
        """Return the broker's time in seconds since 1970."""
        return self._clock.time()

    async def token(self, provider: Provider) -> Token:
        """Return a token of another provider, for a provider whose own request needs it.

        Raises:
            CredentialRejected: The other provider refuses its credential.
            TokenUnavailable: The other provider has no token now, or no broker made this object.
        """
        if self._nested is None:
            raise TokenUnavailable("the request needs another provider's token, which only a TokenBroker can get")
        if self._only_public and provider.allow_private:
            raise TokenUnavailable(
                f"the request needs the token of a {type(provider).__name__}, which must have allow_private=False too"
            )
        return await self._nested.token(provider)

    async def grant(self, provider: Provider) -> Grant:
        """Return the grant of a provider that is more than one request, such as a user's connection.

        Raises:
            TokenUnavailable: There is none now, or no broker made this object.
        """
        if self._grants is None:
            raise TokenUnavailable("only a TokenBroker with connections can get the token of a user")
        return await self._grants.grant(provider, self)

    async def invalidate(self, token: Token) -> None:
        """Stop using a token from :meth:`token`, because it was refused."""
        if self._nested is not None:
            await self._nested.invalidate(token)

    @without_locals
    async def request(
        self,
        method: str,
        url: str,
        *,
        data: Mapping[str, str | Sequence[str]] | None = None,
        json: Any = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """Send one request and return its response, whatever the status. Redirects are an error.

        Args:
            method: The HTTP method.
            url: The whole URL. Its query stays out of the client's log.
            data: Fields of a form; a list is sent as several fields of one name.
            json: A JSON document instead of a form.
            headers: More header lines.

        Raises:
            TokenUnavailable: No usable response arrived within `Limits.fetch_seconds` and `Limits.answer_bytes`.
                The text has the host, the port, the kind of failure and its fix. Its cause is the error of the
                operating system or of TLS, without anything else: the client's own errors hold the request with its
                secrets.
        """
        outcome = await self._exchange(method, url, data=data, json=json, headers=headers)
        if isinstance(outcome, TokenUnavailable):
            raise outcome
        return outcome

    async def aclose(self) -> None:
        """Close the client. Only the code that made the client may call this."""
        await self._client.aclose()

    async def _exchange(
        self, method: str, url: str, *, data: Any, json: Any, headers: Mapping[str, str] | None
    ) -> Answer | TokenUnavailable:
        # Errors are returned, not raised: one raised here would have the client's error as its context.
        seconds = self._seconds
        margin = min(_READ_MARGIN, 0.1 * seconds)
        endpoint = server = "the token endpoint"
        scheme = ""
        progress = Progress(self._may_send)
        problem = problem_of_client(self._client, only_public=self._only_public, certificate=self._certificate)
        if self._certificate is not None and not problem and not url.lower().startswith("https:"):
            needed_by = self._certificate.needed_by
            problem = f"{needed_by} needs an https URL, because certificates are shown in the TLS handshake"
        if problem:
            return TokenUnavailable(f"{endpoint} was not asked: {problem}")
        try:
            request = self._library.Request(
                method,
                url,
                data=data,
                json=json,
                headers={"accept": "application/json", "accept-encoding": "identity", **(headers or {})},
                extensions={
                    "timeout": {
                        **dict.fromkeys(("connect", "pool"), seconds * _CONNECT_SHARE),
                        **dict.fromkeys(("read", "write"), seconds * _CLIENT_READ),
                    },
                    "trace": progress,
                    ONLY_PUBLIC: self._only_public,
                    CLIENT_CERTIFICATE: self._certificate,
                },
            )
            server, scheme = server_of(request.url), request.url.scheme
            endpoint = f"the token endpoint at {server}"
            progress.check()
            if request.url.query:
                request.url = hide_query(request.url)
            async with time_limit(seconds - margin):
                return await self._send(request)
        except UnusableAnswer as unusable:
            return TokenUnavailable(f"{endpoint} {unusable}")
        except Exception as error:  # noqa: BLE001  a transport may raise anything, and each may hold the secret
            failure = failure_of(error, seconds=seconds, progress=progress, server=server, scheme=scheme)
            unavailable = TokenUnavailable(f"{endpoint} {failure.text}")
            unavailable.__cause__ = failure.cause
            return unavailable

    async def _send(self, request: Any) -> Answer:
        response = await self._client.send(request, stream=True, auth=None, follow_redirects=False)
        try:
            _forget_cookies(self._client, response)
            status: int = response.status_code
            if 300 <= status < 400:
                raise UnusableAnswer(redirect_text(response, request.url))
            received = dict(response.headers.items())
            body = await read_body(response, limit=self._limits.answer_bytes)
            plain = expects_https(status, body) if request.url.scheme == "http" else None
            if plain is not None:
                raise UnusableAnswer(plain)
            return Answer(
                status,
                headers=received,
                body=body,
                retry_after=retry_after(received, now=self._clock.time()),
                endpoint=server_of(request.url),
            )
        finally:
            await response.aclose()


def _forget_cookies(client: AsyncHTTPClient, response: Any) -> None:
    # Token requests need no cookies, and one tenant's cookie must not be sent with another tenant's request.
    if "set-cookie" in response.headers:
        for cookie in response.cookies.jar:
            with contextlib.suppress(KeyError):
                client.cookies.jar.clear(cookie.domain, cookie.path, cookie.name)


def read_url(url: object) -> httpx.URL:
    """Return a URL as the client reads it, or an empty URL if it cannot be read."""
    try:
        parsed = httpx.URL(url)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        # Some invalid host names raise only when they are accessed.
        return parsed if parsed.host and parsed.raw_host else httpx.URL()
    except (httpx.InvalidURL, TypeError, ValueError):
        return httpx.URL()


def ascii_host(host: str) -> str:
    """Return a host name in lower case as it is written on the wire (RFC 5891), or "" if it cannot be."""
    if host.isascii():
        return host.lower()
    try:
        return httpx.URL(scheme="https", host=host.lower()).raw_host.decode("ascii")
    except (httpx.InvalidURL, ValueError):
        return ""
