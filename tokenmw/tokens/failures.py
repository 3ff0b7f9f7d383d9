"""Failures as state: what a provider answered, and when it may be asked again.

Nothing sleeps here and nothing retries. A failure has a time before which the provider is not asked: earlier requests
get the error at once, and the first later one asks again. So a provider that fails is asked less, whatever the traffic.

A failure note in Redis shares a failure between instances. There are four kinds:

- What holds for every instance until a time: a rejected credential, or an answer with `Retry-After`. It is obeyed.
- What the provider answered without a time, such as 503. It is obeyed while a valid token is served; an instance
  without one asks again when it is a probe's wait old.
- A refused token of a caller, from which the provider's would be made: it is refused to every instance alike, unless
  the server asks for claims, which a note does not have.
- A fault that may concern the writer's machine alone, such as one of its network. The note lasts for the wait of one
  probe, so that a fleet does not ask in turns. The writer itself waits longer, so that another instance probes next.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

from tokenmw.errors import CredentialRejected, ReconnectRequired, RequestError, SubjectRefused, TokenUnavailable
from tokenmw.limits import Limits
from tokenmw.providers.network.failures import system_error
from tokenmw.tokens.backoff import (
    MAX_RETRY_AFTER,
    Attempt,
    after_failure,
    after_rejection,
    backoff,
    longest_probe_wait,
)

if TYPE_CHECKING:
    from tokenmw.tokens.entry import TokenEntry

__all__ = ["OBEYED", "OF_MACHINE", "OF_PROVIDER", "Cause", "Failure", "backoff"]

# The kinds of transient failures. A note has them where it has the provider's code of a rejected credential: versions
# before them wrote "" there, and read nothing.
OBEYED: Final = ""
OF_PROVIDER: Final = "provider"
OF_MACHINE: Final = "machine"

_SUBJECT: Final = "subject:"  # in front of the code of a refused subject; no code has a colon
_MAX_COUNT: Final = 1_000_000  # failures in a row that are counted; the backoff stopped growing long before
_MAX_TEXT: Final = 1_000  # characters of a failure note that this process logs
_STAND_BACK: Final = 0.25  # of a probe's wait, for which the writer of a note waits longer than the others
_RECONNECT_SECONDS: Final = 1.0
_DEFAULTS: Final = Limits()


class Cause:
    """The other entry whose failure this one only passes on, because its own request needs that entry's token.

    Attributes:
        entry: The entry that failed by itself.
        failure: Its failure at that time; None if it has none, as when the broker is closing.
    """

    __slots__ = ("entry", "failure")

    def __init__(self, entry: TokenEntry) -> None:
        cause = None if entry.failure is None else entry.failure.cause
        self.entry: TokenEntry = entry if cause is None else cause.entry
        self.failure: Failure | None = entry.failure if cause is None else cause.failure

    @property
    def unchanged(self) -> bool:
        """Whether that entry has had no token and no other failure since."""
        return self.entry.failure is self.failure


class Failure:
    """Why there is no new token.

    Attributes:
        permanent: Whether the credential itself was rejected.
        detail: What happened, without secrets.
        code: The provider's own error code.
        count: How many failures in a row.
        failed_at: The monotonic time of the failure; minus infinity for one that was passed on.
        retry_at: The monotonic time before which the provider is not asked while a valid token is served.
        probe_at: The same while there is none; see `TokenEntry.in_backoff`.
        shareable: Whether other instances would get the same answer.
        kind: Of a transient failure: `OBEYED`, `OF_PROVIDER` or `OF_MACHINE`.
        note_until: The monotonic time until which a note in Redis holds; minus infinity if there is none to write.
        place: Where the program's own code raised it; "" if it did not, and for failures of other processes.
        cause: The entry whose failure was passed on; None: the failure is this entry's own.
        redis_read_at: The monotonic time at which Redis was last searched for another process's token.
        system_error: The error of the operating system or of TLS behind a failure of the network; None for any other.
        noted: Whether it was read from another process's note; it then ends when Redis no longer has that note.
        writer: The host and process that wrote that note; "" if the note does not say.
        reconnect: If the user has to connect an account, where and why, as in `ReconnectRequired`; else None.
        subject_claims: If a caller's own token was refused, the claims that a new one needs, or ""; else None.
    """

    __slots__ = (
        "cause",
        "code",
        "count",
        "detail",
        "failed_at",
        "kind",
        "note_until",
        "noted",
        "permanent",
        "place",
        "probe_at",
        "reconnect",
        "redis_read_at",
        "retry_at",
        "shareable",
        "subject_claims",
        "system_error",
        "writer",
    )

    def __init__(
        self, *, permanent: bool, detail: str, code: str, count: int, retry_at: float, shareable: bool
    ) -> None:
        self.permanent = permanent
        self.detail = detail
        self.code = code
        self.count = count
        self.retry_at = self.probe_at = retry_at
        self.shareable = shareable
        self.kind = OBEYED
        self.note_until = self.failed_at = float("-inf")
        self.place = ""
        self.cause: Cause | None = None
        self.system_error: OSError | None = None
        self.redis_read_at = float("-inf")
        self.noted = False
        self.writer = ""
        self.subject_claims: str | None = None
        self.reconnect: tuple[str, str] | None = None

    @classmethod
    def from_error(
        cls,
        error: BaseException,
        *,
        before: Failure | None,
        now: float,
        served_for: float = 0.0,
        limits: Limits = _DEFAULTS,
    ) -> Failure:
        """Return the failure for what `fetch` raised; its backoff grows from that of the failure `before`.

        Args:
            error: The exception.
            before: The failure before it, if there was no token in between.
            now: The monotonic time.
            served_for: The seconds for which a valid token is still served; 0 without one.
            limits: The bounds of the backoff.
        """
        if isinstance(error, RequestError) and error._cause is not None:
            return cls._passed_on(error, error._cause, before=before, now=now)
        if isinstance(error, ReconnectRequired):
            return cls._of_connection(error, now=now)
        count = 1 if before is None else before.count + 1
        permanent = isinstance(error, (CredentialRejected, SubjectRefused))
        detail, code, shareable = f"the provider's fetch raised {type(error).__name__}", "", False
        retry_after: float | None = None
        if isinstance(error, (CredentialRejected, TokenUnavailable)):
            # The text of any other exception is not ours and might hold a secret.
            detail, shareable, retry_after = error._text, error.said, error.retry_after
            code = error.code if isinstance(error, CredentialRejected) else ""
        elif isinstance(error, SubjectRefused):
            detail, code, shareable = error._text, error.code, not error.claims
        if permanent:
            wait = after_rejection(count, limits=limits, retry_after=retry_after)
        else:
            wait = after_failure(count, limits=limits, retry_after=retry_after, served_for=served_for)
        failure = cls(
            permanent=permanent, detail=detail, code=code, count=count, retry_at=now + wait.served, shareable=shareable
        )
        failure.probe_at = now + wait.unserved
        failure.failed_at = now
        failure.system_error = system_error(error)
        failure.subject_claims = error.claims if isinstance(error, SubjectRefused) else None
        failure._set_note(wait, retry_after=retry_after, served=served_for > 0, limits=limits, now=now)
        return failure

    def _set_note(self, wait: Attempt, *, retry_after: float | None, served: bool, limits: Limits, now: float) -> None:
        if self.permanent:
            self.note_until = now + wait.served if self.shareable else float("-inf")
        elif not self.shareable:
            self.kind = OF_MACHINE
            self.note_until = now + min(wait.unserved, longest_probe_wait(limits))
        elif retry_after:
            self.note_until = now + wait.unserved
        else:
            self.kind = OF_PROVIDER
            self.note_until = now + (wait.served if served else wait.unserved)

    @classmethod
    def _of_connection(cls, error: ReconnectRequired, *, now: float) -> Failure:
        # Asking again is one read of the store, and the user may have connected meanwhile.
        retry_at = now + _RECONNECT_SECONDS
        failure = cls(permanent=False, detail=error._text, code="", count=1, retry_at=retry_at, shareable=False)
        failure.reconnect = error.connect_url, error.reason
        return failure

    @classmethod
    def _passed_on(cls, error: RequestError, cause: Cause, *, before: Failure | None, now: float) -> Failure:
        # This entry's provider was not asked: its count does not grow, and the other entry writes the failure note.
        failure = cls(
            permanent=isinstance(error, CredentialRejected),
            detail=error._text,
            code=error.code if isinstance(error, CredentialRejected) else "",
            count=0 if before is None else before.count,
            retry_at=now if cause.failure is None else cause.failure.probe_at,
            shareable=False,
        )
        failure.cause = cause
        failure.system_error = system_error(error)
        return failure

    @classmethod
    def shared(cls, client: TokenEntry, failure: Failure, *, before: Failure | None) -> Failure:
        """Return the failure of one caller's entry that passes on its client's, which is `failure`.

        Args:
            client: What all callers share.
            failure: Its failure.
            before: The failure of the caller's entry before.
        """
        passed = cls(
            permanent=failure.permanent,
            detail=failure.detail,
            code=failure.code,
            count=0 if before is None else before.count,
            retry_at=failure.probe_at,
            shareable=False,
        )
        passed.cause, passed.system_error, passed.place = Cause(client), failure.system_error, failure.place
        return passed

    @classmethod
    def from_note(
        cls,
        note: bytes,
        *,
        left: float,
        before: Failure | None,
        now: float,
        limits: Limits = _DEFAULTS,
    ) -> Failure:
        """Read another process's failure note, valid for `left` seconds; the count is not below that of `before`.

        However long Redis would keep the note, this process asks again after an hour at most.

        Args:
            note: The note.
            left: The seconds until it expires.
            before: The failure that this process knows.
            now: The monotonic time.
            limits: The bounds of the backoff.
        """
        try:
            permanent, detail, code, count = json.loads(note)
            permanent, count = permanent is True, min(max(1, int(count)), _MAX_COUNT)
        except (ValueError, TypeError, OverflowError, RecursionError):
            permanent, detail, code, count = False, None, "", 1
        # Redis is trusted no more than a provider: these texts go into logs and responses.
        detail = detail if detail and _is_short_text(detail) else "another process could not get a token"
        code = code if _is_short_text(code) else ""
        kind, writer, of_subject = OBEYED, "", permanent and code.startswith(_SUBJECT)
        code = code.removeprefix(_SUBJECT) if of_subject else code
        if not permanent:
            kind, _, writer = code.partition(":")
            kind, code = kind if kind in (OF_PROVIDER, OF_MACHINE) else OBEYED, ""
        count = max(count, 0 if before is None else before.count)
        retry_at = now + min(left, MAX_RETRY_AFTER)
        shareable = kind != OF_MACHINE
        failure = cls(
            permanent=permanent, detail=detail, code=code, count=count, retry_at=retry_at, shareable=shareable
        )
        failure.kind, failure.writer, failure.noted, failure.failed_at = kind, writer, True, now
        failure.subject_claims = "" if of_subject else None
        if kind == OF_PROVIDER:
            failure.probe_at = min(retry_at, now + longest_probe_wait(limits))
        elif kind == OF_MACHINE:
            # The note is short for the sake of requests that are refused.
            seconds = backoff(count, first=limits.backoff_seconds, longest=limits.max_backoff_seconds)
            failure.retry_at = max(retry_at, now + seconds)
        return failure

    def in_backoff(self, now: float, *, served: bool) -> bool:
        """Return whether it is too early to ask again, while a valid token is served or without one.

        A failure that was passed on has no backoff of its own: it lasts as long as the other entry's backoff, during
        which that entry would only raise it again.
        """
        ends = self.retry_at if served else self.probe_at
        return now < ends and (self.cause is None or self.cause.unchanged)

    def end_backoff(self, now: float) -> None:
        """Allow a request to the provider from now on."""
        self.retry_at, self.probe_at = min(self.retry_at, now), min(self.probe_at, now)

    def stand_back(self, now: float) -> None:
        """Wait longer than the note that this process has written, if the fault may be one of this machine alone."""
        if self.kind == OF_MACHINE and not self.permanent:
            self.probe_at += _STAND_BACK * max(0.0, self.note_until - now)
            self.retry_at = max(self.retry_at, self.probe_at)

    def failure_note(self, writer: str = "") -> bytes:
        """Return what Redis stores for the other processes; `from_note` reads it.

        Args:
            writer: The host and process that writes it.
        """
        if self.subject_claims is not None:
            code = f"{_SUBJECT}{self.code}"
        else:
            code = self.code if self.permanent else f"{self.kind}:{writer}" if self.kind and writer else self.kind
        return json.dumps([self.permanent, self.detail[:_MAX_TEXT], code[:_MAX_TEXT], self.count]).encode()

    def to_error(self, provider: str, *, now: float) -> RequestError:
        """Return a new exception for one caller: a shared one would collect the tracebacks of all."""
        wait = max(0.0, self.probe_at - now)
        if self.reconnect is not None:
            url, reason = self.reconnect
            return ReconnectRequired(f"{provider}: {self.detail}", provider=provider, connect_url=url, reason=reason)
        if self.subject_claims is not None:
            text = f"{provider}: the caller's token is refused: {self.detail}"
            error: RequestError = SubjectRefused(text, provider=provider, code=self.code, claims=self.subject_claims)
        elif self.permanent:
            text = f"{provider}: the provider rejects the credential: {self.detail}"
            error = CredentialRejected(text, provider=provider, code=self.code, retry_after=wait, said=self.shareable)
        else:
            reported = f" (reported by {self.writer})" if self.writer else ""
            text = f"{provider}: no valid token: {self.detail}{reported}"
            error = TokenUnavailable(text, provider=provider, retry_after=wait, said=self.shareable)
        error.__cause__ = self.system_error
        return error.at(self.place)


def _is_short_text(text: object) -> bool:
    return isinstance(text, str) and text.isprintable() and len(text) <= _MAX_TEXT
