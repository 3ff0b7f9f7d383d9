"""One worker process with a broker, run by the interpreter of either version, so it uses only what both have.

    python worker.py '{"redis": "redis://…", "base_url": "http://…", "options": {}, "limits": {}}'

Commands come as lines of JSON on stdin: `{"id": 1, "do": "token", "callers": 10}`. Each runs in a task of its own, and
its reply is a line on stdout: `{"id": 1, "result": …}` or `{"id": 1, "error": "TokenUnavailable", "text": "…"}`. The
first line on stdout, with the id 0, says which package was imported. The process ends when stdin is closed.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import Any

import tokenmw
from tokenmw import Limits, Token, TokenBroker
from tokenmw.providers import ClientCredentials


class AdvancedClock:
    """The machine's clocks, and what a test has advanced them by."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def monotonic(self) -> float:
        """Return seconds that never go back."""
        return time.monotonic() + self.ahead

    def time(self) -> float:
        """Return seconds since 1970 (UTC)."""
        return time.time() + self.ahead

    async def sleep(self, seconds: float, /) -> None:
        """Wait, in real time."""
        await asyncio.sleep(seconds)


class Worker:
    """A broker with one provider, "crm", and the commands that a test can send."""

    def __init__(
        self,
        *,
        redis: str,
        base_url: str,
        options: dict[str, Any],
        limits: dict[str, Any],
        client_secret: str = "crm-secret",
    ) -> None:
        self._clock = AdvancedClock()
        self._tokens: dict[str, Token] = {}
        crm = ClientCredentials(token_url=f"{base_url}/oauth2/token", client_id="crm", client_secret=client_secret)
        self.broker = TokenBroker({"crm": crm}, redis=redis, clock=self._clock, limits=Limits(**limits), **options)

    async def token(self, *, callers: int = 1) -> list[str]:
        """Ask for the token with many callers, and return the distinct values."""
        tokens = await asyncio.gather(*(self.broker.token("crm") for _ in range(callers)))
        self._tokens.update({token.value: token for token in tokens})
        return sorted({token.value for token in tokens})

    async def session(self, *, keys: list[str], callers: int = 1) -> list[list[str]]:
        """Return the distinct session ids that many callers get for each API key."""

        async def ids(key: str) -> list[str]:
            return sorted(set(await asyncio.gather(*(self.broker.session_id(key) for _ in range(callers)))))

        return await asyncio.gather(*map(ids, keys))

    async def reset(self, *, key: str) -> str:
        """Give an API key a new session id."""
        return await self.broker.reset_session(key)

    async def invalidate(self, *, value: str) -> bool:
        """Report that a token, which was handed out here, was rejected."""
        return await self.broker.invalidate(self._tokens[value])

    async def invalidate_provider(self) -> None:
        """Invalidate the current token."""
        await self.broker.invalidate_provider("crm")

    async def advance(self, *, seconds: float) -> None:
        """Advance this process's clocks."""
        self._clock.ahead += seconds

    async def status(self) -> dict[str, Any]:
        """Return what the broker reports of Redis."""
        status = self.broker.status()
        return {"shared": status.shared, "sealed": status.sealed, "unreadable": status.unreadable}


async def _reply(worker: Worker, number: int, command: str, arguments: dict[str, Any]) -> None:
    try:
        _send({"id": number, "result": await getattr(worker, command)(**arguments)})
    except Exception as error:  # noqa: BLE001  every exception is sent to the test
        _send({"id": number, "error": type(error).__name__, "text": str(error)})


def _send(message: dict[str, Any]) -> None:
    sys.stdout.write(f"{json.dumps(message)}\n")
    sys.stdout.flush()


async def main(arguments: dict[str, Any]) -> None:
    """Serve commands until stdin is closed."""
    loop, tasks = asyncio.get_running_loop(), set[asyncio.Task[None]]()
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    worker = Worker(**arguments)
    async with worker.broker:
        _send({"id": 0, "result": {"file": tokenmw.__file__, "version": tokenmw.__version__}})
        while line := await reader.readline():
            message: dict[str, Any] = json.loads(line)
            task = asyncio.ensure_future(_reply(worker, message.pop("id"), message.pop("do"), message))
            tasks.add(task)
            task.add_done_callback(tasks.discard)


if __name__ == "__main__":
    asyncio.run(main(json.loads(sys.argv[1])))
