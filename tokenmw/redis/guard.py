"""Commands against one server, from their deadline to the recovery of a server that failed.

    command fails ── reason ── breaker ── the third in a row opens the circuit ── log line ── listener notified
                                                                            │
    commands run again ── listener notified ── log line ── circuit closed ── a probe has written (one background task)

While the circuit is open, commands fail at once, so that requests wait for three deadlines in all and not for one each.
"""

from __future__ import annotations

import asyncio
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, TypeVar

from redis.exceptions import NoScriptError, ResponseError

from tokenmw.redaction import Unpicklable
from tokenmw.redis.advice import advice, check_probe, summary
from tokenmw.redis.breaker import Breaker
from tokenmw.redis.client import abort_connecting, refresh_slots, renew_connection
from tokenmw.redis.deadline import Deadline
from tokenmw.redis.errors import UNKNOWN, RedisUnavailable, WrongReply, behind_retries, classify
from tokenmw.redis.failure_log import FailureLog
from tokenmw.redis.replies import checked, close_idle, send
from tokenmw.redis.scripts import DIGESTS, WRITERS, command_by_text, script_command
from tokenmw.redis.waiting_scripts import WaitingScripts

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from tokenmw.clock import Clock
    from tokenmw.limits import Limits
    from tokenmw.observe.throttle import ThrottledLog
    from tokenmw.redis.client import AnyClient
    from tokenmw.redis.listening import OnCommand, ServerListener
    from tokenmw.redis.scripts import ScriptName

__all__ = ["CommandLimiter", "Guard"]

T = TypeVar("T")

# These say nothing of the server: too many commands of this process, or the fault of one command.
_NO_OUTAGE: Final = frozenset({"busy", "response"})
_SUSPECT_SECONDS: Final = 10.0
_PROBE: Final = b":probe"


class CommandLimiter:
    """Bounds the commands to all servers together: `connections` of them run, the others wait, up to `commands`.

    It stands in front of the client, because a cluster's pool raises where a command would have to wait.

    Attributes:
        free: Admits as many commands as there are connections.
        under_way: Commands that run or wait.
    """

    __slots__ = ("_commands", "_connections", "free", "under_way")

    def __init__(self, limits: Limits) -> None:
        self._commands, self._connections = limits.commands, limits.connections
        self.free = asyncio.Semaphore(limits.connections)
        self.under_way = 0

    @property
    def load(self) -> tuple[int, int]:
        """The commands that have a connection, and those that wait for one."""
        running = min(self.under_way, self._connections - self.free._value)
        return running, self.under_way - running

    @property
    def full(self) -> bool:
        """Whether no more commands may wait."""
        return self.under_way >= self._commands


