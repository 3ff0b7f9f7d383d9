"""The circuit breaker of one server: three failures in a row open it, and a probe that has written closes it.

    closed ── 3 failures in a row ──▶ open ── a background probe succeeds ──▶ closed

A probe that fails when the program starts opens it, too.

Requests never probe. A failure counts only if its command began after the last success and after the last counted
failure: a thousand commands that were running when a server died are one failure, not a thousand.

A server that is slow now and then may fail again soon after it has recovered. Then the delays of the probes begin with
a longer one each time, so that the circuit does not open and close many times a minute.

A server that is full or read-only still answers reads. So after a refused write only a successful write resets the
count, and for such a failure only a write counts as the last success: a read proves nothing about writes.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

if TYPE_CHECKING:
    from tokenmw.clock import Clock

__all__ = ["Breaker", "State"]

State: TypeAlias = Literal["unknown", "up", "down", "unsupported"]

_FAILURES: Final = 3
_FIRST_DELAY: Final = 0.25  # seconds
_LONGEST_DELAY: Final = 5.0
_CALM_SECONDS: Final = 10.0  # an outage that begins sooner after the last one has a first delay of twice the length
_MAX_RELAPSES: Final = 5  # 0.25 s, doubled five times, is longer than the longest delay
_REFUSED_WRITES: Final = frozenset({"full", "readonly", "disk", "replicas"})


class Breaker:
    """Counts the failures of one server.

    Attributes:
        open: Whether commands are refused.
        heard: Whether the server has answered any command so far.
        since: When it opened or closed last, or the server first answered, in seconds since 1970.
        error: The reason of the last failure: of one that was counted, or of any while it is open; "" after it closed.
        error_at: When that was, in seconds since 1970; None if `error` is "".
    """

    __slots__ = (
        "_clock",
        "_closed_at",
        "_delay",
        "_failures",
        "_last_failure",
        "_last_success",
        "_last_write",
        "_relapses",
        "_write_refused",
        "error",
        "error_at",
        "heard",
        "open",
        "since",
    )

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._failures = 0
        self._write_refused = False
        self._last_failure = self._last_success = self._last_write = float("-inf")
        self._delay = _FIRST_DELAY
        self._closed_at: float | None = None
        self._relapses = 0
        self.open = self.heard = False
        self.since = clock.time()
        self.error = ""
        self.error_at: float | None = None

    @property
    def state(self) -> State:
        """What the status says of the server."""
        if self.open:
            return "unsupported" if self.error == "unsupported" else "down"
        return "up" if self.heard else "unknown"

    @property
    def failing(self) -> bool:
        """Whether it counts a row of failures, or is open."""
        return self.open or self._failures > 0

    def was_in_an_outage(self, began: float) -> bool:
        """Return whether a command that began at a monotonic time began before the last outage ended."""
        return self._closed_at is not None and began < self._closed_at

    def answered(self) -> None:
        """Record that the server has answered, if only with an error."""
        if not self.heard:
            self.heard = True
            if not self.open:
                self.since = self._clock.time()

    def succeeded(self, *, wrote: bool = False) -> bool:
        """Record a command that succeeded, and whether it is known to have written.

        Return whether it ended a row of failures that had not opened the circuit.
        """
        self.answered()
        self._last_success = self._clock.monotonic()
        if wrote:
            self._last_write = self._last_success
        elif self._write_refused:
            return False
        recovered = self._failures > 0 and not self.open
        self._failures = 0
        self._write_refused = False
        return recovered

    def failed(self, reason: str, *, began: float) -> bool:
        """Record a failed command that began at a monotonic time. Return whether it opened the circuit."""
        if self.open:
            self._set_error(reason)
        write_refused = reason in _REFUSED_WRITES
        last_success = self._last_write if write_refused else self._last_success
        if self.open or began < last_success or began < self._last_failure:
            return False
        self._set_error(reason)
        self._failures += 1
        self._write_refused |= write_refused
        self._last_failure = self._clock.monotonic()
        if self._failures < _FAILURES:
            return False
        self.trip()
        return True

    def trip(self) -> None:
        """Open the circuit. Its first delay depends on the time since it closed.

        In the first 10 s, the delay is twice as long as in the last outage; each further 10 s halve it.
        """
        self.open = True
        self.since = self._clock.time()
        if self._closed_at is not None:
            calm = int((self._clock.monotonic() - self._closed_at) / _CALM_SECONDS)
            self._relapses = max(0, min(_MAX_RELAPSES, self._relapses + 1 - calm))
        self._delay = min(_LONGEST_DELAY, _FIRST_DELAY * 2**self._relapses)

    def next_probe_delay(self) -> float:
        """Return the seconds until the next probe: they double, with jitter, so that instances do not probe at once."""
        delay = self._delay
        self._delay = min(_LONGEST_DELAY, delay * 2)
        return delay * random.uniform(0.75, 1.0)

    def close(self) -> None:
        """Close the circuit after a probe has written."""
        self.open = False
        self.error = ""
        self.error_at = None
        self.since = self._clock.time()
        self._closed_at = self._clock.monotonic()
        self.succeeded(wrote=True)

    def _set_error(self, reason: str) -> None:
        self.error = reason
        self.error_at = self._clock.time()
