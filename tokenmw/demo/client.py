"""The requests that `tokenmw demo --once` sends: all callers to all workers, at the same moment."""

from __future__ import annotations

import http.client
import json
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from itertools import product
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from tokenmw.demo.children import Children, DemoFailed
from tokenmw.demo.report import Answer

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["API_KEYS", "ask_everybody"]

API_KEYS: Final = ("alice", "bob", "carol")
"""API keys of three callers. The demo takes any."""

_HEADERS: Final = ("Authorization", "X-API-Key")
_ANSWER_SECONDS: Final = 8.0


def ask_everybody(urls: Sequence[str], *, children: Children) -> list[Answer]:
    """Send each API key to each worker in both headers, all at once, and return the answers.

    Raises:
        DemoFailed: A worker does not answer, or not with 200.
        DemoInterrupted: A signal came meanwhile.
    """
    calls = list(product(API_KEYS, enumerate(urls, start=1), _HEADERS))
    pool = ThreadPoolExecutor(len(calls), thread_name_prefix="tokenmw-demo")
    try:
        futures = [
            pool.submit(_ask, url, worker=worker, api_key=key, header=name) for key, (worker, url), name in calls
        ]
        children.wait(lambda: _all_done(futures), seconds=_ANSWER_SECONDS + 1.0, what="Answering all requests")
        return [future.result() for future in futures]
    finally:
        # Whoever still waits for an answer is let go by the end of the workers.
        pool.shutdown(wait=False, cancel_futures=True)


def _all_done(futures: Sequence[Future[Answer]]) -> bool | None:
    done, waiting = wait(futures, timeout=0, return_when=FIRST_EXCEPTION)
    for future in done:
        future.result()
    return None if waiting else True


def _ask(url: str, *, worker: int, api_key: str, header: str) -> Answer:
    value = f"Bearer {api_key}" if header == "Authorization" else api_key
    # http.client asks no proxy of the environment for what is on this machine.
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=_ANSWER_SECONDS)
    try:
        connection.request("GET", "/", headers={header: value})
        response = connection.getresponse()
        body = response.read()
        if response.status != 200:
            raise DemoFailed(f"Worker {worker} has answered {response.status}: {body.decode(errors='replace').strip()}")
        shown: dict[str, Any] = json.loads(body)
    except (OSError, http.client.HTTPException) as error:
        raise DemoFailed(f"Worker {worker} has not answered ({type(error).__name__}).") from None
    finally:
        connection.close()
    return Answer(api_key, worker, shown["session_id"], shown["token"], shown["seconds_left"])
