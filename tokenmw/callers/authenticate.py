"""The caller of an API key, from the program's `authenticate`: one call at a time for each key."""

from __future__ import annotations

import asyncio
import hashlib
import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, TypeVar

from starlette.requests import HTTPConnection

from tokenmw.caches import TTLCache
from tokenmw.callers.answers import UndecidedAnswer, is_caller, refusal, refusal_by
from tokenmw.errors import APIKeyRefused, RequestError, SessionUnavailable, copy_of
from tokenmw.observe.error_place import with_place
from tokenmw.redaction import Unpicklable
from tokenmw.singleflight import FlightCancelled, SingleFlight, TooManyFlights

if TYPE_CHECKING:
    from starlette.types import Scope

    from tokenmw.clock import Clock
    from tokenmw.limits import Limits
    from tokenmw.observe.throttle import ThrottledLog

__all__ = ["Authenticate", "Authenticator", "RefusedKeys"]

R = TypeVar("R", bound=RequestError)

Authenticate = Callable[[HTTPConnection, str], object]
"""The program's callable: the caller of an API key, or an awaitable of it; a falsy answer refuses the key."""

_TOO_SLOW: Final = "authenticate has not answered within %.4g s (Limits(wait_seconds=…)); callers get 503"
_TOO_MANY: Final = "Too many API keys to check at once (Limits(authentications=%d)); callers get 503"
_REFUSED_SECONDS: Final = 5.0  # a caller with a wrong key costs one call in this time, not one for each request


class RefusedKeys(TTLCache[bytes, APIKeyRefused | None]):
    """The digests of API keys that were refused in the last 5 s, up to `Limits(refused_keys=…)`.

    The value is what `authenticate` raised, without its traceback; None if it returned a falsy answer.
    """

    def __init__(self, *, limits: Limits, clock: Clock) -> None:
        super().__init__(limits.refused_keys, _REFUSED_SECONDS, timer=clock.monotonic)


class Authenticator(Unpicklable):
    """Calls `authenticate`. A refusal holds for 5 s; an acceptance holds for the requests that wait for it.

    The answer is the caller if it is true. A falsy answer, `APIKeyRefused("…")`, or an `HTTPException` with 401 or 403
    refuses the key. Any other exception, or an answer that means neither, leaves the key unchecked: the request gets
    503, and the log a line.

    It must decide by the key alone: the connection is that of the first of the waiting requests, and is passed for the
    application's state. Decide by path or other headers in a dependency or in the handler.
    """

    __slots__ = ("_authenticate", "_calls", "_limit", "_log", "_refused", "_wait_seconds")

    def __init__(
        self, authenticate: Authenticate, *, refused: RefusedKeys, limits: Limits, clock: Clock, log: ThrottledLog
    ) -> None:
        self._authenticate = authenticate
        self._refused = refused
        self._wait_seconds = limits.wait_seconds
        self._log = log
        self._limit = limits.authentications
        self._calls: SingleFlight[object | None] = SingleFlight(limits.authentications, clock=clock)

    async def close(self) -> None:
        """Cancel the calls in progress."""
        await self._calls.close()

    async def caller(self, scope: Scope, api_key: bytes) -> object:
        """Return the caller of an API key.

        Raises:
            APIKeyRefused: `authenticate` refuses the key.
            SessionUnavailable: It did not decide, or took longer than `Limits(wait_seconds=…)`.
        """
        digest = hashlib.blake2b(api_key, digest_size=16).digest()
        try:
            refused = self._refused[digest]
        except KeyError:
            pass
        else:
            raise refusal() if refused is None else _copy_of(refused)
        try:
            flight = self._calls.join(digest, lambda: self._call(HTTPConnection(scope), api_key.decode()))
            if not await flight.wait(self._wait_seconds):
                raise SessionUnavailable("The API key could not be checked in time.", retry_after=1.0)
            caller = flight.result()
        except TooManyFlights:
            self._log.problem("authentications", _TOO_MANY, self._limit)
            raise SessionUnavailable("The API key cannot be checked now.", retry_after=1.0) from None
        except FlightCancelled:
            raise SessionUnavailable("The API key cannot be checked now.", retry_after=1.0) from None
        if isinstance(caller, _Failed):
            raise _copy_of(caller.error)
        if isinstance(caller, _Refused):
            self._refused[digest] = caller.error
            raise refusal() if caller.error is None else _copy_of(caller.error)
        return caller

    async def _call(self, connection: HTTPConnection, api_key: str) -> object:
        # A timeout of its own: a call that hangs after all its waiters have left would lock the key out for ever.
        limit = asyncio.timeout(self._wait_seconds)
        try:
            async with limit:
                answer = self._authenticate(connection, api_key)
                if inspect.isawaitable(answer):
                    answer = await answer
            return answer if is_caller(answer) else _Refused(None)
        except UndecidedAnswer as undecided:
            self._log.problem("authenticate-answer", "authenticate returned %s; callers get 503", str(undecided))
        except SessionUnavailable as error:
            return _Failed(_without_chain(error))
        except (Exception, asyncio.CancelledError) as error:  # whatever the program raises, the caller may try again
            refused = refusal_by(error)
            if refused is not None:
                return _Refused(_without_chain(refused))
            if isinstance(error, asyncio.CancelledError) and _is_being_cancelled():
                raise  # the broker is closing, and not a task of the program's that authenticate has awaited
            if limit.expired():
                self._log.problem("authenticate", _TOO_SLOW, self._wait_seconds)
            else:
                place = with_place(error, called=self._authenticate)
                self._log.problem("authenticate", "authenticate raised %s", place)
        return _Failed(SessionUnavailable("The API key could not be checked.", retry_after=1.0))


class _Refused:
    __slots__ = ("error",)

    def __init__(self, error: APIKeyRefused | None) -> None:
        self.error = error


class _Failed:
    __slots__ = ("error",)

    def __init__(self, error: SessionUnavailable) -> None:
        self.error = error


def _is_being_cancelled() -> bool:
    task = asyncio.current_task()
    return task is None or task.cancelling() > 0


def _copy_of(error: R) -> R:
    """Return a copy for one request: neither a traceback nor a header that a handler adds is another request's."""
    again = copy_of(error, None)
    again.headers = dict(again.headers or {})
    return again


def _without_chain(error: R) -> R:
    """Return an error that is kept: what it was raised from, and its frames, hold the connection and the API key."""
    error.__cause__ = error.__context__ = None
    return error.with_traceback(None)
