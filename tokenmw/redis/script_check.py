"""Runs each script for real, for `tokenmw check`: by its digest, as instances do, on keys that expire in a second."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Any, Final

from redis.exceptions import NoScriptError

from tokenmw.redis.scripts import DIGESTS, SOURCES
from tokenmw.redis.token_store import TokenKeys

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from tokenmw.redis.keys import KeyNames
    from tokenmw.redis.scripts import ScriptName

__all__ = ["ScriptCheck"]

_MS: Final = 1000  # for which each key exists
_OWNER: Final = "probe"
_KEY_ID: Final = bytes(4)


class ScriptCheck:
    """Tries the scripts on one server.

    Args:
        execute: Runs a command on the server.
        names: The names of keys.
        tag: The hash tag of the keys, which the server has.

    Attributes:
        failed: The scripts that did not do what they do, in the order of their calls.
        by_text: Whether the server did not find a script by its digest, although it was loaded.
    """

    def __init__(self, execute: Callable[..., Awaitable[Any]], names: KeyNames, tag: str) -> None:
        self._execute = execute
        self._names = names
        self._tag = tag
        self._keys = TokenKeys.of(names, tag)
        self.failed: list[str] = []
        self.by_text = False

    async def run(self) -> None:
        """Load and try all scripts, and delete their keys. Raises what a command raises."""
        for text in SOURCES.values():
            await self._execute("SCRIPT LOAD", text)
        try:
            await self._try_tokens()
            await self._try_sessions()
            await self._try_others()
        finally:
            kinds = ("session", "marker", "probe", "beat-0")
            await self._execute("DEL", *self._keys.all, *(self._key(kind) for kind in kinds))

    async def _try_tokens(self) -> None:
        keys = self._keys.all
        kind, version, *_ = await self._call("acquire", keys, _OWNER, _MS, 0, 0)
        self._expect("acquire", kind == b"lease")
        number = int(version) if kind == b"lease" else 1
        header = b"\x01" + number.to_bytes(8) + _KEY_ID
        value = header + b"probe"
        stored = await self._call("commit", keys, _OWNER, number, value, _MS, 0, "")
        self._expect("commit", stored[0] == b"stored")
        read = await self._call("read", keys)
        self._expect("read", read[0] == value)
        compared = await self._call("compare", (self._keys.token, self._keys.tombstone))
        self._expect("compare", compared[0] == header)
        dead = await self._call("tombstone", keys, "", read[3], _MS, "")
        self._expect("tombstone", dead[0] == b"tombstone")
        kind, version, *_ = await self._call("acquire", keys, _OWNER, _MS, 0, 0)
        self._expect("release", await self._call("release", keys, _OWNER, version, "", 1) == 1)

    async def _try_sessions(self) -> None:
        key, candidate = self._key("session"), secrets.token_bytes(16)
        created = await self._call("session", (key,), candidate, _MS)
        found = await self._call("sessions", (key,), _MS, "", "")
        self._expect("session", created == 0)
        self._expect("sessions", found == [candidate])
        self._expect("put", await self._call("put", (key,), b"another", _MS, "") == 1)
        self._expect("replace", await self._call("replace", (key,), b"another", "", 1) == b"")

    async def _try_others(self) -> None:
        marker = secrets.token_hex(8)
        found = await self._call("marker", (self._key("marker"),), marker)
        self._expect("marker", found[0].startswith(marker.encode()))
        version = await self._call("probe", (self._key("probe"),))
        self._expect("probe", version[1] == b"")
        beat = b"\x01" + bytes(12) + b"probe"
        key = self._key("beat-0")
        self._expect("beat", await self._call("beat", (key,), beat, _MS, 1) == -1)
        beats = await self._call("beats", (key,), 1)
        self._expect("beats", beats[1:3] == [0, beat])

    async def _call(self, script: ScriptName, keys: Sequence[bytes], *args: Any) -> Any:
        try:
            return await self._execute("EVALSHA", DIGESTS[script], len(keys), *keys, *args)
        except NoScriptError:
            self.by_text = True
            return await self._execute("EVAL", SOURCES[script], len(keys), *keys, *args)

    def _key(self, kind: str) -> bytes:
        return self._names.key(self._tag, kind)

    def _expect(self, script: str, works: bool) -> None:  # noqa: FBT001  what was found, not an option
        if not works:
            self.failed.append(script)