class Guard(Unpicklable):
    """Runs commands against one server, opens its circuit after three failures, and probes until it recovers.

    Args:
        client: The client of the server, or of its cluster.
        key: The first key of this server that is used.
        limits: The bounds of commands.
        limiter: Is shared by all servers.
        clock: Time.
        log: Gets failures and recoveries.
        listener: Is notified of an open and of a closed circuit.
        node: The name of the server in its cluster; "" for a single one.
        echo: Whether each batch ends with an echo, see `replies`.
        on_command: Gets the operation of each command, its seconds, and the reason of its failure, or "".

    Attributes:
        key: A key that this server has; the key that probes write is in the same slot.
        node: The name of the server in its cluster; "" for a single one.
        breaker: Its circuit breaker.
    """

    __slots__ = (
        "_client",
        "_clock",
        "_closed",
        "_echo",
        "_failures",
        "_limiter",
        "_limits",
        "_listener",
        "_on_command",
        "_probing",
        "_suspect_until",
        "_waiting_scripts",
        "breaker",
        "key",
        "node",
    )

    def __init__(
        self,
        client: AnyClient,
        *,
        key: bytes,
        limits: Limits,
        limiter: CommandLimiter,
        clock: Clock,
        log: ThrottledLog,
        listener: ServerListener,
        node: str = "",
        echo: bool = False,
        on_command: OnCommand | None = None,
    ) -> None:
        self._client = client
        self._limits = limits
        self._limiter = limiter
        self._clock = clock
        self._failures = FailureLog(log, client=client, node=node)
        self._listener = listener
        self._on_command = on_command
        self._suspect_until = float("-inf")
        self._probing: asyncio.Task[None] | None = None
        self._closed = False
        self._echo = echo
        self._waiting_scripts = WaitingScripts(self, clock=clock, seconds=limits.command_seconds)
        self.key = key
        self.node = node
        self.breaker = Breaker(clock)

    @property
    def address(self) -> str:
        """The server's address, for the log and the status."""
        return self._failures.address

    @property
    def reply_may_be_lost(self) -> bool:
        """Whether the server may execute a command whose reply is lost.

        It is assumed for 10 s after a command has failed or has taken more than half of its deadline.
        """
        return self.breaker.open or self._clock.monotonic() < self._suspect_until

    async def run(
        self,
        command: Callable[[], Awaitable[T]],
        *,
        writes: bool = False,
        background: bool = False,
        operation: str = "other",
    ) -> T:
        """Return what the command returns, within `command_seconds` from waiting for a connection to the reply.

        If a connection is made for it within that time, the time starts again then.

        `writes` is for a command that writes whenever it succeeds. One in the `background`, for which no request waits,
        has `background_seconds`.

        Raises:
            RedisUnavailable: The circuit is open, too many commands are under way, or the command failed or timed out.
        """
        self._check()
        seconds = self._limits.background_seconds if background else None
        return await self.attempt(command, seconds=seconds, writes=writes, operation=operation)

    async def run_script(
        self,
        script: ScriptName,
        keys: Sequence[bytes],
        args: Sequence[bytes | str | int],
        *,
        background: bool = False,
    ) -> Any:
        """Return the reply of a script; raises as `run` does. Scripts that wait for a connection share one."""
        if background or script in WRITERS or not (self._waiting_scripts or self._limiter.free.locked()):
            return await self.run(
                lambda: self.evaluate(script, keys, args),
                writes=script in WRITERS,
                background=background,
                operation=script,
            )
        self._check()
        self._limiter.under_way += 1
        try:
            return await self._waiting_scripts.run(script, keys, args)
        finally:
            self._limiter.under_way -= 1

    def _check(self) -> None:
        if self.breaker.open:
            raise RedisUnavailable("open")
        if self._limiter.full:
            raise RedisUnavailable("busy")

    async def evaluate(self, script: ScriptName, keys: Sequence[bytes], args: Sequence[bytes | str | int]) -> Any:
        """Run a script, as a command of `run`: by its digest, or by its text if the server does not know it."""
        command = script_command(script, keys[0], args, more_keys=keys[1:])
        if not self._echo:
            client: Any = self._client
            try:
                reply = await client.evalsha(DIGESTS[script], len(keys), *keys, *args)
            except NoScriptError:
                reply = await client.execute_command(*command_by_text(command))
            return checked(command, reply)
        (reply,) = await self.send([command])
        if isinstance(reply, NoScriptError):
            (reply,) = await self.send([command_by_text(command)])
        if isinstance(reply, Exception):
            raise reply
        return reply

    async def send(self, commands: Sequence[Sequence[bytes | str | int]]) -> list[Any]:
        """Send a batch, as a command of `run`. Return its replies, errors among them. Raises what the client raises."""
        return await send(self._client, commands, echo=self._echo)

    async def attempt(
        self,
        command: Callable[[], Awaitable[T]],
        *,
        seconds: float | None = None,
        writes: bool = False,
        trips: bool = False,
        operation: str = "other",
    ) -> T:
        """Run a command within `seconds` even if the circuit is open, as probes do.

        With `trips`, one failure opens the circuit.
        """
        began = self._clock.monotonic()
        admitted, outer = False, sys.exception()
        failure: str | None = None

        def slow() -> None:
            if admitted:  # before that, the command waits for others of this process, and not for the server
                self._suspect()

        # A probe's time to connect does not start again.
        limit = self._limits.command_seconds if seconds is None else seconds
        deadline = Deadline(limit, on_half=slow, restarts=seconds is None)
        self._limiter.under_way += 1
        try:
            async with deadline, self._limiter.free:
                admitted = True
                result = await command()
                failure = ""
        except (Exception, asyncio.CancelledError) as error:  # a client calls the user's code, which may raise anything
            if isinstance(error, asyncio.CancelledError) and _is_cancelled():
                raise
            cause = behind_retries(error, outer=outer)
            reason = failure = classify(cause) if admitted else "busy"
            if isinstance(cause, WrongReply):
                await close_idle(self._client)
            if reason == UNKNOWN:
                self._failures.client_raised(cause)
            elif reason == "response":
                self.refused(cause)
            if reason not in _NO_OUTAGE and not deadline.excused:
                self.failed(cause, began=began, trips=trips)
            raise RedisUnavailable(reason) from None
        finally:
            self._limiter.under_way -= 1
            self._finished(operation, began, failure)
        if self.breaker.succeeded(wrote=writes):
            self._failures.answers()
        return result

    def _finished(self, operation: str, began: float, failure: str | None) -> None:
        if self._on_command is not None and failure is not None:
            self._on_command(operation, self._clock.monotonic() - began, failure)

    def refused(self, error: BaseException) -> None:
        """Log an error reply that concerns one command only, without what the command was about."""
        self.breaker.answered()
        self._failures.refused(summary(error))

    def failed(self, error: BaseException, *, began: float, trips: bool = False) -> None:
        """Count a failure of a command that began at a monotonic time; with `trips`, it opens the circuit."""
        self._suspect()
        reason = classify(error)
        fix = advice(error, reason, reached=self.breaker.heard)
        opened = self.breaker.failed(reason, began=began)
        if trips and self.breaker.failing and not self.breaker.open:
            self.breaker.trip()
            opened = True
        if self.breaker.open:
            self._failures.unavailable(reason, fix=fix)
        elif not self.breaker.was_in_an_outage(began):  # that outage has been logged
            self._failures.failed(reason, fix=fix)
            if not self.breaker.failing:  # a later command has succeeded already
                self._failures.answers()
        if opened:
            self._opened(reason)

    async def probe(self, *, trips: bool = False) -> None:
        """Write to the server, and check that it has all that is needed: a full or read-only one would answer PING.

        With `trips`, a failure opens the circuit, as at the start: no request need find out again.

        Raises:
            RedisUnavailable: It takes no writes, or not within `command_seconds`, or cannot be used as it is.
        """
        # No request waits for a probe, so the first attempt may take as long as connecting does, which a client of the
        # user's does within the command. The second one shows that the server is quick enough for commands.
        seconds = self._limits.connect_seconds
        await self.attempt(self._write, seconds=seconds, writes=True, trips=trips, operation="probe")
        await self.attempt(self._write, writes=True, trips=trips, operation="probe")

    async def check(self) -> None:
        """Probe once, as quickly as a command, if commands have failed and the circuit is closed.

        It fails as one of them, or ends their row.
        """
        if self.breaker.failing and not self.breaker.open:
            with suppress(RedisUnavailable):
                await self.attempt(self._write, writes=True, operation="probe")

    async def _write(self) -> None:
        # `…{slot}:session` and `…{slot}:probe` are in one slot.
        key = self.key.rpartition(b":")[0] + _PROBE
        try:
            reply = await self.evaluate("probe", (key,), ())
        except ResponseError as error:
            # Whatever a server has against this script, it would have against all others.
            if classify(error) != "response":
                raise
            reply = None
        check_probe(reply)

    async def close(self) -> None:
        """Stop probing, and cancel what waits for a connection."""
        self._closed = True
        await self._waiting_scripts.close()
        if self._probing is not None:
            probing = self._probing
            probing.cancel()
            await asyncio.wait([probing])

    def _suspect(self) -> None:
        self._suspect_until = self._clock.monotonic() + _SUSPECT_SECONDS

    def _opened(self, reason: str) -> None:
        self._listener.server_unavailable(reason, server=self.address)
        if self._probing is None and not self._closed:
            loop = asyncio.get_running_loop()
            self._probing = loop.create_task(self._probe_until_recovered(), name="tokenmw probe of Redis")

    async def _probe_until_recovered(self) -> None:
        while not await self._probe_succeeds():
            if self._closed:
                return  # a client of the user's can lose the cancellation, as redis-py does on Python 3.11
        # First, so that a failure after the circuit is closed starts the next task.
        self._probing = None
        self.breaker.close()
        self._failures.recovered()
        self._listener.server_recovered(server=self.address)

    async def _probe_succeeds(self) -> bool:
        await self._clock.sleep(self.breaker.next_probe_delay())
        began = asyncio.get_running_loop().time()
        try:
            try:
                await renew_connection(self._client)
                await self.probe()
            except RedisUnavailable:
                await refresh_slots(self._client)  # another server of the cluster may have the slot by now
                return False
            await abort_connecting(self._client, before=began)
        except (Exception, asyncio.CancelledError) as error:  # if this task ended, Redis would never be used again
            if isinstance(error, asyncio.CancelledError) and (self._closed or _is_cancelled()):
                raise
            self._failures.probe_raised(error)
            return False
        return True


def _is_cancelled() -> bool:
    """Return whether the task was cancelled. If not, the program's client has raised a CancelledError of its own.

    That must not end a task in the background without a trace, nor seem to a caller as if its task was cancelled.
    """
    task = asyncio.current_task()
    return task is None or task.cancelling() > 0
