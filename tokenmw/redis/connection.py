"""The way to Redis as the stores see it: requires_authentication, and back by itself.

When a server is lost, the others of a cluster stay in use. When the last one is back, `on_back` is called, so that what
was made in the meantime is offered.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

from redis.exceptions import NoScriptError, ResponseError

from tokenmw.observe.events import SharedStateChanged
from tokenmw.redis.client import close_client, open_client
from tokenmw.redis.errors import RedisUnavailable
from tokenmw.redis.guard import CommandLimiter
from tokenmw.redis.scripts import WRITERS, ScriptName, called, run_script
from tokenmw.redis.servers import Server, Servers

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from tokenmw.clock import Clock
    from tokenmw.limits import Limits
    from tokenmw.observe.events import Observers
    from tokenmw.observe.throttle import ThrottledLog
    from tokenmw.redis.breaker import Breaker
    from tokenmw.redis.client import AnyClient
    from tokenmw.redis.keys import KeyNames

__all__ = ["AWAY", "Command", "RedisConnection"]

_Word: TypeAlias = bytes | str | int
Command: TypeAlias = tuple[_Word, ...]
AWAY: Final = object()  # in place of a reply: this key's server is out, others are not


class RedisConnection:
    """One Redis (or Valkey, or cluster), for one event loop."""

    def __init__(
        self,
        given: str | AnyClient,
        *,
        names: KeyNames,
        limits: Limits,
        clock: Clock,
        log: ThrottledLog,
        observers: Observers,
    ) -> None:
        self._client, self._ours = open_client(given, limits=limits)
        self._limits = limits
        self._clock = clock
        self._log = log
        self._observers = observers
        self._seats = CommandLimiter(limits.connections)
        self._primaries = Servers(self._client, names=names, make=self._primary)
        self._down = False
        self.on_back: Callable[[], None] = lambda: None

    @property
    def state(self) -> Literal["up", "down"]:
        """Whether all servers are in use."""
        return "down" if any(primary.guard.breaker.open for primary in self._primaries) else "up"

    @property
    def usable(self) -> bool:
        """Whether any server is in use."""
        return not all(primary.guard.breaker.open for primary in self._primaries)

    @property
    def since(self) -> float:
        """When the state changed last, in seconds since 1970."""
        return self._telling.since

    @property
    def error(self) -> str:
        """What went wrong last, a short word; "" if nothing did since it is up."""
        return self._telling.error

    @property
    def marks(self) -> list[bytes]:
        """The key of each server's mark."""
        return self._primaries.marks()

    async def run(self, script: ScriptName, keys: Sequence[bytes], args: Sequence[bytes | str | int]) -> Any:
        """Run a script."""
        guard = self._primaries.of(keys[0]).guard
        return await guard.run(lambda: run_script(self._client, script, keys, args), writes=script in WRITERS)

    async def execute(
        self, command: Callable[[AnyClient], Awaitable[Any]], *, key: bytes = b"{probe}:", writes: bool = False
    ) -> Any:
        """Run one command, which is about this key. `writes` is for one that always does."""
        return await self._primaries.of(key).guard.run(lambda: command(self._client), writes=writes)

    def doubtful(self, key: bytes) -> bool:
        """Return whether a reply about this key may well be lost, as far as the last seconds show."""
        return self._primaries.of(key).guard.doubtful

    def over_at(self, key: bytes) -> int | None:
        """Return when nobody waits for a command of now any more, in ms by the clock of this key's server.

        None while nothing is known of that clock.
        """
        ahead = self._primaries.of(key).ahead
        now = asyncio.get_running_loop().time()
        return None if ahead is None else int((now + ahead + self._limits.command_seconds) * 1000)

    def learn_time(self, key: bytes, milliseconds: int, *, began: float) -> None:
        """Take note of what this key's server said its time was, in a command that began at a time of the loop's."""
        self._primaries.of(key).ahead = milliseconds / 1000 - began

    async def run_each(self, script: ScriptName, calls: Sequence[tuple[bytes, Sequence[_Word]]]) -> list[Any]:
        """Run a script for many keys in one go. Replies are as those of `pipeline`."""
        if not calls:
            return []
        replies = await self.pipeline([called(script, key, args) for key, args in calls])
        unknown = [number for number, reply in enumerate(replies) if isinstance(reply, NoScriptError)]
        if unknown:
            again = [called(script, *calls[number], by_text=True) for number in unknown]
            for number, reply in zip(unknown, await self.pipeline(again), strict=True):
                replies[number] = reply
        return replies

    async def pipeline(self, commands: Sequence[Command]) -> list[Any]:
        """Run many commands in one go. One that failed alone gives None, one whose server is out `AWAY`.

        Raises:
            RedisUnavailable: All of them failed so.
        """
        groups: dict[Server, list[int]] = {}
        for number, command in enumerate(commands):
            groups.setdefault(self._primaries.of(_key_of(command)), []).append(number)
        sent = [
            primary.guard.run(lambda part=part: self._send([commands[n] for n in part]))  # type: ignore[misc]
            for primary, part in groups.items()
        ]
        replies: list[Any] = [AWAY] * len(commands)
        ends = await asyncio.gather(*sent, return_exceptions=True)
        lost = [end for end in ends if isinstance(end, BaseException)]
        if lost and len(lost) == len(ends):
            raise lost[0]
        for part, end in zip(groups.values(), ends, strict=True):
            if isinstance(end, BaseException):
                if not isinstance(end, RedisUnavailable):
                    raise end
                continue
            for number, reply in zip(part, end, strict=True):
                replies[number] = reply
        return replies

    async def _send(self, commands: Sequence[Command]) -> list[Any]:
        batch = self._client.pipeline(transaction=False)
        for command in commands:
            batch.execute_command(*command)
        replies: list[Any] = await batch.execute(raise_on_error=False)
        for number, reply in enumerate(replies):
            if isinstance(reply, Exception) and not isinstance(reply, NoScriptError):
                # One key of another type is that key's fault; a read-only server is all keys', and counts.
                if not _of_one_key(reply):
                    raise reply
                replies[number] = None
        return replies

    async def open(self) -> bool:
        """Make the first connection, for `connect_seconds` at most. Return whether Redis takes writes."""
        try:
            await next(iter(self._primaries)).probe()
        except RedisUnavailable:
            return False
        return True

    async def close(self) -> None:
        """Stop probing; close the client if it is ours. Waits for nobody."""
        for primary in self._primaries:
            await primary.close()
        if self._ours:
            await close_client(self._client)

    @property
    def _telling(self) -> Breaker:
        # Of several, the one that is out longest; if none is, the one that came back last.
        breakers = [primary.guard.breaker for primary in self._primaries]
        out = [breaker for breaker in breakers if breaker.open]
        return min(out, key=lambda one: one.since) if out else max(breakers, key=lambda one: (one.since, one.error))

    def _primary(self, key: bytes) -> Server:
        primary = Server(
            self._client,
            key=key,
            limits=self._limits,
            clock=self._clock,
            seats=self._seats,
            log=self._log,
            look_again=self._look_again,
        )
        primary.on_lost = self._lost
        primary.on_back = self._back
        return primary

    async def _look_again(self) -> None:
        await self._primaries.look_again()

    def _lost(self, word: str) -> None:
        if not self._down:
            self._down = True
            self._observers(SharedStateChanged(up=False, error=word))

    def _back(self) -> None:
        if self.state == "up":
            self._down = False
            self._log.recovered("redis", "Redis is back")
            self._observers(SharedStateChanged(up=True))
        self.on_back()


def _key_of(command: Command) -> bytes:
    key = command[3] if command[0] in ("EVALSHA", "EVAL") else command[1]
    return key if isinstance(key, bytes) else str(key).encode()


def _of_one_key(error: Exception) -> bool:
    return type(error) is ResponseError and str(error).startswith("WRONGTYPE")
