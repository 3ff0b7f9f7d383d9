"""The HTTP client of token requests: one of the program's, or one of our own, which can do more."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Final, Protocol

from tokenmw.errors import ConfigurationError
from tokenmw.providers.network.options import HTTPOptions

if TYPE_CHECKING:
    from types import ModuleType

    from tokenmw.limits import Limits
    from tokenmw.providers.base import Provider
    from tokenmw.providers.client_certificate import ClientCertificate
    from tokenmw.providers.network.pinned import PinnedServer

__all__ = [
    "AsyncHTTPClient",
    "HTTPOptions",
    "check_client",
    "checked_client",
    "checked_http",
    "default_client",
    "library_of",
    "problem_of_client",
]

_OUR_CLIENT: Final = "leave http= out, or give it HTTPOptions(…)"
_ONLY_OUR_CLIENT: Final = (
    "allow_private=False needs the HTTP client of tokenmw, because no other one can be kept from private addresses: "
    f"{_OUR_CLIENT}"
)
_NO_CERTIFICATE: Final = (
    f"needs the HTTP client of tokenmw, because the TLS of another one is not ours to set: {_OUR_CLIENT}"
)


class AsyncHTTPClient(Protocol):
    """The methods of `httpx.AsyncClient` and `httpx2.AsyncClient` that token requests use."""

    @property
    def cookies(self) -> Any:
        """Return the client's cookie store."""
        ...

    async def send(self, request: Any, *, stream: bool, auth: None, follow_redirects: bool) -> Any:
        """Send a request of the client's own library."""
        ...

    async def aclose(self) -> None:
        """Close all connections."""
        ...


def library_of(client: object) -> ModuleType:
    """Return httpx or httpx2, whichever a client is of.

    Raises:
        ConfigurationError: It is an async client of neither.
    """
    # A caller that made an httpx2 client has imported httpx2; others may not have it installed.
    for name in ("httpx", "httpx2"):
        library = sys.modules.get(name)
        if library is not None and isinstance(client, library.AsyncClient):
            return library
    if isinstance(client, type):
        raise ConfigurationError(f"http was given the class {client.__name__}: pass an instance of it.")
    raise ConfigurationError(
        f"http must be an httpx.AsyncClient, httpx2.AsyncClient or HTTPOptions, not {type(client).__module__}."
        f"{type(client).__name__}: anything else could block the event loop."
    )


def checked_client(http: AsyncHTTPClient) -> AsyncHTTPClient:
    """Return the client if it is an async client of httpx or httpx2.

    Raises:
        ConfigurationError: It is a sync client, or another object.
    """
    library_of(http)
    return http


def checked_http(http: AsyncHTTPClient | HTTPOptions | None) -> AsyncHTTPClient | HTTPOptions | None:
    """Return the broker's option `http`: a client, the options of a client of our own, or None.

    Raises:
        ConfigurationError: It is a sync client, or another object.
    """
    return http if http is None or isinstance(http, HTTPOptions) else checked_client(http)


def check_client(provider: Provider, *, http: AsyncHTTPClient | HTTPOptions | None, option: str) -> None:
    """Raise if a provider needs the client of our own, and the broker's option `http` is another one.

    That is so if it must not reach private addresses, has a client certificate, or accepts one server certificate.

    Raises:
        ConfigurationError: The text names the fix.
    """
    if http is None or isinstance(http, HTTPOptions):
        return
    problem = problem_of_client(http, only_public=not provider.allow_private, certificate=provider.certificate)
    if problem:
        raise ConfigurationError(f"{option}: {problem}.")


def problem_of_client(
    client: AsyncHTTPClient, *, only_public: bool, certificate: ClientCertificate | PinnedServer | None
) -> str:
    """Return why a client cannot send such a request, or ""."""
    transport = sys.modules.get("tokenmw.providers.network.transport")
    if transport is not None and isinstance(client, transport.TokenClient):
        return ""
    if only_public:
        return _ONLY_OUR_CLIENT
    return "" if certificate is None else f"{certificate.needed_by} {_NO_CERTIFICATE}"


def default_client(options: HTTPOptions | None = None, *, limits: Limits) -> AsyncHTTPClient:
    """Make the client for brokers that are given none, in the running event loop. The caller closes it.

    Without options it ignores the proxies and certificates of environment variables, which could send secrets
    elsewhere.
    """
    # Here, because it imports httpcore: a program that passes a client of its own may use another transport.
    from tokenmw.providers.network.transport import TokenClient

    return TokenClient(options, body_bytes=limits.answer_bytes)
