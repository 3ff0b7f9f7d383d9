"""Events: frozen facts that observers receive. None of them contains a secret."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

from tokenmw.errors import ConfigurationError
from tokenmw.observe.error_place import with_place
from tokenmw.options import checked_callback

if TYPE_CHECKING:
    from tokenmw.observe.throttle import ThrottledLog

__all__ = [
    "ConnectionChanged",
    "Event",
    "Observer",
    "Observers",
    "SharedStateChanged",
    "TokenAdopted",
    "TokenFetched",
    "TokenInvalidated",
    "ValueUnreadable",
]


@dataclass(frozen=True, slots=True)
class Event:
    """Base of all events."""


@dataclass(frozen=True, slots=True)
class TokenFetched(Event):
    """A provider was asked for a token.

    Attributes:
        provider: The provider's name.
        outcome: `granted`, `repeated` (the same token again), `rejected` (the credential) or `unavailable`.
        seconds: The duration of the request.
    """

    provider: str
    outcome: Literal["granted", "repeated", "rejected", "unavailable"]
    seconds: float


@dataclass(frozen=True, slots=True)
class TokenAdopted(Event):
    """A token that another process fetched was taken from Redis."""

    provider: str


@dataclass(frozen=True, slots=True)
class TokenInvalidated(Event):
    """This process dropped a token as invalid: it, or another process, invalidated the token."""

    provider: str


@dataclass(frozen=True, slots=True)
class SharedStateChanged(Event):
    """Redis became unavailable, or recovered.

    Attributes:
        up: Whether Redis is in use from now on.
        error: The reason in one word, such as `timeout`; "" after a recovery.
    """

    up: bool
    error: str = ""


@dataclass(frozen=True, slots=True)
class ValueUnreadable(Event):
    """A value in Redis could not be used.

    Attributes:
        kind: `token` or `session`.
        why: `unknown-key` (sealed with a key that this process does not have), `expired` (a token whose lifetime is
            over) or `damaged`.
    """

    kind: str
    why: str


@dataclass(frozen=True, slots=True)
class ConnectionChanged(Event):
    """A user's connection changed its state. It does not say whose.

    Attributes:
        provider: The app's name in `Connections`.
        state: `ok` (connected, or refreshed after failures), `failing` (the last refresh failed, and it is tried
            again), `reconnect` (the user has to connect again) or `disconnected`.
        reason: Why, such as `unavailable` or `invalid_grant`; "" for `ok` and `disconnected`.
    """

    provider: str
    state: Literal["ok", "failing", "reconnect", "disconnected"]
    reason: str = ""


class Observer(Protocol):
    """Any callable that takes an event. It runs on the event loop, so it must not block."""

    def __call__(self, event: Event, /) -> None:
        """Handle an event."""
        ...


class Observers:
    """Calls all observers with each event; an error of an observer is logged and affects nothing else.

    Raises:
        ConfigurationError: `observers` is not iterable, or one of them is not a sync callable.
    """

    __slots__ = ("_log", "_observers")

    def __init__(self, observers: Iterable[Observer], *, log: ThrottledLog) -> None:
        if not isinstance(observers, Iterable):
            raise ConfigurationError(f"observers must be a list of observers, not {type(observers).__name__}.")
        self._observers = tuple(observers)
        self._log = log
        for number, observer in enumerate(self._observers):
            if isinstance(observer, type):
                raise ConfigurationError(f"observers[{number}] is a class: pass an instance of it.")
            checked_callback(observer, option=f"observers[{number}]", takes="(event) -> None")
            if inspect.iscoroutinefunction(observer) or inspect.iscoroutinefunction(type(observer).__call__):
                raise ConfigurationError(
                    f"observers[{number}] is async, but observers are not awaited: make it a plain function."
                )

    def __call__(self, event: Event) -> None:
        """Call all observers with an event."""
        for observer in self._observers:
            try:
                observer(event)
            except Exception as error:  # noqa: BLE001  an error in an observer must not fail a request
                self._log.problem("observer", "An observer raised %s", with_place(error, called=observer))
