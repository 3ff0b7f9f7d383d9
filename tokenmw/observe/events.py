"""What the package tells about itself: frozen facts, handed to observers. None of them holds a secret."""

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
    """Tells that a provider was asked for a token.

    Attributes:
        provider: The provider's name.
        outcome: `granted`, `repeated` (the same token again), `rejected` (the credential) or `unavailable`.
        seconds: How long the provider took.
    """

    provider: str
    outcome: Literal["granted", "repeated", "rejected", "unavailable"]
    seconds: float


@dataclass(frozen=True, slots=True)
class TokenAdopted(Event):
    """Tells that a token which another process had fetched was taken from Redis."""

    provider: str


@dataclass(frozen=True, slots=True)
class TokenInvalidated(Event):
    """Tells that a token was reported as no longer valid and dropped."""

    provider: str


@dataclass(frozen=True, slots=True)
class SharedStateChanged(Event):
    """Tells that Redis went out of reach, or is back.

    Attributes:
        up: Whether it is in use from now on.
        error: What went wrong, a short word such as `timeout`; "" when it is back.
    """

    up: bool
    error: str = ""


@dataclass(frozen=True, slots=True)
class ValueUnreadable(Event):
    """Tells that a value in Redis could not be used.

    Attributes:
        kind: `token` or `session`.
        why: `unknown-key` (sealed by a secret that is not ours), or `damaged`.
    """

    kind: str
    why: str


class Observer(Protocol):
    """Anything that can be called with an event; it runs on the event loop and must return at once."""

    def __call__(self, event: Event, /) -> None:
        """Take note of an event."""
        ...


class Observers:
    """Hands events to all observers; one that raises is logged and does not disturb a request.

    Raises:
        ConfigurationError: `observers` is no list, or one of them cannot be called or would have to be awaited.
    """

    __slots__ = ("_log", "_observers")

    def __init__(self, observers: Iterable[Observer], *, log: ThrottledLog) -> None:
        if not isinstance(observers, Iterable):
            raise ConfigurationError(f"observers must be a list of observers, not {type(observers).__name__}.")
        self._observers = tuple(observers)
        self._log = log
        for number, observer in enumerate(self._observers):
            if isinstance(observer, type):
                raise ConfigurationError(f"observers[{number}] is a class: make an object of it.")
            checked_callback(observer, option=f"observers[{number}]", takes="(event) -> None")
            if inspect.iscoroutinefunction(observer) or inspect.iscoroutinefunction(type(observer).__call__):
                raise ConfigurationError(
                    f"observers[{number}] is async, and nobody would await it: make it a plain one."
                )

    def __call__(self, event: Event) -> None:
        """Hand on an event."""
        for observer in self._observers:
            try:
                observer(event)
            except Exception as error:  # noqa: BLE001  whatever a user's hook does must not fail a request
                told = with_place(error, called=observer)
                self._log.problem("observer", "An observer raised %s and was passed over.", told)
