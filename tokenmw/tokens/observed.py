"""The token manager of a broker that has observers: it counts what it returns, and publishes refreshes.

A broker without observers has none of this, so that a warm request pays nothing for it.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any, Final

from tokenmw.errors import RequestError
from tokenmw.observe.events import RefreshEnded, RefreshStarted, TokenServed, TokenWaiting, Uploaded
from tokenmw.tokens.manager import TokenManager
from tokenmw.tokens.reporting import reason_of, result_of

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from typing import Literal

    from tokenmw.observe.observers import Observers
    from tokenmw.singleflight import Flight
    from tokenmw.tokens.entry import CachedToken, TokenEntry
    from tokenmw.tokens.failures import Failure
    from tokenmw.values import Token

__all__ = ["ObservedTokenManager", "token_manager"]

_NO_WAIT: Final = 0.001  # seconds; an error in less is counted, and published together with others


class ObservedTokenManager(TokenManager):
    """Returns tokens as `TokenManager` does.

    Args:
        observe: Gets the events.
        options: Those of `TokenManager`.
    """

    __slots__ = ("_hits", "_observe", "_uploaded")

    def __init__(self, *, observe: Observers, **options: Any) -> None:
        super().__init__(**options)
        self._observe = observe
        self._hits: defaultdict[str, int] = defaultdict(int)
        self._uploaded = dict(self._sync.uploaded)

    def flush(self) -> None:
        """Hand over what was counted since the last call."""
        hits, self._hits = self._hits, defaultdict(int)
        for name, count in hits.items():
            self._observe.count(TokenServed, name, "hit", by=count)
        for kind, count in self._sync.uploaded.items():
            self._observe.count(Uploaded, kind, by=count - self._uploaded[kind])
            self._uploaded[kind] = count

    def fresh(self, entry: TokenEntry) -> Token | None:
        """Return the entry's token if it may be used now, and count it."""
        # As in the base class, whose call would cost more than what it does.
        current = entry.current
        if current is None:
            return None
        mono, wall = self._monotonic(), self._time()
        if mono < current.refresh_mono and wall < current.refresh_wall:
            entry.used = True
            self._hits[entry.name] += 1
            return current.token
        token = super().fresh(entry)
        if token is not None:
            self._hits[entry.name] += 1
        return token

    async def get(self, entry: TokenEntry) -> Token:
        """Return a token, waiting for a refresh if necessary."""
        token = self.fresh(entry)
        return token if token is not None else await self._counted(entry, super().get)

    async def get_for_injection(self, entry: TokenEntry) -> Token:
        """Return a token for a request that perhaps does not need it."""
        token = self.fresh(entry)
        return token if token is not None else await self._counted(entry, super().get_for_injection)

    async def _counted(self, entry: TokenEntry, get: Callable[[TokenEntry], Coroutine[Any, Any, Token]]) -> Token:
        began = self._monotonic()
        try:
            token = await get(entry)
        except RequestError as error:
            result, waited = result_of(error), self._monotonic() - began
            if waited < _NO_WAIT:
                self._observe.count(TokenServed, entry.name, result)
            else:
                self._observe(TokenServed(entry.name, result, seconds=waited))
            raise
        self._observe(TokenServed(entry.name, "waited", seconds=self._monotonic() - began))
        return token

    async def _wait(
        self, flight: Flight[None], entry: TokenEntry, *, seconds: float | None, counted: bool = True
    ) -> bool:
        self._observe(TokenWaiting(entry.name, flight.number))
        return await super()._wait(flight, entry, seconds=seconds, counted=counted)

    async def _run_refresh(self, entry: TokenEntry) -> None:
        flight = self._flights_of(entry).get(entry.provider)
        number, began = 0 if flight is None else flight.number, self._monotonic()
        credential = entry.credential
        before, failure = entry.current, entry.failure
        outcome: Literal["renewed", "failed", "unchanged", "cancelled"] = "cancelled"
        self._observe(RefreshStarted(entry.name, number, credential))
        try:
            await super()._run_refresh(entry)
            outcome = _outcome(entry, before, failure)
        finally:
            error = reason_of(entry.failure) if outcome == "failed" and entry.failure is not None else ""
            seconds = self._monotonic() - began
            self._observe(RefreshEnded(entry.name, number, outcome, seconds, error, credential))


def token_manager(observe: Observers, **options: Any) -> TokenManager:
    """Return the token manager of a broker, with the options of `TokenManager`."""
    return ObservedTokenManager(observe=observe, **options) if observe.active else TokenManager(**options)


def _outcome(
    entry: TokenEntry, before: CachedToken | None, failure: Failure | None
) -> Literal["renewed", "failed", "unchanged"]:
    if entry.failure is not None and entry.failure is not failure:
        return "failed"
    return "unchanged" if entry.current is None or entry.current is before else "renewed"
