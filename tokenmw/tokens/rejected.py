"""Token values that an API refused, so that no stale copy of one is ever taken from Redis again."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from tokenmw.local import Lasting
from tokenmw.values import MAX_LIFE

if TYPE_CHECKING:
    from tokenmw.clock import Clock
    from tokenmw.limits import Limits

__all__ = ["RejectedValues"]


class RejectedValues:
    """A bounded set of digests; the values themselves are not kept."""

    __slots__ = ("_digests",)

    def __init__(self, *, limits: Limits, clock: Clock) -> None:
        self._digests: Lasting[bytes, None] = Lasting(limits.rejected, MAX_LIFE, timer=clock.monotonic)

    def __contains__(self, value: object) -> bool:
        return isinstance(value, str) and _digest(value) in self._digests

    def __len__(self) -> int:
        return len(self._digests)

    def add(self, value: str) -> None:
        """Remember a value; the one remembered longest ago makes place."""
        self._digests[_digest(value)] = None

    def forgive(self, value: str) -> bool:
        """Forget a value that its provider has just given out again. Return whether it was remembered."""
        digest = _digest(value)
        if digest not in self._digests:
            return False
        del self._digests[digest]
        return True

    def purge(self) -> None:
        """Drop what has expired."""
        self._digests.expire()


def _digest(value: str) -> bytes:
    return hashlib.sha256(value.encode()).digest()
