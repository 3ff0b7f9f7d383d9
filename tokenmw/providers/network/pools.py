"""The connections of our own client: those of each client certificate and of each pinned server, and all others."""

from __future__ import annotations

import asyncio
import time
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, Final
from urllib.request import proxy_bypass

import httpcore

from tokenmw.errors import TokenUnavailable
from tokenmw.providers.answer import UnusableAnswer
from tokenmw.providers.network.addresses import ONLY_PUBLIC
from tokenmw.providers.network.backend import Backend
from tokenmw.providers.urls import is_loopback
from tokenmw.redaction import Unpicklable

try:
    import resource
except ImportError:  # Windows has no bound of open sockets
    resource = None  # type: ignore[assignment]

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Mapping

    import httpx

    from tokenmw.providers.client_certificate import ClientCertificate
    from tokenmw.providers.network.pinned import PinnedServer
    from tokenmw.providers.network.resolver import Resolver

__all__ = ["CertificatePools", "Pools"]

_MAX_CONNECTIONS: Final = 100
_MAX_IDLE: Final = 10
_IDLE_SECONDS: Final = 5.0
_SHARE_OF_FILES: Final = 4  # a pool uses at most one in four of the files that this process may open
_MAX_CERTIFICATES: Final = 32
_UNUSED_SECONDS: Final = 300.0  # until the pools of a certificate are closed


class Pools(Unpicklable):
    """The pools of connections that use one TLS context: direct ones, to public addresses only, and by proxies.

    Attributes:
        users: The requests that use the pools now.
        used: The time of the last one, by `time.monotonic`.
    """

    def __init__(
        self, context: ssl.SSLContext, *, resolver: Resolver, proxies: Mapping[str, httpx.Proxy], body_bytes: int
    ) -> None:
        self.users = 0
        self.used = time.monotonic()
        backend = Backend(resolver, only_public=False, body_bytes=body_bytes)
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

    def pool(self, request: httpx.Request) -> httpcore.AsyncConnectionPool:
        """Return the pool for a request."""
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

    def enter(self) -> None:
        """Count a request that begins."""
        self.users += 1

    def leave(self) -> None:
        """Count a request that has ended."""
        self.users -= 1
        self.used = time.monotonic()

    async def aclose(self) -> None:
        """Close all connections."""
        for pool in (self._direct, self._public, *self._proxied.values()):
            await pool.aclose()


class CertificatePools(Unpicklable):
    """The pools of each certificate, at most 32; those that are not used for five minutes are closed.

    A connection shows one certificate as long as it is open, so no two certificates share a pool.

    Args:
        make_context: Makes a context with the authorities that are trusted; it is called in a thread.
        make_pools: Makes the pools for a context.
    """

    def __init__(
        self, make_context: Callable[[], ssl.SSLContext], make_pools: Callable[[ssl.SSLContext], Pools]
    ) -> None:
        self._make_context = make_context
        self._make_pools = make_pools
        self._pools: dict[str, Pools] = {}
        self._loading = asyncio.Lock()

    async def enter(self, certificate: ClientCertificate | PinnedServer) -> Pools:
        """Return the pools for a certificate as its files have it now, and count a request that begins.

        Raises:
            UnusableAnswer: The files cannot be used, or all pools are in use.
        """
        thumbprint = (await certificate.current()).thumbprint
        if thumbprint not in self._pools:
            async with self._loading:
                if thumbprint not in self._pools:
                    try:
                        loaded, context = await certificate.load(self._make_context)
                    except TokenUnavailable as error:
                        raise UnusableAnswer(f"was not asked: {error}") from None
                    thumbprint = loaded.thumbprint
                    await self._add(thumbprint, context)
        pools = self._pools[thumbprint]
        pools.enter()
        return pools

    async def aclose(self) -> None:
        """Close all connections."""
        while self._pools:
            await self._pools.popitem()[1].aclose()

    async def _add(self, thumbprint: str, context: ssl.SSLContext) -> None:
        if thumbprint in self._pools:
            return
        idle = sorted((pools.used, name) for name, pools in self._pools.items() if not pools.users)
        overdue = time.monotonic() - _UNUSED_SECONDS
        closed = [self._pools.pop(name) for used, name in idle if used < overdue]
        if len(self._pools) >= _MAX_CERTIFICATES:
            if not idle:
                raise UnusableAnswer(f"was not asked: {_MAX_CERTIFICATES} other certificates are in use now")
            closed.append(self._pools.pop(idle[0][1]))
        self._pools[thumbprint] = self._make_pools(context)
        for pools in closed:
            await pools.aclose()


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
