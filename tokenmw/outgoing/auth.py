"""The auth object: one outgoing request with a token, and at most one retry with a newer token."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, NoReturn

import httpx

from tokenmw.errors import ConfigurationError, RequestError
from tokenmw.outgoing.hosts import may_receive_token, may_receive_token_after_redirect
from tokenmw.outgoing.redirects import contains_token
from tokenmw.outgoing.request import OriginalRequest, authorized, is_replayable, keep_nonce, library_of, needs_nonce
from tokenmw.outgoing.response import discard, is_rejected, is_rejected_by_body, is_rejected_by_head
from tokenmw.providers.base import check_provider
from tokenmw.redaction import Unpicklable
from tokenmw.values import Token

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Generator

    from tokenmw.providers.base import Provider
    from tokenmw.tokens.entry import TokenEntry

    Credential = tuple[Provider, TokenEntry]
    FindCredential = Callable[[], Credential | Awaitable[Credential]]
    GetToken = Callable[[TokenEntry], Token | Awaitable[Token]]
    Invalidate = Callable[[Token], Awaitable[bool]]
    Withheld = Callable[[Any], None]

__all__ = ["TokenAuth", "token_auth"]


class _Calls(Unpicklable):
    """What an auth object calls, outside of its `__dict__`, in which a JSON encoder would find it."""

    __slots__ = ("find_credential", "get_token", "invalidate", "withheld")

    def __init__(
        self, find_credential: FindCredential, get_token: GetToken, invalidate: Invalidate, withheld: Withheld
    ) -> None:
        self.find_credential = find_credential
        self.get_token = get_token
        self.invalidate = invalidate
        self.withheld = withheld


class TokenAuth(Unpicklable, httpx.Auth):
    """Puts a provider's token on each request where the provider wants it.

    If the API answers that the token is invalid, the token is invalidated, a newer one is taken or fetched, and the
    request is sent once more, provided that its body can be sent again. Requests to other hosts than the provider's
    are sent unchanged and fetch no token; redirects to such hosts are followed without the token. The body of an
    answer is read only if its status does not decide, and then only JSON of at most 64 KiB, for at most 5 s.

    With a provider's `dpop`, each request has a proof of its own. If the API wants a nonce in it, the request is sent
    once more with the nonce, and the token stays.

    Made by `broker.auth("crm")` or `request.state.tokens.auth("crm")`:

        async with httpx.AsyncClient(auth=broker.auth("crm")) as http: ...

    Args:
        find_credential: Returns the provider as the program gave it, and the entry of its token.
        get_token: Returns a valid token of an entry, or if there is none, a coroutine that waits for a refresh.
        invalidate: Drops a token that an API rejected, if it is still the current one.
        withheld: Is called with each URL whose host is not one of the provider's, so that it gets no token.

    Raises, when a request is sent:
        TokenUnavailable: There is no valid token now.
        CredentialRejected: The provider rejects the credential.
        ConfigurationError: The request would carry the token over plain HTTP, or the client is a sync one.
    """

    def __init__(
        self, find_credential: FindCredential, *, get_token: GetToken, invalidate: Invalidate, withheld: Withheld
    ) -> None:
        self._calls = _Calls(find_credential, get_token, invalidate, withheld)

    async def async_auth_flow(self, request: Any) -> AsyncGenerator[Any, Any]:  # noqa: C901, PLR0912  helpers cost each request
        """Send the request with the token, and once more if the token was rejected. Called by the client."""
        calls, found = self._calls, self._calls.find_credential()
        provider, entry = found if isinstance(found, tuple) else await found
        if provider is not entry.provider:
            # An equal credential, so it shares the entry. But its `hosts` are its own, and were not checked yet.
            check_provider(provider)
        start = request.url
        if not may_receive_token(start, provider=provider):
            calls.withheld(start)
            yield request
            return
        got = calls.get_token(entry)
        token = got if isinstance(got, Token) else await got
        original = authorized(request, token, provider=provider)
        response = yield request
        if original is not None and needs_nonce(response, provider=provider):
            library = library_of(request)
            await discard(response, library=library)
            response = yield original.with_token(token, provider=provider, library=library)
            keep_nonce(response, provider=provider)
        rejected = None if response.history else is_rejected_by_head(response, provider=provider)
        if rejected is False:
            return
        library = library_of(request)
        if response.history:
            if not contains_token(response.request, token):
                # The client followed a redirect and left the token behind. Send the last request again with the token
                # if its host may receive it and its answer asks for it.
                request = response.request
                if not (
                    may_receive_token_after_redirect(request.url, start=start, provider=provider)
                    and is_replayable(request, library=library)
                    and await is_rejected(response, provider=provider, library=library)
                ):
                    return
                await discard(response, library=library)
                original = OriginalRequest(request)
                response = yield original.with_token(token, provider=provider, library=library)
                if needs_nonce(response, provider=provider):
                    await discard(response, library=library)
                    response = yield original.with_token(token, provider=provider, library=library)
                    keep_nonce(response, provider=provider)
                if response.history and not contains_token(response.request, token):
                    return  # another redirect: this answer says nothing about the token
            rejected = is_rejected_by_head(response, provider=provider)
        if rejected is None:
            rejected = await is_rejected_by_body(response, provider=provider, library=library)
        if rejected:
            await calls.invalidate(token)
            newer = await self._newer_token(entry, token, replayable=is_replayable(request, library=library))
            if newer is not None:
                await discard(response, library=library)
                original = original or OriginalRequest(request)
                response = yield original.with_token(newer, provider=provider, library=library)
                if needs_nonce(response, provider=provider):
                    await discard(response, library=library)
                    response = yield original.with_token(newer, provider=provider, library=library)
                    keep_nonce(response, provider=provider)

    async def _newer_token(self, entry: TokenEntry, rejected: Token, *, replayable: bool) -> Token | None:
        if not replayable:
            return None
        try:
            got = self._calls.get_token(entry)
            token = got if isinstance(got, Token) else await got
        except RequestError:
            return None  # the API's own answer tells the caller more than this error
        return token if token.value != rejected.value else None

    def sync_auth_flow(self, request: Any) -> Generator[Any, Any, None]:  # noqa: ARG002  the name is the library's
        """Refuse a sync client."""
        raise ConfigurationError("TokenAuth works in async clients only: use httpx.AsyncClient or httpx2.AsyncClient.")
        yield  # type: ignore[unreachable]  # makes this the generator that the client expects

    def __call__(self, _request: Any) -> NoReturn:
        """Refuse a library that calls its auth objects: requests, or httpx2 if it was imported after this was made."""
        raise ConfigurationError(
            "TokenAuth works in httpx.AsyncClient and httpx2.AsyncClient only. For httpx2, import it before "
            "auth(…) is called."
        )

    def __repr__(self) -> str:
        return "<TokenAuth>"


_class_for_both: type[TokenAuth] | None = None


def token_auth(
    find_credential: FindCredential, *, get_token: GetToken, invalidate: Invalidate, withheld: Withheld
) -> TokenAuth:
    """Return an auth object for the client libraries that this program has imported.

    httpx2's clients accept only subclasses of `httpx2.Auth`, so with httpx2 imported the object has both bases.
    """
    global _class_for_both  # noqa: PLW0603  made once, as soon as httpx2 is imported
    httpx2 = sys.modules.get("httpx2")
    if httpx2 is None:
        return TokenAuth(find_credential, get_token=get_token, invalidate=invalidate, withheld=withheld)
    if _class_for_both is None:
        _class_for_both = type("TokenAuth", (TokenAuth, httpx2.Auth), {"__doc__": TokenAuth.__doc__})
    return _class_for_both(find_credential, get_token=get_token, invalidate=invalidate, withheld=withheld)
