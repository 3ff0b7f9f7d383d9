"""Listens for what other processes have changed: one connection, subscribed to one channel.

A hint is a Redis key without the prefix that all keys share, such as `{digest}:token`: about 40 bytes, none of them
secret. It only makes this process read that key, so a forged hint costs a read, and a lost one delays a change until
the next check. The scripts that change a key publish the hint. Each time the connection was made, all tokens are
checked, because hints may have been missed; a session that was reset meanwhile is read at its next touch.

redis-py makes the connection, also for a client of valkey-glide. The bytes that arrive after that are not parsed but searched for hints: garbage is
skipped, and of a message of any length no more bytes are kept than the longest hint has.
"""

from __future__ import annotations

import asyncio
import random
import re
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

import redis.asyncio as redis
from redis.asyncio.sentinel import SentinelConnectionPool
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from tokenmw.redaction import Unpicklable
from tokenmw.redis.background_connect import BackgroundConnection
from tokenmw.redis.client import address_of, plain_options
from tokenmw.redis.errors import UNKNOWN, Unsuitable, classify
from tokenmw.redis.glide.adapter import GlideAdapter

if TYPE_CHECKING:
    from collections.abc import Callable

    from redis.asyncio.connection import AbstractConnection

    from tokenmw.limits import Limits
    from tokenmw.observe.throttle import ThrottledLog
    from tokenmw.redis.client import AnyClient
    from tokenmw.redis.keys import KeyNames

__all__ = ["HintListener"]

_CHUNK: Final = 1 << 16
_FLOOD_PAUSE: Final = 0.01  # seconds after a full chunk: a flood waits in the server, which closes the connection
_PING_SECONDS: Final = 0.75
_MOST_PINGS: Final = 2  # without an answer; a connection that lost its peer is noticed after 2.25 s
_PING: Final = b"*1\r\n$4\r\nPING\r\n"
_FIRST_DELAY: Final = 0.1  # seconds before the connection is made again
# Hints are heard within 2 s of the server's return: one attempt that began before it, and one delay.
_LONGEST_DELAY: Final = 1.0
_LEAST_CONNECT_SECONDS: Final = 1.0
_SLOWER: Final = 4.0  # times what the last connection took, for the next one to be made
_FORGET_AFTER: Final = 10  # attempts in a row that failed, after which connecting may take `connect_seconds` again
_STABLE_SECONDS: Final = 10.0  # a connection that lasted longer starts with the first delay again
_REPORT_AFTER: Final = 10.0  # seconds without hints; a failover or a restart takes less
_REFUSED_DELAY: Final = 60.0  # seconds until a server that refuses the channel is asked again
_REFUSALS: Final = frozenset({"permission", "unsupported", "response"})  # the last one of a proxy, in its own words
_OFF: Final = "Hints off (%s, %s): %s; until they work, tokens that other processes invalidate are used for up to %s s"
_CUT: Final = (
    "Hints off (%s, %s); until the connection is made, tokens that other processes invalidate are used for up to %s s"
)
_FIX_ACL: Final = "ACL SETUSER <user> +subscribe +publish +ping &%s, or TokenBroker(hints=False)"
_FIX_SUPPORT: Final = "SUBSCRIBE and PUBLISH are not supported; TokenBroker(hints=False) omits them"
_FIX_CLIENT: Final = "the client's own connection class cannot be used; TokenBroker(hints=False) omits hints"


