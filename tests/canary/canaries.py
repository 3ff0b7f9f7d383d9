"""Canaries: made-up secrets, each recognisable as its kind, and the search for them in bytes in any encoding."""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["MARK", "Hit", "canary", "hits", "kind_of"]

# At both ends of each canary, so that a truncated one is found as well. URLs, JSON, HTML and `repr` leave letters and
# digits unchanged; between the two marks are characters that they escape.
MARK: Final = "Kq7vXz2Wj9Rt"
_KIND: Final = 10  # hexadecimal digits after the first mark, which identify the kind
_ESCAPED: Final = "+/%&=~'"
_REST: Final = 14  # hexadecimal digits after the escaped characters
_AROUND: Final = 100  # bytes shown on both sides of a hit


def canary(kind: str) -> str:
    """Return the secret of a kind, which is the same in every process."""
    digest = hashlib.sha256(kind.encode()).hexdigest()
    _kinds[digest[:_KIND]] = kind
    return f"{MARK}{digest[:_KIND]}{_ESCAPED}{digest[_KIND : _KIND + _REST]}{MARK}"


@dataclass(frozen=True)
class Hit:
    """A canary that was found.

    Attributes:
        kind: Which secret it is; "?" if it is truncated or encoded.
        form: How it is encoded.
        around: The text before and after it.
    """

    kind: str
    form: str
    around: str


def hits(output: bytes) -> list[Hit]:
    """Find all canaries in an output: in plain text, in base64 at any offset, and in hexadecimal digits."""
    return [
        Hit(
            kind=kind_of(output[found.start() :]),
            form=_FORMS[found[0].lower() if found[0].lower() in _FORMS else found[0]],
            around=output[max(0, found.start() - _AROUND) : found.end() + _AROUND].decode(errors="backslashreplace"),
        )
        for found in _ANY.finditer(output)
        if not _is_second_mark(output, found.start())
    ]


def _is_second_mark(output: bytes, position: int) -> bool:
    begin = position - len(MARK) - _KIND - len(_ESCAPED) - _REST
    return (
        begin >= 0 and output[begin : begin + len(MARK)] == _PLAIN and output[position : position + len(MARK)] == _PLAIN
    )


def kind_of(text: bytes) -> str:
    """Return the kind of the canary at the beginning of a text."""
    digits = text[len(MARK) : len(MARK) + _KIND]
    return _kinds.get(digits.decode("latin-1"), "?")


def _base64_forms(mark: bytes) -> Iterable[bytes]:
    # The first and last characters may encode bits of the bytes before and after the mark.
    for before in range(3):
        encoded = base64.b64encode(bytes(before) + mark)
        own = encoded[-(-before * 8 // 6) : (before + len(mark)) * 8 // 6]
        yield own
        yield own.translate(bytes.maketrans(b"+/", b"-_"))


_kinds: Final[dict[str, str]] = {}
_PLAIN: Final = MARK.encode()
_FORMS: Final[dict[bytes, str]] = {
    _PLAIN: "plain",
    **dict.fromkeys(_base64_forms(_PLAIN), "base64"),
    _PLAIN.hex().encode(): "hex",
    "".join(f"%{byte:02x}" for byte in _PLAIN).encode(): "percent",
    "".join(f"\\x{byte:02x}" for byte in _PLAIN).encode(): "escaped",
    "".join(f"\\u{byte:04x}" for byte in _PLAIN).encode(): "escaped",
}
_ANY: Final = re.compile(
    b"|".join(
        re.escape(form) if name in ("plain", "base64") else b"(?i:" + re.escape(form) + b")"
        for form, name in _FORMS.items()
    )
)
