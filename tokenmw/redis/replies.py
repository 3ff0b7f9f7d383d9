"""Replies that are not those of their commands: what shows them, and what is done about them.

Where something between this process and Redis repeats a reply, or a client gives up a command at the wrong moment, each
command of the connection gets the reply of one before it: one API key the session id of another one, one provider the
token of another one. Where a reply is damaged, it may have any form.

1. Each reply has the form of its command's replies, or is an error.
2. A value that is sealed opens only under the key that it was asked for.
3. Where values are not sealed, each batch ends with an echo of random bytes. If these do not come last, the replies
   before them may be of other commands.

A reply that fails a check counts as a failure of the server, and its connection is closed.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import redis.asyncio as redis

from tokenmw.redis.background_connect import BackgroundConnection
from tokenmw.redis.errors import WrongReply
from tokenmw.redis.glide.adapter import GlideAdapter
from tokenmw.redis.scripts import DIGESTS, SOURCES

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tokenmw.redis.client import AnyClient
    from tokenmw.redis.scripts import ScriptName

__all__ = ["checked", "close_idle", "send"]

_Command: TypeAlias = "Sequence[bytes | str | int]"
_ECHO: Final = "return ARGV[1]"  # in a cluster, only a command with a key goes to the server of the others
_NONCE: Final = 8  # bytes


async def send(client: AnyClient, commands: Sequence[_Command], *, echo: bool) -> list[Any]:
    """Send commands to one server in one round trip, and return their replies, errors among them.

    Raises:
        WrongReply: A reply is not that of its command.
    """
    batch: Any = client.pipeline(transaction=False)
    for command in commands:
        batch.execute_command(*command)
    nonce = os.urandom(_NONCE) if echo else b""
    if echo:
        batch.execute_command("EVAL", _ECHO, 1, _key_of(commands[0]), nonce)
    replies: list[Any] = await batch.execute(raise_on_error=False)
    if echo and (last := replies.pop()) != nonce:
        if not isinstance(last, Exception):
            raise WrongReply
        if not all(isinstance(reply, Exception) for reply in replies):
            raise last
    return [checked(command, reply) for command, reply in zip(commands, replies, strict=True)]


def checked(command: _Command, reply: Any) -> Any:
    """Return the reply to a command.

    Raises:
        WrongReply: It has another form than the replies to such a command.
    """
    name = command[1] if command[0] in {"EVALSHA", "EVAL"} else command[0]
    fits = _FORMS.get(name)
    if fits is None or isinstance(reply, Exception):
        return reply
    if not fits(reply) or (fits is _are_sessions and len(reply) != _count_sessions(command)):
        raise WrongReply
    return reply


async def close_idle(client: AnyClient) -> None:
    """Close the connections of a client that no command uses: one of them has just had a wrong reply."""
    if isinstance(client, GlideAdapter):
        await client.renew()  # all commands share its connection
        return
    idle: list[Any]
    if isinstance(client, redis.RedisCluster):
        idle = [connection for node in client.get_nodes() for connection in list(getattr(node, "_free", ()))]
    else:
        idle = list(getattr(client.connection_pool, "_available_connections", ()))
    for connection in idle:
        if isinstance(connection, BackgroundConnection):
            await connection.abort()
        else:
            await connection.disconnect(nowait=True)


def _key_of(command: _Command) -> bytes | str | int:
    return command[3] if command[0] in {"EVALSHA", "EVAL"} else command[1]


def _is_number(value: Any) -> bool:
    return isinstance(value, bytes) and value.isdigit()


def _is_text(value: Any) -> bool:
    return value is None or isinstance(value, bytes)


def _is_integer(value: Any) -> bool:
    return isinstance(value, int)


def _is_read(reply: Any) -> bool:
    match reply:
        case [None | bytes(), int(), tombstone, int()]:
            return _is_number(tombstone)
    return False


def _is_acquired(reply: Any) -> bool:
    match reply:
        case [b"lease", version, int(), int()]:
            return _is_number(version)
        case [b"token" | b"held" | b"note" | b"clock", bytes(), int(), int()]:
            return True
    return False


def _is_committed(reply: Any) -> bool:
    match reply:
        case [b"stored" | b"newer" | b"held" | b"tombstone" | b"clock", bytes(), int(), int()]:
            return True
    return False


def _is_tombstone(reply: Any) -> bool:
    match reply:
        case [b"tombstone" | b"newer" | b"clock", bytes(), int(), tombstone, int()]:
            return _is_number(tombstone)
    return False


def _is_comparison(reply: Any) -> bool:
    match reply:
        case [bytes() as header, tombstone]:
            return len(header) in {0, 13} and _is_number(tombstone)
    return False


def _is_session(reply: Any) -> bool:
    match reply:
        case None | bytes() | int() | [bytes()] | Exception():
            return True
    return False


def _are_sessions(reply: Any) -> bool:
    match reply:
        case [*values]:
            return all(map(_is_session, values))
    return False


def _count_sessions(command: _Command) -> int:
    # EVALSHA, digest, number of keys, keys, ms to live, deadline; then a candidate for each session.
    return len(command) - 5 - int(command[2])


def _is_marker(reply: Any) -> bool:
    match reply:
        case [bytes(), int(), int(), int()]:
            return True
    return False


def _are_beats(reply: Any) -> bool:
    match reply:
        case [int(), *rest] if len(rest) % 3 == 0:
            kinds = (int, bytes, int)
            return all(isinstance(value, kinds[number % 3]) for number, value in enumerate(rest))
    return False


_OF_SCRIPTS: Final[dict[ScriptName, Callable[[Any], bool]]] = {
    "read": _is_read,
    "compare": _is_comparison,
    "acquire": _is_acquired,
    "commit": _is_committed,
    "release": _is_integer,
    "tombstone": _is_tombstone,
    "session": _is_session,
    "sessions": _are_sessions,
    "put": _is_integer,
    "replace": _is_text,
    "marker": _is_marker,
    "beat": _is_integer,
    "beats": _are_beats,
}
# By digest, by text and by name. Whatever a probe returns, it says that the server runs no scripts.
_FORMS: Final[dict[Any, Callable[[Any], bool]]] = {
    "GET": _is_text,
    "GETEX": _is_text,
    "GETRANGE": _is_text,
    "PTTL": _is_integer,
    **{DIGESTS[name]: fits for name, fits in _OF_SCRIPTS.items()},
    **{SOURCES[name]: fits for name, fits in _OF_SCRIPTS.items()},
}