class HintListener(Unpicklable):
    """Listens in the event loop in which it runs, and connects again whenever the connection is lost.

    Args:
        client: The client that runs the commands; the connection gets its options.
        names: The names of keys and of the channel.
        limits: `connect_seconds` bounds connecting.
        log: Gets what prevents listening.
        usable: Returns whether commands reach Redis. If they do not, only that is logged.
        on_hint: Is called with each key that was announced.
        on_listening: Is called after each connection, for what was missed.

    Attributes:
        listening: Whether the connection is made, so that what other processes announce is heard.
        refused: Whether the server has refused the channel at the last attempt, so that nothing is announced either.
    """

    __slots__ = (
        "_channel",
        "_check_seconds",
        "_client",
        "_connect_seconds",
        "_failures",
        "_hint",
        "_keep",
        "_log",
        "_lost_at",
        "_on_hint",
        "_on_listening",
        "_prefix",
        "_reported",
        "_took",
        "_usable",
        "listening",
        "refused",
    )

    def __init__(
        self,
        client: AnyClient,
        *,
        names: KeyNames,
        limits: Limits,
        log: ThrottledLog,
        usable: Callable[[], bool],
        on_hint: Callable[[bytes], None],
        on_listening: Callable[[], None],
    ) -> None:
        self._client = client
        self._channel = names.hints
        self._prefix = names.hints.removesuffix(b"hints")
        # A message, as RESP2 has it, whose text has the form of a hint.
        head = b"*3\r\n$7\r\nmessage\r\n$%d\r\n%b\r\n" % (len(self._channel), self._channel)
        self._hint = re.compile(re.escape(head) + rb"\$4[02]\r\n(\{[\w=-]{32}\}:(?:token|session))\r\n")
        self._keep = len(head) + 64  # bytes that may be the beginning of a hint
        self._connect_seconds = limits.connect_seconds
        self._check_seconds = limits.check_seconds
        self._log = log
        self._usable = usable
        self._on_hint = on_hint
        self._on_listening = on_listening
        self._lost_at: float | None = None
        self._reported = False
        self._took: float | None = None
        self._failures = 0
        self.listening = self.refused = False

    async def run(self) -> None:
        """Listen until cancelled. Nothing that the server, the network or the client does ends it."""
        task, loop = asyncio.current_task(), asyncio.get_running_loop()
        self._lost_at = loop.time()
        pause, delay = 0.0, _FIRST_DELAY
        # redis-py can lose a cancellation on Python 3.11. So nothing is awaited between listening and this condition.
        while task is None or not task.cancelling():
            await asyncio.sleep(pause)
            began = loop.time()
            reason = await self._listen_once()
            if loop.time() - began > _STABLE_SECONDS:
                delay = _FIRST_DELAY
            pause = _REFUSED_DELAY if reason in _REFUSALS else delay * random.uniform(0.5, 1.0)
            delay = min(_LONGEST_DELAY, delay * 2)

    async def _listen_once(self) -> str:
        """Connect, and listen until the connection is lost. Return why it was."""
        connection: AbstractConnection | None = None
        try:
            connection = _new_connection(self._client)
            await self._subscribe(connection)
            self._listening()
            await self._read(connection)
        except Exception as error:  # noqa: BLE001  a client calls the program's own code, which may raise anything
            reason = classify(error)
            self.refused = reason in _REFUSALS
            self._lost(reason, fix=error.fix if isinstance(error, Unsuitable) else "")
            return reason
        finally:
            self.listening = False
            if connection is not None:
                await _abort(connection)
        return ""

    async def _subscribe(self, connection: AbstractConnection) -> None:
        loop = asyncio.get_running_loop()
        began, seconds = loop.time(), self._connect_seconds
        if self._took is not None and self._failures < _FORGET_AFTER:
            seconds = min(seconds, max(_LEAST_CONNECT_SECONDS, _SLOWER * self._took))
        self._failures += 1
        async with asyncio.timeout(seconds):
            connect: Any = connection.connect  # it has no types
            await connect()
            # PUBLISH first: where it is forbidden, the scripts ignore the error. The empty text is no hint.
            for command in (("PUBLISH", self._channel, b""), ("SUBSCRIBE", self._channel)):
                await connection.send_command(*command, check_health=False)
                await connection.read_response()
        self._took, self._failures = loop.time() - began, 0

    async def _read(self, connection: Any) -> None:
        reader: asyncio.StreamReader = connection._reader
        task, rest, pings = asyncio.current_task(), b"", 0
        while True:
            if task is not None and task.cancelling():  # it was lost while connecting, see `run`
                raise asyncio.CancelledError
            try:
                async with asyncio.timeout(_PING_SECONDS):
                    data = await reader.read(_CHUNK)
            except TimeoutError:
                if pings >= _MOST_PINGS or _has_moved(self._client, connection):
                    raise RedisTimeoutError("no answer to PING, or from another server") from None
                pings += 1
                connection._writer.write(_PING)
                continue
            if not data:
                raise RedisConnectionError("closed by the server")
            pings = 0
            rest = self._take(rest + data)
            if len(data) == _CHUNK:
                await asyncio.sleep(_FLOOD_PAUSE)

    def _take(self, data: bytes) -> bytes:
        """Pass on the hints in what has arrived. Return the end, which may be the beginning of another one."""
        end = 0
        hints: set[bytes] = set()
        for found in self._hint.finditer(data):
            hints.add(found[1])
            end = found.end()
        for hint in hints:
            self._on_hint(self._prefix + hint)
        return data[max(end, len(data) - self._keep) :]

    def _listening(self) -> None:
        self._lost_at, self._reported = None, False
        self.listening, self.refused = True, False
        server = address_of(self._client)
        self._log.recovered("redis-hints", "Hints work again (%s)", server, server=server)
        self._on_listening()

    def _lost(self, reason: str, *, fix: str) -> None:
        now = asyncio.get_running_loop().time()
        if self._lost_at is None:
            self._lost_at = now
        if self._reported:
            return
        server, seconds = address_of(self._client), f"{self._check_seconds:g}"
        fix = fix or {
            "permission": _FIX_ACL % self._channel.decode(),
            "unsupported": _FIX_SUPPORT,
            "response": _FIX_SUPPORT,
            UNKNOWN: _FIX_CLIENT,
        }.get(reason, "")
        if fix:
            self._reported = True
            self._log.problem("redis-hints", _OFF, reason, server, fix, seconds, reason=reason, server=server)
        elif now - self._lost_at >= _REPORT_AFTER and self._usable():
            self._reported = True
            self._log.problem("redis-hints", _CUT, reason, server, seconds, reason=reason, server=server)


