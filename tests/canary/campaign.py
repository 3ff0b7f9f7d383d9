"""The campaign: a program with made-up secrets goes through outages and failures, and all that leaves it is kept."""

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
from tests.canary.clients import Authenticator
from tests.canary.credentials import FAILING, REDIS_PASSWORD
from tests.canary.endpoints import Endpoints
from tests.canary.redis_monitor import RedisTap
from tests.processes import ROOT
from tests.servers import RedisServer

__all__ = ["Outputs", "campaign"]


@dataclass
class Outputs:
    """Every byte that left, and what shows that the campaign took place.

    Attributes:
        stdout: What the process wrote to its standard output.
        stderr: What it wrote to its standard error: the log, among other things.
        heard: What callers were answered.
        tap: What was seen at Redis.
        asked: How often each way of answering was asked for a token, or as an API.
        received: The kinds of the secrets that token endpoints and APIs were sent.
        code: The exit code of the process.
    """

    stdout: bytes
    stderr: bytes
    heard: list[bytes]
    tap: RedisTap
    asked: dict[str, int]
    received: set[str]
    code: int | None


async def campaign(*, plants: bool = False) -> Outputs:
    """Go through it all; with `plants`, let the program leak on purpose, and leave out the outages of Redis."""
    async with AsyncExitStack() as stack:
        server = await asyncio.to_thread(stack.enter_context, RedisServer("--requirepass", REDIS_PASSWORD))
        tap = RedisTap(server)
        tap.listen()
        endpoints = await stack.enter_async_context(Endpoints())
        nobody = stack.enter_context(socket.socket())
        nobody.bind(("127.0.0.1", 0))
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        arguments = {
            "redis": server.port,
            "ports": {"grants": endpoints.port, "nobody": nobody.getsockname()[1]},
            "listener": listener.fileno(),
            "plants": plants,
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
        stack.callback(_end, process)
        callers = Authenticator(listener.getsockname()[1])
        listener.close()
        if plants:
            await callers.get(f"/planted/{quote(canary('planted, access log'), safe='')}")
            await callers.talk("/planted")
            tap.look()
        else:
            await _failures_of_providers(callers)
            await _outages_of_redis(callers, server, tap)
        under_way = asyncio.create_task(callers.get("/raise/basic:hangs"))
        await endpoints.hanging.wait()
        await callers.get("/end")
        with anyio.fail_after(60):
            code = await process.wait()
        await under_way
        tap.close()
        return Outputs(
            (directory / "out").read_bytes(),
            (directory / "err").read_bytes(),
            callers.heard,
            tap,
            dict(endpoints.asked),
            endpoints.received,
            code,
        )


def _end(process: anyio.abc.Process) -> None:
    if process.returncode is None:
        process.kill()


async def _failures_of_providers(callers: Authenticator) -> None:
    await callers.get("/tokens/grants")
    await callers.get("/raise/basic:refuses")
    await callers.get("/calm")
    await callers.get("/operations/all")
    # What hangs comes last. A client of the user's writes into its log what a server says beside a status.
    for way in ("grants", "grants-a-type", *FAILING[:-1]):
        await callers.get(f"/tokens/{way}")
    for way in ("grants", "refuses", "fails", "breaks-http"):
        await callers.get(f"/plain/tokens/{way}")
    for where in ("", "/plain"):
        for way in ("basic:refuses", "wecom:fails", "chosen"):
            await callers.get(f"{where}/raise/{way}")
            await callers.get(f"{where}/half/{way}")
        for way in ("api-takes", "api-refuses", "api-redirects"):
            for kind in ("basic", "wecom", "dingtalk", "feishu_tenant"):
                await callers.get(f"{where}/api/{kind}/{way}")


async def _outages_of_redis(callers: Authenticator, server: RedisServer, tap: RedisTap) -> None:
    await _round(callers)
    tap.look()
    server.command("CONFIG", "SET", "maxmemory", "1")
    await _round(callers)
    server.command("CONFIG", "SET", "maxmemory", "0")
    await _shared_again(callers)
    await callers.get("/operations/anew")
    for name in server.command("KEYS", "*"):
        server.command("SET", name, b"\x01 garbage")
    await callers.get("/operations/anew")
    await _round(callers)
    tap.look()
    server.kill()
    await _round(callers)
    await asyncio.to_thread(server.restart)
    tap.listen()
    await _shared_again(callers)
    await _round(callers)
    tap.look()


async def _shared_again(callers: Authenticator) -> None:
    """Wait until both brokers use Redis again, which they find out by themselves."""
    with anyio.fail_after(60):
        for where in ("", "/plain"):
            while b"shared='up'" not in await callers.get(f"{where}/report"):  # noqa: ASYNC110  it is another process
                await asyncio.sleep(0.1)


async def _round(callers: Authenticator) -> None:
    """Be every caller once: known, refused, without a key; over HTTP and WebSockets."""
    for where in ("", "/plain"):
        for key in ("bearer", "x-api-key", "query", "cookie", "refused", "failing", "plain"):
            await callers.get(f"{where}/injected", key=key)
        for moment in ("before", "after"):
            await callers.talk(f"{where}/{moment}")
        await callers.get(f"{where}/operations")
        await callers.get(f"{where}/report")
