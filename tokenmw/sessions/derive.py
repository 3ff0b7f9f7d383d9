"""Session ids that all instances derive by themselves while Redis is unavailable."""

from __future__ import annotations

import hmac
import os

from tokenmw.redaction import Unpicklable
from tokenmw.redis.keys import subkey
from tokenmw.redis.session_store import uuid_text

__all__ = ["SessionIds"]


class SessionIds(Unpicklable):
    """Makes session ids: derived from the API key if there is a secret to derive with, else random.

    A derived id is a UUIDv8 (RFC 9562 §5.8) made of an HMAC-SHA-256: without the `name_key`, its API key is not found.
    """

    __slots__ = ("_key",)

    def __init__(self, name_key: str | None) -> None:
        self._key = None if name_key is None else subkey(name_key, "sessions")

    @property
    def derivable(self) -> bool:
        """Whether all instances derive the same id for a key."""
        return self._key is not None

    def derive(self, api_key: bytes) -> str:
        """Return the id of an API key while Redis is unavailable."""
        if self._key is None:
            return self.random()
        return _uuid(hmac.digest(self._key, api_key, "sha256")[:16], version=8)

    @staticmethod
    def random() -> str:
        """Return a new random id (UUIDv4)."""
        return _uuid(os.urandom(16), version=4)


def _uuid(raw: bytes, *, version: int) -> str:
    marked = bytearray(raw)
    marked[6] = marked[6] & 0x0F | version << 4
    marked[8] = marked[8] & 0x3F | 0x80  # the variant of RFC 9562
    return uuid_text(marked)
