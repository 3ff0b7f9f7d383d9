"""How a token is put on a request."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from tokenmw.outgoing.redirects import uncopied_headers
from tokenmw.outgoing.url_tokens import RedirectGuard, forms_of, hide_token
from tokenmw.providers.base import Provider
from tokenmw.providers.dpop import asks_for_nonce
from tokenmw.redaction import Unpicklable

if TYPE_CHECKING:
    from types import ModuleType

    from tokenmw.values import Token

__all__ = ["OriginalRequest", "authorized", "is_replayable", "keep_nonce", "library_of", "needs_nonce"]


def library_of(request: object) -> ModuleType:
    """Return the library that made a request: httpx or httpx2."""
    httpx2 = sys.modules.get("httpx2")
    if httpx2 is not None and isinstance(request, httpx2.Request):
        return httpx2
    return sys.modules["httpx"]


def is_replayable(request: Any, *, library: ModuleType) -> bool:
    """Return whether a request's body can be sent again: it is bytes, not an iterator or file that was used up."""
    return isinstance(request.stream, library.ByteStream)


class OriginalRequest(Unpicklable):
    """A request as the caller or a redirect made it; `with_token` may be called for one token after another."""

    __slots__ = ("_extensions", "_headers", "_url", "request")

    def __init__(self, request: Any) -> None:
        self.request = request
        self._headers = request.headers
        self._url = request.url
        self._extensions: dict[str, Any] = request.extensions
        trace = self._extensions.get("trace")
        if isinstance(trace, RedirectGuard):
            # The client copied it from the request that was redirected.
            self._extensions = {**self._extensions, "trace": trace.inner}

    def with_token(self, token: Token, *, provider: Provider, library: ModuleType) -> Any:
        """Return the request with a token where the provider wants it, in place of an earlier token.

        Headers other than `Authorization` are left out when the client copies them for a redirect. With a DPoP proof,
        `Authorization` is left out too, because the proof is for one URL. A URL with a token in it is logged by the
        client without the token, and no redirect may repeat it.
        """
        request = self.request
        if _sets_authorization(provider):
            provider.authorize(request, token)
            return request
        request.headers = library.Headers(self._headers)
        request.url = self._url
        request.extensions = self._extensions
        provider.authorize(request, token)
        dpop = provider.dpop
        if dpop is not None:
            request.headers["DPoP"] = dpop.proof(request.method, self._url, token=token)
        before = self._headers.raw
        added = [
            line
            for line in request.headers.raw
            if line not in before and (dpop is not None or line[0].lower() != b"authorization")
        ]
        if added:
            kept = [line for line in request.headers.raw if line not in added]
            request.headers = uncopied_headers(kept, added=added, like=library)
        if request.url is not self._url:
            forms = forms_of(token.value)
            inner = self._extensions.get("trace")
            guard = RedirectGuard(request, url=request.url, forms=forms, library=library, inner=inner)
            request.url = hide_token(request.url, before=self._url, forms=forms, guard=guard)
            request.extensions = {**self._extensions, "trace": guard}
        return request


def keep_nonce(response: Any, *, provider: Provider) -> bool:
    """Keep the nonce in an API's answer for the next proofs, and return whether there is one."""
    if provider.dpop is None:
        return False
    return provider.dpop.take_nonce(response.request.url, response.headers, of_api=True)


def needs_nonce(response: Any, *, provider: Provider) -> bool:
    """Return whether the API wants the request again, with the nonce that its answer has; keep any nonce.

    Only the answer to a request with a proof counts. One that the client made for a redirect has none.
    """
    request = response.request
    return (
        keep_nonce(response, provider=provider)
        and asks_for_nonce(response.status_code, response.headers)
        and "dpop" in request.headers
        and is_replayable(request, library=library_of(request))
    )


def authorized(request: Any, token: Token, *, provider: Provider) -> OriginalRequest | None:
    """Put a token on a request; return the original one, unless a newer token replaces this one without it."""
    # As in `_sets_authorization`. Usual, so nothing is called or made for it.
    if type(provider).authorize is Provider.authorize and provider.dpop is None:
        provider.authorize(request, token)
        return None
    original = OriginalRequest(request)
    original.with_token(token, provider=provider, library=library_of(request))
    return original


def _sets_authorization(provider: Provider) -> bool:
    """Return whether a provider sets one header, in which a newer token replaces an older one."""
    return provider.dpop is None and type(provider).authorize is Provider.authorize
