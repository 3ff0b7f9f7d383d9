"""An observer that counts and traces for OpenTelemetry. Needs `pip install "tokenmw[otel]"`."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Final

from tokenmw.errors import ConfigurationError
from tokenmw.observe.events import (
    CommitRefused,
    LeaseChanged,
    RefreshEnded,
    RefreshStarted,
    TokenAdopted,
    TokenFetched,
    TokenServed,
    TokenWaiting,
)
from tokenmw.observe.measuring import Gauges, initial, readings
from tokenmw.observe.metrics import METRICS
from tokenmw.observe.state_events import BrokerOpened
from tokenmw.observe.version import __version__

if TYPE_CHECKING:
    from collections.abc import Iterable

    from opentelemetry.metrics import CallbackOptions, MeterProvider, Observation
    from opentelemetry.trace import SpanContext, TracerProvider

    from tokenmw.observe.events import Event
    from tokenmw.observe.metrics import Metric

__all__ = ["OpenTelemetryObserver"]

_SPAN: Final = "tokenmw.token.fetch"
_MOST_LINKS: Final = 128  # what the SDK keeps of one span by default
_MOST_WAITING: Final = 1_000  # refreshes whose callers wait and that have not started; the oldest is forgotten


class OpenTelemetryObserver:
    """Counts events in OpenTelemetry instruments, and traces refreshes of tokens.

    Attributes are provider names and constants of this package. It uses the API only: without an SDK nothing is
    counted and nothing fails. `tokenmw.shared.up` is 0 while Redis is unavailable, else 1, and has no value if no
    broker has a Redis.

    A refresh is a span `tokenmw.token.fetch` of a trace of its own, because it serves many requests. The spans of the
    HTTP client and of the Redis client are below it. It has links to the spans of the requests that waited for it,
    and each of those has an event `tokenmw.token.waited`.

    >>> broker = TokenBroker(…, observers=[OpenTelemetryObserver()])

    Args:
        meter_provider: Where the instruments come from; by default the global meter provider.
        tracer_provider: Where the spans come from; by default the global tracer provider.

    Raises:
        ConfigurationError: `opentelemetry-api` is not installed.
    """

    def __init__(
        self, meter_provider: MeterProvider | None = None, tracer_provider: TracerProvider | None = None
    ) -> None:
        try:
            from opentelemetry import metrics, trace
        except ImportError:
            raise ConfigurationError(
                'OpenTelemetryObserver needs opentelemetry-api: pip install "tokenmw[otel]".'
            ) from None
        meter = metrics.get_meter("tokenmw", __version__, meter_provider=meter_provider)
        self._observation = metrics.Observation
        self._gauges = Gauges()
        self._instruments: dict[Metric, Any] = {}
        for metric in METRICS:
            options: dict[str, Any] = {"unit": metric.unit, "description": metric.text}
            if metric.kind == "counter":
                self._instruments[metric] = meter.create_counter(metric.dotted, **options)
            elif metric.kind == "histogram":
                self._instruments[metric] = meter.create_histogram(
                    metric.dotted, explicit_bucket_boundaries_advisory=metric.bounds, **options
                )
            else:
                meter.create_observable_gauge(metric.dotted, [partial(self._values_of, metric)], **options)
        self._spans = _Spans(trace, trace.get_tracer("tokenmw", __version__, tracer_provider))

    def __call__(self, event: Event, /) -> None:
        """Count and trace an event."""
        if isinstance(event, BrokerOpened):
            for metric, labels in initial(event):
                if metric.kind == "counter":
                    self._instruments[metric].add(0, dict(zip(metric.labels, labels, strict=True)))
        for metric, value, labels in readings(event):
            attributes = dict(zip(metric.labels, labels, strict=True))
            if metric.kind == "counter":
                self._instruments[metric].add(value, attributes)
            else:
                self._instruments[metric].record(value, attributes)
        self._gauges.update(event)
        self._spans.take(event)

    def _values_of(self, metric: Metric, _options: CallbackOptions) -> Iterable[Observation]:
        return [
            self._observation(value, dict(zip(metric.labels, labels, strict=True)))
            for (found, labels), value in self._gauges.values().items()
            if found is metric
        ]


class _Spans:
    """The spans of the refreshes in progress."""

    def __init__(self, trace: Any, tracer: Any) -> None:
        from opentelemetry import context

        self._trace = trace
        self._context = context
        self._tracer = tracer
        self._waiting: dict[int, list[SpanContext]] = {}
        self._started: dict[int, tuple[Any, Any]] = {}  # the span of a refresh, and what ends its context

    def take(self, event: Event) -> None:
        """Trace an event."""
        match event:
            case RefreshStarted():
                self._start(event)
            case RefreshEnded():
                self._end(event)
            case TokenWaiting():
                self._link(event)
            case TokenServed(seconds=float()):
                self._trace.get_current_span().add_event(
                    "tokenmw.token.waited",
                    {
                        "tokenmw.provider": event.provider,
                        "tokenmw.result": event.result,
                        "tokenmw.seconds": event.seconds or 0.0,
                    },
                )
            case TokenFetched():
                self._add_event("tokenmw.fetched", outcome=event.outcome)
            case TokenAdopted():
                self._add_event("tokenmw.adopted")
            case LeaseChanged():
                self._add_event("tokenmw.lease", change=event.change)
            case CommitRefused():
                self._add_event("tokenmw.commit_refused", reason=event.reason)
            case _:
                return

    def _start(self, event: RefreshStarted) -> None:
        links = [self._trace.Link(context) for context in self._waiting.pop(event.refresh, ())]
        attributes = {"tokenmw.provider": event.provider}
        if event.credential:
            attributes["tokenmw.credential"] = event.credential
        # The task of a refresh has a context of its own: what it awaits from here on is below this span.
        span = self._tracer.start_span(_SPAN, links=links, attributes=attributes)
        token = self._context.attach(self._trace.set_span_in_context(span))
        self._started[event.refresh] = span, token

    def _end(self, event: RefreshEnded) -> None:
        span, token = self._started.pop(event.refresh, (None, None))
        if span is None:
            return
        span.set_attribute("tokenmw.outcome", event.outcome)
        if event.outcome == "failed":
            span.set_attribute("error.type", event.error)
            span.set_status(self._trace.StatusCode.ERROR)
        self._context.detach(token)
        span.end()

    def _link(self, event: TokenWaiting) -> None:
        context = self._trace.get_current_span().get_span_context()
        if not context.is_valid:
            return
        if event.refresh in self._started:
            self._started[event.refresh][0].add_link(context)
            return
        if event.refresh not in self._waiting and len(self._waiting) >= _MOST_WAITING:
            del self._waiting[next(iter(self._waiting))]
        waiting = self._waiting.setdefault(event.refresh, [])
        if len(waiting) < _MOST_LINKS:
            waiting.append(context)

    def _add_event(self, name: str, **attributes: str) -> None:
        # Also published outside of a refresh, as when housekeeping compares tokens.
        span = self._trace.get_current_span()
        if any(span is started for started, _ in self._started.values()):
            span.add_event(name, {f"tokenmw.{key}": value for key, value in attributes.items()})
