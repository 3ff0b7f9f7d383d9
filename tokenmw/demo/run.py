"""The two ways to run the demo: to try by hand, or once as a check that includes an outage of Redis."""

from __future__ import annotations

import contextlib
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from typing import TYPE_CHECKING, Final

from tokenmw.demo.keyboard import is_terminal, open_keyboard
from tokenmw.demo.processes import Child, DemoFailed
from tokenmw.demo.report import Answer, faults, table
from tokenmw.demo.servers import STATUS_PATH, TOKEN_LIFETIME, Demo, running_demo
from tokenmw.demo.traffic import answer_of, steady_requests

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["run_demo"]

_API_KEYS: Final = ("alice", "bob", "carol")
_NEW_KEY: Final = "dave"  # first seen while Redis is unavailable
_HEADERS: Final = ("Authorization", "X-API-Key")
_SHORT_LIFETIME: Final = 12.0  # seconds; with keys, one waits until a fault of the token server shows
_RECOVERY_SECONDS: Final = 15.0
_TEXT: Final = """
Try in another terminal:

  curl -s {one}/ -H "Authorization: Bearer alice"
  curl -s {other}/ -H "X-API-Key: alice"
  curl -s {one}/ -H "X-API-Key: bob"

The status of each worker is a page: {one}{status}/ and {other}{status}/

- alice has one session_id in both workers, whichever header carries the key; bob has another one.
- Both workers use one token: only the first request causes a fetch. Each fetch is printed here.
- In the last quarter of the token's {lifetime:.0f} s a request gets the old token without waiting, while one of the
  workers fetches the next one.
- `tokenmw demo --once` also kills Redis, and starts it again.
"""
_KEYS: Final = """\
Keys, with the page in a browser beside:

  b  breaks Redis: it is killed. Again: it is started, empty.
  p  breaks the provider: it answers 503. Again: it answers. Each worker gets two requests a second meanwhile.
  q  stops everything.
"""
_END: Final = "Ctrl-C stops everything."


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
        if once:
            with running_demo() as demo:
                return _check(demo)
        keys = is_terminal()
        lifetime = _SHORT_LIFETIME if keys else TOKEN_LIFETIME
        with running_demo(lifetime) as demo:
            return _show(demo, lifetime=lifetime, keys=keys)
    except KeyboardInterrupt:
        return 130 if once else 0


def _show(demo: Demo, *, lifetime: float, keys: bool) -> int:
    one, other = (f"http://127.0.0.1:{worker.port}" for worker in demo.workers)
    text = _TEXT.format(one=one, other=other, status=STATUS_PATH, lifetime=lifetime)
    fetches = 0
    with open_keyboard() as keyboard, steady_requests(demo.workers) if keys else contextlib.nullcontext():
        print(text, *([_KEYS] if keys else []), _END, sep="\n", flush=True)
        while True:
            for worker in demo.workers:
                worker.check()
            if demo.fetches > fetches:
                fetches = demo.fetches
                print(f"The token server was asked for a token: fetch {fetches}", flush=True)
            match keyboard.read(0.05):
                case "b":
                    print(demo.toggle_valkey(), flush=True)
                case "p":
                    print(demo.toggle_provider(), flush=True)
                case "q":
                    return 0
                case _:
                    pass


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
        futures = [pool.submit(answer_of, worker, number, key, header) for key, (number, worker), header in calls]
        answers = [future.result() for future in futures]
    print(f"{table(answers, fetches=demo.fetches)}\n", flush=True)
    return answers
