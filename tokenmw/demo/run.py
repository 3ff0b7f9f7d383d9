"""The two ways to run the demo: to try by hand, or once as a check that includes an outage of Redis."""

from __future__ import annotations

import http.client
import json
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from typing import TYPE_CHECKING, Final, NoReturn

from tokenmw.demo.processes import Child, DemoFailed
from tokenmw.demo.report import Answer, faults, table
from tokenmw.demo.servers import TOKEN_LIFETIME, Demo, running_demo

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["run_demo"]

_API_KEYS: Final = ("alice", "bob", "carol")
_NEW_KEY: Final = "dave"  # first seen while Redis is unavailable
_HEADERS: Final = ("Authorization", "X-API-Key")
_ANSWER_SECONDS: Final = 5.0
_RECOVERY_SECONDS: Final = 15.0
_TEXT: Final = """
Try in another terminal:

  curl -s {one}/ -H "Authorization: Bearer alice"
  curl -s {other}/ -H "X-API-Key: alice"
  curl -s {one}/ -H "X-API-Key: bob"

- alice has one session_id in both workers, whichever header carries the key; bob has another one.
- Both workers use one token: only the first request causes a fetch. Each fetch is printed here.
- In the last quarter of the token's {lifetime:.0f} s a request gets the old token without waiting, while one of the
  workers fetches the next one.
- `tokenmw demo --once` also kills Redis, and starts it again.

Ctrl-C stops everything."""


def run_demo(*, once: bool = False) -> int:
    """Start everything, show it, stop everything, and return an exit code.

    With `once`: 0 if everything was shared as it should be, 1 if not, 130 if a signal came first. Otherwise the demo
    runs until SIGINT, SIGTERM or SIGHUP, and returns 0.

    Raises:
        DemoFailed: A part does not start, does not answer, or ends by itself.
    """
    for name in ("SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)
        # Under nohup, SIGHUP is ignored and stays so.
        if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler)
    try:
        with running_demo() as demo:
            return _check(demo) if once else _show(demo)
    except KeyboardInterrupt:
        return 130 if once else 0


def _show(demo: Demo) -> NoReturn:
    one, other = (f"http://127.0.0.1:{worker.port}" for worker in demo.workers)
    print(_TEXT.format(one=one, other=other, lifetime=TOKEN_LIFETIME), flush=True)
    fetches = 0
    while True:
        for worker in demo.workers:
            worker.check()
        if demo.fetches > fetches:
            fetches = demo.fetches
            print(f"The token server was asked for a token: fetch {fetches}", flush=True)
        time.sleep(0.05)


def _check(demo: Demo) -> int:
    answers = _ask(demo, _API_KEYS)
    if demo.valkey is not None:
        answers += _outage(demo, demo.valkey)
    found = faults(answers, fetches=demo.fetches)
    if found:
        print("Not everything was shared:", *(f"- {fault}" for fault in found), sep="\n")
        return 1
    print(f"Everything was shared: one session id per API key, one token fetch for {len(answers)} requests.")
    return 0


def _outage(demo: Demo, valkey: Child) -> list[Answer]:
    """Kill Redis and start it again, empty. Return the answers during the outage, and those after it."""
    valkey.stop()
    print("Redis is killed. The workers go on, and agree on a session id for a new API key:\n", flush=True)
    answers = _ask(demo, (*_API_KEYS, _NEW_KEY))
    print("Redis is started again, empty. The workers write everything to it:\n", flush=True)
    demo.start_valkey()
    deadline = time.monotonic() + _RECOVERY_SECONDS
    while demo.keys_in_valkey() != {"session": len(_API_KEYS) + 1, "token": 1}:
        if time.monotonic() > deadline:
            raise DemoFailed(f"not everything is in Redis again after {_RECOVERY_SECONDS:.0f} s.")
        time.sleep(0.1)
    print("\nA new worker finds everything in Redis:\n", flush=True)
    demo.start_workers(1)
    return answers + _ask(demo, (*_API_KEYS, _NEW_KEY))


def _ask(demo: Demo, api_keys: Sequence[str]) -> list[Answer]:
    """Send each API key to each worker in both headers, all at the same time; print the answers."""
    calls = list(product(api_keys, enumerate(demo.workers, start=1), _HEADERS))
    with ThreadPoolExecutor(len(calls)) as pool:
        futures = [pool.submit(_answer, worker, number, key, header) for key, (number, worker), header in calls]
        answers = [future.result() for future in futures]
    print(f"{table(answers, fetches=demo.fetches)}\n", flush=True)
    return answers


def _answer(worker: Child, number: int, api_key: str, header: str) -> Answer:
    value = f"Bearer {api_key}" if header == "Authorization" else api_key
    # http.client uses no proxy from the environment.
    connection = http.client.HTTPConnection("127.0.0.1", worker.port, timeout=_ANSWER_SECONDS)
    try:
        connection.request("GET", "/", headers={header: value})
        response = connection.getresponse()
        body = response.read()
    except (OSError, http.client.HTTPException) as error:
        raise DemoFailed(f"{worker.name} did not answer ({type(error).__name__}).") from None
    finally:
        connection.close()
    if response.status != 200:
        raise DemoFailed(f"{worker.name} answered {response.status}: {body.decode(errors='replace').strip()}")
    return Answer(api_key, number, **json.loads(body))
