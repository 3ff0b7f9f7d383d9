"""What operators see of the failures of credentials: log lines and events.

A named provider has one credential, which its name says. Of the others, such as those of tenants, each has an opaque
name, and log lines of its own kind: the success of one tenant is no recovery of another.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from tokenmw.errors import CredentialRejected, RequestError, SubjectRefused
from tokenmw.observe.events import FailureAdopted, LeaseChanged
from tokenmw.redaction import Unpicklable
from tokenmw.tokens.failures import OBEYED, OF_PROVIDER

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Literal

    from tokenmw.observe.events import Event
    from tokenmw.observe.throttle import ThrottledLog
    from tokenmw.tokens.entry import TokenEntry
    from tokenmw.tokens.failures import Failure

__all__ = ["FailureReports", "reason_of", "result_of"]

_MOST_KINDS: Final = 20  # credentials of one provider's name with log lines of their own; the others share one kind
_TAKEN_OVER: Final = (
    "%s: the process with the lease has stored neither a token nor a failure; took it over after %.1f s"
)


def reason_of(failure: Failure) -> str:
    """Return the word of `FailureAdopted.reason`."""
    if failure.reconnect is not None:
        return "reconnect"
    if failure.subject_claims is not None:
        return "subject_refused"
    if failure.permanent:
        return "rejected"
    if failure.kind == OF_PROVIDER:
        return "provider"
    return "retry_after" if failure.kind == OBEYED and failure.shareable else "unanswered"


def result_of(error: RequestError) -> Literal["unavailable", "rejected"]:
    """Return the word of `TokenServed.result` for an error that was raised."""
    return "rejected" if isinstance(error, (CredentialRejected, SubjectRefused)) else "unavailable"


class FailureReports(Unpicklable):
    """Writes the log lines and events of failures.

    Args:
        log: Gets the lines.
        observe: Gets the events.
    """

    __slots__ = ("_kinds", "_log", "_observe")

    def __init__(self, log: ThrottledLog, *, observe: Callable[[Event], None]) -> None:
        self._log = log
        self._observe = observe
        self._kinds: dict[str, set[str]] = {}  # by provider's name, those of its credentials

    def failed(self, entry: TokenEntry, failure: Failure) -> None:
        """Log a failure of this process, or one that another process has noted."""
        if failure.reconnect is not None:
            return  # logged where it was found out: each request of that user comes here
        if failure.subject_claims is not None:
            # The caller's fault, one of many. It ends with another caller's token, so that no line says that.
            self._log.problem(
                f"subject:{entry.name}",
                "%s: a caller's token is refused: %s",
                entry.name,
                failure.detail,
                provider=entry.name,
                reason="subject refused",
            )
            return
        shown = entry.client or entry  # callers have no lines of their own
        kind = "credential rejected" if failure.permanent else "no token"
        suffix = f" (at {failure.place})" if failure.place else ""
        if failure.noted:
            suffix = f" (reported by {failure.writer or 'another instance'})"
        fields = {"provider": entry.name, "reason": kind}
        if shown.credential:
            fields["credential"] = shown.credential
        sort = "rejected" if failure.permanent else ""
        texts = (shown.label, kind, failure.detail, suffix)
        self._log.problem(self._kind_of(shown), "%s: %s: %s%s", *texts, sort=sort, **fields)

    def adopted(self, entry: TokenEntry, failure: Failure) -> None:
        """Log and publish that a failure which another process has noted was taken over."""
        self.failed(entry, failure)
        self._observe(FailureAdopted(entry.name, reason_of(failure), entry.credential, failure.writer))

    def taken_over(self, entry: TokenEntry, *, waited: float) -> None:
        """Log and publish that the holder of a lease did not finish, and this process has the lease now."""
        self._log.problem(f"lease:{entry.name}", _TAKEN_OVER, entry.label, waited, provider=entry.name)
        self._observe(LeaseChanged(entry.name, "taken_over", entry.credential))

    def _kind_of(self, entry: TokenEntry) -> str:
        kind = entry.log_kind
        if entry.named:
            return kind
        kinds = self._kinds.setdefault(entry.name, set())
        if kind not in kinds and len(kinds) >= _MOST_KINDS:
            is_problem = self._log.is_problem
            kinds.difference_update([one for one in kinds if not is_problem(one)])
        if kind not in kinds and len(kinds) >= _MOST_KINDS:
            return f"provider:{entry.name}:others"
        kinds.add(kind)
        return kind
