"""The Lua scripts: read from their files once, loaded by each new connection, and run by their digests."""

from __future__ import annotations

import hashlib
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Final, Literal

from redis.exceptions import ResponseError

from tokenmw.redis.errors import WrongReply

if TYPE_CHECKING:
    from collections.abc import Sequence

    from redis.asyncio.connection import AbstractConnection

__all__ = ["DIGESTS", "SOURCES", "WRITERS", "ScriptName", "command_by_text", "load_scripts", "script_command"]

ScriptName = Literal[
    "read",
    "compare",
    "acquire",
    "commit",
    "release",
    "tombstone",
    "session",
    "sessions",
    "put",
    "replace",
    "probe",
    "marker",
    "beat",
    "beats",
]

_FOLDER: Final = files("tokenmw.redis") / "lua"
_PRELUDE: Final = (_FOLDER / "prelude.lua").read_text()
_TOKENS: Final = f"{_PRELUDE}\n{(_FOLDER / 'tokens.lua').read_text()}"
_NAMES: Final[tuple[ScriptName, ...]] = (
    "read",
    "compare",
    "acquire",
    "commit",
    "release",
    "tombstone",
    "session",
    "sessions",
    "put",
    "replace",
    "probe",
    "marker",
    "beat",
    "beats",
)
# Each function of a prelude costs time in each call, so the others do not get those of tokens.
_OF_TOKENS: Final[frozenset[ScriptName]] = frozenset({"read", "compare", "acquire", "commit", "release", "tombstone"})
_PRELUDES: Final = {**dict.fromkeys(_NAMES, f"{_PRELUDE}\n"), **dict.fromkeys(_OF_TOKENS, f"{_TOKENS}\n")}
SOURCES: Final = {name: _PRELUDES[name] + (_FOLDER / f"{name}.lua").read_text() for name in _NAMES}
DIGESTS: Final = {
    name: hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()  # Redis identifies scripts by SHA-1
    for name, text in SOURCES.items()
}


# Scripts that write whatever they find. Success of any other one does not prove that the server takes writes.
WRITERS: Final[frozenset[ScriptName]] = frozenset({"probe", "put"})


async def load_scripts(connection: AbstractConnection, *, first: Sequence[tuple[str, ...]] = ()) -> None:
    """Load the scripts that the server of a new connection does not know, so that no request has to send their text.

    It takes one round trip, which also runs the commands in `first`, and a second one if scripts are unknown. Raises
    what the connection raises; a refusal by the server is ignored.
    """
    digests = dict(zip(DIGESTS.values(), SOURCES.values(), strict=True))
    known: Any = (await _replies(connection, [*first, ("SCRIPT", "EXISTS", *digests)]))[-1]
    # Where an ACL forbids SCRIPT, the first call of each script sends its text.
    if not isinstance(known, ResponseError):
        match known:
            case [*flags] if len(flags) == len(digests):
                unknown = [text for text, there in zip(digests.values(), flags, strict=True) if not there]
            case _:
                raise WrongReply
        await _replies(connection, [("SCRIPT", "LOAD", text) for text in unknown])


async def _replies(connection: AbstractConnection, commands: Sequence[tuple[str, ...]]) -> list[Any]:
    if commands:
        await connection.send_packed_command(connection.pack_commands(commands), check_health=False)
    replies: list[Any] = []
    for _ in commands:
        try:
            replies.append(await connection.read_response())
        except ResponseError as refusal:
            replies.append(refusal)
    return replies


def script_command(
    name: ScriptName, key: bytes, args: Sequence[bytes | str | int], *, more_keys: Sequence[bytes] = ()
) -> tuple[bytes | str | int, ...]:
    """Return the command that runs a script in a pipeline, by its digest; `more_keys` are on the server of `key`."""
    return ("EVALSHA", DIGESTS[name], 1 + len(more_keys), key, *more_keys, *args)


def command_by_text(command: Sequence[bytes | str | int]) -> tuple[bytes | str | int, ...]:
    """Return the command that does the same as one of `script_command`, with the script's text."""
    _, digest, *rest = command
    return ("EVAL", next(SOURCES[name] for name, known in DIGESTS.items() if known == digest), *rest)
