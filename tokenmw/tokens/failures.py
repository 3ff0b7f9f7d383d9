"""Failures as state: what a provider answered, and when it may be asked again.

Nothing sleeps here and nothing retries. A failure says "not before", requests that come earlier get the error at
once, and the first one after it asks again. So a provider that fails is asked less, whatever the traffic.
"""

from __future__ import annotations

import json
import random
from typing import TYPE_CHECKING, Final

from tokenmw.errors import CredentialRejected, TokenUnavailable

if TYPE_CHECKING:
    from tokenmw.errors import RequestError

__all__ = ["Failure", "pause"]

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


class Failure:
    """Why there is no new token.

    Attributes:
        permanent: The credential itself was refused.
        detail: What happened, without secrets.
        code: The provider's own error code.
        count: How many in a row.
        until: The monotonic time before which the provider is not asked.
        said: Whether other instances would get the same answer, so that it is noted in Redis.
        place: Where the program's own code raised it; "" if it did not, and of other processes' failures.
    """

    __slots__ = ("code", "count", "detail", "permanent", "place", "said", "until")

    def __init__(self, *, permanent: bool, detail: str, code: str, count: int, until: float, said: bool) -> None:
        self.permanent = permanent
        self.detail = detail
        self.code = code
        self.count = count
        self.until = until
        self.said = said
        self.place = ""

    @classmethod
    def of(cls, error: BaseException, *, before: Failure | None, now: float) -> Failure:
        """Make a failure of what `fetch` raised; pauses grow from the failure `before`."""
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
