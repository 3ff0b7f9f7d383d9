"""An observer that counts for OpenTelemetry. Needs `pip install "tokenmw[otel]"`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tokenmw.errors import ConfigurationError
from tokenmw.observe.events import (
    Event,
    SharedStateChanged,
    TokenAdopted,
    TokenFetched,
    TokenInvalidated,
    ValueUnreadable,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from opentelemetry.metrics import CallbackOptions, MeterProvider, Observation

__all__ = ["OpenTelemetryObserver"]


class OpenTelemetryObserver:
    """Counts events in OpenTelemetry instruments; attributes are provider names and constants of this package.

    It uses the API only: without an SDK nothing is counted and nothing fails. `tokenmw.shared.up` is 0 while Redis
    is unavailable, else 1.

    >>> broker = TokenBroker(…, observers=[OpenTelemetryObserver()])

    Args:
        meter_provider: Where the instruments come from; by default the global meter provider.

    Raises:
        ConfigurationError: `opentelemetry-api` is not installed.
    """

    def __init__(self, meter_provider: MeterProvider | None = None) -> None:
        try:
            from opentelemetry import metrics
        except ImportError:
            raise ConfigurationError(
                'OpenTelemetryObserver needs opentelemetry-api: pip install "tokenmw[otel]".'
            ) from None
        meter = metrics.get_meter("tokenmw", meter_provider=meter_provider)
        self._shared_up = True
        self._observation = metrics.Observation
        self._fetches = meter.create_counter("tokenmw.token.fetches", unit="{request}", description="Token requests.")
        self._duration = meter.create_histogram(
            "tokenmw.token.fetch.duration", unit="s", description="Duration of token requests."
        )
        meter.create_observable_gauge(
            "tokenmw.shared.up", [self._observe_up], unit="1", description="Whether Redis is in use."
        )
        self._changes = meter.create_counter(
            "tokenmw.shared.changes", unit="{change}", description="Times Redis became unavailable or recovered."
        )
        self._adopted = meter.create_counter(
            "tokenmw.tokens.adopted", unit="{token}", description="Tokens taken from Redis."
        )
        self._invalidated = meter.create_counter(
            "tokenmw.tokens.invalidated", unit="{token}", description="Tokens reported as invalid."
        )
        self._unreadable = meter.create_counter(
            "tokenmw.unreadable.values", unit="{value}", description="Values in Redis that could not be used."
        )

    def _observe_up(self, _options: CallbackOptions) -> Iterable[Observation]:
        return [self._observation(int(self._shared_up))]

    def __call__(self, event: Event, /) -> None:
        """Count an event."""
        match event:
            case TokenFetched():
                self._fetches.add(1, {"provider": event.provider, "outcome": event.outcome})
                self._duration.record(event.seconds, {"provider": event.provider})
            case TokenAdopted():
                self._adopted.add(1, {"provider": event.provider})
            case TokenInvalidated():
                self._invalidated.add(1, {"provider": event.provider})
            case SharedStateChanged():
                self._changes.add(1)
                self._shared_up = event.up
            case ValueUnreadable():
                self._unreadable.add(1, {"kind": event.kind, "why": event.why})
            case _:
                return  # an event that a later version added
