"""The heartbeat of an instance: what it says of itself to the others, as JSON of at most 2 048 bytes.

A later version may add fields, which this one ignores; a field that is absent or of another type has a value that
says nothing. It has no secret, tenant, user or session id.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, cast

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["MAX_TOKENS", "Heartbeat"]

MAX_TOKENS: Final = 32
_MAX_BYTES: Final = 2048
_MAX_TEXT: Final = 64  # characters
_MAX_COUNTS: Final = 16
_STATES: Final = frozenset({"unknown", "up", "down", "unsupported"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Heartbeat:
    """What one instance says of itself.

    Attributes:
        host: Its host's name.
        pid: Its process.
        version: Its version of this package.
        started_at: When it was opened, in seconds since 1970, by its own clock.
        shared: The state of Redis as it sees it, as in `Status.shared`.
        shared_seconds: For how many seconds it has seen that.
        tokens: The fencing version of the current token of each named provider, by the beginning of the credential's
            digest; 0 if it has no token. The first 32.
        counts: Numbers of things: `tokens`, `sessions`, `unshared`, `failing`.
    """

    host: str
    pid: int
    version: str
    started_at: float
    shared: str
    shared_seconds: float
    tokens: Mapping[str, int]
    counts: Mapping[str, int]

    def encode(self) -> bytes:
        """Return the heartbeat as JSON, without tokens if it would be too long."""
        fields: dict[str, Any] = {
            "host": self.host[:_MAX_TEXT],
            "pid": self.pid,
            "version": self.version[:_MAX_TEXT],
            "started": round(self.started_at, 1),
            "redis": self.shared,
            "since": round(self.shared_seconds, 1),
            "tokens": dict(list(self.tokens.items())[:MAX_TOKENS]),
            "counts": dict(self.counts),
        }
        body = json.dumps(fields, separators=(",", ":")).encode()
        if len(body) > _MAX_BYTES:
            body = json.dumps({**fields, "tokens": {}}, separators=(",", ":")).encode()
        return body

    @classmethod
    def decode(cls, body: bytes) -> Heartbeat | None:
        """Read what `encode` returned; None if the body is no heartbeat."""
        try:
            fields: Any = json.loads(body)
        except (ValueError, RecursionError):
            return None
        if not isinstance(fields, dict):
            return None
        found = cast("dict[str, Any]", fields)
        shared = _text(found.get("redis"))
        return cls(
            host=_text(found.get("host")),
            pid=_whole(found.get("pid")),
            version=_text(found.get("version")),
            started_at=_number(found.get("started")),
            shared=shared if shared in _STATES else "unknown",
            shared_seconds=_number(found.get("since")),
            tokens=_whole_numbers(found.get("tokens"), most=MAX_TOKENS),
            counts=_whole_numbers(found.get("counts"), most=_MAX_COUNTS),
        )


def _text(value: object) -> str:
    return value if isinstance(value, str) and len(value) <= _MAX_TEXT and value.isprintable() else ""


def _whole(value: object) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**53 else 0


def _number(value: object) -> float:
    if isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < 2**53 and math.isfinite(value):
        return float(value)
    return 0.0


def _whole_numbers(value: object, *, most: int) -> dict[str, int]:
    if not isinstance(value, dict):
        return {}
    pairs = list(cast("dict[str, Any]", value).items())[:most]
    return {name: _whole(number) for name, number in pairs if _text(name)}
