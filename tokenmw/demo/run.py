"""The two ways to run the demo: to be tried by hand, or once as a check."""

from __future__ import annotations

from textwrap import dedent
from typing import NoReturn

from tokenmw.demo.children import Children, DemoInterrupted
from tokenmw.demo.client import API_KEYS, ask_everybody
from tokenmw.demo.report import faults, table, verdict
from tokenmw.demo.servers import TOKEN_LIFE, Demo, running_demo

__all__ = ["run_demo"]


def run_demo(*, once: bool = False) -> int:
    """Start everything, show it, end everything, and return an exit code.

    With `once`, 0 says that everything was shared as it should be, 1 that it was not, and 128 + n that signal n came
    first. Without it the demo runs until SIGINT or SIGTERM, which is no fault.

    Raises:
        DemoFailed: A part does not start, or has ended by itself.
    """
    with Children() as children:
        try:
            with running_demo(children) as demo:
                if once:
                    return _check(demo, children=children)
                _show(demo, children=children)
        except DemoInterrupted as interrupted:
            return 128 + interrupted.signal if once else 0


def _check(demo: Demo, *, children: Children) -> int:
    answers = ask_everybody(demo.urls, children=children)
    found = faults(answers, api_keys=API_KEYS, workers=len(demo.urls), fetches=demo.fetches)
    print(_what_runs(demo))
    print()
    print(table(answers, fetches=demo.fetches))
    print(verdict(answers, found), flush=True)
    return 1 if found else 0


def _show(demo: Demo, *, children: Children) -> NoReturn:
    one, other = demo.urls
    print(_what_runs(demo))
    print(
        dedent(f"""
        Try, in another terminal:

          curl -s {one}/ -H "Authorization: Bearer alice"
          curl -s {other}/ -H "X-API-Key: alice"
          curl -s {one}/ -H "X-API-Key: bob"

        What to look for:
        - alice has one session_id in both workers, whichever header carries the key; bob has another one.
        - Both workers use one token: only the first request causes a fetch, and each fetch is told here.
        - In the last quarter of the token's {TOKEN_LIFE:.0f} s a request gets the old token at once, while one of the
          workers fetches the next.
        - {_outage(demo)}

        Ctrl-C ends everything.
        """),
        flush=True,
    )
    told = 0

    def tell_fetches() -> None:
        nonlocal told
        if demo.fetches > told:
            told = demo.fetches
            print(f"The token server was asked for a token: fetch {told}", flush=True)

    children.watch(tell_fetches)


def _what_runs(demo: Demo) -> str:
    workers = enumerate(zip(demo.urls, demo.pids, strict=True), start=1)
    parts = [(f"worker {number}", f"{url}, process {pid}") for number, (url, pid) in workers]
    parts.append(("token server", f"on this machine; its tokens live {TOKEN_LIFE:.0f} s"))
    parts.append(("Redis", demo.redis if demo.redis_pid is None else f"{demo.redis}, process {demo.redis_pid}"))
    return "\n".join(f"{name:<14}{what}" for name, what in parts)


def _outage(demo: Demo) -> str:
    if demo.redis_pid is None:
        return "Without Redis the workers go on, too; each has its own token then."
    return (
        f"`kill -STOP {demo.redis_pid}` freezes Redis: both workers go on, and say here that it is away. "
        f"`kill -CONT {demo.redis_pid}` ends that."
    )
