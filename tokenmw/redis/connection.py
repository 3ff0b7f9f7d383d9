"""What the stores use: runs scripts and commands on the server of their key, and knows whether Redis is in use.

In a cluster one unavailable server makes the state `down`, but the others stay in use. Each time a server has
recovered, `on_recovered` is called, so that what changed in the meantime is uploaded.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from redis.exceptions import ClusterCrossSlotError, NoScriptError, ResponseError

from tokenmw.observe.events import SharedStateChanged
from tokenmw.observe.state_events import RedisCommandFinished, RedisStateChanged
from tokenmw.redaction import Unpicklable
from tokenmw.redis.client import address_of, close_client, open_client, open_connections
from tokenmw.redis.errors import RedisUnavailable, classify
from tokenmw.redis.scripts import DIGESTS, ScriptName, command_by_text, script_command
from tokenmw.redis.servers import Server, Servers

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from tokenmw.clock import Clock
    from tokenmw.limits import Limits
    from tokenmw.observe.events import Event
    from tokenmw.observe.throttle import ThrottledLog
    from tokenmw.redis.breaker import Breaker, State
    from tokenmw.redis.client import AnyClient, RedisOption
    from tokenmw.redis.keys import KeyNames

__all__ = ["OPERATIONS", "UNAVAILABLE", "Command", "RedisConnection"]

_Argument: TypeAlias = bytes | str | int
Command: TypeAlias = tuple[_Argument, ...]
# Connections made before the first request: as many as first sights take, and one more for its token. While a fleet
# starts, each round trip of a handshake may take as long as a command may.
_OPENED_FIRST: Final = 3
_SCRIPTS: Final = {digest: name for name, digest in DIGESTS.items()}
_PROBE_KEYS: Final = 16  # two servers share them unevenly enough to be taken for one in 1 of 32 768 cases
_REFUSALS: Final = frozenset({"permission", "unsupported", "response"})
# What metrics call a script, or the first command of a batch; anything else is `other`.
OPERATIONS: Final = {
    **{name: name for name in ("acquire", "commit", "release", "read", "compare", "tombstone", "probe")},
    **dict.fromkeys(("session", "sessions", "put"), "session"),
    "GETRANGE": "compare",
    "GETEX": "touch",
}
UNAVAILABLE: Final = object()  # in place of a reply: the server did not serve this command, but others of its batch


class RedisConnection(Unpicklable):
    """One Redis, Valkey or cluster, in one event loop.

    Args:
        given: The `redis` option: a URL or a client.
        names: The names of keys.
        limits: The bounds of commands.
        clock: Time.
        log: Gets failures and recoveries.
        observe: Gets a `SharedStateChanged` when the state changes, and a `RedisStateChanged` for each server.
        observe_commands: Whether it gets a `RedisCommandFinished` for each command, too.
        on_recovered: Is called each time a server has recovered.
        echo: Whether each batch ends with an echo, as values that are not sealed need: see `replies`.
    """

    def __init__(
        self,
        given: str | RedisOption,
        *,
        names: KeyNames,
        limits: Limits,
        clock: Clock,
        log: ThrottledLog,
        observe: Callable[[Event], None],
        on_recovered: Callable[[], None],
        echo: bool = False,
        observe_commands: bool = False,
    ) -> None:
        self._client, self._ours = open_client(given, limits=limits)
        self._limits = limits
        self._clock = clock
        self._log = log
        self._observe = observe
        self._on_recovered = on_recovered
        self._servers = Servers(
            self._client,
            names=names,
            limits=limits,
            clock=clock,
            log=log,
            listener=self,
            echo=echo,
            on_command=self._observe_command if observe_commands else None,
        )
        self._observed_down = False
        self._probe_keys = [names.key(f"slots-{number}", "probe") for number in range(_PROBE_KEYS)]
        self._takes_all_slots: bool | None = None

    @property
    def state(self) -> State:
        """`up` if all servers are in use, `unknown` until one has answered; else why one is not in use."""
        significant = self._significant
        if significant.open:
            return significant.state
        return "up" if any(server.guard.breaker.heard for server in self._servers) else "unknown"

    @property
    def usable(self) -> bool:
        """Whether any server is in use."""
        return not all(server.guard.breaker.open for server in self._servers)

    @property
    def settled(self) -> bool:
        """Whether any server is in use whose last command did not fail."""
        return not all(server.guard.breaker.failing for server in self._servers)

    @property
    def since(self) -> float:
        """When the state changed last, in seconds since 1970."""
        return self._significant.since

    @property
    def error(self) -> str:
        """The reason of the last failure, a short word; "" if there was none since the last outage."""
        return self._significant.error

    @property
    def error_at(self) -> float | None:
        """When that failure happened, in seconds since 1970; None without one."""
        return self._significant.error_at

    @property
    def servers(self) -> dict[str, tuple[State, float, str, float | None]]:
        """The state of each server by its address, since when, and the reason and time of its last failure."""
        found: dict[str, tuple[State, float, str, float | None]] = {}
        for server in self._servers.current:
            breaker = server.guard.breaker
            # Until the client of a cluster knows the slots, one without a name stands for all servers.
            if server.guard.node or breaker.open or len(self._servers) == 1:
                found[server.guard.address] = (breaker.state, breaker.since, breaker.error, breaker.error_at)
        return found

    @property
    def client(self) -> AnyClient:
        """The client, of which another connection gets its options."""
        return self._client

    @property
    def address(self) -> str:
        """The address of the server, or of one of a cluster, for the log."""
        return address_of(self._client)

    @property
    def one_slot(self) -> bool:
        """Whether all keys are on one server: the client is not a cluster's."""
        return self._servers.one_slot

    @property
    def takes_all_slots(self) -> bool:
        """Whether a command may have keys of several slots, as far as is known: one server has all of them."""
        return self.one_slot and self._takes_all_slots is not False

    @property
    def epoch_keys(self) -> list[bytes]:
        """The key of each server's epoch marker."""
        return self._servers.epoch_keys()

    async def open(self) -> bool:
        """Make the first connections, within `connect_seconds`. Return whether Redis takes writes."""
        try:
            await next(iter(self._servers)).guard.probe(trips=True)
        except RedisUnavailable:
            return False
        if self._ours:
            await open_connections(self._client, min(_OPENED_FIRST, self._limits.connections))
        return True

    async def check_servers(self) -> None:
        """Forget servers that have left the cluster, and probe those that failed a command, unless the circuit is open.

        Called in the background once a second, so that an outage is noticed without requests.
        """
        self._servers.forget_departed()
        await asyncio.gather(*(server.guard.check() for server in self._servers if server.guard.breaker.failing))

    async def close(self) -> None:
        """Stop probing, and close the client if it was made here. Does not wait for any server."""
        for server in self._servers:
            await server.guard.close()
        if self._ours:
            await close_client(self._client)

    async def run(
        self, script: ScriptName, keys: Sequence[bytes], args: Sequence[_Argument], *, background: bool = False
    ) -> Any:
        """Run a script; in the `background` if no request waits for it. Raises `RedisUnavailable`."""
        return await self._servers.of(keys[0]).guard.run_script(script, keys, args, background=background)

    async def execute(self, command: Callable[[AnyClient], Awaitable[Any]], *, key: bytes, writes: bool = False) -> Any:
        """Run one command for a key. `writes` is for one that always writes. Raises `RedisUnavailable`."""
        return await self._servers.of(key).guard.run(lambda: command(self._client), writes=writes)

    async def run_for_each(
        self, script: ScriptName, calls: Sequence[tuple[bytes, Sequence[_Argument]]], *, background: bool = False
    ) -> list[Any]:
        """Run a script for many keys, each with its arguments, in one batch. Returns and raises as `pipeline` does."""
        commands = [script_command(script, key, args) for key, args in calls]
        return await self.pipeline(commands, background=background) if commands else []

    async def run_on_all(
        self, script: ScriptName, keys: Sequence[bytes], args: Sequence[_Argument]
    ) -> list[Any] | None:
        """Run a script on many keys of one server; it has a reply for each. Returns and raises as `pipeline` does.

        Return None if a command may only have keys of one slot, although the client is not a cluster's: the cluster has
        one node, or a proxy in front of it. From then on `takes_all_slots` is False.
        """
        server = self._servers.of(keys[0])
        if self._takes_all_slots is None:
            self._takes_all_slots = await server.guard.run(lambda: self._has_all_slots(server))
        if not self._takes_all_slots:
            return None

        async def send() -> list[Any]:
            began = self._clock.monotonic()
            return self._checked(server, await server.guard.evaluate(script, keys, args), began=began)

        return await server.guard.run(send, operation=script)

    async def _has_all_slots(self, server: Server) -> bool:
        """Check that a script finds what it writes to several slots: a proxy may run it where its first key is."""
        keys = self._probe_keys
        try:
            await server.guard.evaluate("sessions", keys, ("1000", "", *(b"1" for _ in keys)))
        except ClusterCrossSlotError:
            return False
        replies = await server.guard.send([("GET", key) for key in keys])
        for reply in replies:
            if isinstance(reply, Exception):
                raise reply
        return None not in replies

    async def pipeline(
        self, commands: Sequence[Command], *, background: bool = False, optional: bool = False
    ) -> list[Any]:
        """Run many commands, one batch for each server; in the `background` if no request waits for them.

        A script that a server does not know is run by its text. `optional` is for commands that the caller can do
        without: for one that an ACL, made for an earlier version, or a proxy refuses, the reply is None as well.

        Return their replies: None for a command that failed because of its own key, `UNAVAILABLE` for one that failed
        for another reason, as when its server is unavailable.

        Raises:
            RedisUnavailable: All of them failed for another reason.
        """
        replies = await self._batches(commands, background=background, optional=optional)
        unknown = [number for number, reply in enumerate(replies) if isinstance(reply, NoScriptError)]
        if unknown:
            try:
                by_text = [command_by_text(commands[number]) for number in unknown]
                again = await self._batches(by_text, background=background)
            except RedisUnavailable:
                if len(unknown) == len(commands):
                    raise
                again = [UNAVAILABLE] * len(unknown)  # the other replies are good
            for number, reply in zip(unknown, again, strict=True):
                replies[number] = reply
        return replies

    async def _batches(self, commands: Sequence[Command], *, background: bool, optional: bool = False) -> list[Any]:
        batches: dict[Server, list[int]] = {}
        for number, command in enumerate(commands):
            batches.setdefault(self._servers.of(_key_of(command)), []).append(number)
        if len(batches) == 1:
            (server,) = batches
            return await server.guard.run(
                lambda: self._send(server, commands, optional=optional),
                background=background,
                operation=_operation_of(commands),
            )
        running = [
            server.guard.run(
                lambda server=server, numbers=numbers: self._send(  # type: ignore[misc]
                    server, [commands[n] for n in numbers], optional=optional
                ),
                background=background,
                operation=_operation_of(commands),
            )
            for server, numbers in batches.items()
        ]
        replies: list[Any] = [UNAVAILABLE] * len(commands)
        results = await asyncio.gather(*running, return_exceptions=True)
        failures = [result for result in results if isinstance(result, BaseException)]
        if failures and len(failures) == len(results):
            raise failures[0]
        for numbers, result in zip(batches.values(), results, strict=True):
            if isinstance(result, BaseException):
                if not isinstance(result, RedisUnavailable):
                    raise result
                continue
            for number, reply in zip(numbers, result, strict=True):
                replies[number] = reply
        return replies

    def reply_may_be_lost(self, key: bytes) -> bool:
        """Return whether the server of a key may execute a command whose reply is lost, judging by the last seconds."""
        return self._servers.of(key).guard.reply_may_be_lost

    def server_deadline(self, key: bytes) -> int | None:
        """Return the time in ms, by the clock of a key's server, after which nobody waits for a command sent now.

        None while nothing is known of that clock.
        """
        offset = self._servers.of(key).clock_offset
        now = asyncio.get_running_loop().time()
        return None if offset is None else int((now + offset + self._limits.command_seconds) * 1000)

    def note_server_time(self, key: bytes, milliseconds: int, *, began: float) -> None:
        """Note the time that a key's server returned to a command which began at `began`, the event loop's time."""
        self._servers.of(key).clock_offset = milliseconds / 1000 - began

    @property
    def load(self) -> tuple[int, int]:
        """The commands that have a connection, and those that wait for one."""
        return self._servers.load

    def server_unavailable(self, reason: str, *, server: str) -> None:
        """Notify the observers of a server whose circuit opens; if it is the first one, of that, too."""
        self._observe(RedisStateChanged(server, up=False, error=reason))
        if not self._observed_down:
            self._observed_down = True
            self._observe(SharedStateChanged(up=False, error=reason))

    def server_recovered(self, *, server: str) -> None:
        """Arrange the upload; notify the observers, also of whether it was the last one that was unavailable."""
        self._observe(RedisStateChanged(server, up=True))
        if self.state == "up":
            self._observed_down = False
            self._observe(SharedStateChanged(up=True))
        self._on_recovered()

    def _observe_command(self, operation: str, seconds: float, error: str) -> None:
        self._observe(RedisCommandFinished(OPERATIONS.get(operation, "other"), seconds, error))

    async def _send(self, server: Server, commands: Sequence[Command], *, optional: bool = False) -> list[Any]:
        began = self._clock.monotonic()
        replies = await server.guard.send(commands)
        if optional:
            replies = [None if _is_refusal(reply) else reply for reply in replies]
        return self._checked(server, replies, began=began)

    def _checked(self, server: Server, replies: list[Any], *, began: float) -> list[Any]:
        errors = {
            number: reply
            for number, reply in enumerate(replies)
            if isinstance(reply, Exception) and not isinstance(reply, NoScriptError)
        }
        # A key of another type says nothing of the server. A refused write does, but other replies may be good.
        failures = [error for error in errors.values() if classify(error) != "response"]
        if failures and len(errors) == len(replies):
            raise failures[0]
        for number, error in errors.items():
            if classify(error) == "response":
                server.guard.refused(error)
                replies[number] = None
            else:
                replies[number] = UNAVAILABLE
        if failures:
            server.guard.failed(failures[0], began=began)
        return replies

    @property
    def _significant(self) -> Breaker:
        # The breaker that has been open longest; if none is open, the one that closed last.
        breakers = [server.guard.breaker for server in self._servers]
        open_ = [breaker for breaker in breakers if breaker.open]
        return min(open_, key=lambda one: one.since) if open_ else max(breakers, key=lambda one: (one.since, one.error))


def _is_refusal(reply: Any) -> bool:
    """Return whether a server or a proxy serves no such command, or not for this key or user."""
    return isinstance(reply, ResponseError) and not isinstance(reply, NoScriptError) and classify(reply) in _REFUSALS


def _operation_of(commands: Sequence[Command]) -> str:
    name, digest = commands[0][0], commands[0][1]
    return _SCRIPTS.get(str(digest), "other") if name == "EVALSHA" else str(name)


def _key_of(command: Command) -> bytes:
    key = command[3] if command[0] in ("EVALSHA", "EVAL") else command[1]
    return key if isinstance(key, bytes) else str(key).encode()
