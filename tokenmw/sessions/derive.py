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

_SALT: Final = 16  # bytes
_RESET_FORMAT: Final = b"\x01"
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

    **A reset** of a key gives it an id that is derived from the key in Redis and a random salt, so it is new in any
    case, also in the second of two resets. (With a number that each reset raises, a former id would be back once the
    number is lost, and without Redis no instance knows the number to raise.) Redis keeps the salt for longer than the
    session, with a tag: a writer without the `name_key` can make no salt that instances accept, and find no id by one.
    A random id needs no such record, because a key does not have it again.

    Args:
        name_key: The secret to derive with; None: ids are random.
        namespace: The namespace in Redis; None without Redis.
        new: What Redis stores for a new key.
    """

    __slots__ = ("_derive_candidates", "_key", "_reset_key")

    def __init__(self, name_key: str | None, *, namespace: str | None = None, new: NewSessionIDs = "derived") -> None:
        # A key of its own for each namespace, so that the derivation is the same and takes the same time for all.
        purpose = "sessions" if namespace in {None, _FIRST_NAMESPACE} else f"sessions/{namespace}"
        self._key = None if name_key is None else subkey(name_key, purpose)
        self._derive_candidates = new == "derived"
        self._reset_key = subkey(name_key, "resets") if name_key is not None and self._derive_candidates else None

    @property
    def derivable(self) -> bool:
        """Whether all instances derive the same id for a key."""
        return self._key is not None

    @property
    def recurring(self) -> bool:
        """Whether a key has its former id again when it comes back after its session has expired."""
        return self._reset_key is not None

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

    def reset(self, redis_key: bytes | None) -> tuple[str, bytes]:
        """Return a new id for the API key with this key in Redis, and what Redis keeps of the reset.

        Nothing is kept (b"") of a random id: where ids are not `recurring`, and without Redis (None).
        """
        if self._reset_key is None or redis_key is None:
            return self.random(), b""
        salt = os.urandom(_SALT)
        session_id, tag = _of_salt(self._reset_key, redis_key, salt)
        return session_id, _RESET_FORMAT + salt + tag

    def after_reset(self, redis_key: bytes, kept: bytes) -> str | None:
        """Return the id that `reset` has made, from what Redis keeps; None if it was written without the `name_key`."""
        salt, tag = kept[1 : 1 + _SALT], kept[1 + _SALT :]
        if self._reset_key is None or kept[:1] != _RESET_FORMAT or len(salt) != _SALT:
            return None
        session_id, expected = _of_salt(self._reset_key, redis_key, salt)
        return session_id if hmac.compare_digest(tag, expected) else None

    @staticmethod
    def random() -> str:
        """Return a new random id (UUIDv4)."""
        return _uuid(os.urandom(16), version=4)


def _of_salt(secret: bytes, redis_key: bytes, salt: bytes) -> tuple[str, bytes]:
    """Return the id and the tag of a reset: the halves of one HMAC, of which neither shows anything of the other."""
    digest = hmac.digest(secret, salt + redis_key, "sha256")
    return _uuid(digest[:16], version=8), digest[16:]


def _uuid(raw: bytes, *, version: int) -> str:
    marked = bytearray(raw)
    marked[6] = marked[6] & 0x0F | version << 4
    marked[8] = marked[8] & 0x3F | 0x80  # the variant of RFC 9562
    return uuid_text(marked)
