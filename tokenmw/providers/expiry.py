"""How long a granted token lives: by its lifetime, or by the time of its expiry, in the spellings of real servers."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from tokenmw.clock import SYSTEM_CLOCK
from tokenmw.providers.answer import http_date, lifetime, number

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tokenmw.providers.answer import Answer

__all__ = ["remaining_seconds", "time_of"]

_LIFETIME: Final = "expires_in"
# The time of expiry: `expires_on` of Microsoft's endpoints, the other two of servers that follow no standard.
_TIMES: Final = ("expires_on", "expires_at", "expires")
_NO_TIME_BELOW: Final = 1e9  # seconds since 1970; as `expires` a smaller number is a lifetime
_MILLISECONDS_FROM: Final = 1e11  # the year 5138 in seconds
_MAX_TIME: Final = 64  # characters
# As .NET writes it: "1/16/2020 5:24:12 AM +00:00" on Windows, "06/20/2019 02:57:58 +00:00" on Linux.
_DOTNET: Final = re.compile(
    r"([0-9]{1,2})/([0-9]{1,2})/([0-9]{4}) ([0-9]{1,2})(:[0-9]{2}:[0-9]{2})(?: ([AP])M)?"
    r"(?: ?(Z|[+-][0-9]{2}:?[0-9]{2}))?",
    re.ASCII,
)


def remaining_seconds(
    answer: Answer, fields: Mapping[str, Any], *, default: float | None = None, zero_is_default: bool = False
) -> float:
    """Return the seconds that a granted token still lives, by `expires_in` or by the time of its expiry.

    The time counts if `expires_in` is missing, empty, zero or negative. It is compared with the response's own `Date`,
    so a wrong clock of this machine does no harm.

    Args:
        answer: The token endpoint's response.
        fields: Its fields.
        default: The seconds for a response that does not say; None: that is an error.
        zero_is_default: Whether `expires_in: 0` counts as a response that does not say.

    Raises:
        TokenUnavailable: The token has expired, or its lifetime is missing or cannot be read.
    """
    given = fields.get(_LIFETIME)
    seconds = number(given)
    missing = given is None or given == ""
    if missing or (seconds is not None and seconds <= 0):
        for name in _TIMES:
            left = _left(fields.get(name), name=name, answer=answer)
            if left is not None:
                return lifetime(left, field=name)
    if zero_is_default and seconds == 0:
        given = None
    return lifetime(given, default=default, field=_LIFETIME)


def _left(raw: object, *, name: str, answer: Answer) -> float | None:
    seconds = number(raw)
    if name == "expires" and seconds is not None and seconds < _NO_TIME_BELOW:
        return seconds
    until = time_of(raw)
    if until is None:
        return None
    sent = http_date(answer.headers.get("date", ""))
    return until - (SYSTEM_CLOCK.time() if sent is None else sent)


def time_of(raw: object) -> float | None:
    """Return a time in seconds since 1970, from a number or text of any usual form; None if it is no time.

    These are seconds or milliseconds since 1970, ISO 8601, and the two forms of .NET. Without a zone they are in UTC.

    >>> time_of("1709596800"), time_of("2024-03-05T00:00:00Z"), time_of("3/5/2024 12:00:00 AM +00:00")
    (1709596800.0, 1709596800.0, 1709596800.0)
    """
    seconds = number(raw)
    if seconds is not None:
        return seconds / 1000 if seconds >= _MILLISECONDS_FROM else seconds
    if not isinstance(raw, str) or len(raw) > _MAX_TIME:
        return None
    text = raw.strip()
    dotnet = _DOTNET.fullmatch(text)
    if dotnet is not None:
        text = _as_iso(dotnet)
    try:
        read = datetime.fromisoformat(text)
        return (read.replace(tzinfo=UTC) if read.tzinfo is None else read).timestamp()
    except (ValueError, OverflowError):
        return None


def _as_iso(dotnet: re.Match[str]) -> str:
    month, day, year, hour, rest, half, zone = dotnet.groups()
    if half is not None and 1 <= int(hour) <= 12:
        hour = str(int(hour) % 12 + (12 if half == "P" else 0))
    return f"{year}-{month:0>2}-{day:0>2}T{hour:0>2}{rest}{zone or '+00:00'}"
