"""Publishes events to a program's observers; counts the frequent ones in between."""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from tokenmw.clock import SYSTEM_CLOCK
from tokenmw.errors import ConfigurationError
from tokenmw.observe.error_place import with_place
from tokenmw.observe.recorder import Recorder
from tokenmw.options import checked_callback

if TYPE_CHECKING:
    from tokenmw.clock import Clock
    from tokenmw.observe.events import Event, Observer
    from tokenmw.observe.throttle import ThrottledLog

__all__ = ["Observers"]


class Observers:
    """Calls all observers with each event; an error of an observer is logged and affects nothing else.

    Attributes:
        active: Whether the program has any. Without one nothing is counted or sampled.
        recorder: Remembers what the status shows, also without any.

    Raises:
        ConfigurationError: `observers` is not iterable, or one of them is not a sync callable.
    """

    __slots__ = ("_counts", "_log", "_observers", "active", "recorder")

    def __init__(self, observers: Iterable[Observer], *, log: ThrottledLog, clock: Clock = SYSTEM_CLOCK) -> None:
        if not isinstance(observers, Iterable):
            raise ConfigurationError(f"observers must be a list of observers, not {type(observers).__name__}.")
        self._observers = tuple(observers)
        self._log = log
        self.recorder = Recorder(clock)
        self._counts: Counter[tuple[Any, ...]] = Counter()
        self.active = bool(self._observers)
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
        self.recorder(event)
        for observer in self._observers:
            try:
                observer(event)
            except Exception as error:  # noqa: BLE001  an error in an observer must not fail a request
                self._log.problem("observer", "An observer raised %s", with_place(error, called=observer))

    def count(self, kind: type[Event], *fields: str, by: int = 1) -> None:
        """Count an event, whose class has a `count` after these fields, until `flush` publishes it."""
        if self.active and by:
            self._counts[kind, *fields] += by

    def flush(self) -> None:
        """Publish what was counted."""
        counts, self._counts = self._counts, Counter()
        for (kind, *fields), count in counts.items():
            self(kind(*fields, count=count))
