"""Failures as state: what a provider answered, and when it may be asked again.

Nothing sleeps here and nothing retries. A failure says "not before", requests that come earlier get the error at
once, and the first one after it asks again. So a provider that fails is asked less, whatever the traffic.
"""

from __future__ import annotations

import json
import random
from typing import TYPE_CHECKING, Final

from tokenmw.errors import CredentialRejected, RequestError, TokenUnavailable

if TYPE_CHECKING:
    from tokenmw.tokens.entry import TokenEntry

__all__ = ["Failure", "Source", "pause"]

_LONGEST_WISH: Final = 3600.0  # seconds of Retry-After that are obeyed
_FIRST: Final = {False: 1.0, True: 30.0}  # by permanent: a wrong secret does not mend itself in a second
_LONGEST: Final = {False: 300.0, True: 900.0}
_MOST: Final = 1_000_000  # failures in a row that are told; pauses stopped growing long before
_LONGEST_TEXT: Final = 1_000  # characters of a note that others show


def pause(count: int, *, permanent: bool = False) -> float:
    """Return the seconds to wait after the `count`th failure in a row: doubling, spread by a quarter."""
    longest = _LONGEST[permanent]
    seconds: float = min(longest, _FIRST[permanent] * 2 ** min(count - 1, 20))
    return seconds * random.uniform(0.75, 1.0)


class Source:
    """Whose failure it is that a provider only passed on, because its own request needs that entry's token.

    Attributes:
        entry: The entry that failed by itself.
        failure: What it had failed with; None if that was no failure, such as closing.
    """

    __slots__ = ("entry", "failure")

    def __init__(self, entry: TokenEntry) -> None:
        source = None if entry.failure is None else entry.failure.source
        self.entry: TokenEntry = entry if source is None else source.entry
        self.failure: Failure | None = entry.failure if source is None else source.failure

    @property
    def stands(self) -> bool:
        """Whether nothing has changed there: no token, no other failure."""
        return self.entry.failure is self.failure


class Failure:
    """Why there is no new token.

    Attributes:
        permanent: The credential itself was refused.
        detail: What happened, without secrets.
        code: The provider's own error code.
        count: How many in a row.
        until: The monotonic time before which the provider is not asked; see `holds`.
        said: Whether other instances would get the same answer, so that it is noted in Redis.
        place: Where the program's own code raised it; "" if it did not, and of other processes' failures.
        source: Whose failure it is, if it was only passed on; None: the entry's own.
        looked: The monotonic time at which Redis was last searched for another process's token.
    """

    __slots__ = ("code", "count", "detail", "looked", "permanent", "place", "said", "source", "until")

    def __init__(self, *, permanent: bool, detail: str, code: str, count: int, until: float, said: bool) -> None:
        self.permanent = permanent
        self.detail = detail
        self.code = code
        self.count = count
        self.until = until
        self.said = said
        self.place = ""
        self.source: Source | None = None
        self.looked = float("-inf")

    @classmethod
    def of(cls, error: BaseException, *, before: Failure | None, now: float) -> Failure:
        """Make a failure of what `fetch` raised; pauses grow from the failure `before`."""
        if isinstance(error, RequestError) and error._source is not None:
            return cls._passed_on(error, error._source, before=before, now=now)
        count = 1 if before is None else before.count + 1
        if isinstance(error, CredentialRejected):
            wish = error.retry_after or 0.0
            until = now + max(pause(count, permanent=True), min(wish, _LONGEST_WISH))
            return cls(
                permanent=True,
                detail=error.detail,
                code=error.code,
                count=count,
                until=until,
                said=error.said,
            )
        if isinstance(error, TokenUnavailable):
            wish = error.retry_after or 0.0
            until = now + max(pause(count), min(wish, _LONGEST_WISH))
            return cls(permanent=False, detail=error.detail, code="", count=count, until=until, said=error.said)
        # Its text is not ours and might hold anything.
        detail = f"the provider's fetch raised {type(error).__name__}"
        return cls(permanent=False, detail=detail, code="", count=count, until=now + pause(count), said=False)

    @classmethod
    def _passed_on(cls, error: RequestError, source: Source, *, before: Failure | None, now: float) -> Failure:
        # Nobody has refused this entry anything: its row does not grow, and other instances are told by that entry.
        failure = cls(
            permanent=isinstance(error, CredentialRejected),
            detail=error.detail,
            code=error.code if isinstance(error, CredentialRejected) else "",
            count=0 if before is None else before.count,
            until=now if source.failure is None else source.failure.until,
            said=False,
        )
        failure.source = source
        return failure

    @classmethod
    def from_note(cls, note: bytes, *, left: float, before: Failure | None, now: float) -> Failure:
        """Read a note that another process left; it holds for `left` more seconds, and ends no row of failures."""
        try:
            permanent, detail, code, count = json.loads(note)
            permanent, count = permanent is True, min(max(1, int(count)), _MOST)
        except (ValueError, TypeError, OverflowError, RecursionError):
            permanent, detail, code, count = False, None, "", 1
        # Whoever writes to Redis is trusted no more than a provider: these go into logs and answers.
        detail = detail if detail and _fits(detail) else "another process could not get a token"
        code = code if _fits(code) else ""
        count = max(count, 0 if before is None else before.count)
        return cls(permanent=permanent, detail=detail, code=code, count=count, until=now + left, said=True)

    def holds(self, now: float) -> bool:
        """Return whether it is too early to ask again.

        One that was passed on has no pause of its own. It holds while the other entry's does, during which that one
        would only raise it again.
        """
        return now < self.until and (self.source is None or self.source.stands)

    def note(self) -> bytes:
        """Return what the other processes are told."""
        return json.dumps([self.permanent, self.detail, self.code, self.count]).encode()

    def error(self, provider: str, *, now: float) -> RequestError:
        """Return a new exception for one waiter: a shared one would collect the tracebacks of all."""
        wait = max(0.0, self.until - now)
        if self.permanent:
            detail = f"{provider}: the provider rejects the credential: {self.detail}"
            error: RequestError = CredentialRejected(
                detail, provider=provider, code=self.code, retry_after=wait, said=self.said
            )
        else:
            detail = f"{provider}: no valid token: {self.detail}"
            error = TokenUnavailable(detail, provider=provider, retry_after=wait, said=self.said)
        return error.at(self.place)


def _fits(text: object) -> bool:
    return isinstance(text, str) and text.isprintable() and len(text) <= _LONGEST_TEXT
