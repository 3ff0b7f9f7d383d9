"""The circuit breaker: after three failures in a row nobody asks Redis any more, until a probe has written to it.

    closed ── 3 failures in a row ──▶ open ── a background probe succeeds ──▶ closed

Requests never probe. A failure counts only if its operation began after the last success and after the last counted
failure: a thousand commands that were under way when one server died are one failure, not a thousand.

A server that is full or read-only answers reads all the same. So where one has refused to write, only a write that it
took ends the row, and for such a refusal only a write is a success; what reads learn says nothing of it.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from tokenmw.clock import Clock

__all__ = ["Breaker"]

_FAILURES: Final = 3
_FIRST_PAUSE: Final = 0.25  # seconds
_LONGEST_PAUSE: Final = 5.0
_NO_WRITES: Final = frozenset({"full", "readonly", "disk", "replicas"})


class Breaker:
    """Counts failures of one server.

    Attributes:
        open: Whether commands are refused.
        since: When it was opened or closed last, in seconds since 1970.
        error: The last failure that was counted, or a probe's since it is open; a short word.
    """

    __slots__ = (
        "_clock",
        "_failures",
        "_last_failure",
        "_last_success",
        "_last_write",
        "_pause",
        "_refused",
        "error",
        "open",
        "since",
    )

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._failures = 0
        self._refused = False
        self._last_failure = self._last_success = self._last_write = float("-inf")
        self._pause = _FIRST_PAUSE
        self.open = False
        self.since = clock.time()
        self.error = ""

    def succeeded(self, *, wrote: bool = False) -> bool:
        """Take note of a command that came back, and whether it surely wrote. Return whether that ended failures."""
        self._last_success = self._clock.monotonic()
        if wrote:
            self._last_write = self._last_success
        elif self._refused:
            return False
        recovered = self._failures > 0 and not self.open
        self._failures = 0
        self._refused = False
        return recovered

    def failed(self, error: str, *, began: float) -> bool:
        """Count a failure of a command that began at a monotonic time. Return whether this one opened the breaker."""
        if self.open:
            self.error = error
        refused = error in _NO_WRITES
        good = self._last_write if refused else self._last_success
        if self.open or began < good or began < self._last_failure:
            return False
        self.error = error
        self._failures += 1
        self._refused |= refused
        self._last_failure = self._clock.monotonic()
        if self._failures < _FAILURES:
            return False
        self.open = True
        self.since = self._clock.time()
        self._pause = _FIRST_PAUSE
        return True

    def next_pause(self) -> float:
        """Return the seconds to wait before the next probe: growing, and spread so that instances do not march."""
        pause = self._pause
        self._pause = min(_LONGEST_PAUSE, pause * 2)
        return pause * random.uniform(0.75, 1.0)

    def close(self) -> None:
        """Let commands through again."""
        self.open = False
        self.error = ""
        self.since = self._clock.time()
        self.succeeded(wrote=True)
