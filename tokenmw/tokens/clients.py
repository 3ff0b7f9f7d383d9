"""The failures that callers share: those of a client whose tokens are made from its callers' own.

Each caller's token has an entry, and all of them depend on one client at one server. What the server says of the client
itself, a `Retry-After`, and a server that cannot be connected to concern all callers: none of them asks before the
backoff is over, and then one does. Any other failure may be due to one caller's token, such as one that breaks the
server. It concerns all once five callers in a row have got it; otherwise a single caller could stop the others.

A refused caller's token is a matter of that caller. It shows that the server answers and accepts the client.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from tokenmw.errors import CredentialRejected, SubjectRefused, TokenUnavailable
from tokenmw.providers.network.failures import system_error
from tokenmw.tokens.entry import TokenEntry
from tokenmw.tokens.failures import Failure

if TYPE_CHECKING:
    from collections.abc import Callable

    from tokenmw.limits import Limits
    from tokenmw.providers.base import Provider

__all__ = ["ClientEntry"]

# RFC 6749 §5.2: the server refuses the client, whatever the caller's token is.
_OF_CLIENT: Final = frozenset({"invalid_client", "unauthorized_client", "unsupported_grant_type"})
_IN_A_ROW: Final = 5  # callers
_AMBIGUOUS: Final = "invalid_request"
_SUSPECTED_SECONDS: Final = 30.0  # between two requests for one caller
_UNPROVEN: Final = (
    f"; {_IN_A_ROW} callers were refused so and none was served, so the options may be wrong: callers get 503 and not "
    "401 until one is served"
)


class ClientEntry(TokenEntry):
    """What one process knows of a client: of all providers that differ only in the subject. It never has a token.

    Attributes:
        failure: Why no caller gets a token; None after a success.
        suspicion: Why the options may be wrong; "" if nothing shows it.
    """

    __slots__ = ("_certain", "_granted", "_in_a_row", "_probes", "_refused", "_refused_at", "suspicion")

    def __init__(self, provider: Provider, name: str, *, digest: Callable[[Provider], str]) -> None:
        super().__init__(provider, name, keys=None, digest=digest)
        self.suspicion = ""
        self._granted = False  # whether a caller's token was exchanged, by this process or by another one
        self._certain = False  # whether the failure cannot be due to one caller's token
        self._in_a_row = 0  # callers that failed since the last answer, and may have failed by their own token
        self._probes = 0  # requests since the backoff was over
        self._refused = 0  # callers whose token, or the options, the server has refused
        self._refused_at = float("-inf")

    def admits(self, now: float, *, seconds: float) -> bool:
        """Return whether a caller's request may be sent now.

        After a backoff that is one request, or five if one caller's token may have caused the failure; the others wait
        for its outcome, for `seconds` at most.
        """
        if self.failure is None:
            return True
        if now < self.failure.probe_at:
            return False
        self._probes += 1
        if self._certain or self._probes >= _IN_A_ROW:
            self._probes = 0
            self.failure.probe_at = now + seconds
        return True

    def grant(self) -> None:
        """Note that a caller's token was exchanged, by this process or by another one: the options are right."""
        self._granted, self.suspicion = True, ""

    def succeed(self, seen: Failure | None) -> None:
        """Note that the server has answered a request that began when `seen` was the failure.

        A failure that was found meanwhile stays.
        """
        if self.failure is None or self.failure is seen:
            self.failure = None
            self._in_a_row = self._probes = 0

    def fail(
        self, before: Failure | None, error: BaseException, *, seen: Failure | None, now: float, limits: Limits
    ) -> Failure | None:
        """Note why a caller's request failed. Return the failure of all callers; None if only this one is concerned.

        Args:
            before: The failure of that caller's entry before.
            error: What was raised.
            seen: The failure of all callers when the request began.
            now: The monotonic time.
            limits: The bounds of the backoff.
        """
        if isinstance(error, SubjectRefused) and error.said:
            self.succeed(seen)
            return None
        if isinstance(error, SubjectRefused) or getattr(error, "_cause", None) is not None:
            if self.failure is not None and self.failure is seen:
                self.failure.end_backoff(now)  # the server was not asked, so that the next caller may ask
            return None
        if self.failure is not None and self.failure is not seen:
            return self.failure  # found by another request meanwhile
        certain = _concerns_all(error)
        if not certain:
            # Its failures in a row count once, as long as others succeed.
            self._in_a_row += before is None or before.cause is not None
            if self._in_a_row < _IN_A_ROW:
                return None
        self.failure = Failure.from_error(error, before=self.failure, now=now, limits=limits)
        self._certain, self._in_a_row, self._probes = certain, 0, 0
        return self.failure

    def judge(self, before: Failure | None, error: BaseException, *, started: float, now: float) -> BaseException:
        """Return the error of a refusal that may be about the options, and not about the caller.

        A server answers `invalid_request` to a bad token (RFC 8693 §2.2.2), and to a request that lacks a parameter or
        has a wrong one (RFC 6749 §5.2). Once a caller's token was exchanged with the same options, only the token is
        left. If five callers, each after the other, were refused so and none was served, the options are taken to be
        wrong. They would sign all users out, so that it is no 401. The next caller's token is sent nevertheless: five
        callers with bad tokens must not stop the others. The server's description is not read: it is free text.
        """
        if self._granted or not isinstance(error, SubjectRefused) or error.code != _AMBIGUOUS:
            return error
        if before is None and started >= self._refused_at:  # of requests that were sent together, one counts
            self._refused, self._refused_at = self._refused + 1, now
        if self._refused <= _IN_A_ROW:
            return error
        self.suspicion = f"{error._text}{_UNPROVEN}"
        return TokenUnavailable(
            self.suspicion, retry_after=_SUSPECTED_SECONDS
        )  # not `said`: others may have served callers


def _concerns_all(error: BaseException) -> bool:
    if isinstance(error, CredentialRejected):
        return error.code in _OF_CLIENT
    if isinstance(error, TokenUnavailable) and error.retry_after:
        return True
    cause = system_error(error)
    return cause is not None and not isinstance(cause, (ConnectionResetError, BrokenPipeError))
