"""What must hold whatever the input is. Each check is written anew, not with the code that it judges."""

from __future__ import annotations

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
    "LONGEST_LIFE",
    "SECRET",
    "Broken",
    "Target",
    "check_error",
    "check_grant",
    "check_life",
    "check_request_error",
    "life_of",
    "require",
]

SECRET = "C4nary-s3cret"
"""What every target's credential is, and what seeds repeat where a server might. It could be an error's code."""

LONGEST_LIFE = 30 * 86_400
_LONGEST_TOKEN = 16_384
_LONGEST_TEXT = 1_000  # characters of an error: a line that people read, and no place for an answer's body
_LONGEST_PAUSE = 3_600
_TOKEN = re.compile(r"[!-~]+", re.ASCII)
_WORD = re.compile(r"[A-Za-z0-9_-]+", re.ASCII)
_NUMBER = re.compile(r"[ \t\r\n]*(-?[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?)[ \t\r\n]*", re.ASCII)


class Broken(AssertionError):
    """Raised when an oracle does not hold."""


@dataclass(frozen=True)
class Target:
    """One entry point that reads what comes from outside.

    Attributes:
        name: How it is asked for.
        run: Feeds it one input, and raises if anything does not hold.
        seeds: Inputs to begin with; a finding that was fixed becomes one.
        words: What is worth putting into an input.
        most: Bytes of the longest input that can come this way.
        openings: What stands in front where one piece comes over and over; the first seed if there are none.
    """

    name: str
    run: Callable[[bytes], None]
    seeds: tuple[bytes, ...]
    words: tuple[bytes, ...] = ()
    most: int = 1 << 20
    openings: tuple[bytes, ...] = ()


def require(holds: object, complaint: str) -> None:
    """Raise unless something holds."""
    if not holds:
        raise Broken(complaint)


def life_of(raw: object, *, default: float | None = None) -> float | None:
    """Return the life that a JSON value stands for, by decimal arithmetic; None: it must be refused.

    Numbers, and text that is a number as JSON writes it, with spaces around it at most.
    """
    if raw is None:
        return default
    if isinstance(raw, str):
        fits = _NUMBER.fullmatch(raw)
        if fits is None:
            return None
        raw = fits[1]
    elif isinstance(raw, bool) or not isinstance(raw, (int, float)):
        return None
    try:
        exact = Decimal(str(raw)) if not isinstance(raw, float) else Decimal(raw)
    except InvalidOperation:  # an exponent of more digits than there are
        return None
    if not exact.is_finite() or not (isinstance(raw, int) or math.isfinite(float(exact))):
        return None  # what no double holds is not finite to us, unless JSON has it as a whole number
    seconds = float(min(exact, Decimal(LONGEST_LIFE)))
    return seconds if seconds > 0 else None


def check_life(seconds: object) -> None:
    """Require a life that a token can have."""
    require(type(seconds) is float and math.isfinite(seconds) and 0 < seconds <= LONGEST_LIFE, "no life of a token")


def check_grant(grant: Any) -> None:
    """Require that what was granted can go into a header, into JSON, and ends."""
    require(type(grant.value) is str and _TOKEN.fullmatch(grant.value), "a token that breaks a header")
    require(len(grant.value) <= _LONGEST_TOKEN, "a token of more than 16 KiB")
    require(type(grant.token_type) is str and _WORD.fullmatch(grant.token_type), "a token type that is not one word")
    check_life(grant.expires_in)
    extra = dict(grant.extra)
    require(json.loads(json.dumps(extra, allow_nan=False)) == extra, "extra that JSON does not hold")
    require(grant.value not in repr(grant) or grant.value in "<Grant Bearer of s0123456789>", "a repr with the token")


def check_error(error: BaseException, *, secret: str = SECRET) -> None:
    """Require of an error, and of all behind it, that people can read it and that it has no secret."""
    text = str(error)
    require(text and len(text) <= _LONGEST_TEXT, "an error without a text, or with an endless one")
    require(text.isprintable(), "an error with control characters, which would forge log lines")
    shown = "".join(traceback.format_exception(error)) + repr(error)
    with contextlib.suppress(TypeError):  # an error without attributes
        shown += repr(vars(error))
    require(secret not in shown, "an error with the secret")


def check_request_error(error: BaseException, *, secret: str = SECRET) -> None:
    """Require an error of ours for one request: with a pause that is sensible, and a code that is a word."""
    check_error(error, secret=secret)
    require(isinstance(error, (CredentialRejected, TokenUnavailable)), f"a {type(error).__name__}")
    pause = getattr(error, "retry_after", None)
    require(pause is None or 0 <= pause <= _LONGEST_PAUSE, "a pause below zero, or above an hour")
    code = getattr(error, "code", "")
    require(code == "" or (code.isprintable() and len(code) <= 64), "a code that breaks a log line")
