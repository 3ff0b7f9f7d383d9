"""Session ids that all instances derive by themselves while Redis is unavailable."""

from __future__ import annotations

import hmac
from uuid import UUID, uuid4

from tokenmw.redaction import Unpicklable
from tokenmw.redis.keys import subkey

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
        raw = bytearray(hmac.digest(self._key, api_key, "sha256")[:16])
        raw[6] = raw[6] & 0x0F | 0x80  # version 8
        raw[8] = raw[8] & 0x3F | 0x80  # variant
        return str(UUID(bytes=bytes(raw)))

    @staticmethod
    def random() -> str:
        """Return a new random id (UUIDv4)."""
        return str(uuid4())
