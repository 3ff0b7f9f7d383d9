"""Counts the values in Redis by the secret that seals them, in small steps between which the server does other work.

SCAN returns each key that exists all the time at least once; one that is returned twice is counted twice. So the counts
may be too high, and none is too low.
"""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, cast

import redis.asyncio as redis

from tokenmw.redis.errors import RedisUnavailable, classify

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Sequence

    from tokenmw.redis.connection import RedisConnection
    from tokenmw.redis.keys import KeyNames

__all__ = ["KINDS", "KeyUsage", "count_values"]

_STEP: Final = 250  # keys that one SCAN visits: it takes the server 0.4 ms
_REST: Final = 1.0  # times what a step took, for which the next one waits: half of the time at most is this scan's
_HEADER: Final = 13  # bytes of a value's header; the last four are the key id
_FORMAT: Final = 1
KINDS: Final = {
    "token": "tokens",
    "session": "sessions",
    "note": "failure notes",
    "pair": "pairs of users' tokens",
    "beat": "heartbeats of instances",
}
"""The kinds of keys whose values are sealed, by the end of the key."""
_NAME: Final = re.compile(rb":v1:\{[^}]*\}:([a-z]+)(?:-[0-9]+)?$")


@dataclass(slots=True)
class KeyUsage:
    """The values under one key id.

    Attributes:
        counts: How many of each kind.
        longest: Seconds until the last of them expires; None if there is none.
        without_expiry: How many never expire.
    """

    counts: dict[str, int] = field(default_factory=dict[str, int])
    longest: float | None = None
    without_expiry: int = 0

    def add(self, kind: str, left: float | None) -> None:
        """Count a value that expires after `left` seconds; None: never."""
        self.counts[kind] = self.counts.get(kind, 0) + 1
        if left is None:
            self.without_expiry += 1
        else:
            self.longest = max(left, self.longest or 0.0)


async def count_values(
    connection: RedisConnection, names: KeyNames, *, on_step: Callable[[int], None] = lambda _visited: None
) -> dict[bytes, KeyUsage]:
    """Return what is sealed under each key id; b"" for values that are not this package's.

    Args:
        connection: The connection.
        names: The names of keys.
        on_step: Is called with the number of keys found so far.

    Raises:
        RedisUnavailable: A server cannot be asked.
    """
    found: dict[bytes, KeyUsage] = {}
    count = 0
    async for keys in _scan(connection, _pattern(names)):
        sealed = [(key, kind) for key in keys if (kind := _kind(key)) in KINDS]
        count += len(keys)
        on_step(count)
        if not sealed:
            continue
        commands = [command for key, _ in sealed for command in (("GETRANGE", key, 0, _HEADER - 1), ("PTTL", key))]
        replies = await connection.pipeline(commands, background=True)
        _add(found, [kind for _, kind in sealed], replies)
    return found


def _add(found: dict[bytes, KeyUsage], kinds: Iterable[str], replies: Sequence[Any]) -> None:
    for kind, header, left in zip(kinds, replies[::2], replies[1::2], strict=True):
        match header, left:
            case bytes(), int():
                if header and left != -2:  # else it has expired meanwhile
                    whole = len(header) == _HEADER and header[0] == _FORMAT
                    key_id = header[9:] if whole else b""
                    found.setdefault(key_id, KeyUsage()).add(KINDS[kind], None if left == -1 else left / 1000)
            case None, _:  # a key of another type
                found.setdefault(b"", KeyUsage()).add(KINDS[kind], None)
            case _:
                raise RedisUnavailable("response")


async def _scan(connection: RedisConnection, pattern: bytes) -> AsyncIterator[list[bytes]]:
    """Yield the keys of each step on each primary; after each, wait as long as the step took."""
    client: Any = connection.client
    nodes: list[Any] = [client]
    try:
        if isinstance(client, redis.RedisCluster):
            await client.initialize()
            nodes = list(client.get_primaries())
        loop = asyncio.get_running_loop()
        for node in nodes:
            cursor = b"0"
            while True:
                began = loop.time()
                reply = await node.execute_command("SCAN", cursor, "MATCH", pattern, "COUNT", _STEP)
                cursor, keys = _step(reply)
                yield keys
                if cursor == b"0":
                    break
                await asyncio.sleep(_REST * (loop.time() - began))
    except RedisUnavailable:
        raise
    except Exception as error:
        raise RedisUnavailable(classify(error)) from error


def _step(reply: Any) -> tuple[bytes, list[bytes]]:
    match reply:
        case [bytes() | int() as cursor, list()]:
            return (cursor if isinstance(cursor, bytes) else b"%d" % cursor), cast("list[bytes]", reply[1])
    raise RedisUnavailable("response")


def _pattern(names: KeyNames) -> bytes:
    return names.hints.removesuffix(b"hints") + b"*"  # a namespace has no character with a meaning in a pattern


def _kind(key: bytes) -> str:
    match = _NAME.search(key)
    return "" if match is None else match[1].decode()
