"""An observer that counts for Prometheus. Needs `pip install "tokenmw[prometheus]"`."""

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
    from prometheus_client import CollectorRegistry

__all__ = ["PrometheusObserver"]

_SECONDS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)  # a token request takes at most 5 s by default


class PrometheusObserver:
    """Counts events in `prometheus_client` metrics; labels are provider names and constants of this package.

    `tokenmw_shared_up` is 0 while Redis is unavailable, else 1; in multiprocess mode it is the lowest value of all
    worker processes.

    >>> broker = TokenBroker(…, observers=[PrometheusObserver()])

    Args:
        registry: Where the metrics are registered; by default the library's global registry.

    Raises:
        ConfigurationError: `prometheus_client` is not installed, or the registry has these metrics already.
    """

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        try:
            from prometheus_client import REGISTRY, Counter, Gauge, Histogram
        except ImportError:
            raise ConfigurationError(
                'PrometheusObserver needs prometheus_client: pip install "tokenmw[prometheus]".'
            ) from None
        to = REGISTRY if registry is None else registry
        by_provider = ("provider",)
        try:
            self._fetches = Counter(
                "tokenmw_token_fetches_total", "Token requests.", ("provider", "outcome"), registry=to
            )
        except ValueError:
            raise ConfigurationError(
                "PrometheusObserver: the registry has these metrics already. Make one and give it to all brokers."
            ) from None
        self._duration = Histogram(
            "tokenmw_token_fetch_duration_seconds",
            "Duration of token requests.",
            by_provider,
            registry=to,
            buckets=_SECONDS,
        )
        self._up = Gauge("tokenmw_shared_up", "Whether Redis is in use.", registry=to, multiprocess_mode="livemin")
        self._up.set(1)
        self._changes = Counter(
            "tokenmw_shared_changes_total", "Times Redis became unavailable or recovered.", registry=to
        )
        self._adopted = Counter("tokenmw_tokens_adopted_total", "Tokens taken from Redis.", by_provider, registry=to)
        self._invalidated = Counter(
            "tokenmw_tokens_invalidated_total", "Tokens reported as invalid.", by_provider, registry=to
        )
        self._unreadable = Counter(
            "tokenmw_unreadable_values_total", "Values in Redis that could not be used.", ("kind", "why"), registry=to
        )

    def __call__(self, event: Event, /) -> None:
        """Count an event."""
        match event:
            case TokenFetched():
                self._fetches.labels(event.provider, event.outcome).inc()
                self._duration.labels(event.provider).observe(event.seconds)
            case TokenAdopted():
                self._adopted.labels(event.provider).inc()
            case TokenInvalidated():
                self._invalidated.labels(event.provider).inc()
            case SharedStateChanged():
                self._changes.inc()
                self._up.set(event.up)
            case ValueUnreadable():
                self._unreadable.labels(event.kind, event.why).inc()
            case _:
                return  # an event that a later version added
