"""OpenTelemetry metrics: one for each event, labelled by provider and never by a caller's input."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

import tokenmw
from tests.observe.test_events import EVENTS, VALUES
from tokenmw.errors import ConfigurationError
from tokenmw.observe import BrokerOpened, Event, SharedStateChanged
from tokenmw.observe.metrics import METRICS
from tokenmw.observe.opentelemetry import OpenTelemetryObserver


class Meter:
    """An observer on the SDK, and what it counted."""

    def __init__(self) -> None:
        self._reader = InMemoryMetricReader()
        self.provider = MeterProvider([self._reader], shutdown_on_exit=False)
        self.observer = OpenTelemetryObserver(self.provider)

    def points(self) -> dict[tuple[Any, ...], Any]:
        """Return each value by instrument name, unit and attributes."""
        return {
            (metric.name, metric.unit, *sorted(point.attributes.items())): getattr(point, "sum", None) or point.value
            for metric in self._metrics()
            for point in metric.data.data_points
        }

    def bounds(self) -> dict[str, Any]:
        """Return the bounds of each histogram by its name."""
        points = ((metric.name, point) for metric in self._metrics() for point in metric.data.data_points)
        return {name: point.explicit_bounds for name, point in points if hasattr(point, "explicit_bounds")}

    def scopes(self) -> set[tuple[str, str | None]]:
        """Return the names and versions of the meters."""
        return {(scope.scope.name, scope.scope.version) for scope in self._scopes()}

    def _scopes(self) -> list[Any]:
        data: Any = self._reader.get_metrics_data()
        return [] if data is None else [scope for resource in data.resource_metrics for scope in resource.scope_metrics]

    def _metrics(self) -> list[Any]:
        return [metric for scope in self._scopes() for metric in scope.metrics]


@pytest.fixture
def meter() -> Iterator[Meter]:
    """A separate meter for each test: the global one can be set only once."""
    meter = Meter()
    yield meter
    meter.provider.shutdown()


def test_each_event_is_counted_under_its_name(meter: Meter) -> None:
    """Names, units and attributes are public: dashboards and alerts depend on them."""
    for event in EVENTS:
        meter.observer(event)
    names = {metric.name: (metric.dotted, metric.unit) for metric in METRICS}
    expected = {(*names[str(name)], *labels): value for (name, *labels), value in VALUES.items()}
    assert expected == {series: value for series, value in meter.points().items() if value}
    assert {
        ("tokenmw.token.fetches", "{request}", ("outcome", "granted"), ("provider", "crm")),
        ("tokenmw.token.fetch.duration", "s", ("outcome", "granted"), ("provider", "crm")),
        ("tokenmw.shared.up", "1"),
        ("tokenmw.shared.changes", "{change}"),
        ("tokenmw.tokens.adopted", "{token}", ("provider", "crm")),
        ("tokenmw.tokens.invalidated", "{token}", ("cause", "api"), ("provider", "crm")),
        ("tokenmw.unreadable.values", "{value}", ("kind", "token"), ("why", "damaged")),
    } <= expected.keys()


def test_histograms_have_bounds_in_seconds(meter: Meter) -> None:
    """The SDK's own bounds are 5, 10, 25 and so on, which are milliseconds."""
    for event in EVENTS:
        meter.observer(event)
    bounds = meter.bounds()
    assert (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0) == bounds["tokenmw.token.fetch.duration"]
    assert 0.005 == bounds["tokenmw.token.wait"][0]
    assert 0.001 in bounds["tokenmw.redis.command.duration"]


def test_counters_begin_at_zero(meter: Meter) -> None:
    """A first failure is an increase."""
    meter.observer(BrokerOpened(1, ("crm",), shared=True, version="0.1.0"))
    points = meter.points()
    assert 0 == points["tokenmw.token.fetches", "{request}", ("outcome", "rejected"), ("provider", "crm")]
    assert 0 == points["tokenmw.redis.errors", "{error}", ("error", "timeout"), ("operation", "commit")]


def test_meter_has_the_version_of_the_package(meter: Meter) -> None:
    """A change of the instruments is no change of the program."""
    meter.observer(EVENTS[0])
    assert {("tokenmw", tokenmw.__version__)} == meter.scopes()


def test_up_is_one_until_redis_becomes_unavailable(meter: Meter) -> None:
    """The gauge is reported from the start, not only after the first change."""
    values = [meter.points()]
    events = (BrokerOpened(1, (), shared=True, version=""), SharedStateChanged(up=False), SharedStateChanged(up=True))
    for event in events:
        meter.observer(event)
        values.append(meter.points())
    assert [points.get(("tokenmw.shared.up", "1")) for points in values] == [None, 1, 0, 1]


def test_unknown_event_is_ignored(meter: Meter) -> None:
    """An event class of a later version counts nothing and raises nothing."""
    meter.observer(Event())
    assert meter.points() == {}


def test_api_without_an_sdk_is_enough() -> None:
    """Without an SDK nothing is counted and nothing fails: installing one is the program's choice."""
    observer = OpenTelemetryObserver()
    for event in EVENTS:
        observer(event)


def test_missing_library_is_named_with_its_install_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """The module can be imported without the library; only making the observer needs it."""
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    with pytest.raises(ConfigurationError, match=r'pip install "tokenmw\[otel\]"'):
        OpenTelemetryObserver()
