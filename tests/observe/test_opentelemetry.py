"""What happens is counted for OpenTelemetry, by provider and by nothing that a caller sends."""

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
    """An observer over the SDK, and what it has counted."""

    def __init__(self) -> None:
        self._reader = InMemoryMetricReader()
        self.provider = MeterProvider([self._reader], shutdown_on_exit=False)
        self.observer = OpenTelemetryObserver(self.provider)

    def points(self) -> dict[tuple[Any, ...], Any]:
        """Return each value by instrument name and attributes."""
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
    """A meter of its own for each test: the global one can be set only once."""
    meter = Meter()
    yield meter
    meter.provider.shutdown()


def test_each_event_is_counted_under_its_name(meter: Meter) -> None:
    """The names, units and attributes are promises: dashboards and alerts are written against them."""
    for event in EVENTS:
        meter.observer(event)
    expected = {
        ("tokenmw.token.fetches", "{request}", ("outcome", "granted"), ("provider", "crm")): 1,
        ("tokenmw.token.fetch.duration", "s", ("provider", "crm")): 0.5,
        ("tokenmw.redis.up", "1"): 1,
        ("tokenmw.redis.changes", "{change}"): 2,
        ("tokenmw.tokens.adopted", "{token}", ("provider", "crm")): 1,
        ("tokenmw.tokens.invalidated", "{token}", ("provider", "crm")): 1,
        ("tokenmw.unreadable.values", "{value}", ("kind", "token"), ("why", "damaged")): 1,
    }
    assert expected == meter.points()


def test_up_is_one_until_redis_goes(meter: Meter) -> None:
    """It is reported from the start, not from the first change on."""
    values = [meter.points()]
    for up in (False, True):
        meter.observer(SharedStateChanged(up=up))
        values.append(meter.points())
    assert [points["tokenmw.redis.up", "1"] for points in values] == [1, 0, 1]


def test_event_of_a_later_version_is_passed_over(meter: Meter) -> None:
    """Nothing is counted, nothing raised."""
    meter.observer(Event())
    assert meter.points() == {("tokenmw.redis.up", "1"): 1}


def test_api_without_an_sdk_is_enough() -> None:
    """Nothing is counted, and nothing fails: whether there is an SDK is the program's choice."""
    observer = OpenTelemetryObserver()
    for event in EVENTS:
        observer(event)


def test_missing_library_is_named_with_its_install_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """The module itself imports without it."""
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    with pytest.raises(ConfigurationError, match=r'pip install "tokenmw\[otel\]"'):
        OpenTelemetryObserver()
