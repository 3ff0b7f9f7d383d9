"""After a loss of data 48 processes upload their sessions at the same time, to a server that is 15 times as slow.

The server process is stopped for 14 of 15 ms, so everything that it does takes as much longer. An upload is a command
or script that stores a session if there is none; one is needed for each session. Meanwhile each process sends requests'
commands.
"""

from __future__ import annotations

import asyncio
import os
import signal
import statistics
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

from tests.benchmarks.rows import Figure, Plan, Row
from tests.brokers import runtime_of
from tests.processes import Workers, receive, send
from tests.servers import RedisServer
from tokenmw import Limits, TokenBroker
from tokenmw.observe.events import SharedStateChanged
from tokenmw.redis.connection import RedisConnection
from tokenmw.redis.errors import RedisUnavailable

__all__ = ["Healing", "heal", "slowed"]

PROCESSES, SESSIONS = 48, 2_500
SLOWER = 15
RUNS = 0.001  # seconds
WITHIN = 300.0
EVERY = 0.25  # seconds between two commands of a process that stand for those of requests
GOAL = 1.1


class Healing:
    """What one loss of data has cost.

    Attributes:
        needed: Sessions that had to be stored.
        executed: Uploads that the server executed.
        reads: Commands that read or touched a session.
        seconds: From the loss until all sessions were stored.
        busy: Seconds of the server's processor time.
        down: Processes that took the server for unavailable.
        latencies: Seconds of each request's command.
        failed: Requests' commands that failed.
        stored: Sessions in Redis at the end.
    """

    def __init__(self, *, needed: int) -> None:
        self.needed = needed
        self.executed = self.reads = self.down = self.failed = self.stored = 0
        self.seconds = self.busy = 0.0
        self.latencies: list[float] = []

    def __str__(self) -> str:
        quantiles = statistics.quantiles(self.latencies, n=100)
        return (
            f"{self.executed} uploads for {self.needed} sessions ({self.executed / self.needed:.2f}), {self.reads} "
            f"reads, {self.seconds:.1f} s, {self.busy:.1f} s of the server's processor time, {self.down} processes "
            f"down; {len(self.latencies)} requests' commands: median {quantiles[49] * 1000:.0f} ms, p99 "
            f"{quantiles[98] * 1000:.0f} ms, max {max(self.latencies) * 1000:.0f} ms, {self.failed} failed"
        )


async def run(plan: Plan) -> list[Row]:
    """Measure processes with sessions of their own, and processes that all have the same ones."""
    processes, sessions = plan.of(PROCESSES), SESSIONS
    rows: list[Row] = []
    for name, own in {"each with sessions of its own": True, "all with the same sessions": False}.items():
        found = await heal(processes=processes, sessions=sessions, own=own, slower=SLOWER)
        ratio, limit = found.executed / found.needed, GOAL * plan.slack
        title = f"healing of {processes} processes x {sessions} sessions, {name}, Redis {SLOWER} times as slow"
        rows += [
            Row(
                f"{title}: uploads executed / needed",
                "",
                Figure((ratio,)),
                goal=f"<= {GOAL:g}, no process down",
                met=ratio <= limit and not found.down and found.stored == found.needed,
                notes=(str(found),),
            ),
            Row(title, "s", Figure((found.seconds,))),
        ]
    return rows