def _new_connection(client: AnyClient) -> AbstractConnection:
    """Return a connection with the options of a client, which is not in its pool, so that no command waits for it."""
    source: Any
    if isinstance(client, redis.RedisCluster):
        # Any node will do: each passes on what is published to another one.
        nodes = client.nodes_manager
        source = random.choice([*nodes.nodes_cache.values()] or [*nodes.startup_nodes.values()])
    else:
        source = (client.subscriber() if isinstance(client, GlideAdapter) else client).connection_pool
    made: AbstractConnection = source.connection_class(**{**source.connection_kwargs, **plain_options()})
    return made


def _has_moved(client: AnyClient, connection: Any) -> bool:
    """Return whether a Sentinel has named another primary, or the cluster lost the node, since the connection was made.

    A node that was removed from its cluster still answers, and hears nothing of what the others pass on.
    """
    if isinstance(client, redis.RedisCluster):
        nodes = client.nodes_manager.nodes_cache
        return bool(nodes) and f"{connection.host}:{connection.port}" not in nodes
    if isinstance(client, GlideAdapter) or not isinstance(client.connection_pool, SentinelConnectionPool):
        return False
    primary: Any = client.connection_pool
    return primary.master_address not in (None, (connection.host, connection.port))


async def _abort(connection: Any) -> None:
    with suppress(Exception):  # a connection's class may be the program's own, which may raise anything
        if isinstance(connection, BackgroundConnection):
            await connection.abort()
            return
        writer: asyncio.StreamWriter | None = getattr(connection, "_writer", None)
        if writer is not None:
            writer.transport.abort()  # close() would wait for a server that hangs
        await connection.disconnect(nowait=True)
