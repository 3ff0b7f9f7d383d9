"""When a provider that failed is asked again.

While a valid token is served, nobody is refused, so the provider is asked less and less: the backoff grows from
`Limits(backoff_seconds=…)` to `Limits(max_backoff_seconds=…)`, and ends before that token expires. Without a valid
token requests are refused, so that one of them probes the provider every `Limits(probe_seconds=…)`. Two answers are
obeyed in both cases: a `Retry-After`, and a rejected credential, which no further request will fix.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from tokenmw.limits import Limits

__all__ = ["MAX_RETRY_AFTER", "Attempt", "after_failure", "after_rejection", "backoff", "longest_probe_wait"]

MAX_RETRY_AFTER: Final = 3600.0  # seconds of a provider's Retry-After that are obeyed; Redis ignores longer notes
_PROBE_JITTER: Final = 0.25  # of `probe_seconds`, to both sides
_RETRY_AFTER_JITTER: Final = 0.1  # of a Retry-After, added to it: it may not be undercut
# A wrong secret is not fixed within a second.
_FIRST_IF_REJECTED: Final = 30.0  # times `backoff_seconds`
_LONGEST_IF_REJECTED: Final = 3.0  # times `max_backoff_seconds`


class Attempt(NamedTuple):
    """The seconds until the provider may be asked again.

    Attributes:
        unserved: If there is no valid token, so that requests are refused.
        served: If a valid token is still served.
    """

    unserved: float
    served: float


def backoff(count: int, *, first: float = 1.0, longest: float = 300.0) -> float:
    """Return the seconds to wait after the `count`th failure in a row: exponential, with a jitter of a quarter.

    It is an hour at most.
    """
    seconds: float = min(longest, first * 2 ** min(count - 1, 20), MAX_RETRY_AFTER)
    return seconds * random.uniform(0.75, 1.0)


def after_failure(count: int, *, limits: Limits, retry_after: float | None, served_for: float) -> Attempt:
    """Return when to ask again after the `count`th transient failure in a row.

    Args:
        count: The failures in a row.
        limits: The bounds of both waits.
        retry_after: The seconds that the provider asked for, or None.
        served_for: The seconds for which a valid token is still served; 0 without one. Then `served` is for a token
            that another process stores in the meantime.
    """
    growing = backoff(count, first=limits.backoff_seconds, longest=limits.max_backoff_seconds)
    probe = min(limits.probe_seconds * random.uniform(1 - _PROBE_JITTER, 1 + _PROBE_JITTER), MAX_RETRY_AFTER)
    if retry_after:
        asked_for = retry_after * random.uniform(1.0, 1.0 + _RETRY_AFTER_JITTER)
        unserved = min(max(asked_for, limits.backoff_seconds), MAX_RETRY_AFTER)
    else:
        unserved = min(growing, probe)
    # Asked once more before the token expires, so that a provider that is back by then refuses no request.
    served = min(growing, served_for - probe) if served_for > 0 else growing
    return Attempt(unserved, max(unserved, served))


def after_rejection(count: int, *, limits: Limits, retry_after: float | None) -> Attempt:
    """Return when to ask again after the provider rejected the credential for the `count`th time in a row."""
    seconds = backoff(
        count,
        first=_FIRST_IF_REJECTED * limits.backoff_seconds,
        longest=_LONGEST_IF_REJECTED * limits.max_backoff_seconds,
    )
    seconds = max(seconds, min(retry_after or 0.0, MAX_RETRY_AFTER))
    return Attempt(seconds, seconds)


def longest_probe_wait(limits: Limits) -> float:
    """Return the longest wait between two probes, in seconds."""
    return limits.probe_seconds * (1 + _PROBE_JITTER)
