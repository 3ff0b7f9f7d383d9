"""An observer that writes events to structlog. Needs `pip install "tokenmw[structlog]"`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tokenmw.errors import ConfigurationError
from tokenmw.observe.logging import FREQUENT, fields_of, name_of

if TYPE_CHECKING:
    from collections.abc import Collection

    from tokenmw.observe.events import Event

__all__ = ["StructlogObserver"]


class StructlogObserver:
    """Logs events at the level info, such as `tokenmw.token_fetched` with the keys `provider` and `outcome`.

    >>> broker = TokenBroker(…, observers=[StructlogObserver()])

    Args:
        logger: Gets the events; by default `structlog.get_logger("tokenmw")`.
        leave_out: Classes of events that are not logged; by default those of nearly each request.

    Raises:
        ConfigurationError: structlog is not installed.
    """

    def __init__(self, logger: Any = None, *, leave_out: Collection[type[Event]] = FREQUENT) -> None:
        if logger is None:
            try:
                import structlog
            except ImportError:
                raise ConfigurationError(
                    'StructlogObserver needs structlog: pip install "tokenmw[structlog]".'
                ) from None
            logger = structlog.get_logger("tokenmw")
        self._to = logger
        self._leave_out = frozenset(leave_out)

    def __call__(self, event: Event, /) -> None:
        """Log an event."""
        if type(event) not in self._leave_out:
            self._to.info(name_of(event), **fields_of(event))
