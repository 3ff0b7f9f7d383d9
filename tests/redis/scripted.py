"""The token scripts on a real server, run without the package's client, so that replies are the scripts' own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tokenmw.redis.scripts import SOURCES

if TYPE_CHECKING:
    from tests.resp import RespConnection
    from tokenmw.redis.scripts import ScriptName

TOKEN, LEASE, NOTE, TOMB = KEYS = (b"{k}:token", b"{k}:lease", b"{k}:note", b"{k}:tomb")
TTL = 60_000
"""Milliseconds for which tokens and tombstones exist, unless a test passes others."""


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
        return self.command("EVAL", SOURCES[name], len(keys), *keys, *args)

    def now(self) -> int:
        """Return the server's time in microseconds since 1970."""
        seconds, micros = self.command("TIME")
        return int(seconds) * 1_000_000 + int(micros)

    def read(self) -> tuple[bytes | None, int]:
        """Return the token and the tombstone's version."""
        found, _left, tombstone, _now = self.run("read", KEYS)
        return found, int(tombstone)

    def acquire(self, owner: str, *, known: int = 0, ms: int = 6_000) -> tuple[str, Any, int]:
        """Return the kind of the reply, its value or version, and the milliseconds left."""
        kind, found, left, _now = self.run("acquire", KEYS, owner, ms, known)
        return kind.decode(), int(found) if kind == b"lease" else found, left

    def lease(self, owner: str, *, known: int = 0) -> int:
        """Acquire a lease that is free, and return its version."""
        kind, version, _left = self.acquire(owner, known=known)
        assert kind == "lease"
        return int(version)

    def commit(self, owner: str, version: int, stored: bytes | None = None, *, ms: int = TTL) -> str:
        """Commit a value of a version, and return the kind of the reply."""
        kind: bytes = self.run("commit", KEYS, owner, version, stored or value(version), ms)[0]
        return kind.decode()

    def release(self, owner: str, version: int, *, note: bytes = b"", ms: int = 1_000) -> bool:
        """Release a lease, and return whether it was this owner's."""
        return bool(self.run("release", KEYS, owner, version, note, ms))

    def write_tombstone(self, version: int | None, *, known: int = 0, ms: int = TTL) -> tuple[str, int]:
        """Declare a version invalid, and return the kind of the reply and the tombstone's version."""
        if version is None:
            known = max(known, self.now())
        kind, _value, _left, tombstone, _now = self.run(
            "tombstone", KEYS, "" if version is None else version, known, ms
        )
        return kind.decode(), int(tombstone)
