"""Worker processes of both versions, and the world that they share: one Redis and one token endpoint."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from subprocess import PIPE
from typing import Any, Literal, TypeVar

from tests.servers import RedisServer
from tokenmw.testing import ProviderServer

__all__ = ["CommandFailedError", "Side", "Version", "World", "eventually", "world_of"]

T = TypeVar("T")
Version = Literal["old", "new"]
PROGRAM = Path(__file__).with_name("worker.py")
WITHIN = 30.0
"""Seconds in which every command has its reply."""


class CommandFailedError(Exception):
    """Raised when a command of a worker raised; `kind` is the name of the exception's class."""

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(f"{kind}: {text}")
        self.kind = kind


class Side:
    """One worker process of one version."""

    def __init__(self, process: asyncio.subprocess.Process, version: Version) -> None:
        self.version = version
        self._process = process
        self._numbers = itertools.count(1)
        self._replies: dict[int, asyncio.Future[Any]] = {0: asyncio.get_running_loop().create_future()}
        self._reader = asyncio.ensure_future(self._read())

    async def started(self) -> dict[str, str]:
        """Wait until its broker is open. Return the file and version of the package that it imported."""
        started: dict[str, str] = await self._reply(0)
        return started

    def start(self, command: str, **arguments: Any) -> Awaitable[Any]:
        """Send a command now. Return an awaitable of its reply, which raises `CommandFailedError`."""
        number = next(self._numbers)
        self._replies[number] = asyncio.get_running_loop().create_future()
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"id": number, "do": command, **arguments}).encode() + b"\n")
        return self._reply(number)

    async def token(self, *, callers: int = 1) -> str:
        """Return the token, which must be the same for all callers."""
        (value,) = await self.start("token", callers=callers)
        return str(value)

    async def session(self, key: str) -> str:
        """Return the session id of an API key."""
        ((value,),) = await self.start("session", keys=[key])
        return str(value)

    async def token_or_error(self) -> str:
        """Return the token, or the class name of the exception that was raised instead."""
        try:
            return await self.token()
        except CommandFailedError as error:
            return error.kind

    async def close(self) -> None:
        """Close its stdin, so that the process exits; kill it if it does not."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            await asyncio.wait_for(self._process.wait(), 10)
        except TimeoutError:
            self._process.kill()
            await self._process.wait()
        await self._reader

    async def _reply(self, number: int) -> Any:
        async with asyncio.timeout(WITHIN):
            try:
                return await self._replies[number]
            finally:
                del self._replies[number]

    async def _read(self) -> None:
        assert self._process.stdout is not None
        while line := await self._process.stdout.readline():
            message: dict[str, Any] = json.loads(line)
            reply = self._replies[message["id"]]
            if reply.done():
                continue
            if "error" in message:
                reply.set_exception(CommandFailedError(message["error"], message["text"]))
            else:
                reply.set_result(message["result"])
        for reply in self._replies.values():
            if not reply.done():
                reply.set_exception(CommandFailedError("EOFError", f"A worker of the {self.version} version exited"))


class World:
    """What both versions share, and how their workers are started.

    Attributes:
        redis: The server.
        provider: The token endpoint; `provider.calls["oauth2"]` counts the fetches of all workers.
        options: Options of each broker.
    """

    def __init__(
        self, redis: RedisServer, provider: ProviderServer, base_url: str, *, python: str, options: dict[str, Any]
    ) -> None:
        self.redis = redis
        self.provider = provider
        self.options = options
        self._base_url = base_url
        self._old_python = python
        # The new version is the tree under test, wherever pytest imported it from.
        self._new_path = str(Path(__file__).parents[2])
        self._stack = AsyncExitStack()

    @property
    def fetches(self) -> int:
        """The number of requests that the token endpoint has received."""
        return self.provider.calls["oauth2"]

    async def fetched(self, count: int) -> None:
        """Wait until the token endpoint has received `count` requests."""

        async def fetches() -> int:
            return self.fetches

        await eventually(fetches, lambda found: found == count)

    async def stored(self, *, tokens: int, sessions: int) -> None:
        """Wait until Redis has these numbers of tokens and session ids."""

        async def kinds() -> list[bytes]:
            return [key.rpartition(b":")[2] for key in self.redis.command("KEYS", "*")]

        await eventually(kinds, lambda found: (found.count(b"token"), found.count(b"session")) == (tokens, sessions))

    async def side(self, version: Version, *, client_secret: str = "crm-secret") -> Side:
        """Start a worker, and wait until its broker is open."""
        arguments: dict[str, Any] = {
            "redis": self.redis.url,
            "base_url": self._base_url,
            "options": self.options,
            # Long deadlines, because many processes share the machine. Frequent comparisons make the tests short.
            "limits": {"command_seconds": 2.0, "check_seconds": 0.2},
            "client_secret": client_secret,
        }
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        python = self._old_python
        if version == "new":
            python, environment["PYTHONPATH"] = sys.executable, self._new_path
        process = await asyncio.create_subprocess_exec(
            python, str(PROGRAM), json.dumps(arguments), stdin=PIPE, stdout=PIPE, env=environment, cwd="/"
        )
        side = Side(process, version)
        self._stack.push_async_callback(side.close)
        started = await side.started()
        assert (version == "new") == started["file"].startswith(self._new_path), started
        return side

    async def sides(self, *versions: Version) -> list[Side]:
        """Start several workers at the same time."""
        return list(await asyncio.gather(*map(self.side, versions)))

    async def close(self) -> None:
        """Stop all workers."""
        await self._stack.aclose()


@asynccontextmanager
async def world_of(redis: RedisServer, *, python: str, options: dict[str, Any]) -> AsyncGenerator[World]:
    """Return a world, and stop its workers afterwards."""
    provider = ProviderServer(clients={"crm": "crm-secret"})
    with provider.running() as base_url:
        world = World(redis, provider, base_url, python=python, options=options)
        try:
            yield world
        finally:
            await world.close()


async def eventually(ask: Callable[[], Awaitable[T]], holds: Callable[[T], bool], *, within: float = 20.0) -> T:
    """Ask again and again until an answer holds, and return it. Raises `AssertionError` after `within` seconds."""
    deadline = asyncio.get_running_loop().time() + within
    while not holds(answer := await ask()):
        assert asyncio.get_running_loop().time() < deadline, f"after {within:g} s: {answer!r}"
        await asyncio.sleep(0.05)
    return answer
