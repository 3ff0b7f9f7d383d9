"""The caller of an API key, from the program's `authenticate`: one call at a time for each key."""

from __future__ import annotations

import asyncio
import hashlib
import inspect
from collections.abc import Callable
from copy import copy
from typing import TYPE_CHECKING, Final

from starlette.requests import HTTPConnection

from tokenmw.caches import TTLCache
from tokenmw.errors import APIKeyRefused, SessionUnavailable
from tokenmw.observe.error_place import with_place
from tokenmw.redaction import Unpicklable
from tokenmw.singleflight import FlightCancelled, SingleFlight, TooManyFlights

if TYPE_CHECKING:
    from starlette.types import Scope

    from tokenmw.clock import Clock
    from tokenmw.limits import Limits
    from tokenmw.observe.throttle import ThrottledLog

__all__ = ["Authenticate", "Authenticator", "RefusedKeys"]

Authenticate = Callable[[HTTPConnection, str], object]
"""The program's callable: the caller of an API key, or an awaitable of it; None or False refuses the key."""

_REFUSED_SECONDS: Final = 5.0  # a caller with a wrong key costs one call in this time, not one for each request


class RefusedKeys(TTLCache[bytes, None]):
    """The digests of API keys that were refused in the last 5 s, up to `Limits(refused_keys=…)`."""

    def __init__(self, *, limits: Limits, clock: Clock) -> None:
        super().__init__(limits.refused_keys, _REFUSED_SECONDS, timer=clock.monotonic)


class Authenticator(Unpicklable):
    """Calls `authenticate`. A refusal holds for 5 s; an acceptance holds for the requests that wait for it.

    It must decide by the key alone: the connection is that of the first of the waiting requests, and is passed for the
    application's state. Decide by path or other headers in a dependency or in the handler.
    """

    __slots__ = ("_authenticate", "_calls", "_log", "_refused", "_wait_seconds")

    def __init__(
        self, authenticate: Authenticate, *, refused: RefusedKeys, limits: Limits, clock: Clock, log: ThrottledLog
    ) -> None:
        self._authenticate = authenticate
        self._refused = refused
        self._wait_seconds = limits.wait_seconds
        self._log = log
        self._calls: SingleFlight[object | None] = SingleFlight(limits.authentications, clock=clock)

    async def close(self) -> None:
        """Cancel the calls in progress."""
        await self._calls.close()

    async def caller(self, scope: Scope, api_key: bytes) -> object:
        """Return the caller of an API key.

        Raises:
            APIKeyRefused: `authenticate` returned None or False.
            SessionUnavailable: It raised, or took longer than `Limits(wait_seconds=…)`.
        """
        digest = hashlib.blake2b(api_key, digest_size=16).digest()
        if digest in self._refused:
            raise _refusal()
        try:
            flight = self._calls.join(digest, lambda: self._call(HTTPConnection(scope), as_text(api_key)))
            if not await flight.wait(self._wait_seconds):
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

    async def _call(self, connection: HTTPConnection, api_key: str) -> object | None:
        try:
            # A timeout of its own: a call that hangs after all its waiters have left would lock the key out for ever.
            async with asyncio.timeout(self._wait_seconds):
                caller = self._authenticate(connection, api_key)
                return await caller if inspect.isawaitable(caller) else caller
        except (APIKeyRefused, SessionUnavailable) as error:
            return _Failed(error)
        except Exception as error:  # noqa: BLE001  whatever the program raises, the caller may try again
            self._log.problem("authenticate", "authenticate raised %s", with_place(error, called=self._authenticate))
            return _Failed(SessionUnavailable("The API key could not be checked.", retry_after=1.0))


class _Failed(Unpicklable):
    __slots__ = ("error",)

    def __init__(self, error: APIKeyRefused | SessionUnavailable) -> None:
        self.error = error


def as_text(api_key: bytes) -> str:
    """Return an API key as text: UTF-8 if it is valid, else latin-1, which any bytes are."""
    try:
        return api_key.decode()
    except UnicodeDecodeError:
        return api_key.decode("latin-1")


def _refusal() -> APIKeyRefused:
    return APIKeyRefused("The API key is not accepted.")
