"""Keeps new pairs in Redis that the durable store of connections could not take, until it takes them.

A pair that a server granted is the only one that is valid: the refresh token before it is spent. While the durable
store fails, Redis has a sealed copy for a day, which any process may find and store. Later versions win: each value
begins with the header of `sealing`, which has its version.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from tokenmw.redaction import Unpicklable
from tokenmw.redis.connection import UNAVAILABLE
from tokenmw.redis.errors import RedisUnavailable

if TYPE_CHECKING:
    from tokenmw.redis.connection import RedisConnection
    from tokenmw.redis.keys import KeyNames

__all__ = ["KeptPairs"]

_LASTS: Final = 86_400_000  # ms
_LONGEST: Final = 128 * 1024  # bytes; a longer value was written by somebody else
_TRIES: Final = 4
_FORMAT: Final = b"\x01"  # as in `sealing`
_LAST_VERSION: Final = 2**52


class KeptPairs(Unpicklable):
    """Sealed pairs in Redis, one for each connection at most. Each operation may raise `RedisUnavailable`.

    Args:
        connection: The connection.
        names: The names of keys.
    """

    __slots__ = ("_connection", "_names")

    def __init__(self, connection: RedisConnection, *, names: KeyNames) -> None:
        self._connection = connection
        self._names = names

    async def keep(self, digest: str, value: bytes) -> bool:
        """Keep a sealed value for a day, in place of one of the same or of an earlier version.

        Return whether it is kept; False: Redis has a later version. It is idempotent for the same value.
        """
        key = self._key(digest)
        known = b""
        for _ in range(_TRIES):
            found: bytes = await self._connection.run("replace", (key,), (known, value, _LASTS), background=True)
            if found == value:
                return True
            if _version(found) > _version(value):
                return False
            known = found
        raise RedisUnavailable("busy")

    async def find(self, digest: str) -> bytes | None:
        """Return the value that is kept for a connection; None if there is none."""
        (found,) = await self._connection.pipeline([("GETRANGE", self._key(digest), 0, _LONGEST)])
        if found is UNAVAILABLE:
            raise RedisUnavailable("response")
        return found if isinstance(found, bytes) and 0 < len(found) <= _LONGEST else None

    async def forget(self, digest: str, value: bytes) -> None:
        """Delete a value that the store has taken. Another value that was kept since then stays."""
        await self._connection.run("replace", (self._key(digest),), (value, "", 1), background=True)

    def _key(self, digest: str) -> bytes:
        return self._names.key(digest, "pair")


def _version(value: bytes) -> int:
    version = int.from_bytes(value[1:9])
    # What this package has not written is replaced.
    return version if value[:1] == _FORMAT and version < _LAST_VERSION else 0
