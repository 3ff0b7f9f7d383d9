"""Requests to the workers of the demo."""

from __future__ import annotations

import contextlib
import http.client
import json
import threading
from typing import TYPE_CHECKING, Final

from tokenmw.demo.processes import Child, DemoFailed
from tokenmw.demo.report import Answer

if TYPE_CHECKING:
    from collections.abc import Generator

__all__ = ["answer_of", "request", "steady_requests"]

_ANSWER_SECONDS: Final = 5.0
_EVERY: Final = 0.5  # seconds
_API_KEY: Final = "demo"


def request(worker: Child, api_key: str, header: str = "X-API-Key") -> tuple[int, bytes]:
    """Send a request with an API key, and return the status and the body of the response.

    Raises:
        DemoFailed: The worker does not answer.
    """
    value = f"Bearer {api_key}" if header == "Authorization" else api_key
    # http.client uses no proxy from the environment.
    connection = http.client.HTTPConnection("127.0.0.1", worker.port, timeout=_ANSWER_SECONDS)
    try:
        connection.request("GET", "/", headers={header: value})
        response = connection.getresponse()
        return response.status, response.read()
    except (OSError, http.client.HTTPException) as error:
        raise DemoFailed(f"{worker.name} did not answer ({type(error).__name__}).") from None
    finally:
        connection.close()


def answer_of(worker: Child, number: int, api_key: str, header: str) -> Answer:
    """Send a request to a worker, and return its answer.

    Raises:
        DemoFailed: The worker does not answer, or answers with an error.
    """
    status, body = request(worker, api_key, header)
    if status != 200:
        raise DemoFailed(f"{worker.name} answered {status}: {body.decode(errors='replace').strip()}")
    return Answer(api_key, number, **json.loads(body))


@contextlib.contextmanager
def steady_requests(workers: list[Child]) -> Generator[None]:
    """Send each worker two requests a second until the end, and print a line when its answers change."""
    ends = threading.Event()

    def send(worker: Child) -> None:
        last = 0
        while not ends.wait(_EVERY):
            with contextlib.suppress(DemoFailed):  # the demo is ending, or checks the worker itself
                status, _ = request(worker, _API_KEY)
                if status != last:
                    print(f"{worker.name} answers {status}", flush=True)
                    last = status

    threads = [threading.Thread(target=send, args=[worker], daemon=True) for worker in workers]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        ends.set()
        for thread in threads:
            thread.join()
