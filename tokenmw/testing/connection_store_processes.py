"""Processes that save values over each other's, for the suite of connection stores."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from tokenmw.connections.store import ConnectionKey, ConnectionStore

__all__ = ["run_processes"]


def run_processes(
    made_by: tuple[Callable[..., ConnectionStore], tuple[Any, ...]],
    key: ConnectionKey,
    *,
    processes: int,
    saves: int,
    end: str,
    seconds: float,
) -> list[int | None]:
    """Save `saves` values in each of several processes, and return their exit codes: -9 if they are `killed`.

    Each process repeats a save until it is done, over the version that it has read last.
    """
    context = multiprocessing.get_context("spawn")
    workers = [
        context.Process(target=_work, args=(made_by, tuple(key), number, saves, end)) for number in range(processes)
    ]
    for worker in workers:
        worker.start()
    until = time.monotonic() + seconds
    for worker in workers:
        worker.join(max(0.0, until - time.monotonic()))
        if worker.is_alive():
            worker.kill()
            worker.join()
    return [worker.exitcode for worker in workers]


def _work(made_by: Any, key: tuple[str, str, str], number: int, saves: int, end: str) -> None:
    asyncio.run(_save(made_by, key, number, saves, end))


async def _save(made_by: Any, key: tuple[str, str, str], number: int, saves: int, end: str) -> None:
    from tokenmw.connections.store import ConnectionKey

    make, arguments = made_by
    store: ConnectionStore = make(*arguments)
    one = ConnectionKey(*key)
    for count in range(saves):
        done = False
        while not done:
            found = await store.load(one)
            done = await store.save(one, b"%d %d" % (number, count), expected=0 if found is None else found.version)
    if end == "killed":
        os.kill(os.getpid(), getattr(signal, "SIGKILL", signal.SIGTERM))
    await store.aclose()
