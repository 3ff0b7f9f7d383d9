"""Prometheus metrics: one for each event, labelled by provider and never by a caller's input."""

from __future__ import annotations

import subprocess
import sys

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from tests.observe.test_events import EVENTS
from tokenmw.errors import ConfigurationError
from tokenmw.observe import Event, SharedStateChanged
from tokenmw.observe.prometheus import PrometheusObserver


def test_each_event_is_counted_under_its_name() -> None:
    """Names and labels are public: dashboards and alerts depend on them."""
    registry = CollectorRegistry()
    observer = PrometheusObserver(registry)
    for event in EVENTS:
        observer(event)
    expected = {
        ("tokenmw_token_fetches_total", ("provider", "crm"), ("outcome", "granted")): 1.0,
        ("tokenmw_token_fetch_duration_seconds_count", ("provider", "crm")): 1.0,
        ("tokenmw_token_fetch_duration_seconds_sum", ("provider", "crm")): 0.5,
        ("tokenmw_shared_up",): 1.0,
        ("tokenmw_shared_changes_total",): 2.0,
        ("tokenmw_tokens_adopted_total", ("provider", "crm")): 1.0,
        ("tokenmw_tokens_invalidated_total", ("provider", "crm")): 1.0,
        ("tokenmw_unreadable_values_total", ("kind", "token"), ("why", "damaged")): 1.0,
    }
    found = {
        (sample.name, *sample.labels.items()): sample.value
        for metric in registry.collect()
        for sample in metric.samples
        if not sample.name.endswith(("_created", "_bucket"))
    }
    assert expected == found
    assert b"tokenmw_shared_up 1.0" in generate_latest(registry)


def test_up_is_one_until_redis_becomes_unavailable() -> None:
    """A gauge that starts at 0 would raise an alarm at every start of a process."""
    registry = CollectorRegistry()
    observer = PrometheusObserver(registry)
    values = [registry.get_sample_value("tokenmw_shared_up")]
    for up in (False, True):
        observer(SharedStateChanged(up=up))
        values.append(registry.get_sample_value("tokenmw_shared_up"))
    assert values == [1.0, 0.0, 1.0]


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


@pytest.mark.parametrize("library", ["prometheus_client", "opentelemetry"])
def test_package_does_not_import_the_library(library: str) -> None:
    """A program without metrics does not pay for the import, unless another library (redis-py) imports it too."""
    program = (
        "import sys, httpx, redis.asyncio, starlette.requests; before = set(sys.modules)\n"
        "import tokenmw, tokenmw.observe.prometheus, tokenmw.observe.opentelemetry\n"
        f"sys.exit(any(name.split('.')[0] == {library!r} for name in set(sys.modules) - before))"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
