"""Failures as state: what a provider answered, and when it may be asked again.

Nothing sleeps here and nothing retries. A failure has a time before which the provider is not asked: earlier requests
get the error at once, and the first later one asks again. So a provider that fails is asked less, whatever the traffic.
"""

from __future__ import annotations

import json
import random
from typing import TYPE_CHECKING, Final

from tokenmw.errors import CredentialRejected, RequestError, TokenUnavailable
from tokenmw.providers.network.failures import system_error

if TYPE_CHECKING:
    from tokenmw.tokens.entry import TokenEntry

__all__ = ["Cause", "Failure", "backoff"]

_MAX_RETRY_AFTER: Final = 3600.0  # seconds of a provider's Retry-After that are obeyed
_FIRST_BACKOFF: Final = {False: 1.0, True: 30.0}  # seconds, by `permanent`: a wrong secret is not fixed within a second
_MAX_BACKOFF: Final = {False: 300.0, True: 900.0}
_MAX_COUNT: Final = 1_000_000  # failures in a row that are counted; the backoff stopped growing long before
_MAX_TEXT: Final = 1_000  # characters of a failure note that this process logs


def backoff(count: int, *, permanent: bool = False) -> float:
    """Return the seconds to wait after the `count`th failure in a row: exponential, with a jitter of a quarter."""
    seconds: float = min(_MAX_BACKOFF[permanent], _FIRST_BACKOFF[permanent] * 2 ** min(count - 1, 20))
    return seconds * random.uniform(0.75, 1.0)


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
        retry_at: The monotonic time before which the provider is not asked; see `in_backoff`.
        shareable: Whether other instances would get the same answer, so that Redis gets a failure note.
        place: Where the program's own code raised it; "" if it did not, and for failures of other processes.
        cause: The entry whose failure was passed on; None: the failure is this entry's own.
        redis_read_at: The monotonic time at which Redis was last searched for another process's token.
        system_error: The error of the operating system or of TLS behind a failure of the network; None for any other.
        noted: Whether it was read from another process's note; it then ends when Redis no longer has that note.
    """

    __slots__ = (
        "cause",
        "code",
        "count",
        "detail",
        "noted",
        "permanent",
        "place",
        "redis_read_at",
        "retry_at",
        "shareable",
        "system_error",
    )

    def __init__(
        self, *, permanent: bool, detail: str, code: str, count: int, retry_at: float, shareable: bool
    ) -> None:
        self.permanent = permanent
        self.detail = detail
        self.code = code
        self.count = count
        self.retry_at = retry_at
        self.shareable = shareable
        self.place = ""
        self.cause: Cause | None = None
        self.system_error: OSError | None = None
        self.redis_read_at = float("-inf")
        self.noted = False

    @classmethod
    def from_error(cls, error: BaseException, *, before: Failure | None, now: float) -> Failure:
        """Return the failure for what `fetch` raised; its backoff grows from that of the failure `before`."""
        if isinstance(error, RequestError) and error._cause is not None:
            return cls._passed_on(error, error._cause, before=before, now=now)
        count = 1 if before is None else before.count + 1
        permanent = isinstance(error, CredentialRejected)
        detail, code, shareable, wait = f"the provider's fetch raised {type(error).__name__}", "", False, 0.0
        if isinstance(error, (CredentialRejected, TokenUnavailable)):
            # The text of any other exception is not ours and might hold a secret.
            detail, shareable = error._text, error.said
            code = error.code if isinstance(error, CredentialRejected) else ""
            wait = min(error.retry_after or 0.0, _MAX_RETRY_AFTER)
        retry_at = now + max(backoff(count, permanent=permanent), wait)
        failure = cls(
            permanent=permanent, detail=detail, code=code, count=count, retry_at=retry_at, shareable=shareable
        )
        failure.system_error = system_error(error)
        return failure

    @classmethod
    def _passed_on(cls, error: RequestError, cause: Cause, *, before: Failure | None, now: float) -> Failure:
        # This entry's provider was not asked: its count does not grow, and the other entry writes the failure note.
        failure = cls(
            permanent=isinstance(error, CredentialRejected),
            detail=error._text,
            code=error.code if isinstance(error, CredentialRejected) else "",
            count=0 if before is None else before.count,
            retry_at=now if cause.failure is None else cause.failure.retry_at,
            shareable=False,
        )
        failure.cause = cause
        failure.system_error = system_error(error)
        return failure

    @classmethod
    def from_note(cls, note: bytes, *, left: float, before: Failure | None, now: float) -> Failure:
        """Read another process's failure note, valid for `left` seconds; the count is not below that of `before`.

        However long Redis would keep the note, this process asks again after an hour at most.
        """
        try:
            permanent, detail, code, count = json.loads(note)
            permanent, count = permanent is True, min(max(1, int(count)), _MAX_COUNT)
        except (ValueError, TypeError, OverflowError, RecursionError):
            permanent, detail, code, count = False, None, "", 1
        # Redis is trusted no more than a provider: these texts go into logs and responses.
        detail = detail if detail and _is_short_text(detail) else "another process could not get a token"
        code = code if _is_short_text(code) else ""
        count = max(count, 0 if before is None else before.count)
        retry_at = now + min(left, _MAX_RETRY_AFTER)
        failure = cls(permanent=permanent, detail=detail, code=code, count=count, retry_at=retry_at, shareable=True)
        failure.noted = True
        return failure

    def in_backoff(self, now: float) -> bool:
        """Return whether it is too early to ask again.

        A failure that was passed on has no backoff of its own: it lasts as long as the other entry's backoff, during
        which that entry would only raise it again.
        """
        return now < self.retry_at and (self.cause is None or self.cause.unchanged)

    def failure_note(self) -> bytes:
        """Return what Redis stores for the other processes; `from_note` reads it."""
        return json.dumps([self.permanent, self.detail[:_MAX_TEXT], self.code[:_MAX_TEXT], self.count]).encode()

    def to_error(self, provider: str, *, now: float) -> RequestError:
        """Return a new exception for one caller: a shared one would collect the tracebacks of all."""
        wait = max(0.0, self.retry_at - now)
        if self.permanent:
            text = f"{provider}: the provider rejects the credential: {self.detail}"
            error: RequestError = CredentialRejected(
                text, provider=provider, code=self.code, retry_after=wait, said=self.shareable
            )
        else:
            text = f"{provider}: no valid token: {self.detail}"
            error = TokenUnavailable(text, provider=provider, retry_after=wait, said=self.shareable)
        error.__cause__ = self.system_error
        return error.at(self.place)


def _is_short_text(text: object) -> bool:
    return isinstance(text, str) and text.isprintable() and len(text) <= _MAX_TEXT
