"""Session ids: derived from the API key, the same on all instances without asking anybody, or random."""

from __future__ import annotations

import hmac
import os
from typing import Final, Literal

from tokenmw.redaction import Unpicklable
from tokenmw.redis.keys import subkey
from tokenmw.redis.session_store import uuid_text

__all__ = ["NewSessionIDs", "SessionIds"]

NewSessionIDs = Literal["derived", "random"]

_FIRST_NAMESPACE: Final = "tokenmw"  # the default one: its ids are those of before namespaces were a part of them


class SessionIds(Unpicklable):
    """Makes session ids: derived from the API key if there is a secret to derive with, else random.

    A derived id is a UUIDv8 (RFC 9562 §5.8) made of an HMAC-SHA-256: without the `name_key`, its API key is not found.

    **What Redis stores for a new key.** While Redis is unavailable, an instance that knows a key serves the id that
    Redis had, and any other instance derives one. If Redis stored a random id, the key alternates between the two
    behind a load balancer. So the derived id is what Redis gets as well. The price is that a key has the same id again
    when it comes back after its session has expired; `new="random"` avoids that, and its keys alternate.

    **Namespaces.** Two services with one `name_key` and different namespaces derive different ids. The default
    namespace does not change what is derived, and neither does a namespace without Redis, where it has no other effect:
    these ids are the same in each version of this package. With another namespace, version 0.1.0 derives other ids than
    this one. While both run, that changes no id that Redis has, because a stored id is served as it is. It only shows
    if Redis is unavailable in the middle of the deploy: a key that is first seen then has two ids, one for each
    version, until Redis is back. (There is no way around it: the older version does not know the namespace's ids, and
    this one does not know whether the older one still runs.)

    **A reset** stores a random id, not a derived one: it is new in any case, also in the second of two resets.

    Args:
        name_key: The secret to derive with; None: ids are random.
        namespace: The namespace in Redis; None without Redis.
        new: What Redis stores for a new key.
    """

    __slots__ = ("_derive_candidates", "_key")

    def __init__(self, name_key: str | None, *, namespace: str | None = None, new: NewSessionIDs = "derived") -> None:
        # A key of its own for each namespace, so that the derivation is the same and takes the same time for all.
        purpose = "sessions" if namespace in {None, _FIRST_NAMESPACE} else f"sessions/{namespace}"
        self._key = None if name_key is None else subkey(name_key, purpose)
        self._derive_candidates = new == "derived"

    @property
    def derivable(self) -> bool:
        """Whether all instances derive the same id for a key."""
        return self._key is not None

    def derive(self, api_key: bytes) -> str:
        """Return the id of an API key while Redis is unavailable."""
        if self._key is None:
            return self.random()
        return _uuid(hmac.digest(self._key, api_key, "sha256")[:16], version=8)

    def candidate(self, api_key: bytes, *, reply_may_be_lost: bool) -> str:
        """Return the id that Redis stores for a new API key.

        If the reply may be lost, it is the derived one in any case: then the request gets the id that Redis may store.
        """
        return self.derive(api_key) if self._derive_candidates or reply_may_be_lost else self.random()

    @staticmethod
    def random() -> str:
        """Return a new random id (UUIDv4)."""
        return _uuid(os.urandom(16), version=4)


def _uuid(raw: bytes, *, version: int) -> str:
    marked = bytearray(raw)
    marked[6] = marked[6] & 0x0F | version << 4
    marked[8] = marked[8] & 0x3F | 0x80  # the variant of RFC 9562
    return uuid_text(marked)
