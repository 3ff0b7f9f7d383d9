"""The format of a value in Redis: a clear header, then a body that is sealed (encrypted) or plain.

    byte 0      format, 1
    bytes 1-8   fencing version of the value, big-endian
    bytes 9-12  key id: which secret seals the body; four zeros if none does
    bytes 13-   AES-256-GCM: nonce (12 bytes) and ciphertext with tag; or the plain body

Header and Redis key are the associated data: a value that was copied to another key, or whose version was changed,
does not open. The header is clear because scripts compare versions.
"""

from __future__ import annotations

import hmac
import os
from typing import TYPE_CHECKING, Final, Literal

from tokenmw.errors import ConfigurationError
from tokenmw.redaction import Unpicklable
from tokenmw.redis.keys import subkey

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

__all__ = ["Sealer", "Unreadable"]

_FORMAT: Final = b"\x01"
_HEADER: Final = 13
_NONCE: Final = 12
_PLAIN: Final = bytes(4)
_LAST_VERSION: Final = 2**52  # as in the scripts: a version at or above it is garbage
_NO_CRYPTO: Final = (
    "secret_key was given, but the library that encrypts values is not installed. Either install it, "
    'pip install "tokenmw[crypto]", or pass seal=False: then secret_key only hides names, and tokens are readable '
    "in Redis."
)


class Unreadable(Exception):
    """Raised when a value does not open.

    Attributes:
        reason: `unknown-key`: it is sealed with a secret that this instance does not have. Other instances may use it,
            so it is left alone. `expired`: a token whose lifetime is over, although Redis has it: an old value was
            written again, or its TTL was extended. `damaged`: anything else. No instance can use these two.
    """

    def __init__(self, reason: Literal["unknown-key", "damaged", "expired"]) -> None:
        super().__init__(reason)
        self.reason: Literal["unknown-key", "damaged", "expired"] = reason


class Sealer(Unpicklable):
    """Seals values with the first of its secrets, and opens those that were sealed with any of them.

    Args:
        secrets: The user's `secret_key`, checked by `options.checked_secrets`.
        seal: Whether bodies are sealed; None: they are if there is a secret.

    Raises:
        ConfigurationError: `seal=True` without a secret, a secret given twice, or the `crypto` extra is missing.
    """

    __slots__ = ("_ciphers", "_first")

    def __init__(self, secrets: Sequence[str], *, seal: bool | None = None) -> None:
        if seal and not secrets:
            raise ConfigurationError("seal=True needs a secret_key: pass secret_key=…, or leave seal out.")
        self._ciphers: dict[bytes, AESGCM] = {}
        self._first: bytes | None = None
        if secrets and seal is not False:
            self._ciphers = _ciphers(secrets)
            self._first = next(iter(self._ciphers))

    @property
    def sealing(self) -> bool:
        """Whether bodies are sealed."""
        return self._first is not None

    @property
    def key_ids(self) -> tuple[bytes, ...]:
        """The key id of each secret, in the order of `secret_key`; none if bodies are not sealed."""
        return tuple(self._ciphers)

    def seal(self, body: bytes, *, key: bytes, version: int) -> bytes:
        """Return the value to store under a Redis key."""
        header = self.header(version)
        if self._first is None:
            return header + body
        nonce = os.urandom(_NONCE)
        return header + nonce + self._ciphers[self._first].encrypt(nonce, body, header + key)

    def header(self, version: int) -> bytes:
        """Return what precedes the body of a value of a version that is sealed now."""
        return _FORMAT + version.to_bytes(8) + (self._first or _PLAIN)

    def is_current(self, value: bytes) -> bool:
        """Return whether a stored value is sealed as `seal` does it, not with a secret that is being rotated out."""
        return value[9:_HEADER] == (self._first or _PLAIN)

    def open(self, value: bytes, *, key: bytes) -> tuple[int, bytes]:
        """Return version and body of a stored value.

        Raises:
            Unreadable: It is sealed with an unknown secret, or damaged.
        """
        header, body = value[:_HEADER], value[_HEADER:]
        if len(header) < _HEADER or header[:1] != _FORMAT:
            raise Unreadable("damaged")
        version, key_id = int.from_bytes(header[1:9]), header[9:]
        if version >= _LAST_VERSION:
            raise Unreadable("damaged")
        if key_id == _PLAIN:
            # Where values are sealed, an unsealed one was written by somebody without the secret.
            if self.sealing:
                raise Unreadable("damaged")
            return version, body
        cipher = self._ciphers.get(key_id)
        if cipher is None:
            raise Unreadable("unknown-key")
        return version, _decrypt(cipher, body, header + key)

    def __repr__(self) -> str:
        # A traceback may show an object whose constructor has raised.
        return f"<Sealer of {len(getattr(self, '_ciphers', ()))} secrets>"


def _ciphers(secrets: Sequence[str]) -> dict[bytes, AESGCM]:
    try:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM
    except ImportError:
        raise ConfigurationError(_NO_CRYPTO) from None
    ciphers: dict[bytes, AESGCM] = {}
    for secret in secrets:
        key = subkey(secret, "seal")
        key_id = hmac.digest(key, b"id", "sha256")[:4]
        if key_id == _PLAIN or key_id in ciphers:
            raise ConfigurationError(
                "secret_key has one secret twice, or two with the same key id: remove or replace one of them."
            )
        ciphers[key_id] = AESGCM(key)
    return ciphers


def _decrypt(cipher: AESGCM, body: bytes, associated: bytes) -> bytes:
    from cryptography.exceptions import InvalidTag

    if len(body) < _NONCE:
        raise Unreadable("damaged")
    try:
        return cipher.decrypt(body[:_NONCE], body[_NONCE:], associated)
    except InvalidTag:
        raise Unreadable("damaged") from None
