"""The client that a broker makes for itself: httpx over httpcore's pools, with our own way to connect and read.

httpx's own transport passes no network backend on (encode/httpx#3749), so this is a transport over httpcore's public
interface: no attribute of another library is replaced. It uses no proxy and no environment variable unless
`HTTPOptions` says so, speaks HTTP/1.1 only, and drops the server's reason phrase, which the client would log.
"""

from __future__ import annotations

import functools
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, Final
from urllib.request import proxy_bypass

import httpcore
import httpx

from tokenmw.providers.answer import UnusableAnswer
from tokenmw.providers.network.addresses import ONLY_PUBLIC
from tokenmw.providers.network.backend import Backend, BoundedStream
from tokenmw.providers.network.resolver import Resolver
from tokenmw.providers.urls import is_loopback
from tokenmw.redaction import Unpicklable

try:
    import resource
except ImportError:  # Windows has no bound of open sockets
    resource = None  # type: ignore[assignment]

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator, Mapping

    from tokenmw.providers.network.options import HTTPOptions

__all__ = ["TokenClient"]

_MAX_CONNECTIONS: Final = 100
_MAX_IDLE: Final = 10
_IDLE_SECONDS: Final = 5.0
_SHARE_OF_FILES: Final = 4  # a pool uses at most one in four of the files that this process may open


class TokenClient(Unpicklable, httpx.AsyncClient):
    """The client for token requests. It can keep a request from private addresses, which other clients cannot."""

    def __init__(self, options: HTTPOptions | None, *, body_bytes: int) -> None:
        transport = _Transport(options, body_bytes=body_bytes)
        super().__init__(transport=transport, trust_env=False, follow_redirects=False)


class _Transport(Unpicklable, httpx.AsyncBaseTransport):
    """Sends requests. Errors are those of httpcore, whose classes have the names of httpx's."""

    def __init__(self, options: HTTPOptions | None, *, body_bytes: int) -> None:
        context = _default_context() if options is None else options.ssl_context
        resolver = Resolver()
        backend = Backend(resolver, only_public=False, body_bytes=body_bytes)
        proxies: Mapping[str, httpx.Proxy] = {} if options is None else options.proxies
        pool = _pool_options()
        self._direct = httpcore.AsyncConnectionPool(ssl_context=context, network_backend=backend, **pool)
        # Its own pool, because a request may use any idle connection to its host and port, also to a private address.
        self._public = httpcore.AsyncConnectionPool(
            ssl_context=context,
            network_backend=Backend(resolver, only_public=True, body_bytes=body_bytes),
            **pool,
        )
        self._proxied = {
            scheme: _proxy_pool(proxy, context=context, backend=backend, pool=pool) for scheme, proxy in proxies.items()
        }

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request, and return the response with its body still to be read."""
        url = request.url
        response = await self._pool(request).handle_async_request(
            httpcore.Request(
                method=request.method,
                url=httpcore.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path),
                headers=request.headers.raw,
                content=request.stream,
                extensions=request.extensions,
            )
        )
        return httpx.Response(response.status, headers=response.headers, stream=_Body(response))

    async def aclose(self) -> None:
        """Close all connections."""
        for pool in (self._direct, self._public, *self._proxied.values()):
            await pool.aclose()

    def _pool(self, request: httpx.Request) -> httpcore.AsyncConnectionPool:
        url = request.url
        proxied = self._proxied.get(url.scheme)
        if proxied is not None and not _is_local(url.host) and not proxy_bypass(url.netloc.decode("ascii")):
            if request.extensions.get(ONLY_PUBLIC):
                raise UnusableAnswer(
                    "is refused: the proxy of the environment would resolve its name, so allow_private=False cannot be "
                    "enforced; add the host to NO_PROXY"
                )
            return proxied
        return self._public if request.extensions.get(ONLY_PUBLIC) else self._direct


class _Body(Unpicklable, httpx.AsyncByteStream):
    """A response's body, from httpcore to httpx."""

    def __init__(self, response: httpcore.Response) -> None:
        self._response = response
        self._connection = response.extensions.get("network_stream")
        self._record_progress()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for part in self._response.aiter_stream():
            self._record_progress()
            yield part

    async def aclose(self) -> None:
        """End the response; its connection is used again if the body was read to its end."""
        await self._response.aclose()

    def _record_progress(self) -> None:
        if isinstance(self._connection, BoundedStream):
            self._connection.progress()


def _is_local(host: str) -> bool:
    """Return whether a host is this machine or a link-local address, such as that of a cloud's metadata.

    A proxy would reach its own machine there, or a neighbour of that one.
    """
    try:
        return is_loopback(host) or ip_address(host).is_link_local
    except ValueError:
        return False


def _pool_options() -> dict[str, Any]:
    """Return the bounds of a pool. Requests wait for a connection; without a file for it they would fail."""
    connections = _MAX_CONNECTIONS
    if resource is not None:
        files, _hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if files != resource.RLIM_INFINITY:
            connections = max(1, min(connections, files // _SHARE_OF_FILES))
    idle = min(_MAX_IDLE, connections)
    return {"max_connections": connections, "max_keepalive_connections": idle, "keepalive_expiry": _IDLE_SECONDS}


def _proxy_pool(
    proxy: httpx.Proxy, *, context: ssl.SSLContext, backend: Backend, pool: dict[str, Any]
) -> httpcore.AsyncHTTPProxy:
    url = proxy.url
    return httpcore.AsyncHTTPProxy(
        proxy_url=httpcore.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path),
        proxy_auth=proxy.raw_auth,
        ssl_context=context,
        proxy_ssl_context=context if url.scheme == "https" else None,
        network_backend=backend,
        **pool,
    )


@functools.cache
def _default_context() -> ssl.SSLContext:
    # Loading the public certificates takes 40 ms, which a later event loop of this process need not spend again.
    return httpx.create_ssl_context(trust_env=False)
