"""OpenTelemetry metrics: one for each event, labelled by provider and never by a caller's input."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from tests.observe.test_events import EVENTS
from tokenmw.errors import ConfigurationError
from tokenmw.observe import Event, SharedStateChanged
from tokenmw.observe.opentelemetry import OpenTelemetryObserver


class Meter:
    """An observer on the SDK, and what it counted."""

    def __init__(self) -> None:
        self._reader = InMemoryMetricReader()
        self.provider = MeterProvider([self._reader], shutdown_on_exit=False)
        self.observer = OpenTelemetryObserver(self.provider)

    def points(self) -> dict[tuple[Any, ...], Any]:
        """Return each value by instrument name, unit and attributes."""
        data: Any = self._reader.get_metrics_data()
        return {
            (metric.name, metric.unit, *sorted(point.attributes.items())): getattr(point, "sum", None) or point.value
            for resource in data.resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
            for point in metric.data.data_points
        }


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
    expected = {
        ("tokenmw.token.fetches", "{request}", ("outcome", "granted"), ("provider", "crm")): 1,
        ("tokenmw.token.fetch.duration", "s", ("provider", "crm")): 0.5,
        ("tokenmw.shared.up", "1"): 1,
        ("tokenmw.shared.changes", "{change}"): 2,
        ("tokenmw.tokens.adopted", "{token}", ("provider", "crm")): 1,
        ("tokenmw.tokens.invalidated", "{token}", ("provider", "crm")): 1,
        ("tokenmw.unreadable.values", "{value}", ("kind", "token"), ("why", "damaged")): 1,
    }
    assert expected == meter.points()


def test_up_is_one_until_redis_becomes_unavailable(meter: Meter) -> None:
    """The gauge is reported from the start, not only after the first change."""
    values = [meter.points()]
    for up in (False, True):
        meter.observer(SharedStateChanged(up=up))
        values.append(meter.points())
    assert [points["tokenmw.shared.up", "1"] for points in values] == [1, 0, 1]


def test_unknown_event_is_ignored(meter: Meter) -> None:
    """An event class of a later version counts nothing and raises nothing."""
    meter.observer(Event())
    assert meter.points() == {("tokenmw.shared.up", "1"): 1}


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
