"""Oracles: what must be true for every input. They do not use the code that they check."""

from __future__ import annotations

import base64
import contextlib
import json
import math
import re
import traceback
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Any

from tokenmw.errors import CredentialRejected, TokenUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "LONGEST_LIFETIME",
    "SECRET",
    "Target",
    "Violation",
    "check_error",
    "check_grant",
    "check_lifetime",
    "check_request_error",
    "expected_lifetime",
    "require",
]

SECRET = "C4nary-s3cret"
"""The credential of every target. Seeds repeat it where a server might; its form is also that of an error code."""

LONGEST_LIFETIME = 30 * 86_400
_LONGEST_TOKEN = 16_384
_LONGEST_EXTRA = 16_384  # bytes as JSON in ASCII
_PIECE = 8  # characters of the secret that no error may show
_LONGEST_TEXT = 1_000  # characters of an error text, which has no room for the body of a response
_LONGEST_RETRY_AFTER = 3_600
_TOKEN = re.compile(r"[!-~]+", re.ASCII)
_LONGEST_NUMBER = 64
_WORD = re.compile(r"[A-Za-z0-9_-]+", re.ASCII)
_NUMBER = re.compile(r"[ \t\r\n]*(-?[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?)[ \t\r\n]*", re.ASCII)


class Violation(AssertionError):
    """Raised when an oracle is violated."""


@dataclass(frozen=True)
class Target:
    """One entry point that reads data from outside.

    Attributes:
        name: Its name on the command line.
        run: Runs it with one input, and raises if an oracle is violated.
        seeds: The first inputs. The input of a finding becomes a seed when it is fixed.
        words: Pieces that mutations insert.
        max_bytes: The length of the longest possible input.
        openings: Beginnings of long inputs, before the repeated piece; the first seed if there are none.
    """

    name: str
    run: Callable[[bytes], None]
    seeds: tuple[bytes, ...]
    words: tuple[bytes, ...] = ()
    max_bytes: int = 1 << 20
    openings: tuple[bytes, ...] = ()


def require(holds: object, complaint: str) -> None:
    """Raise `Violation` unless a condition is true."""
    if not holds:
        raise Violation(complaint)


def expected_lifetime(raw: object, *, default: float | None = None) -> float | None:
    """Return the lifetime in seconds of a JSON value, by decimal arithmetic; None if it must be refused.

    Valid values are numbers, and strings of at most 64 characters with a number in JSON's format, with or without white
    space around it.
    """
    if raw is None:
        return default
    if isinstance(raw, str):
        match = _NUMBER.fullmatch(raw)
        if match is None or len(raw) > _LONGEST_NUMBER:
            return None
        raw = match[1]
    elif isinstance(raw, bool) or not isinstance(raw, (int, float)):
        return None
    try:
        exact = Decimal(str(raw)) if not isinstance(raw, float) else Decimal(raw)
    except InvalidOperation:  # the exponent is too large
        return None
    if not exact.is_finite() or not (isinstance(raw, int) or math.isfinite(float(exact))):
        return None  # a number too large for a float is only valid as a JSON integer
    seconds = float(min(exact, Decimal(LONGEST_LIFETIME)))
    return seconds if seconds > 0 else None


def check_lifetime(seconds: object) -> None:
    """Require a valid lifetime of a token."""
    require(
        type(seconds) is float and math.isfinite(seconds) and 0 < seconds <= LONGEST_LIFETIME, "an invalid lifetime"
    )


def check_grant(grant: Any) -> None:
    """Require a grant that fits into a header and into JSON, and that expires."""
    require(type(grant.value) is str and _TOKEN.fullmatch(grant.value), "a token that is invalid in a header")
    require(len(grant.value) <= _LONGEST_TOKEN, "a token of more than 16 KiB")
    require(type(grant.token_type) is str and _WORD.fullmatch(grant.token_type), "a token type that is not one word")
    check_lifetime(grant.expires_in)
    require(len(grant.token_type) <= 64, "a token type of more than 64 characters")
    extra = dict(grant.extra)
    require(len(json.dumps(extra)) <= _LONGEST_EXTRA, "an extra of more than 16 KiB")
    require(json.loads(json.dumps(extra, allow_nan=False)) == extra, "an extra that JSON cannot represent")
    require(grant.value not in repr(grant) or grant.value in "<Grant Bearer of s0123456789>", "a repr with the token")


def check_error(error: BaseException, *, secret: str = SECRET) -> None:
    """Require that an error is readable, and that it and the errors it is chained to have no secret."""
    text = str(error)
    require(text and len(text) <= _LONGEST_TEXT, "an error with no text or a very long one")
    require(text.isprintable(), "an error with control characters, which could forge log lines")
    report = "".join(traceback.format_exception(error)) + repr(error)
    with contextlib.suppress(TypeError):  # an error without attributes
        report += repr(vars(error))
    lower = report.lower()
    pieces = {secret[begin : begin + _PIECE].lower() for begin in range(len(secret) - _PIECE + 1)}
    require(not any(piece in lower for piece in pieces), "an error with the secret")
    require(not any(form[:-1] in report for form in _encoded(secret)), "an error with the secret")


def _encoded(secret: str) -> list[str]:
    # What other bytes decide is cut off.
    forms = [base64.b64encode(b"x" * before + secret.encode()).decode().rstrip("=")[4:] for before in range(3)]
    return [secret.encode().hex(), *forms]


def check_request_error(error: BaseException, *, secret: str = SECRET) -> None:
    """Require an error of the package for one request, with a valid `retry_after` and `code`."""
    check_error(error, secret=secret)
    require(isinstance(error, (CredentialRejected, TokenUnavailable)), f"a {type(error).__name__}")
    seconds = getattr(error, "retry_after", None)
    require(seconds is None or 0 <= seconds <= _LONGEST_RETRY_AFTER, "a retry_after below zero or above an hour")
    code = getattr(error, "code", "")
    require(code == "" or (code.isprintable() and len(code) <= 64), "a code that is invalid in a log line")
