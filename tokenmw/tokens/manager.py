"""Tokens for requests: without waiting while they are fresh, from one single-flight refresh when they are not."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any, Final

from tokenmw.clock import Instant
from tokenmw.errors import RequestError, TokenUnavailable
from tokenmw.redaction import Unpicklable
from tokenmw.redis.errors import RedisUnavailable
from tokenmw.singleflight import SingleFlight, TooManyFlights
from tokenmw.tokens.nested import NestedTokens

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Hashable

    from tokenmw.clock import Clock
    from tokenmw.limits import Limits
    from tokenmw.observe.throttle import ThrottledLog
    from tokenmw.providers.http import TokenHTTP
    from tokenmw.singleflight import Flight
    from tokenmw.tokens.cache import TokenCache
    from tokenmw.tokens.entry import TokenEntry
    from tokenmw.tokens.leased_refresh import LeasedRefresh
    from tokenmw.tokens.refresh import Refresher
    from tokenmw.tokens.sync import TokenSync
    from tokenmw.values import Token

__all__ = ["TokenManager"]

_SOON: Final = 1.0  # seconds of Retry-After when nothing better is known
# The part of `fetch_seconds` for which a fetch waits for another entry's token. If it waited for all of them, the fetch
# would time out itself, and the failure would be counted against its own provider, which was not asked.
_NESTED_SHARE: Final = 0.9
_TOO_MANY: Final = (
    "Too many tokens are being fetched%s (Limits(flights=%d)); requests for a further one get 503: find out which "
    "provider is slow, or raise the bound"
)
_READ_REDIS_EVERY: Final = 1.0  # seconds between two reads of Redis during a backoff


class TokenManager(Unpicklable):
    """Returns the tokens of entries, and refreshes them in the event loop in which it was made.

    A refresh is single-flight and owned by the manager, not by a request.
    """

    __slots__ = (
        "_clock",
        "_closed",
        "_http",
        "_limits",
        "_log",
        "_loop",
        "_monotonic",
        "_refresher",
        "_refreshes",
        "_subject_refreshes",
        "_sync",
        "_time",
    )

    def __init__(
        self,
        *,
        cache: TokenCache,
        refresher: Refresher,
        sync: TokenSync,
        http: TokenHTTP,
        limits: Limits,
        clock: Clock,
        log: ThrottledLog,
    ) -> None:
        self._log = log
        self._refresher = refresher
        self._sync = sync
        self._http = http.with_nested(NestedTokens(self, cache=cache, sync=sync))
        self._limits = limits
        self._clock = clock
        self._monotonic = clock.monotonic
        self._time = clock.time
        self._loop = asyncio.get_running_loop()
        self._refreshes: SingleFlight[None] = SingleFlight(
            limits.flights, clock=clock, wait_seconds=limits.wait_seconds
        )
        # Callers with any token can start these, so that they take no place of the others.
        self._subject_refreshes: SingleFlight[None] = SingleFlight(
            limits.flights, clock=clock, wait_seconds=limits.wait_seconds
        )
        self._closed = False

    @property
    def http(self) -> TokenHTTP:
        """What sends token requests, with the tokens of other providers."""
        return self._http

    @property
    def waiting(self) -> dict[Hashable, int]:
        """How many callers wait for a token, by provider."""
        return self._refreshes.waiting | self._subject_refreshes.waiting

    async def close(self) -> None:
        """Cancel all refreshes. Fresh tokens are still returned."""
        self._closed = True
        await self._refreshes.close()
        await self._subject_refreshes.close()

    def fresh(self, entry: TokenEntry) -> Token | None:
        """Return the entry's token if it may be used now. From any thread; never waits.

        An aging token is returned, too, while a new one is fetched in the background.
        """
        current = entry.current
        if current is None:
            return None
        mono, wall = self._monotonic(), self._time()
        if mono < current.refresh_mono and wall < current.refresh_wall:
            entry.used = True
            return current.token
        if mono < current.stop_mono and wall < current.stop_wall:
            entry.used = True
            self.refresh_soon(entry)
            return current.token
        return None

    async def get(self, entry: TokenEntry) -> Token:
        """Return a token, waiting for a refresh if necessary.

        Raises:
            TokenUnavailable: There is none now.
            CredentialRejected: The provider rejects the credential.
        """
        token = self.fresh(entry)
        if token is not None:
            return token
        return await self._token_from(self._refresh(entry), entry, seconds=None)

    async def get_for_fetch(self, entry: TokenEntry) -> Token:
        """Return a token that another entry's fetch needs, before that fetch times out.

        Raises:
            TokenUnavailable: There is none now.
            CredentialRejected: The provider rejects the credential.
        """
        token = self.fresh(entry)
        if token is not None:
            return token
        seconds = _NESTED_SHARE * self._limits.fetch_seconds
        return await self._token_from(self._refresh(entry, counted=False), entry, seconds=seconds, counted=False)

    async def get_for_injection(self, entry: TokenEntry) -> Token:
        """Return a token for a request that perhaps does not need it.

        It waits only for a first refresh, and only until that is `inject_seconds` old. Once a provider has failed, new
        attempts are made in the background, and the last failure is raised.

        Raises:
            TokenUnavailable: There is none now.
            CredentialRejected: The provider rejects the credential.
        """
        token = self.fresh(entry)
        if token is not None:
            return token
        failure = entry.failure
        refresh = self._refresh(entry)
        now = self._monotonic()
        if failure is not None:
            raise failure.to_error(entry.name, now=now)
        if not await self._wait(refresh, entry, seconds=refresh.started + self._limits.inject_seconds - now):
            raise TokenUnavailable(
                f"{entry.name}: the token is still being fetched; `await request.state.tokens.resolve({entry.name!r})` "
                "waits for it.",
                provider=entry.name,
                retry_after=_SOON,
            )
        return self._result(entry)

    def refresh_soon(self, entry: TokenEntry) -> None:
        """Start a refresh in the background, unless one is in progress or the entry is in backoff. From any thread."""
        if self._closed or self.refreshing(entry):
            return
        if entry.in_backoff(Instant(self._clock)):
            return
        with contextlib.suppress(RuntimeError):  # the event loop is closed, and the broker is not
            self._loop.call_soon_threadsafe(self._refresh_in_background, entry)

    def read_soon(self, entry: TokenEntry) -> None:
        """Read Redis in the background for an entry in backoff: another process has stored a token, or ended the cause.

        In the event loop's thread only.
        """
        failure, now = entry.failure, Instant(self._clock)
        if failure is not None and entry.in_backoff(now):
            failure.redis_read_at = float("-inf")
            self._adopt_in_background(entry, now.mono)

    def refreshing(self, entry: TokenEntry) -> bool:
        """Return whether a refresh of the entry is in progress."""
        return entry.provider in self._flights_of(entry)

    def _flights_of(self, entry: TokenEntry) -> SingleFlight[Any]:
        return self._subject_refreshes if entry.provider.per_subject else self._refreshes

    def _refresh_in_background(self, entry: TokenEntry) -> None:
        # Too many refreshes, in backoff by now, or closed: the next request tries again.
        with contextlib.suppress(RequestError):
            self._refresh(entry)

    def _refresh(self, entry: TokenEntry, *, counted: bool = True) -> Flight[None]:
        flight = self._flights_of(entry).get(entry.provider)
        if flight is not None:
            return flight
        now = Instant(self._clock)
        failure = entry.failure
        if failure is not None and entry.in_backoff(now):
            cause = failure.cause
            own = cause is None or cause.entry is entry.client
            self._adopt_in_background(entry if own or cause is None else cause.entry, now.mono)
            raise failure.to_error(entry.name, now=now.mono)
        if self._closed:
            raise TokenUnavailable(f"{entry.name}: the broker is closed.", provider=entry.name)
        try:
            return self._start(entry, lambda: self._run_refresh(entry), counted=counted)
        except TooManyFlights:
            of = " from callers' own" if entry.provider.per_subject else ""
            self._log.problem("flights", _TOO_MANY, of, self._limits.flights)
            raise TokenUnavailable(
                f"{entry.name}: more than Limits(flights={self._limits.flights}) tokens are being fetched.",
                provider=entry.name,
                retry_after=_SOON,
            ) from None

    async def _run_refresh(self, entry: TokenEntry) -> None:
        lost = await self._refresher.refresh(entry, self._http)
        if lost is not None:
            with contextlib.suppress(TooManyFlights):  # closed
                self._refreshes.join(lost, lambda: self._end_lost_lease(entry, lost), counted=False)

    async def _run_adoption(self, entry: TokenEntry) -> None:
        if await self._refresher.adopt_stored(entry):
            await self._run_refresh(entry)

    async def _end_lost_lease(self, entry: TokenEntry, lost: LeasedRefresh) -> None:
        # No request waits for it, but other processes wait for the token, which no upload could store under that lease.
        await lost.release_when_available()
        with contextlib.suppress(RedisUnavailable):  # housekeeping uploads it later
            if await self._sync.compare(entry):
                self.refresh_soon(entry)

    def _adopt_in_background(self, entry: TokenEntry, now: float) -> None:
        # A token that another process fetches, or is handed, is used here during a backoff, too.
        failure = entry.failure
        if failure is None or self._closed or entry.keys is None or now < failure.redis_read_at + _READ_REDIS_EVERY:
            return
        if self.refreshing(entry):
            return  # the entry of a cause has a refresh of its own, or the last read has not ended
        failure.redis_read_at = now
        with contextlib.suppress(TooManyFlights):
            self._start(entry, lambda: self._run_adoption(entry), counted=True)

    def _start(
        self, entry: TokenEntry, work: Callable[[], Coroutine[Any, Any, None]], *, counted: bool
    ) -> Flight[None]:
        flight = self._flights_of(entry).join(entry.provider, work, counted=counted)
        # A refresh polls for `wait_seconds`, and may then still ask the provider.
        entry.refreshing_until = flight.started + self._limits.wait_seconds + self._limits.fetch_seconds
        return flight

    async def _wait(
        self, flight: Flight[None], entry: TokenEntry, *, seconds: float | None, counted: bool = True
    ) -> bool:
        """Wait for a refresh, for `seconds` at most, or without them for `wait_seconds`. Return whether it is over.

        If the entry was invalidated between the end of the refresh and the turn of this task, wait within the same time
        for one more refresh: the first one's token was valid, and its request must not fail for that.
        """
        until = self._monotonic() + (self._limits.wait_seconds if seconds is None else seconds)
        done = await flight.wait(seconds)
        if not done or entry.current is not None or entry.failure is not None or self._closed:
            return done
        return await self._refresh(entry, counted=counted).wait(until - self._monotonic())

    async def _token_from(
        self, flight: Flight[None], entry: TokenEntry, *, seconds: float | None, counted: bool = True
    ) -> Token:
        if not await self._wait(flight, entry, seconds=seconds, counted=counted):
            waited = self._limits.wait_seconds if seconds is None else seconds
            raise TokenUnavailable(
                f"{entry.name}: the token is still being fetched after {waited:g} s.",
                provider=entry.name,
                retry_after=_SOON,
            )
        return self._result(entry)

    def _result(self, entry: TokenEntry) -> Token:
        # Checked again: however long the wait was, an expired token is never returned.
        token = TokenManager.fresh(self, entry)  # not counted as served from the cache by `ObservedTokenManager`
        if token is not None:
            return token
        if entry.failure is not None:
            raise entry.failure.to_error(entry.name, now=self._monotonic())
        if self._closed:
            raise TokenUnavailable(f"{entry.name}: the broker was closed.", provider=entry.name)
        raise TokenUnavailable(
            f"{entry.name}: the token expired before it could be used.", provider=entry.name, retry_after=_SOON
        )
