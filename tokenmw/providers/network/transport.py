"""The client that a broker makes for itself: httpx over httpcore's pools, with our own way to connect and read.

httpx's own transport passes no network backend on (encode/httpx#3749), so this is a transport over httpcore's public
interface: no attribute of another library is replaced. It uses no proxy and no environment variable unless
`HTTPOptions` says so, speaks HTTP/1.1 only, and drops the server's reason phrase, which the client would log.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import httpcore
import httpx

from tokenmw.providers.network.addresses import CLIENT_CERTIFICATE
from tokenmw.providers.network.backend import BoundedStream
from tokenmw.providers.network.pools import CertificatePools, Pools
from tokenmw.providers.network.resolver import Resolver
from tokenmw.redaction import Unpicklable

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator

    from tokenmw.providers.network.options import HTTPOptions

__all__ = ["TokenClient"]


class TokenClient(Unpicklable, httpx.AsyncClient):
    """The client for token requests. Unlike others, it can keep to public addresses, and show a client certificate."""

    def __init__(self, options: HTTPOptions | None, *, body_bytes: int) -> None:
        transport = _Transport(options, body_bytes=body_bytes)
        super().__init__(transport=transport, trust_env=False, follow_redirects=False)


class _Transport(Unpicklable, httpx.AsyncBaseTransport):
    """Sends requests. Errors are those of httpcore, whose classes have the names of httpx's."""

    def __init__(self, options: HTTPOptions | None, *, body_bytes: int) -> None:
        make_pools = functools.partial(
            Pools, resolver=Resolver(), proxies={} if options is None else options.proxies, body_bytes=body_bytes
        )
        self._plain = make_pools(_default_context() if options is None else options.ssl_context)
        self._certified = CertificatePools(_new_context if options is None else options.new_context, make_pools)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request, and return the response with its body still to be read."""
        certificate = request.extensions.get(CLIENT_CERTIFICATE)
        if certificate is None:
            pools = self._plain
            pools.enter()
        else:
            pools = await self._certified.enter(certificate)
        try:
            url = request.url
            response = await pools.pool(request).handle_async_request(
                httpcore.Request(
                    method=request.method,
                    url=httpcore.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path),
                    headers=request.headers.raw,
                    content=request.stream,
                    extensions=request.extensions,
                )
            )
        except BaseException:
            pools.leave()
            raise
        return httpx.Response(response.status, headers=response.headers, stream=_Body(response, pools))

    async def aclose(self) -> None:
        """Close all connections."""
        await self._plain.aclose()
        await self._certified.aclose()


class _Body(Unpicklable, httpx.AsyncByteStream):
    """A response's body, from httpcore to httpx."""

    def __init__(self, response: httpcore.Response, pools: Pools) -> None:
        self._response = response
        self._pools: Pools | None = pools
        self._connection = response.extensions.get("network_stream")
        self._record_progress()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for part in self._response.aiter_stream():
            self._record_progress()
            yield part

    async def aclose(self) -> None:
        """End the response; its connection is used again if the body was read to its end."""
        try:
            await self._response.aclose()
        finally:
            if self._pools is not None:
                self._pools.leave()
                self._pools = None

    def _record_progress(self) -> None:
        if isinstance(self._connection, BoundedStream):
            self._connection.progress()


def _new_context() -> ssl.SSLContext:
    return httpx.create_ssl_context(trust_env=False)


@functools.cache
def _default_context() -> ssl.SSLContext:
    # Loading the public certificates takes 40 ms, which a later event loop of this process need not spend again.
    return _new_context()