async def heal(*, processes: int, sessions: int, own: bool, slower: int) -> Healing:
    """Lose all data of a slow server, and measure until the sessions of all processes are stored."""
    healing = Healing(needed=sessions * (processes if own else 1))
    with RedisServer() as server, server.connect(within=WITHIN) as connection:
        arguments = {"url": server.url, "sessions": sessions, "own": own}
        async with Workers(f"{__name__}:serve", processes=processes, arguments=arguments, within=WITHIN) as workers:
            await workers.receive()
            with slowed(server, slower):
                connection.call("FLUSHALL")
                connection.call("CONFIG", "RESETSTAT")
                busy, began = processor(server), time.monotonic()
                await workers.send("lost")
                while connection.call("DBSIZE") < healing.needed and time.monotonic() - began < WITHIN:  # noqa: ASYNC110
                    await asyncio.sleep(0.1)
                healing.seconds, healing.busy = time.monotonic() - began, processor(server) - busy
                await asyncio.sleep(2.0)  # what was sent too often is executed, too
                await workers.send("stop")
                results = await workers.results()
            calls = commands(server)
            healing.stored = sum(key.endswith(b":session") for key in connection.call("KEYS", "*"))
    others = sum(result["others"] for result in results)
    healing.executed = calls.get("set", 0) + calls.get("evalsha", 0) + calls.get("eval", 0) - others
    healing.reads = calls.get("getex", 0) + calls.get("get", 0) - sum(len(result["latencies"]) for result in results)
    healing.down = sum(result["down"] for result in results)
    healing.failed = sum(result["failed"] for result in results)
    healing.latencies = [latency for result in results for latency in result["latencies"]]
    return healing


@contextmanager
def slowed(server: RedisServer, slower: int) -> Generator[None]:
    """Let the server run for a millisecond at a time, and stop it for so long that it takes `slower` times as long."""
    stop = threading.Event()

    def alternate() -> None:
        while not stop.is_set():
            os.kill(server.pid, signal.SIGSTOP)
            time.sleep(RUNS * (slower - 1))
            os.kill(server.pid, signal.SIGCONT)
            time.sleep(RUNS)

    thread = threading.Thread(target=alternate)
    if slower > 1:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        if slower > 1:
            thread.join()


def commands(server: RedisServer) -> dict[str, int]:
    """Return how often the server has executed each command."""
    lines = bytes(server.command("INFO", "commandstats")).decode().splitlines()
    found = (line.removeprefix("cmdstat_").partition(":calls=") for line in lines if line.startswith("cmdstat_"))
    return {name: int(rest.partition(",")[0]) for name, _, rest in found}


def processor(server: RedisServer) -> float:
    """Return the seconds of processor time that a server has used."""
    lines = bytes(server.command("INFO", "cpu")).decode().splitlines()
    facts = dict(line.split(":", 1) for line in lines if ":" in line)
    return float(facts["used_cpu_user"]) + float(facts["used_cpu_sys"])


async def serve(*, url: str, sessions: int, own: bool) -> dict[str, Any]:
    """Keep sessions in use, and send a request's command now and then, until the parent says stop."""
    states: list[bool] = []
    others = failed = 0
    latencies: list[float] = []

    def observe(event: object) -> None:
        if isinstance(event, SharedStateChanged):
            states.append(event.up)

    run_script = RedisConnection.run

    async def counted(self: RedisConnection, script: Any, *args: Any, **options: Any) -> Any:
        nonlocal others
        others += script in ("marker", "probe")
        return await run_script(self, script, *args, **options)

    RedisConnection.run = counted  # type: ignore[method-assign]
    broker = TokenBroker({}, redis=url, secret_key="a secret for this run", observers=[observe], limits=Limits())
    async with broker:
        redis = runtime_of(broker).redis
        assert redis is not None
        whose = str(os.getpid()) if own else "all"
        for number in range(sessions):
            api_key = f"sk-{whose}-{number}".encode()
            broker._data.sessions.add(api_key, broker._settings.session_ids.derive(api_key), shared=True)
        send("ready")
        await asyncio.to_thread(receive)
        states.clear()
        others = 0
        end = asyncio.ensure_future(asyncio.to_thread(receive))
        while not end.done():
            began = time.monotonic()
            try:
                await redis.execute(lambda client: client.get("a"), key=b"a")
            except RedisUnavailable:
                failed += 1
            latencies.append(time.monotonic() - began)
            await asyncio.sleep(EVERY)
        return {"down": False in states, "others": others, "failed": failed, "latencies": latencies}
