"""Runs the service of `examples/operations` with several workers, and sends it requests."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
import time
from collections import Counter
from typing import TYPE_CHECKING, Any, Final

import httpx

from tests.operations.files import OPERATIONS
from tests.processes import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from pathlib import Path

__all__ = ["OPERATOR", "SECRET", "load", "retry", "running_service", "wait_for"]

SECRET: Final = "the secret of the client"
OPERATOR: Final = ("operator", "the password of operators")
_WITHIN: Final = 30.0


def wait_for(what: str, condition: Callable[[], Any], *, seconds: float = _WITHIN) -> Any:
    """Wait until a condition is true, and return its value; fail after a time. Requests may fail meanwhile."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with contextlib.suppress(httpx.HTTPError):
            if value := condition():
                return value
        time.sleep(0.1)
    raise AssertionError(f"Not within {seconds:.0f} s: {what}")


@contextlib.contextmanager
def running_service(directory: Path, *, port: int, redis: str, token_url: str, workers: int = 4) -> Generator[str]:
    """Start the service, and yield its address once every worker was started."""
    metrics = directory / "metrics"
    metrics.mkdir()
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "PROMETHEUS_MULTIPROC_DIR": str(metrics),
        "REDIS_URL": redis,
        "SECRET_KEY": "a secret for the tests only",
        "OPERATORS_PASSWORD": OPERATOR[1],
        "CRM_TOKEN_URL": token_url,
        "CRM_SECRET": SECRET,
    }
    command = [sys.executable, "-m", "uvicorn", "app:app", "--app-dir", str(OPERATIONS), "--no-access-log"]
    command += ["--workers", str(workers), "--port", str(port)]
    with (directory / "service.log").open("w") as log:
        server = subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT)
        try:
            wait_for("all workers run", lambda: len(list(metrics.glob("tokenmw_*.lock"))) == workers)
            url = f"http://127.0.0.1:{port}"
            wait_for("the service is ready", lambda: httpx.get(f"{url}/_tokenmw/readyz", trust_env=False).is_success)
            yield url
        finally:
            server.terminate()
            try:
                server.wait(_WITHIN)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()


def retry(url: str) -> None:
    """Press "Retry now" on the status page of one worker."""
    headers = {"origin": url, "sec-fetch-site": "same-origin"}
    answer = httpx.post(
        f"{url}/_tokenmw/retry", data={"provider": "crm"}, auth=OPERATOR, headers=headers, trust_env=False
    )
    assert 303 == answer.status_code, answer.text


@contextlib.contextmanager
def load(url: str, *, a_second: float = 40.0) -> Generator[Counter[int]]:
    """Send requests of eight API keys until the end, and yield the number of answers by their status."""
    statuses: Counter[int] = Counter()
    ends = threading.Event()

    def send() -> None:
        # A connection each, so that all workers get requests.
        with httpx.Client(trust_env=False, timeout=10, limits=httpx.Limits(max_keepalive_connections=0)) as client:
            number = 0
            while not ends.wait(1 / a_second):
                number += 1
                with contextlib.suppress(httpx.TransportError):
                    statuses[client.get(url, headers={"x-api-key": f"key-{number % 8}"}).status_code] += 1

    thread = threading.Thread(target=send)
    thread.start()
    try:
        yield statuses
    finally:
        ends.set()
        thread.join()
