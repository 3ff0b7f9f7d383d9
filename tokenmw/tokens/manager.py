"""Tokens for requests: at once while they are fresh, from one flight when they are not."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any, Final

from tokenmw.errors import TokenUnavailable
from tokenmw.flight import Flights, TooManyFlights
from tokenmw.tokens.slot import Moment

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine

    from tokenmw.clock import Clock
    from tokenmw.flight import Flight
    from tokenmw.limits import Limits
    from tokenmw.providers.base import Provider
    from tokenmw.tokens.lease import Renewal
    from tokenmw.tokens.slot import Slot
    from tokenmw.values import Token

__all__ = ["TokenManager"]

_SOON: Final = 1.0  # seconds of Retry-After when nothing better is known
# Of `fetch_seconds`, for which a fetch waits for another slot's. Until its own time was over it could not tell whose
# the delay is, and its own provider, which nobody has asked, would look like one that does not answer.
_FOR_FETCH: Final = 0.9
_LOOK_EVERY: Final = 1.0  # seconds between two looks into Redis during a pause


class TokenManager:
    """Hands out the tokens of slots, and renews them.

    The slots outlive an event loop, the flights do not: `start` stands at its beginning, what that returns at its end.
    """

    __slots__ = ("_clock", "_flights", "_limits", "_look", "_loop", "_monotonic", "_renew", "_time")

    def __init__(self, *, limits: Limits, clock: Clock) -> None:
        self._limits = limits
        self._clock = clock
        self._monotonic = clock.monotonic
        self._time = clock.time
        self._flights: Flights[None] = Flights(limits.flights, clock=clock, patience=limits.wait_seconds)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._renew: Renewal | None = None
        self._look: Callable[[Slot], Coroutine[Any, Any, None]] | None = None

    def start(
        self, renewal: Renewal, *, look: Callable[[Slot], Coroutine[Any, Any, None]]
    ) -> Callable[[], Awaitable[None]]:
        """Begin to renew, in the running event loop; `look` takes what another process has stored.

        Return what ends that: it cancels the flights that have begun since. Fresh tokens are still handed out, and if
        there was another start meanwhile, that one's flights go on.
        """
        flights: Flights[None] = Flights(self._limits.flights, clock=self._clock, patience=self._limits.wait_seconds)
        self._flights = flights
        self._loop = asyncio.get_running_loop()
        self._renew = renewal
        self._look = look

        async def stop() -> None:
            if self._flights is flights:
                self._renew = self._loop = self._look = None
            await flights.close()

        return stop

    def fresh(self, slot: Slot) -> Token | None:
        """Return the slot's token if it may be handed out now. From any thread; never waits.

        An aging one is handed out, too, while a new one is fetched in the background.
        """
        now = slot.now
        if now is None:
            return None
        mono, wall = self._monotonic(), self._time()
        if mono < now.refresh_mono and wall < now.refresh_wall:
            slot.used = True
            return now.token
        if mono < now.stop_mono and wall < now.stop_wall:
            slot.used = True
            self.refresh_soon(slot)
            return now.token
        return None

    async def get(self, slot: Slot) -> Token:
        """Return a token, waiting for a flight if need be.

        Raises:
            TokenUnavailable: There is none now.
            CredentialRejected: The provider refuses the credential.
        """
        token = self.fresh(slot)
        if token is not None:
            return token
        return await self._from(self._flight(slot), slot)

    async def get_for_fetch(self, slot: Slot) -> Token:
        """Return a token that another slot's fetch needs, before the time of that fetch is over.

        Raises:
            TokenUnavailable: There is none now.
            CredentialRejected: The provider refuses the credential.
        """
        token = self.fresh(slot)
        if token is not None:
            return token
        return await self._from(
            self._flight(slot, counted=False), slot, seconds=_FOR_FETCH * self._limits.fetch_seconds
        )

    async def get_for_injection(self, slot: Slot) -> Token:
        """Return a token for a request that perhaps does not need it.

        It waits only for a first flight, and only until that is `inject_seconds` old. Once a provider has failed,
        new attempts are made in the background, and what is raised is the last failure.

        Raises:
            TokenUnavailable: There is none now.
            CredentialRejected: The provider refuses the credential.
        """
        token = self.fresh(slot)
        if token is not None:
            return token
        failure = slot.failure
        flight = self._flight(slot)
        now = self._monotonic()
        if failure is not None:
            raise failure.error(slot.name, now=now)
        patience = flight.started + self._limits.inject_seconds - now
        if not await flight.wait(patience, clock=self._clock):
            raise TokenUnavailable(
                f"{slot.name}: the token is still being fetched; `await request.state.tokens.resolve({slot.name!r})` "
                "waits for it.",
                provider=slot.name,
                retry_after=_SOON,
            )
        return self._landed(slot)

    def refresh_soon(self, slot: Slot) -> None:
        """Begin a flight in the background, unless one is under way or it is too early after a failure."""
        loop = self._loop
        if loop is None or slot.provider in self._flights:
            return
        if slot.failure is not None and slot.failure.holds(self._monotonic()):
            return
        # A sync route looks at its token in a worker thread.
        loop.call_soon_threadsafe(self._refresh, slot)

    def flying(self, slot: Slot) -> bool:
        """Return whether a flight for the slot is under way."""
        return slot.provider in self._flights

    def slot_of(self, provider: Provider) -> Slot | None:
        """Return the slot that a flight under way fills for a provider."""
        flight = self._flights.get(provider)
        return None if flight is None else flight.about

    def _refresh(self, slot: Slot) -> None:
        try:
            self._flight(slot)
        except TokenUnavailable:
            return  # too many flights, or the loop is being closed: the next request asks again

    def _flight(self, slot: Slot, *, counted: bool = True) -> Flight[None]:
        renew = self._renew
        flight = self._flights.get(slot.provider)
        if flight is not None:
            return flight
        now = self._monotonic()
        failure = slot.failure
        if failure is not None and failure.holds(now):
            self._look_elsewhere(slot if failure.source is None else failure.source.slot, now)
            raise failure.error(slot.name, now=now)
        if renew is None:
            raise TokenUnavailable(f"{slot.name}: the broker is closed.", provider=slot.name)
        try:
            return self._flights.join(slot.provider, lambda: renew(slot), counted=counted, about=slot)
        except TooManyFlights:
            raise TokenUnavailable(
                f"{slot.name}: more than Limits(flights={self._limits.flights}) tokens are being fetched.",
                provider=slot.name,
                retry_after=_SOON,
            ) from None

    def _look_elsewhere(self, slot: Slot, now: float) -> None:
        # What is handed in to another process, or fetched by one that can, ends a pause here, too.
        failure, look = slot.failure, self._look
        if failure is None or look is None or slot.keys is None or now < failure.looked + _LOOK_EVERY:
            return
        failure.looked = now
        with contextlib.suppress(TooManyFlights):
            self._flights.join(slot.provider, lambda: look(slot), about=slot)

    async def _from(self, flight: Flight[None], slot: Slot, *, seconds: float | None = None) -> Token:
        # Without a time of its own a wait has that of all flights.
        if not await flight.wait(seconds):
            waited = self._limits.wait_seconds if seconds is None else seconds
            raise TokenUnavailable(
                f"{slot.name}: the token is still being fetched after {waited:g} s.",
                provider=slot.name,
                retry_after=_SOON,
            )
        return self._landed(slot)

    def _landed(self, slot: Slot) -> Token:
        # Looked at anew: however long the wait was, an expired token is not handed out.
        token = self.fresh(slot)
        if token is not None:
            return token
        if slot.failure is not None:
            raise slot.failure.error(slot.name, now=self._monotonic())
        if self._renew is None:
            raise TokenUnavailable(f"{slot.name}: the broker was closed.", provider=slot.name)
        raise TokenUnavailable(
            f"{slot.name}: the token ended before it could be handed out.",
            provider=slot.name,
            retry_after=_SOON,
        )

    def moment(self) -> Moment:
        """Return both clocks' time."""
        return Moment(self._clock)
