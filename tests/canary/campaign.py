"""The campaign: a program with made-up secrets goes through outages and failures; all of its output is kept."""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys
import tempfile
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import anyio
import anyio.abc

from tests.canary.canaries import canary
from tests.canary.clients import Clients
from tests.canary.credentials import FAILING, REDIS_PASSWORD
from tests.canary.endpoints import Endpoints
from tests.canary.redis_monitor import RedisMonitor
from tests.processes import ROOT
from tests.servers import RedisServer

__all__ = ["Outputs", "campaign"]


@dataclass
class Outputs:
    """All output of the program, and what shows that the campaign took place.

    Attributes:
        stdout: What the process wrote to its standard output.
        stderr: What it wrote to its standard error; this includes the log.
        responses: What its clients received.
        redis: What Redis received and stored.
        requests: The number of requests to the endpoints and APIs, by behaviour.
        received: The kinds of the secrets that endpoints and APIs received.
        code: The exit code of the process.
    """

    stdout: bytes
    stderr: bytes
    responses: list[bytes]
    redis: RedisMonitor
    requests: dict[str, int]
    received: set[str]
    code: int | None


async def campaign(*, leaks: bool = False) -> Outputs:
    """Run the program through all failures. With `leaks`, it leaks on purpose, and Redis does not fail."""
    async with AsyncExitStack() as stack:
        server = await asyncio.to_thread(stack.enter_context, RedisServer("--requirepass", REDIS_PASSWORD))
        monitor = RedisMonitor(server)
        monitor.start()
        endpoints = await stack.enter_async_context(Endpoints())
        closed_port = stack.enter_context(socket.socket())
        closed_port.bind(("127.0.0.1", 0))
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        arguments = {
            "redis": server.port,
            "ports": {"grants": endpoints.port, "unreachable": closed_port.getsockname()[1]},
            "listener": listener.fileno(),
            "leaks": leaks,
        }
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        with (directory / "out").open("wb") as out, (directory / "err").open("wb") as err:
            process = await anyio.open_process(
                [sys.executable, "-m", "tests.canary.process", json.dumps(arguments)],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                cwd=ROOT,
                pass_fds=[listener.fileno()],
            )
        stack.push_async_callback(process.aclose)
        stack.callback(_kill, process)
        clients = Clients(listener.getsockname()[1])
        listener.close()
        if leaks:
            await clients.get(f"/leak/{quote(canary('leaked, access log'), safe='')}")
            await clients.open_websocket("/leak")
            monitor.record_contents()
        else:
            await _failures_of_providers(clients)
            await _outages_of_redis(clients, server, monitor)
        hanging = asyncio.create_task(clients.get("/raise/basic:hangs"))
        await endpoints.hanging.wait()
        await clients.get("/stop")
        with anyio.fail_after(60):
            code = await process.wait()
        await hanging
        monitor.close()
        return Outputs(
            (directory / "out").read_bytes(),
            (directory / "err").read_bytes(),
            clients.responses,
            monitor,
            dict(endpoints.requests),
            endpoints.received,
            code,
        )


def _kill(process: anyio.abc.Process) -> None:
    if process.returncode is None:
        process.kill()


async def _failures_of_providers(clients: Clients) -> None:
    await clients.get("/tokens/grants")
    await clients.get("/raise/basic:refuses")
    await clients.get("/debug-off")
    await clients.get("/operations/all")
    # "hangs" is requested at the end of the campaign. "fails-with-a-reason-phrase" is not requested under "/plain": the
    # HTTP client that the program passes there logs reason phrases itself.
    for behaviour in ("grants", "grants-a-type", *FAILING[:-1]):
        await clients.get(f"/tokens/{behaviour}")
    for behaviour in ("grants", "refuses", "fails", "breaks-http"):
        await clients.get(f"/plain/tokens/{behaviour}")
    for prefix in ("", "/plain"):
        for name in ("basic:refuses", "wecom:fails", "chosen"):
            await clients.get(f"{prefix}/raise/{name}")
            await clients.get(f"{prefix}/raise-after-start/{name}")
        for behaviour in ("api-accepts", "api-refuses", "api-redirects"):
            for kind in ("basic", "wecom", "dingtalk", "feishu_tenant"):
                await clients.get(f"{prefix}/api/{kind}/{behaviour}")


async def _outages_of_redis(clients: Clients, server: RedisServer, monitor: RedisMonitor) -> None:
    await _use_all_clients(clients)
    monitor.record_contents()
    server.command("CONFIG", "SET", "maxmemory", "1")
    await _use_all_clients(clients)
    server.command("CONFIG", "SET", "maxmemory", "0")
    await _wait_until_redis_is_used(clients)
    await clients.get("/operations/new-brokers")
    for name in server.command("KEYS", "*"):
        server.command("SET", name, b"\x01 garbage")
    await clients.get("/operations/new-brokers")
    await _use_all_clients(clients)
    monitor.record_contents()
    server.kill()
    await _use_all_clients(clients)
    await asyncio.to_thread(server.restart)
    monitor.start()
    await _wait_until_redis_is_used(clients)
    await _use_all_clients(clients)
    monitor.record_contents()


async def _wait_until_redis_is_used(clients: Clients) -> None:
    """Wait until both brokers of the program have recovered from an outage."""
    with anyio.fail_after(60):
        for prefix in ("", "/plain"):
            while b"shared='up'" not in await clients.get(f"{prefix}/report"):  # noqa: ASYNC110  it is another process
                await asyncio.sleep(0.1)


async def _use_all_clients(clients: Clients) -> None:
    """Send requests with every API key, over HTTP and WebSockets: known ones, refused ones and none."""
    for prefix in ("", "/plain"):
        for key in ("bearer", "x-api-key", "query", "cookie", "refused", "failing", "plain"):
            await clients.get(f"{prefix}/injected", key=key)
        for phase in ("before-accept", "after-accept"):
            await clients.open_websocket(f"{prefix}/{phase}")
        await clients.get(f"{prefix}/operations")
        await clients.get(f"{prefix}/report")
        await clients.get(f"{prefix}/status/")
        await clients.get(f"{prefix}/status/status.json")
