"""An observer that writes events to `logging`: the message is the event's name, its fields are in `extra`."""

from __future__ import annotations

import logging
import re
from dataclasses import fields
from typing import TYPE_CHECKING, Any, Final

from tokenmw.observe.events import TokenServed, TokenWaiting
from tokenmw.observe.state_events import RedisCommandFinished, StateSampled

if TYPE_CHECKING:
    from collections.abc import Collection

    from tokenmw.observe.events import Event

__all__ = ["FREQUENT", "LoggingObserver", "fields_of", "name_of"]

FREQUENT: Final[frozenset[type[Event]]] = frozenset({RedisCommandFinished, StateSampled, TokenServed, TokenWaiting})
"""Events of nearly each second or request, which are for metrics."""

_CAPITAL: Final = re.compile(r"(?<=[a-z])(?=[A-Z])")


class LoggingObserver:
    """Logs events, such as `tokenmw.token_fetched` with `tokenmw.provider` and `tokenmw.outcome` in its `extra`.

    >>> broker = TokenBroker(…, observers=[LoggingObserver()])

    Args:
        logger: Gets the events; by default the logger `tokenmw.events`.
        level: The level of all of them.
        leave_out: Classes of events that are not logged; by default those of nearly each request.
    """

    def __init__(
        self,
        logger: logging.Logger | None = None,
        *,
        level: int = logging.INFO,
        leave_out: Collection[type[Event]] = FREQUENT,
    ) -> None:
        self._to = logging.getLogger("tokenmw.events") if logger is None else logger
        self._level = level
        self._leave_out = frozenset(leave_out)

    def __call__(self, event: Event, /) -> None:
        """Log an event."""
        if type(event) not in self._leave_out and self._to.isEnabledFor(self._level):
            extra = {f"tokenmw.{name}": value for name, value in fields_of(event).items()}
            self._to.log(self._level, name_of(event), extra=extra)


def name_of(event: Event) -> str:
    """Return the name of an event: `tokenmw.token_fetched` for a `TokenFetched`."""
    return "tokenmw." + _CAPITAL.sub("_", type(event).__name__).lower()


def fields_of(event: Event) -> dict[str, Any]:
    """Return the fields of an event, without those that are empty."""
    found = {one.name: getattr(event, one.name) for one in fields(event)}
    return {name: value for name, value in found.items() if value is not None and value != ""}
