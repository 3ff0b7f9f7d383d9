"""Asking a provider for a token, and putting what came of it into a slot: a new generation, or a failure."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

from tokenmw.errors import RequestError, TokenUnavailable
from tokenmw.observe.events import TokenAdopted, TokenFetched
from tokenmw.raised import place_of
from tokenmw.shared.guard import SharedUnavailable
from tokenmw.shared.sealing import Unreadable
from tokenmw.shared.token_store import TokenRecord
from tokenmw.tokens.failures import Failure, pause
from tokenmw.tokens.slot import Generation, Moment
from tokenmw.values import Grant

if TYPE_CHECKING:
    from collections.abc import Callable

    from tokenmw.clock import Clock
    from tokenmw.limits import Limits
    from tokenmw.observe.events import Event
    from tokenmw.observe.throttle import ThrottledLog
    from tokenmw.providers.http import TokenHTTP
    from tokenmw.shared.token_store import Found
    from tokenmw.tokens.lease import TokenStore
    from tokenmw.tokens.rejected import RejectedValues
    from tokenmw.tokens.slot import Slot

__all__ = ["Asking", "record_of"]

_PATIENCE: Final = 1.0  # seconds for a provider's code that does not heed its cancellation


class Asking:
    """Fills slots: from the provider, or from what another process has stored."""

    __slots__ = ("_http", "_limits", "_log", "_observe", "_rejected", "_store", "clock")

    def __init__(
        self,
        *,
        http: TokenHTTP,
        store: TokenStore | None,
        rejected: RejectedValues,
        limits: Limits,
        clock: Clock,
        log: ThrottledLog,
        observe: Callable[[Event], None],
    ) -> None:
        self._http = http
        self._store = store
        self._rejected = rejected
        self._limits = limits
        self._log = log
        self._observe = observe
        self.clock = clock

    async def ask(self, slot: Slot, *, version: int) -> Grant | None:
        """Ask the provider once, within `fetch_seconds`, for a version; None: the slot has the failure."""
        slot.asked = version
        began = self.clock.monotonic()
        fetch = asyncio.ensure_future(_called(slot, self._http))
        timer = asyncio.ensure_future(self.clock.sleep(self._limits.fetch_seconds))
        try:
            await asyncio.wait({fetch, timer}, return_when=asyncio.FIRST_COMPLETED)
            if not fetch.done():
                seconds = self._limits.fetch_seconds
                self.fail(slot, TokenUnavailable(f"the provider did not answer within {seconds:g} s"), began=began)
                return None
            error = _fault_of(fetch)
            if error is not None:
                self.fail(slot, error, began=began)
                return None
            grant = fetch.result()
        finally:
            await _end(fetch, timer)
        seconds = self.clock.monotonic() - began
        repeated = slot.now is not None and slot.now.token.value == grant.value
        self._observe(TokenFetched(slot.name, "repeated" if repeated else "granted", seconds))
        if self._rejected.forgive(grant.value):
            # The provider stands by a token that an API refused: asking it again at once would not help.
            slot.deaf_until = self.clock.monotonic() + pause(slot.rejections + 1)
        return grant

    def fail(self, slot: Slot, error: BaseException, *, began: float | None = None) -> None:
        """Note a failure in the slot, and tell the operator."""
        now = self.clock.monotonic()
        place = error.place if isinstance(error, RequestError) else place_of(error, called=slot.provider)
        slot.failure = failure = Failure.of(error, before=slot.failure, now=now)
        failure.place = place
        kind = "credential rejected" if failure.permanent else "no token"
        at = f" (at {place})" if place else ""
        self._log.problem(f"provider:{slot.name}", "%s: %s: %s%s", slot.name, kind, failure.detail, at)
        if began is not None:
            self._observe(TokenFetched(slot.name, "rejected" if failure.permanent else "unavailable", now - began))

    def install(self, slot: Slot, record: TokenRecord, *, version: int, left: float, at: Moment, shared: bool) -> bool:
        """Give a slot the token that was fetched for it.

        Return whether that settles it, with a token or a failure; False: its version was declared invalid meanwhile.
        """
        if self._take(slot, record, version=version, left=left, at=at, shared=shared):
            return True
        if version <= slot.known:
            return False
        self.fail(slot, TokenUnavailable("the token had already expired when it arrived"))
        return True

    def adopt(self, slot: Slot, found: Found, at: Moment) -> bool:
        """Take a token that another process has stored, if it is a better one than the slot has."""
        if found.record.value in self._rejected:
            return False
        taken = self._take(slot, found.record, version=found.version, left=found.left, at=at, shared=True)
        if taken:
            self._observe(TokenAdopted(slot.name))
        return taken

    async def look(self, slot: Slot) -> None:
        """Take what another process has stored, if it is better than what the slot has, and ask nobody."""
        if self._store is None or slot.keys is None:
            return
        at = Moment(self.clock)
        try:
            found, _dead = await self._store.read(slot.keys)
        except (SharedUnavailable, Unreadable):
            return
        if found is not None:
            self.adopt(slot, found, at)

    def _take(self, slot: Slot, record: TokenRecord, *, version: int, left: float, at: Moment, shared: bool) -> bool:
        if version <= slot.known:
            return False
        if slot.now is not None:
            record = slot.now.quiet_if_repeated(record, left, at)
        generation = Generation(slot, record, version=version, left=left, at=at, shared=shared)
        if not generation.usable(Moment(self.clock)):
            return False
        slot.now = generation
        slot.failure = None
        self._log.over(f"provider:{slot.name}", "%s: there is a token again.", slot.name)
        return True


def record_of(grant: Grant) -> TokenRecord:
    """Return what is stored of a grant."""
    return TokenRecord(grant.value, grant.token_type, grant.expires_in, None, grant.extra)


async def _called(slot: Slot, http: TokenHTTP) -> Grant:
    # In the task, so that what a provider raises before its first await is a failure like any other.
    return await slot.provider.fetch(http)


def _fault_of(fetch: asyncio.Future[Any]) -> BaseException | None:
    if fetch.cancelled():
        return TokenUnavailable("the provider's fetch was cancelled by its own code")
    error = fetch.exception()
    if error is None and not isinstance(fetch.result(), Grant):
        kind = type(fetch.result()).__name__
        return TokenUnavailable(f"the provider's fetch must return a Grant, and returned {kind}")
    return error


async def _end(*tasks: asyncio.Future[Any]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks, timeout=_PATIENCE)
    for task in tasks:
        if task.done() and not task.cancelled():
            task.exception()  # looked at, so that the loop never reports it as not retrieved
