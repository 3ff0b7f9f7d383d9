"""Names of Redis keys, from which no credential can be recovered.

A digest is HMAC-SHA-256 under a subkey of `name_key`, over the parts with their types and lengths: `("ab", "c")` and
`("a", "bc")` differ. A reader of Redis cannot test guesses of a credential. Without a `name_key` the digest is plain
SHA-256, and guesses can be tested.

All keys of one token have the same hash tag, `{…}`, so that in a cluster one script may use them all.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import hmac
from typing import Final, cast

from tokenmw.redaction import Unpicklable

__all__ = ["KeyNames", "subkey"]

_VERSION: Final = "v1"
_DIGEST_BYTES: Final = 24  # 192 bits: no collisions, however many keys there are


def subkey(secret: str, purpose: str) -> bytes:
    """Derive a key for one purpose: HKDF-SHA-256 (RFC 5869) with an empty salt, one block."""
    extracted = hmac.digest(bytes(32), secret.encode(), "sha256")
    return hmac.digest(extracted, f"tokenmw/{_VERSION}/{purpose}".encode() + b"\x01", "sha256")


class KeyNames(Unpicklable):
    """Makes the Redis keys of one namespace; digests are made under the secret `name_key`, if there is one."""

    __slots__ = ("_key", "namespace")

    def __init__(self, namespace: str, *, name_key: str | None) -> None:
        self.namespace = namespace
        self._key = None if name_key is None else subkey(name_key, "names")

    @property
    def keyed(self) -> bool:
        """Whether digests are made under a secret."""
        return self._key is not None

    def digest(self, kind: str, parts: object) -> str:
        """Return the digest of a credential or an API key: 32 characters that are safe in a Redis key.

        Raises:
            TypeError: A part is not None, bool, str, bytes, int, float or a tuple of those. The text has only its type.
        """
        # As `_encode((kind, parts))`, which takes twice as long: a flood of new keys makes a digest for each.
        message = _encoded_kind(kind) + _encode(parts)
        message = b"l" + len(message).to_bytes(4) + message
        raw = hashlib.sha256(message).digest() if self._key is None else hmac.digest(self._key, message, "sha256")
        return base64.urlsafe_b64encode(raw[:_DIGEST_BYTES]).decode()

    def key(self, digest: str, kind: str) -> bytes:
        """Return `<namespace>:v1:{<digest>}:<kind>`."""
        return f"{self.namespace}:{_VERSION}:{{{digest}}}:{kind}".encode()

    @property
    def hints(self) -> bytes:
        """The channel on which processes announce changes; what precedes its last word precedes every key as well."""
        return f"{self.namespace}:{_VERSION}:hints".encode()

    def __repr__(self) -> str:
        return f"<KeyNames in {self.namespace!r}>"


@functools.cache  # there are a few
def _encoded_kind(kind: str) -> bytes:
    return _encode(kind)


def _encode(part: object) -> bytes:
    # Type and length precede each value, so that no two different values have the same bytes.
    match part:
        case None:
            return b"n"
        case bool():
            return b"t" if part else b"f"
        case str():
            letter, raw = b"s", part.encode("utf-8", "surrogatepass")
        case bytes():
            letter, raw = b"b", part
        case int():
            letter, raw = b"i", str(part).encode()
        case float():
            letter, raw = b"d", part.hex().encode()
        case tuple():
            letter, raw = b"l", b"".join(map(_encode, cast("tuple[object, ...]", part)))
        case _:
            raise TypeError(f"a {type(part).__name__} cannot be part of a credential's identity")
    return letter + len(raw).to_bytes(4) + raw
