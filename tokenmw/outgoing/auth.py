"""The token on outgoing requests: an auth object for httpx and httpx2 clients."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, NoReturn, Protocol

import httpx

from tokenmw.errors import ConfigurationError, RequestError
from tokenmw.outgoing.judging import discard, is_rejected
from tokenmw.outgoing.placing import Unsigned, can_be_sent_again, carries, goes_to, library_of, stays_at_home
from tokenmw.providers.base import check_provider
from tokenmw.redaction import Unpicklable

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Generator

    from tokenmw.providers.base import Provider
    from tokenmw.tokens.entry import TokenEntry
    from tokenmw.values import Token

__all__ = ["TokenAuth", "TokenSource", "token_auth"]


class TokenSource(Protocol):
    """Where an auth object gets its tokens, and tells that one was refused: the broker."""

    async def token_of(self, entry: TokenEntry) -> Token:
        """Return a valid token of a entry, waiting for one if need be."""
        ...

    async def invalidate(self, token: Token) -> bool:
        """Drop a token that an API refused, if it is still the current one."""
        ...


class TokenAuth(Unpicklable, httpx.Auth):
    """Puts a provider's token on each request where the provider wants it.

    If the API answers that the token is not valid, it is invalidated, a newer one is taken or fetched, and the request
    is sent once more, if its body can be. Requests to hosts that are not the provider's go out untouched, and cause no
    fetch; redirects to such hosts go out without the token. An answer is read only if its status does not tell, and
    then only JSON of at most 64 KiB.

    Made by `broker.auth("crm")` or `request.state.tokens.auth("crm")`:

        async with httpx.AsyncClient(auth=broker.auth("crm")) as http: ...

    Raises, when a request is sent:
        TokenUnavailable: There is no valid token now.
        CredentialRejected: The provider refuses the credential.
        ConfigurationError: The request would carry the token over plain HTTP, or the client is a sync one.
    """

    def __init__(self, find: Callable[[], Awaitable[tuple[Provider, TokenEntry]]], *, source: TokenSource) -> None:
        self._find = find
        self._source = source

    async def async_auth_flow(self, request: Any) -> AsyncGenerator[Any, Any]:
        """Send the request with the token, and once more if the token was refused (called by the client)."""
        # The entry's own provider is an equal credential, but perhaps one for other hosts; only that one was checked.
        provider, entry = await self._find()
        if provider is not entry.provider:
            check_provider(provider)
        library = library_of(request)
        if not goes_to(request.url, provider=provider):
            yield request
            return
        unsigned, token = Unsigned(request), await self._source.token_of(entry)
        start = request.url
        response = yield unsigned.with_token(token, provider=provider)
        if response.history and not carries(response.request, token):
            # A redirect, on which the client has left the token behind. It is put on again where it may go.
            landed = response.request
            may_go = stays_at_home(landed.url, start=start, provider=provider) and can_be_sent_again(landed)
            if not may_go or not await is_rejected(response, provider=provider, library=library):
                return
            await discard(response, library=library)
            unsigned = Unsigned(landed)
            response = yield unsigned.with_token(token, provider=provider)
        if response.history and not carries(response.request, token):
            return
        if await is_rejected(response, provider=provider, library=library):
            newer = await self._newer(entry, token, wanted=can_be_sent_again(unsigned.request))
            if newer is not None:
                await discard(response, library=library)
                yield unsigned.with_token(newer, provider=provider)

    async def _newer(self, entry: TokenEntry, token: Token, *, wanted: bool) -> Token | None:
        await self._source.invalidate(token)
        if not wanted:
            return None
        try:
            newer = await self._source.token_of(entry)
        except RequestError:
            return None  # the API's own answer tells the caller more
        return newer if newer.value != token.value else None

    def sync_auth_flow(self, request: Any) -> Generator[Any, Any, None]:  # noqa: ARG002  the name is the library's
        """Refuse a sync client."""
        raise ConfigurationError("TokenAuth works in async clients only: use httpx.AsyncClient or httpx2.AsyncClient.")
        yield  # type: ignore[unreachable]  # so that it is a generator, as the client expects

    def __call__(self, _request: Any) -> NoReturn:
        """Refuse a library that takes it for a mere function: httpx2, if it was imported later, or requests."""
        raise ConfigurationError(
            "TokenAuth works in httpx.AsyncClient and httpx2.AsyncClient only. For httpx2, import it before "
            "auth(…) is called."
        )

    def __repr__(self) -> str:
        return "<TokenAuth>"


_both: type[TokenAuth] | None = None


def token_auth(find: Callable[[], Awaitable[tuple[Provider, TokenEntry]]], *, source: TokenSource) -> TokenAuth:
    """Return an auth object that the clients of this program take.

    httpx2's clients take only its own `Auth`, so where httpx2 is imported the object is one of both.
    """
    global _both  # noqa: PLW0603  made at most once, when httpx2 shows up
    httpx2 = sys.modules.get("httpx2")
    if httpx2 is None:
        return TokenAuth(find, source=source)
    if _both is None:
        _both = type("TokenAuth", (TokenAuth, httpx2.Auth), {"__doc__": TokenAuth.__doc__})
    return _both(find, source=source)
