"""An observer that counts for Prometheus. Needs `pip install "tokenmw[prometheus]"`.

In the multiprocess mode of `prometheus_client` each process has files of its own, and those of a process that was
killed remain: its gauges would be reported for ever. So each process locks a file beside them, which the operating
system unlocks when the process ends, however it does. The others find the files that are not locked, and delete the
gauges of their processes.
"""

from __future__ import annotations

import importlib
import os
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from tokenmw.errors import ConfigurationError
from tokenmw.observe.measuring import Gauges, initial, readings
from tokenmw.observe.metrics import METRICS, NODE
from tokenmw.observe.state_events import BrokerOpened, StateSampled

if TYPE_CHECKING:
    from collections.abc import Callable

    from prometheus_client import CollectorRegistry

    from tokenmw.observe.events import Event
    from tokenmw.observe.metrics import Labels, Metric

__all__ = ["PrometheusObserver"]

_CHECK_EVERY: Final = 5.0  # seconds
# Windows has none, and no servers with several worker processes either.
_LOCKS: Final[Any] = None if sys.platform == "win32" else importlib.import_module("fcntl")
_LOCK: Final = "tokenmw_{}.lock"  # with the number of the process


class PrometheusObserver:
    """Counts events in `prometheus_client` metrics; labels are provider names and constants of this package.

    `tokenmw_shared_up` is 0 while Redis is unavailable, else 1, and is missing if no broker has a Redis. In
    multiprocess mode it is the lowest value of all worker processes that are alive.

    >>> broker = TokenBroker(…, observers=[PrometheusObserver()])

    Args:
        registry: Where the metrics are registered; by default the library's global registry.

    Raises:
        ConfigurationError: `prometheus_client` is not installed, or the registry has these metrics already.
    """

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        try:
            import prometheus_client
            from prometheus_client import multiprocess
        except ImportError:
            raise ConfigurationError(
                'PrometheusObserver needs prometheus_client: pip install "tokenmw[prometheus]".'
            ) from None
        self._library: Any = prometheus_client
        self._registry = prometheus_client.REGISTRY if registry is None else registry
        self._metrics: dict[Metric, Any] = {}
        self._series: dict[tuple[Metric, Labels], Any] = {}
        self._gauges = Gauges()
        folder = os.environ.get("PROMETHEUS_MULTIPROC_DIR")
        forget: Callable[[int], None] = getattr(multiprocess, "mark_process_dead")  # noqa: B009  it has no types
        self._workers = _Workers(Path(folder), forget) if folder else None
        try:
            for metric in METRICS:
                # A gauge without labels has a value as soon as it is made, and some have none yet.
                if metric.labels or metric.kind != "gauge":
                    self._metrics[metric] = self._make(metric)
        except ValueError:
            raise ConfigurationError(
                "PrometheusObserver: the registry has these metrics already. Make one and give it to all brokers."
            ) from None

    def __call__(self, event: Event, /) -> None:
        """Count an event."""
        if isinstance(event, BrokerOpened):
            for metric, labels in initial(event):
                self._of(metric, labels)
        for metric, value, labels in readings(event):
            series = self._of(metric, labels)
            if metric.kind == "counter":
                series.inc(value)
            else:
                series.observe(value)
        if self._gauges.update(event):
            self._set_gauges()
        if self._workers is not None and isinstance(event, (BrokerOpened, StateSampled)):
            self._workers.forget_dead()

    def _set_gauges(self) -> None:
        values = self._gauges.values()
        for (metric, labels), value in values.items():
            self._of(metric, labels).set(value)
        if self._workers is None:  # the library cannot remove series in multiprocess mode
            departed = [series for series in self._series if series[0] is NODE and series not in values]
            for metric, labels in departed:  # servers that have left their cluster
                del self._series[metric, labels]
                self._metrics[metric].remove(*labels)

    def _of(self, metric: Metric, labels: Labels) -> Any:
        try:
            return self._series[metric, labels]
        except KeyError:
            pass
        if metric not in self._metrics:
            self._metrics[metric] = self._make(metric)
        made = self._metrics[metric]
        series = self._series[metric, labels] = made.labels(*labels) if labels else made
        return series

    def _make(self, metric: Metric) -> Any:
        options: dict[str, Any] = {"registry": self._registry}
        if metric.kind == "gauge":
            options["multiprocess_mode"] = f"live{metric.merge}"
        if metric.kind == "histogram":
            options["buckets"] = metric.bounds
        kinds = {"counter": "Counter", "gauge": "Gauge", "histogram": "Histogram"}
        return getattr(self._library, kinds[metric.kind])(metric.name, metric.text, metric.labels, **options)


class _Workers:
    """The processes that write metrics to one folder.

    Args:
        folder: Where `prometheus_client` writes them.
        forget: Deletes the gauges of a process.
    """

    def __init__(self, folder: Path, forget: Callable[[int], None]) -> None:
        self._folder = folder
        self._forget = forget
        self._checked_at = float("-inf")
        self._pid = 0
        self._file: int | None = None  # locked as long as this process lives
        self._lock()

    def forget_dead(self) -> None:
        """Delete the gauges of processes that have ended, every 5 s. A thread does it, because it uses files."""
        now = time.monotonic()
        if os.getpid() != self._pid:  # after a fork
            self._lock()
        elif now - self._checked_at < _CHECK_EVERY:
            return
        self._checked_at = now
        threading.Thread(target=self._check, name="tokenmw dead workers", daemon=True).start()

    def _lock(self) -> None:
        self._pid = os.getpid()
        if _LOCKS is None:
            return
        with suppress(OSError):
            if self._file is not None:
                os.close(self._file)  # that of the parent, which has it open
            self._file = _open(self._folder / _LOCK.format(self._pid))
            _LOCKS.flock(self._file, _LOCKS.LOCK_EX | _LOCKS.LOCK_NB)

    def _check(self) -> None:
        for path in self._folder.glob(_LOCK.format("*")):
            pid = path.stem.removeprefix("tokenmw_")
            if _LOCKS is not None and pid.isdigit() and int(pid) != self._pid:
                with suppress(OSError):
                    self._forget_if_dead(path, int(pid))

    def _forget_if_dead(self, path: Path, pid: int) -> None:
        descriptor = _open(path)
        try:
            _LOCKS.flock(descriptor, _LOCKS.LOCK_EX | _LOCKS.LOCK_NB)  # raises if the process is alive
            self._forget(pid)
            path.unlink(missing_ok=True)
        finally:
            os.close(descriptor)


def _open(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
