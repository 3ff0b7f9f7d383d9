"""The one way in which providers reach a token endpoint: bounded, without redirects, silent about secrets."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from typing import TYPE_CHECKING, Any, Protocol

import httpx

from tokenmw.errors import ConfigurationError, TokenUnavailable
from tokenmw.providers.answer import Answer, UnusableAnswer, failure_of, read_body, retry_after
from tokenmw.providers.unlogged_answer import hide_answer, silent_transport
from tokenmw.providers.unlogged_url import unlogged
from tokenmw.redaction import Unpicklable, without_locals

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import ModuleType

    from tokenmw.clock import Clock
    from tokenmw.limits import Limits
    from tokenmw.providers.base import Provider
    from tokenmw.providers.nested import NestedTokens
    from tokenmw.values import Token

__all__ = [
    "Answer",
    "AsyncHTTPClient",
    "TokenHTTP",
    "ascii_host",
    "checked_client",
    "default_client",
    "read_url",
]


class AsyncHTTPClient(Protocol):
    """The part of `httpx.AsyncClient` and `httpx2.AsyncClient` that is used here."""

    @property
    def cookies(self) -> Any:
        """Return the cookies that the client has kept."""
        ...

    async def send(self, request: Any, *, stream: bool, auth: None, follow_redirects: bool) -> Any:
        """Send a request of the client's own library."""
        ...

    async def aclose(self) -> None:
        """Close all connections."""
        ...


