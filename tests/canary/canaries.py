"""Canaries: made-up secrets that can be told apart, and the search for them in bytes, however they are written."""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["MARK", "Hit", "canary", "hits", "kind_of"]

# At both ends of each canary, so that one is found that was cut in the middle or at an end. Letters and digits stay as
# they are in URLs, JSON, HTML and `repr`; the characters between the two marks are what has to be escaped.
MARK: Final = "Kq7vXz2Wj9Rt"
_KIND: Final = 10  # hexadecimal digits that tell the kind, behind the first mark
_ESCAPED: Final = "+/%&=~'"
_REST: Final = 14  # more of them, behind what has to be escaped
_AROUND: Final = 100  # bytes that are shown on both sides of a hit


def canary(kind: str) -> str:
    """Return the secret of a kind, the same one in each process."""
    digest = hashlib.sha256(kind.encode()).hexdigest()
    _kinds[digest[:_KIND]] = kind
    return f"{MARK}{digest[:_KIND]}{_ESCAPED}{digest[_KIND : _KIND + _REST]}{MARK}"


@dataclass(frozen=True)
class Hit:
    """A canary that was found.

    Attributes:
        kind: What secret it is; "?" if only a part of it, or a coded form, was there.
        form: How it was written.
        around: What stood before and behind.
    """

    kind: str
    form: str
    around: str


def hits(output: bytes) -> list[Hit]:
    """Find all canaries in an output: in the clear, in base64 at any place of its text, or in hexadecimal digits."""
    return [
        Hit(
            kind=kind_of(output[found.start() :]),
            form=_FORMS[found[0].lower() if found[0].lower() in _FORMS else found[0]],
            around=output[max(0, found.start() - _AROUND) : found.end() + _AROUND].decode(errors="backslashreplace"),
        )
        for found in _ANY.finditer(output)
        if not _is_end(output, found.start())
    ]


def _is_end(output: bytes, place: int) -> bool:
    begin = place - len(MARK) - _KIND - len(_ESCAPED) - _REST
    return begin >= 0 and output[begin : begin + len(MARK)] == _PLAIN and output[place : place + len(MARK)] == _PLAIN


def kind_of(text: bytes) -> str:
    """Return the kind of the canary with which a text begins."""
    digits = text[len(MARK) : len(MARK) + _KIND]
    return _kinds.get(digits.decode("latin-1"), "?")


def _base64_forms(mark: bytes) -> Iterable[bytes]:
    # The first and the last character of what encodes it may encode a part of its neighbours.
    for before in range(3):
        coded = base64.b64encode(bytes(before) + mark)
        whole = coded[-(-before * 8 // 6) : (before + len(mark)) * 8 // 6]
        yield whole
        yield whole.translate(bytes.maketrans(b"+/", b"-_"))


_kinds: Final[dict[str, str]] = {}
_PLAIN: Final = MARK.encode()
_FORMS: Final[dict[bytes, str]] = {
    _PLAIN: "plain",
    **dict.fromkeys(_base64_forms(_PLAIN), "base64"),
    _PLAIN.hex().encode(): "hex",
    "".join(f"%{one:02x}" for one in _PLAIN).encode(): "percent",
    "".join(f"\\x{one:02x}" for one in _PLAIN).encode(): "escaped",
    "".join(f"\\u{one:04x}" for one in _PLAIN).encode(): "escaped",
}
_ANY: Final = re.compile(
    b"|".join(
        re.escape(form) if name in ("plain", "base64") else b"(?i:" + re.escape(form) + b")"
        for form, name in _FORMS.items()
    )
)
