"""Scripts that wait for a connection: the next one that is free sends them together, in one round trip.

A process has few connections, and a burst may need a script for each of a thousand tokens. One by one, they would take
as many round trips, divided by the number of connections, and most of them would miss their deadline.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections import deque
from typing import TYPE_CHECKING, Any, Final

from redis.exceptions import NoScriptError

from tokenmw.redaction import Unpicklable
from tokenmw.redis.errors import RedisUnavailable, classify
from tokenmw.redis.scripts import command_by_text, script_command

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tokenmw.clock import Clock
    from tokenmw.redis.guard import Guard
    from tokenmw.redis.scripts import ScriptName

__all__ = ["WaitingScripts"]

# With 64, a batch takes Redis 3 ms at most, and this process's event loop as long to send and to read.
_BATCH: Final = 64


class _WaitingScript(Unpicklable):
    __slots__ = ("command", "reply", "until")

    def __init__(self, command: tuple[bytes | str | int, ...], reply: asyncio.Future[Any], *, until: float) -> None:
        self.command = command
        self.reply = reply
        self.until = until

    def fail(self, reason: str) -> None:
        if not self.reply.done():
            self.reply.set_exception(RedisUnavailable(reason))


class WaitingScripts(Unpicklable):
    """The scripts of one server that wait for a connection.

    One task waits for a connection on behalf of all of them, up to `command_seconds`. When it has one, it takes as many
    as a batch has, and another task waits with the others, except for those that have waited for that long already.

    Args:
        guard: Runs each batch as one command.
        clock: The guard's.
        seconds: `command_seconds`.
    """

    __slots__ = ("_guard", "_monotonic", "_next", "_seconds", "_tasks", "_waiting")

    def __init__(self, guard: Guard, *, clock: Clock, seconds: float) -> None:
        self._guard = guard
        self._monotonic = clock.monotonic
        self._seconds = seconds
        self._waiting: deque[_WaitingScript] = deque()
        self._next: asyncio.Task[None] | None = None  # the task that has no connection yet
        self._tasks: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        return len(self._waiting)

    async def run(self, script: ScriptName, keys: Sequence[bytes], args: Sequence[bytes | str | int]) -> Any:
        """Return the reply of a script.

        Raises:
            RedisUnavailable: No connection was free in time, or the script or its batch failed.
        """
        command = script_command(script, keys[0], args, more_keys=keys[1:])
        loop = asyncio.get_running_loop()
        waiting = _WaitingScript(command, loop.create_future(), until=loop.time() + self._seconds)
        self._waiting.append(waiting)
        self._start()
        return await waiting.reply

    async def close(self) -> None:
        """Cancel the batches in progress: their callers go on without Redis."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        for script in self._take(len(self._waiting)):  # a task that was cancelled before its first step
            script.fail("connection")

    def _start(self) -> None:
        if self._next is None and self._waiting:
            # An empty context: the context variables of one request are not for the others.
            loop, context = asyncio.get_running_loop(), contextvars.Context()
            self._next = loop.create_task(self._send_next(), name="tokenmw waiting scripts", context=context)
            self._tasks.add(self._next)
            self._next.add_done_callback(self._tasks.discard)

    async def _send_next(self) -> None:
        batch: list[_WaitingScript] = []
        now = asyncio.get_running_loop().time()
        while self._waiting and self._waiting[0].until <= now:
            self._waiting.popleft().fail("busy")
        if not self._waiting:
            self._next = None
            return
        reason, began, admitted = "connection", self._monotonic(), False

        async def send() -> list[Any]:
            nonlocal admitted
            admitted = True
            batch.extend(self._take(_BATCH))
            self._next = None
            self._start()
            replies = await self._guard.send([script.command for script in batch])
            errors = [reply for reply in replies if isinstance(reply, Exception)]
            if len(errors) == len(replies) and not any(map(_of_one_key, errors)):
                raise errors[0]
            return replies

        try:
            replies = await self._guard.attempt(send)
        except RedisUnavailable as error:
            reason = error.reason
        else:
            self._finish(batch, replies, began=began)
        finally:
            if not admitted:  # none of them got a connection
                self._next = None
                batch += self._take(len(self._waiting))
            for script in batch:
                script.fail(reason)

    def _take(self, most: int) -> list[_WaitingScript]:
        return [self._waiting.popleft() for _ in range(min(most, len(self._waiting)))]

    def _finish(self, batch: list[_WaitingScript], replies: Sequence[Any], *, began: float) -> None:
        failures: list[Exception] = []
        again: list[_WaitingScript] = []
        for script, reply in zip(batch, replies, strict=True):
            if isinstance(reply, NoScriptError):
                script.command = command_by_text(script.command)
                again.append(script)
            elif isinstance(reply, Exception):
                reason = classify(reply)
                if reason == "response":
                    self._guard.refused(reply)
                else:
                    failures.append(reply)
                script.fail(reason)
            elif not script.reply.done():
                script.reply.set_result(reply)
        if failures:
            self._guard.failed(failures[0], began=began)
        if again:
            batch[:] = [script for script in batch if script not in again]
            self._waiting.extendleft(reversed(again))
            self._start()


def _of_one_key(error: Exception) -> bool:
    return isinstance(error, NoScriptError) or classify(error) == "response"