class TokenHTTP(Unpicklable):
    """Sends token requests through an httpx or httpx2 client, and turns whatever goes wrong into one error.

    Only the client's transport, proxies and TLS settings are used: its default headers, parameters, cookies,
    credentials, time-outs and redirects are not.

    A provider's `fetch` gets one::

        answer = await http.request("POST", self.token_url, data={"grant_type": "client_credentials"})

    Args:
        client: An async client of either library; see :func:`checked_client`.
        limits: `fetch_seconds` and `answer_bytes` bound each request.
        clock: Its wall clock reads a `Retry-After` date where the answer has no `Date`.
        nested: Gets another provider's token, for one whose own request needs it.

    Raises:
        ConfigurationError: `client` is something else.
    """

    __slots__ = ("_client", "_clock", "_library", "_limits", "_nested")

    def __init__(
        self, client: AsyncHTTPClient, *, limits: Limits, clock: Clock, nested: NestedTokens | None = None
    ) -> None:
        self._client = checked_client(client)
        self._library = _library_of(client)
        self._limits = limits
        self._clock = clock
        self._nested = nested

    def with_nested(self, nested: NestedTokens) -> TokenHTTP:
        """Return one over the same client whose `token` works."""
        return TokenHTTP(self._client, limits=self._limits, clock=self._clock, nested=nested)

    async def token(self, provider: Provider) -> Token:
        """Return a token of another provider, for one whose own request needs it; raises as the broker does."""
        if self._nested is None:
            raise TokenUnavailable("tokens that need another provider's are to be had from a TokenBroker only")
        return await self._nested.token(provider)

    async def invalidate(self, token: Token) -> None:
        """Drop a token that :meth:`token` gave, because it was refused."""
        if self._nested is not None:
            await self._nested.invalidate(token)

    async def request(
        self,
        method: str,
        url: str,
        *,
        data: Mapping[str, str] | None = None,
        json: Any = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """Send one request and return the whole answer, whatever its status, unless it is a redirect.

        Args:
            method: The HTTP method.
            url: The whole URL. Its query is kept out of the client's log.
            data: Fields of a form.
            json: A JSON document instead of a form.
            headers: More header lines.

        Raises:
            TokenUnavailable: No usable answer came within `Limits.fetch_seconds` and `Limits.answer_bytes`.
                The text has the host and the kind of failure only. No other error is chained to it, because
                those of the client hold the request with its secrets.
        """
        try:
            outcome = await self._exchange(method, url, data=data, json=json, headers=headers)
        finally:
            del url, data, json, headers  # reports of errors show the variables of each frame
        if isinstance(outcome, TokenUnavailable):
            raise outcome
        return outcome

    async def aclose(self) -> None:
        """Close the client. To be called by whoever made the client, and by nobody else."""
        await self._client.aclose()

    @without_locals
    async def _exchange(
        self, method: str, url: str, *, data: Any, json: Any, headers: Mapping[str, str] | None
    ) -> Answer | TokenUnavailable:
        seconds = self._limits.fetch_seconds
        endpoint = "the token endpoint"
        try:
            request = self._library.Request(
                method,
                url,
                data=data,
                json=json,
                headers={"accept": "application/json", "accept-encoding": "identity", **(headers or {})},
                extensions={
                    "timeout": dict.fromkeys(("connect", "read", "write", "pool"), seconds),
                    "trace": hide_answer,
                },
            )
            endpoint = f"the token endpoint at {request.url.host}"
            if request.url.query:
                request.url = unlogged(request.url)
            async with asyncio.timeout(seconds):
                return await self._answer(request)
        except UnusableAnswer as unusable:
            return TokenUnavailable(f"{endpoint} {unusable}")
        except Exception as error:  # noqa: BLE001  a transport may raise anything, and each may hold the secret
            return TokenUnavailable(f"{endpoint} {failure_of(error, seconds=seconds)}")

    async def _answer(self, request: Any) -> Answer:
        response = await self._client.send(request, stream=True, auth=None, follow_redirects=False)
        try:
            _forget_cookies(self._client, response)
            status: int = response.status_code
            if 300 <= status < 400:
                raise UnusableAnswer(
                    f"answered with a redirect (HTTP {status}), which is not followed: "
                    f"configure the URL that it leads to"
                )
            received = dict(response.headers.items())
            return Answer(
                status,
                headers=received,
                body=await read_body(response, limit=self._limits.answer_bytes),
                retry_after=retry_after(received, now=self._clock.time()),
            )
        finally:
            await response.aclose()


def _forget_cookies(client: AsyncHTTPClient, response: Any) -> None:
    # A token request needs none, and what one tenant's answer set must not go out with another's request.
    if "set-cookie" in response.headers:
        for cookie in response.cookies.jar:
            with contextlib.suppress(KeyError):
                client.cookies.jar.clear(cookie.domain, cookie.path, cookie.name)


def _library_of(client: object) -> ModuleType:
    # httpx2 is imported by whoever made the client, and never by us.
    for name in ("httpx", "httpx2"):
        library = sys.modules.get(name)
        if library is not None and isinstance(client, library.AsyncClient):
            return library
    raise ConfigurationError(
        f"http must be an httpx.AsyncClient or httpx2.AsyncClient, not {type(client).__module__}."
        f"{type(client).__name__}: anything else could block the event loop."
    )


def checked_client(http: AsyncHTTPClient) -> AsyncHTTPClient:
    """Return the client if it is an async one of httpx or httpx2.

    Raises:
        ConfigurationError: It is a sync client, or something else.
    """
    _library_of(http)
    return http


def default_client() -> httpx.AsyncClient:
    """Make the client that is used if none is given; whoever calls this closes it.

    It takes no proxy and no certificates from environment variables, which could send secrets elsewhere.
    Where a proxy is needed, give a client of your own.
    """
    limits = httpx.Limits(max_connections=100, max_keepalive_connections=10, keepalive_expiry=5.0)
    transport = silent_transport(httpx, trust_env=False, limits=limits)
    return httpx.AsyncClient(transport=transport, trust_env=False, follow_redirects=False)


def read_url(url: object) -> httpx.URL:
    """Return a URL as the client reads it; an empty one if it is none."""
    try:
        parsed = httpx.URL(url)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        # Some names that are none are found out only when they are looked at.
        return parsed if parsed.host and parsed.raw_host else httpx.URL()
    except (httpx.InvalidURL, TypeError, ValueError):
        return httpx.URL()


def ascii_host(host: str) -> str:
    """Return a host's name in lower case as it is asked for on the wire (RFC 5891); "" if it cannot be."""
    if host.isascii():
        return host.lower()
    try:
        return httpx.URL(scheme="https", host=host.lower()).raw_host.decode("ascii")
    except (httpx.InvalidURL, ValueError):
        return ""
