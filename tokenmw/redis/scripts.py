"""The Lua scripts, loaded from their files once and run by digest."""

from __future__ import annotations

import hashlib
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Final, Literal

from redis.exceptions import NoScriptError, ResponseError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from redis.asyncio import Redis, RedisCluster
    from redis.asyncio.connection import AbstractConnection

__all__ = ["WRITERS", "ScriptName", "called", "load_scripts", "run_script"]

ScriptName = Literal["read", "acquire", "commit", "release", "bury", "session", "replace", "probe", "marker"]

_FOLDER: Final = files("tokenmw.redis") / "lua"
_PRELUDE: Final = (_FOLDER / "prelude.lua").read_text()
_NAMES: Final[tuple[ScriptName, ...]] = (
    "read",
    "acquire",
    "commit",
    "release",
    "bury",
    "session",
    "replace",
    "probe",
    "marker",
)
_SOURCES: Final = {name: f"{_PRELUDE}\n{(_FOLDER / f'{name}.lua').read_text()}" for name in _NAMES}
_DIGESTS: Final = {
    name: hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()  # Redis names scripts so
    for name, text in _SOURCES.items()
}


# Those that write whatever they find. That any other one came back does not show that a server takes writes.
WRITERS: Final[frozenset[ScriptName]] = frozenset({"probe", "marker"})


async def load_scripts(connection: AbstractConnection, *, first: Sequence[tuple[str, ...]] = ()) -> None:
    """Tell the server of a new connection the scripts that it does not know, so that no request has to.

    It is asked in one round trip, together with commands that need no reply, and told in another one.
    """
    digests = dict(zip(_DIGESTS.values(), _SOURCES.values(), strict=True))
    known: Any = (await _answers(connection, [*first, ("SCRIPT", "EXISTS", *digests)]))[-1]
    # Whoever may not ask, or asks in vain, sends the text with the first call.
    if not isinstance(known, ResponseError):
        unknown = [text for text, there in zip(digests.values(), known, strict=True) if not there]
        await _answers(connection, [("SCRIPT", "LOAD", text) for text in unknown])


async def _answers(connection: AbstractConnection, commands: Sequence[tuple[str, ...]]) -> list[Any]:
    if commands:
        await connection.send_packed_command(connection.pack_commands(commands), check_health=False)
    answers: list[Any] = []
    for _ in commands:
        try:
            answers.append(await connection.read_response())
        except ResponseError as refusal:
            answers.append(refusal)
    return answers


async def run_script(
    client: Redis | RedisCluster, name: ScriptName, keys: Sequence[bytes], args: Sequence[bytes | str | int]
) -> Any:
    """Run a script by its digest; a server that does not know it (yet, or after SCRIPT FLUSH) gets the text."""
    try:
        return await client.evalsha(_DIGESTS[name], len(keys), *keys, *args)
    except NoScriptError:
        return await client.eval(_SOURCES[name], len(keys), *keys, *args)


def called(
    name: ScriptName, key: bytes, args: Sequence[bytes | str | int], *, by_text: bool = False
) -> tuple[bytes | str | int, ...]:
    """Return the command that runs a script on one key, for a pipeline: by its digest, or with its text."""
    if by_text:
        return ("EVAL", _SOURCES[name], 1, key, *args)
    return ("EVALSHA", _DIGESTS[name], 1, key, *args)
