"""Session ids that all instances find by themselves while Redis is away."""

from __future__ import annotations

import hmac
from uuid import UUID, uuid4

from tokenmw.redis.keys import subkey

__all__ = ["DerivedIds"]


class DerivedIds:
    """Makes ids: derived from the API key if there is a secret to derive with, else random.

    A derived one is a UUIDv8 (RFC 9562 §5.8) of HMAC-SHA-256, so whoever has no `name_key` cannot tell whose it is.
    """

    __slots__ = ("_key",)

    def __init__(self, name_key: str | None) -> None:
        self._key = None if name_key is None else subkey(name_key, "sessions")

    @property
    def agrees(self) -> bool:
        """Whether all instances come to the same id."""
        return self._key is not None

    def id(self, api_key: bytes) -> str:
        """Return the id of an API key while Redis is away."""
        if self._key is None:
            return self.fresh()
        raw = bytearray(hmac.digest(self._key, api_key, "sha256")[:16])
        raw[6] = raw[6] & 0x0F | 0x80  # version 8
        raw[8] = raw[8] & 0x3F | 0x80  # variant
        return str(UUID(bytes=bytes(raw)))

    @staticmethod
    def fresh() -> str:
        """Return a new random id."""
        return str(uuid4())
