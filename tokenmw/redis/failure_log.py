"""What the log has of one server. It follows the circuit breaker: only an open circuit is an outage.

    circuit opens ── "Redis unavailable (…)" ── failures are counted ── circuit closes ── "Redis recovered (…)"
    fewer failures than open it ── commands succeed again ── "Redis failed 2 commands (…) and answers again"

Each server of a cluster has lines of its own: those of one do not suppress those of another.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from tokenmw.observe.error_place import with_place
from tokenmw.redaction import Unpicklable
from tokenmw.redis.client import address_of
from tokenmw.redis.errors import UNKNOWN

if TYPE_CHECKING:
    from tokenmw.observe.throttle import ThrottledLog
    from tokenmw.redis.client import AnyClient

__all__ = ["FailureLog"]

_UNAVAILABLE: Final = "Redis unavailable (%s, %s); serving from local caches"
_UNAVAILABLE_FIX: Final = "Redis unavailable (%s, %s): %s; serving from local caches"
_RECOVERED: Final = "Redis recovered (%s)"
_FAILED: Final = "Redis failed %s (%s, %s) and answers again"
_FAILED_FIX: Final = "Redis failed %s (%s, %s): %s; it answers again"
_REFUSED: Final = "Redis refuses a command (%s, %s)"
_CLIENT_RAISED: Final = "The Redis client raised %s (%s)"
_PROBE_RAISED: Final = "The probe of Redis raised %s (%s)"


class FailureLog(Unpicklable):
    """Logs what a guard finds out about its server.

    Args:
        log: Gets the lines.
        client: The client of the server, or of its cluster.
        node: The name of the server in its cluster; "" for a single one.
    """

    __slots__ = ("_advice", "_client", "_failures", "_log", "_node", "_reason")

    def __init__(self, log: ThrottledLog, *, client: AnyClient, node: str) -> None:
        self._log = log
        self._client = client
        self._node = node
        self._failures = 0
        self._reason = ""
        self._advice = ""

    @property
    def address(self) -> str:
        """The server's address."""
        return address_of(self._client, self._node)

    def unavailable(self, reason: str, *, fix: str) -> None:
        """Log a failure with which the circuit opened, or one while it is open."""
        failures, self._failures = self._failures + 1, 0
        kind, server = self._kind(), self.address
        for _ in range(failures):  # those before it are part of the outage: the log counts them
            if fix:
                self._log.problem(kind, _UNAVAILABLE_FIX, reason, server, fix, reason=reason, server=server)
            else:
                self._log.problem(kind, _UNAVAILABLE, reason, server, reason=reason, server=server)

    def recovered(self) -> None:
        """Log that the circuit is closed again."""
        server = self.address
        self._log.recovered(self._kind(), _RECOVERED, server, server=server)

    def failed(self, reason: str, *, fix: str) -> None:
        """Note a failure while the circuit is closed: whether it is one of an outage is not known yet."""
        self._failures += 1
        self._reason, self._advice = reason, fix

    def answers(self) -> None:
        """Log the failures that were noted: commands succeed again, and the circuit was not opened."""
        if not self._failures:
            return
        count = "1 command" if self._failures == 1 else f"{self._failures} commands"
        self._failures = 0
        kind, reason, fix, server = self._kind("failed"), self._reason, self._advice, self.address
        if fix:
            self._log.problem(kind, _FAILED_FIX, count, reason, server, fix, reason=reason, server=server)
        else:
            self._log.problem(kind, _FAILED, count, reason, server, reason=reason, server=server)

    def refused(self, what: str) -> None:
        """Log an error reply that concerns one command only."""
        server = self.address
        self._log.problem(self._kind("response"), _REFUSED, what, server, reason="response", server=server)

    def client_raised(self, error: BaseException) -> None:
        """Log what the client, or the program's code inside of it, has raised."""
        place, server = with_place(error, called=None), self.address
        self._log.problem(self._kind("client"), _CLIENT_RAISED, place, server, reason=UNKNOWN, server=server)

    def probe_raised(self, error: BaseException) -> None:
        """Log what a probe has raised that is no failure of Redis."""
        place, server = with_place(error, called=None), self.address
        self._log.problem(self._kind("probe"), _PROBE_RAISED, place, server, reason=UNKNOWN, server=server)

    def _kind(self, of: str = "") -> str:
        kind = f"redis-{of}" if of else "redis"
        return f"{kind}:{self._node}" if self._node else kind
