"""An operator's request that all instances ask a provider again now, whatever backoff they are in.

It is one sealed value beside the token's other keys, for a minute. Whatever announces a changed token announces it:
each instance in a backoff reads it then, or within a second of a request. Its version is the server's time, so that an
instance follows each request once, and an old value that is written again has no effect there. Earlier versions of this
package ignore it; they end a backoff that they have from a failure note, because the note is deleted.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from tokenmw.redis.sealing import Unreadable

if TYPE_CHECKING:
    from tokenmw.redis.connection import Command
    from tokenmw.redis.sealing import Sealer

__all__ = ["Retry", "commands_to_read", "commands_to_write", "retry_of"]

_LASTS: Final = 60_000  # ms
_LONGEST: Final = 1024  # bytes
_MAX_TEXT: Final = 100  # characters


@dataclass(frozen=True, slots=True)
class Retry:
    """A request.

    Attributes:
        version: A number that is higher than that of each earlier request.
        by: The operator: a user and a host, or an address.
        age: Seconds since it was made.
    """

    version: int
    by: str
    age: float


def commands_to_write(sealer: Sealer, token: bytes, note: bytes, *, version: int, by: str) -> list[Command]:
    """Return the commands that store a request for the token of a key, and delete its failure note."""
    key = _key(token)
    value = sealer.seal(json.dumps(by[:_MAX_TEXT]).encode(), key=key, version=version)
    return [("DEL", note), ("SET", key, value, "PX", _LASTS)]


def commands_to_read(token: bytes) -> list[Command]:
    """Return the commands whose replies `retry_of` takes."""
    key = _key(token)
    return [("GETRANGE", key, 0, _LONGEST), ("PTTL", key)]


def retry_of(sealer: Sealer, token: bytes, value: Any, left: Any) -> Retry | None:
    """Return the last request for the token of a key; None if there is none."""
    if not isinstance(value, bytes) or not value or not isinstance(left, int) or not 0 < left <= _LASTS:
        return None
    try:
        version, body = sealer.open(value, key=_key(token))
        by: object = json.loads(body)
    except (Unreadable, ValueError, RecursionError):
        return None
    shown = by if isinstance(by, str) and by.isprintable() and len(by) <= _MAX_TEXT else "?"
    return Retry(version, shown, (_LASTS - left) / 1000)


def _key(token: bytes) -> bytes:
    return token.removesuffix(b"token") + b"retry"
