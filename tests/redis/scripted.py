"""The token scripts on a real server, without the package's client: what a reply says is what the script said."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tokenmw.redis.scripts import _SOURCES

if TYPE_CHECKING:
    from tests.resp import RespConnection
    from tokenmw.redis.scripts import ScriptName

TOKEN, LEASE, NOTE, TOMB = KEYS = (b"{k}:token", b"{k}:lease", b"{k}:note", b"{k}:tomb")
LIFE = 60_000
"""Milliseconds that tokens live here, if a test does not say otherwise."""


def value(version: int, body: bytes = b"token") -> bytes:
    """Return an unsealed value as the package stores it."""
    return b"\x01" + version.to_bytes(8) + bytes(4) + body


class Scripts:
    """One server's scripts, by name."""

    def __init__(self, connection: RespConnection) -> None:
        self._connection = connection
        self.command = connection.call

    def run(self, name: ScriptName, keys: tuple[bytes, ...], *args: bytes | str | int) -> Any:
        """Run any script."""
        return self.command("EVAL", _SOURCES[name], len(keys), *keys, *args)

    def read(self) -> tuple[bytes | None, int]:
        """Return the token and the tombstone."""
        found, _left, dead = self.run("read", KEYS)
        return found, int(dead)

    def acquire(self, owner: str, *, known: int = 0, ms: int = 6_000) -> tuple[str, Any, int]:
        """Return what is there, its value or version, and the milliseconds left."""
        kind, found, left = self.run("acquire", KEYS, owner, ms, known)
        return kind.decode(), int(found) if kind == b"lease" else found, left

    def lease(self, owner: str, *, known: int = 0) -> int:
        """Acquire a lease that is free, and return its version."""
        kind, version, _left = self.acquire(owner, known=known)
        assert kind == "lease"
        return int(version)

    def commit(self, owner: str, version: int, stored: bytes | None = None, *, ms: int = LIFE) -> str:
        """Commit a value of a version, and return the answer's kind."""
        kind: bytes = self.run("commit", KEYS, owner, version, stored or value(version), ms)[0]
        return kind.decode()

    def release(self, owner: str, version: int, *, note: bytes = b"", ms: int = 1_000) -> bool:
        """Give a lease back, and return whether it was ours."""
        return bool(self.run("release", KEYS, owner, version, note, ms))

    def bury(self, version: int | None, *, known: int = 0, ms: int = LIFE) -> tuple[str, int]:
        """Declare a version invalid, and return the answer's kind and the tombstone."""
        kind, _value, _left, dead = self.run("bury", KEYS, "" if version is None else version, known, ms)
        return kind.decode(), int(dead)
