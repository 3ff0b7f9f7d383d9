"""Prometheus metrics: one for each event, labelled by provider and never by a caller's input."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from tests.observe.test_events import EVENTS, VALUES
from tokenmw.errors import ConfigurationError
from tokenmw.observe import BrokerClosed, BrokerOpened, Event, SharedStateChanged, StateSampled
from tokenmw.observe.prometheus import PrometheusObserver


def test_each_event_is_counted_under_its_name() -> None:
    """Names and labels are public: dashboards and alerts depend on them."""
    registry = CollectorRegistry()
    observer = PrometheusObserver(registry)
    for event in EVENTS:
        observer(event)
    assert VALUES == {series: value for series, value in values_of(registry).items() if value}
    assert b"tokenmw_shared_up 1.0" in generate_latest(registry)


def values_of(registry: CollectorRegistry) -> dict[tuple[object, ...], float]:
    """Return the value of each series; of histograms the sum."""
    return {
        (sample.name.removesuffix("_sum"), *sorted(sample.labels.items())): sample.value
        for metric in registry.collect()
        for sample in metric.samples
        if not sample.name.endswith(("_created", "_bucket", "_count"))
    }


def test_each_series_begins_at_zero() -> None:
    """`increase()` does not see the first value of a series, so that a first failure would be missed."""
    registry = CollectorRegistry()
    observer = PrometheusObserver(registry)
    observer(BrokerOpened(1, ("crm", "erp"), shared=True, version="0.1.0"))
    begun = values_of(registry)
    for event in EVENTS:
        observer(event)
    gauges = {"tokenmw_redis_up", "tokenmw_redis_connections", "tokenmw_unshared", "tokenmw_event_loop_lag_seconds"}
    new = {series for series in values_of(registry).keys() - begun.keys() if series[0] not in gauges}
    # Of credentials and connections without a name of a provider, the labels are not known beforehand.
    assert {series for series in new if ("provider", "crm") in series or len(series) == 1} == set()
    assert {1, 0} == set(begun.values())
    for outcome in ("granted", "repeated", "rejected", "unavailable"):
        assert ("tokenmw_token_fetches_total", ("outcome", outcome), ("provider", "erp")) in begun
        assert ("tokenmw_token_fetch_duration_seconds", ("outcome", outcome), ("provider", "erp")) in begun


def test_a_broker_without_redis_has_no_state_of_redis() -> None:
    """There is nothing that is in use, and nothing that could fail."""
    registry = CollectorRegistry()
    observer = PrometheusObserver(registry)
    observer(BrokerOpened(1, ("crm",), shared=False, version="0.1.0"))
    observer(StateSampled(1, expiries={"crm": 0.0}, attempts={"crm": 0.0}))
    assert [] == [series for series in values_of(registry) if "shared" in str(series[0]) and "_up" in str(series[0])]
    assert b"tokenmw_redis_up{" not in generate_latest(registry)


def test_up_is_one_until_redis_becomes_unavailable() -> None:
    """A gauge that starts at 0 would raise an alarm at every start of a process."""
    registry = CollectorRegistry()
    observer = PrometheusObserver(registry)
    values = [registry.get_sample_value("tokenmw_shared_up")]
    events = (BrokerOpened(1, (), shared=True, version=""), SharedStateChanged(up=False), SharedStateChanged(up=True))
    for event in events:
        observer(event)
        values.append(registry.get_sample_value("tokenmw_shared_up"))
    assert values == [None, 1.0, 0.0, 1.0]


def test_gauges_of_several_brokers_are_one() -> None:
    """What is unshared is the sum, a server is up if all brokers use it, and a closed broker counts no more."""
    registry = CollectorRegistry()
    observer = PrometheusObserver(registry)
    for broker, up in ((1, True), (2, False)):
        observer(StateSampled(broker, nodes={"r": up}, unshared={"token": 2}, lag=broker / 10))
    values = values_of(registry)
    assert (0, 4) == (values["tokenmw_redis_up", ("node", "r")], values["tokenmw_unshared", ("kind", "token")])
    assert values["tokenmw_event_loop_lag_seconds",] == 0.2
    observer(StateSampled(1, nodes={"r": True, "s": True}))
    assert ("tokenmw_redis_up", ("node", "s")) in values_of(registry)
    observer(StateSampled(1, nodes={"r": True}))
    assert ("tokenmw_redis_up", ("node", "s")) not in values_of(registry)
    observer(BrokerClosed(2))
    assert 1 == values_of(registry)["tokenmw_redis_up", ("node", "r")]


PROMTOOL = shutil.which("promtool")


@pytest.mark.skipif(
    PROMTOOL is None and not os.environ.get("TOKENMW_REQUIRE_PROMTOOL"), reason="there is no promtool here"
)
def test_promtool_has_no_objection() -> None:
    """Names, units and help texts are those that Prometheus recommends."""
    registry = CollectorRegistry()
    observer = PrometheusObserver(registry)
    for event in EVENTS:
        observer(event)
    assert PROMTOOL is not None
    checked = subprocess.run(
        [PROMTOOL, "check", "metrics"], input=generate_latest(registry), capture_output=True, check=False
    )
    assert (0, b"") == (checked.returncode, checked.stdout + checked.stderr)


def test_unknown_event_is_ignored() -> None:
    """An event class of a later version counts nothing and raises nothing."""
    registry = CollectorRegistry()
    observer = PrometheusObserver(registry)
    before = generate_latest(registry)
    observer(Event())
    assert before == generate_latest(registry)


def test_second_observer_on_one_registry_is_refused() -> None:
    """The error says how several brokers share one observer."""
    registry = CollectorRegistry()
    PrometheusObserver(registry)
    with pytest.raises(ConfigurationError, match="give it to all brokers"):
        PrometheusObserver(registry)


def test_missing_library_is_named_with_its_install_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """The module can be imported without the library; only making the observer needs it."""
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    with pytest.raises(ConfigurationError, match=r'pip install "tokenmw\[prometheus\]"'):
        PrometheusObserver()


@pytest.mark.parametrize("library", ["prometheus_client", "opentelemetry", "structlog"])
def test_package_does_not_import_the_library(library: str) -> None:
    """A program without metrics does not pay for the import, unless another library (redis-py) imports it too."""
    program = (
        "import sys, httpx, redis.asyncio, starlette.requests; before = set(sys.modules)\n"
        "import tokenmw, tokenmw.observe.prometheus, tokenmw.observe.opentelemetry, tokenmw.observe.structlog\n"
        f"sys.exit(any(name.split('.')[0] == {library!r} for name in set(sys.modules) - before))"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
