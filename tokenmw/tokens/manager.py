"""Tokens for requests: at once while they are fresh, from one flight when they are not."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any, Final

from tokenmw.clock import Instant
from tokenmw.errors import TokenUnavailable
from tokenmw.singleflight import SingleFlight, TooManyFlights

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine

    from tokenmw.clock import Clock
    from tokenmw.limits import Limits
    from tokenmw.providers.base import Provider
    from tokenmw.singleflight import Flight
    from tokenmw.tokens.entry import TokenEntry
    from tokenmw.tokens.refresh import Renewal
    from tokenmw.values import Token

__all__ = ["TokenManager"]

_SOON: Final = 1.0  # seconds of Retry-After when nothing better is known
# Of `fetch_seconds`, for which a fetch waits for another entry's. Until its own time was over it could not tell whose
# the delay is, and its own provider, which nobody has asked, would look like one that does not answer.
_FOR_FETCH: Final = 0.9
_LOOK_EVERY: Final = 1.0  # seconds between two looks into Redis during a pause


class TokenManager:
    """Hands out the tokens of entries, and renews them.

    The entries outlive an event loop, the flights do not.
    """

    __slots__ = ("_clock", "_flights", "_limits", "_look", "_loop", "_monotonic", "_renew", "_time")

    def __init__(self, *, limits: Limits, clock: Clock) -> None:
        self._limits = limits
        self._clock = clock
        self._monotonic = clock.monotonic
        self._time = clock.time
        self._flights: SingleFlight[None] = SingleFlight(limits.flights, clock=clock, patience=limits.wait_seconds)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._renew: Renewal | None = None
        self._look: Callable[[TokenEntry], Coroutine[Any, Any, None]] | None = None

    def start(
        self, renewal: Renewal, *, look: Callable[[TokenEntry], Coroutine[Any, Any, None]]
    ) -> Callable[[], Awaitable[None]]:
        """Begin to renew, in the running event loop; `look` takes what another process has stored.

        Return what ends that: it cancels the flights that have begun since. Fresh tokens are still handed out, and if
        there was another start meanwhile, that one's flights go on.
        """
        flights: SingleFlight[None] = SingleFlight(
            self._limits.flights, clock=self._clock, patience=self._limits.wait_seconds
        )
        self._flights = flights
        self._loop = asyncio.get_running_loop()
        self._renew = renewal
        self._look = look

        async def stop() -> None:
            if self._flights is flights:
                self._renew = self._loop = self._look = None
            await flights.close()

        return stop

    def fresh(self, entry: TokenEntry) -> Token | None:
        """Return the entry's token if it may be handed out now. From any thread; never waits.

        An aging one is handed out, too, while a new one is fetched in the background.
        """
        now = entry.current
        if now is None:
            return None
        mono, wall = self._monotonic(), self._time()
        if mono < now.refresh_mono and wall < now.refresh_wall:
            entry.used = True
            return now.token
        if mono < now.stop_mono and wall < now.stop_wall:
            entry.used = True
            self.refresh_soon(entry)
            return now.token
        return None

    async def get(self, entry: TokenEntry) -> Token:
        """Return a token, waiting for a flight if need be.

        Raises:
            TokenUnavailable: There is none now.
            CredentialRejected: The provider refuses the credential.
        """
        token = self.fresh(entry)
        if token is not None:
            return token
        return await self._from(self._flight(entry), entry)

    async def get_for_fetch(self, entry: TokenEntry) -> Token:
        """Return a token that another entry's fetch needs, before the time of that fetch is over.

        Raises:
            TokenUnavailable: There is none now.
            CredentialRejected: The provider refuses the credential.
        """
        token = self.fresh(entry)
        if token is not None:
            return token
        return await self._from(
            self._flight(entry, counted=False), entry, seconds=_FOR_FETCH * self._limits.fetch_seconds
        )

    async def get_for_injection(self, entry: TokenEntry) -> Token:
        """Return a token for a request that perhaps does not need it.

        It waits only for a first flight, and only until that is `inject_seconds` old. Once a provider has failed,
        new attempts are made in the background, and what is raised is the last failure.

        Raises:
            TokenUnavailable: There is none now.
            CredentialRejected: The provider refuses the credential.
        """
        token = self.fresh(entry)
        if token is not None:
            return token
        failure = entry.failure
        flight = self._flight(entry)
        now = self._monotonic()
        if failure is not None:
            raise failure.error(entry.name, now=now)
        patience = flight.started + self._limits.inject_seconds - now
        if not await flight.wait(patience, clock=self._clock):
            raise TokenUnavailable(
                f"{entry.name}: the token is still being fetched; `await request.state.tokens.resolve({entry.name!r})` "
                "waits for it.",
                provider=entry.name,
                retry_after=_SOON,
            )
        return self._landed(entry)

    def refresh_soon(self, entry: TokenEntry) -> None:
        """Begin a flight in the background, unless one is under way or it is too early after a failure."""
        loop = self._loop
        if loop is None or entry.provider in self._flights:
            return
        if entry.failure is not None and entry.failure.holds(self._monotonic()):
            return
        # A sync route looks at its token in a worker thread.
        loop.call_soon_threadsafe(self._refresh, entry)

    def flying(self, entry: TokenEntry) -> bool:
        """Return whether a flight for the entry is under way."""
        return entry.provider in self._flights

    def entry_of(self, provider: Provider) -> TokenEntry | None:
        """Return the entry that a flight under way fills for a provider."""
        flight = self._flights.get(provider)
        return None if flight is None else flight.about

    def _refresh(self, entry: TokenEntry) -> None:
        try:
            self._flight(entry)
        except TokenUnavailable:
            return  # too many flights, or the loop is being closed: the next request asks again

    def _flight(self, entry: TokenEntry, *, counted: bool = True) -> Flight[None]:
        renew = self._renew
        flight = self._flights.get(entry.provider)
        if flight is not None:
            return flight
        now = self._monotonic()
        failure = entry.failure
        if failure is not None and failure.holds(now):
            self._look_elsewhere(entry if failure.source is None else failure.source.entry, now)
            raise failure.error(entry.name, now=now)
        if renew is None:
            raise TokenUnavailable(f"{entry.name}: the broker is closed.", provider=entry.name)
        try:
            return self._flights.join(entry.provider, lambda: renew(entry), counted=counted, about=entry)
        except TooManyFlights:
            raise TokenUnavailable(
                f"{entry.name}: more than Limits(flights={self._limits.flights}) tokens are being fetched.",
                provider=entry.name,
                retry_after=_SOON,
            ) from None

    def _look_elsewhere(self, entry: TokenEntry, now: float) -> None:
        # What is handed in to another process, or fetched by one that can, ends a pause here, too.
        failure, look = entry.failure, self._look
        if failure is None or look is None or entry.keys is None or now < failure.looked + _LOOK_EVERY:
            return
        failure.looked = now
        with contextlib.suppress(TooManyFlights):
            self._flights.join(entry.provider, lambda: look(entry), about=entry)

    async def _from(self, flight: Flight[None], entry: TokenEntry, *, seconds: float | None = None) -> Token:
        # Without a time of its own a wait has that of all flights.
        if not await flight.wait(seconds):
            waited = self._limits.wait_seconds if seconds is None else seconds
            raise TokenUnavailable(
                f"{entry.name}: the token is still being fetched after {waited:g} s.",
                provider=entry.name,
                retry_after=_SOON,
            )
        return self._landed(entry)

    def _landed(self, entry: TokenEntry) -> Token:
        # Looked at anew: however long the wait was, an expired token is not handed out.
        token = self.fresh(entry)
        if token is not None:
            return token
        if entry.failure is not None:
            raise entry.failure.error(entry.name, now=self._monotonic())
        if self._renew is None:
            raise TokenUnavailable(f"{entry.name}: the broker was closed.", provider=entry.name)
        raise TokenUnavailable(
            f"{entry.name}: the token ended before it could be handed out.",
            provider=entry.name,
            retry_after=_SOON,
        )

    def moment(self) -> Instant:
        """Return both clocks' time."""
        return Instant(self._clock)
