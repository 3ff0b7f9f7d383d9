"""Who the caller is: the user's `authenticate`, asked once at a time for each API key."""

from __future__ import annotations

import asyncio
import hashlib
import inspect
from collections.abc import Awaitable, Callable
from copy import copy
from typing import TYPE_CHECKING, Final

from starlette.requests import HTTPConnection

from tokenmw.caches import TTLCache
from tokenmw.errors import APIKeyRefused, SessionUnavailable
from tokenmw.observe.error_place import with_place
from tokenmw.singleflight import FlightCancelled, SingleFlight, TooManyFlights

if TYPE_CHECKING:
    from starlette.types import Scope

    from tokenmw.clock import Clock
    from tokenmw.limits import Limits
    from tokenmw.observe.throttle import ThrottledLog

__all__ = ["Authenticate", "Authenticator"]

Authenticate = Callable[[HTTPConnection, str], object]  # or an awaitable of one; None refuses

_REFUSED_FOR: Final = 5.0  # seconds; a caller with a wrong key costs one look-up in that time, not one a request


class Authenticator:
    """Asks `authenticate`. A refusal holds for 5 s; an acceptance holds for the requests that are waiting for it.

    It decides by the key: the connection is that of the first request, there for its application's state. What
    depends on the path or on another header is decided in a dependency or in the handler.
    """

    __slots__ = ("_authenticate", "_clock", "_flights", "_limits", "_log", "_refused")

    def __init__(self, authenticate: Authenticate, *, limits: Limits, clock: Clock, log: ThrottledLog) -> None:
        self._authenticate = authenticate
        self._limits = limits
        self._clock = clock
        self._log = log
        self._flights: SingleFlight[object | None] = SingleFlight(limits.authentications, clock=clock)
        self._refused: TTLCache[bytes, None] = TTLCache(limits.refused_keys, _REFUSED_FOR, timer=clock.monotonic)

    def start(self) -> Callable[[], Awaitable[None]]:
        """Begin in the running event loop. Return what cancels the look-ups that have begun since."""
        self._flights = SingleFlight(self._limits.authentications, clock=self._clock)
        return self._flights.close

    def purge(self) -> None:
        """Drop refusals that hold no more."""
        self._refused.expire()

    async def caller(self, scope: Scope, api_key: bytes) -> object:
        """Return what `authenticate` says of an API key.

        Raises:
            APIKeyRefused: It said None, or False.
            SessionUnavailable: It raised, or took longer than `Limits(wait_seconds=…)`.
        """
        digest = hashlib.blake2b(api_key, digest_size=16).digest()
        if digest in self._refused:
            raise _refusal()
        try:
            flight = self._flights.join(digest, lambda: self._ask(HTTPConnection(scope), as_text(api_key)))
            if not await flight.wait(self._limits.wait_seconds):
                raise SessionUnavailable("The API key could not be checked in time.", retry_after=1.0)
            caller = flight.result()
        except (TooManyFlights, FlightCancelled):
            raise SessionUnavailable("The API key cannot be checked now.", retry_after=1.0) from None
        if caller is None or caller is False:  # `return key in KEYS` is the natural way to write it
            self._refused[digest] = None
            raise _refusal()
        if isinstance(caller, _Failed):
            raise copy(caller.error)  # an exception raised twice mixes up the tracebacks of two requests
        return caller

    async def _ask(self, connection: HTTPConnection, api_key: str) -> object | None:
        try:
            # Its own bound: one that hangs after all who waited have left would lock the key out for ever.
            async with asyncio.timeout(self._limits.wait_seconds):
                caller = self._authenticate(connection, api_key)
                return await caller if inspect.isawaitable(caller) else caller
        except (APIKeyRefused, SessionUnavailable) as error:
            return _Failed(error)
        except Exception as error:  # noqa: BLE001  whatever a look-up raises, the caller is told to try again
            self._log.problem("authenticate", "authenticate raised %s", with_place(error, called=self._authenticate))
            return _Failed(SessionUnavailable("The API key could not be checked.", retry_after=1.0))


class _Failed:
    __slots__ = ("error",)

    def __init__(self, error: APIKeyRefused | SessionUnavailable) -> None:
        self.error = error


def as_text(api_key: bytes) -> str:
    """Return an API key as text: UTF-8 if it is, else latin-1, which every byte string is."""
    try:
        return api_key.decode()
    except UnicodeDecodeError:
        return api_key.decode("latin-1")


def _refusal() -> APIKeyRefused:
    return APIKeyRefused("The API key is not accepted.")
