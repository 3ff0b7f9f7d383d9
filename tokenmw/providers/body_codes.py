"""Answers that tell in their body what went wrong, by a code of the platform's own, and often with HTTP 200."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, cast

from tokenmw.errors import CredentialRejected, TokenUnavailable
from tokenmw.providers.answer import retry_after
from tokenmw.providers.base import lifetime
from tokenmw.redaction import without_locals
from tokenmw.values import Grant

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tokenmw.providers.answer import Answer
    from tokenmw.providers.base import OutgoingAnswer

__all__ = ["BodyCodes", "Refusals", "code_in", "code_of", "declared_length"]

_NUMBER: Final = re.compile(r"-?[0-9]{1,12}", re.ASCII)
_LENGTH: Final = re.compile(r"[0-9]{1,18}", re.ASCII)
_PLAIN_TEXT: Final = "text/plain"
_REFUSAL_BYTES: Final = 64 << 10  # no refusal is longer, and a download need not be read to know that


@dataclass(frozen=True, slots=True, kw_only=True)
class BodyCodes:
    """How a platform's token endpoint says yes and no.

    Attributes:
        code: The field of the code; missing, zero and empty are "no error".
        life: The field of the token's life, in seconds.
        permanent: Codes that the same request will get again, each with the mend.
        address: Codes about the caller's address, each with the mend: other machines get another answer.
        reset: The header that has the seconds to wait, where that is not `Retry-After`.
        floor: Seconds that a token always lives when it is handed out, for answers that do not say; None: an error.
    """

    code: str
    life: str
    permanent: Mapping[str, str]
    address: Mapping[str, str] = field(default_factory=dict[str, str])
    reset: str = ""
    floor: float | None = None

    @without_locals
    def grant(self, answer: Answer, *tokens: str, other: str = "") -> Grant:
        """Return what the endpoint granted.

        Args:
            answer: Its answer.
            tokens: The field of the token; the first one counts that the answer has.
            other: A field with another token, which is kept in `extra` if it is another one.

        Raises:
            CredentialRejected: It refuses the credential or the caller's address.
            TokenUnavailable: It is busy, or its answer makes no sense.
        """
        self.check(answer)
        return _grant(answer.json(), tokens, other, life=self.life, floor=self.floor)

    def check(self, answer: Answer) -> None:
        """Raise unless the answer says that all is well.

        Raises:
            CredentialRejected: The endpoint refuses the credential or the caller's address.
            TokenUnavailable: It is busy, or its answer makes no sense.
        """
        error = self._error(answer)
        if error is not None:
            raise error

    def _error(self, answer: Answer) -> CredentialRejected | TokenUnavailable | None:
        # Returned, not raised: what a server repeats of the secret stands in no frame of a traceback.
        fields = _object(answer.body)
        if fields is None:
            answer.check_busy()
            answer.json()  # raises, with status and media type
            return None
        code = code_of(fields.get(self.code))
        mend = self.permanent.get(code) or self.address.get(code)
        # A code that is neither known nor a number may be what was sent; it is not shown.
        shown = f"{code}, " if mend or _NUMBER.fullmatch(code) else ""
        answered = f"{shown}HTTP {answer.status}"
        if mend:
            return CredentialRejected(
                f"the token endpoint refuses ({answered}): {mend}", code=code, said=code not in self.address
            )
        if code or not 200 <= answer.status < 300:
            return TokenUnavailable(
                f"the token endpoint cannot serve now ({answered})", retry_after=self._wait(answer), said=True
            )
        return None

    def _wait(self, answer: Answer) -> float | None:
        if answer.retry_after is not None or not self.reset:
            return answer.retry_after
        return retry_after({"retry-after": answer.headers.get(self.reset, "")}, now=0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusals:
    """How a platform's APIs say that a token is not valid.

    Attributes:
        code: The field of the code.
        codes: The codes that say so. Permissions, quotas, rates and wrong apps have others.
        statuses: The HTTP statuses that come with them.
        elsewhere: Codes that say no more than which other field has the code.
    """

    code: str
    codes: frozenset[str]
    statuses: frozenset[int] = frozenset({200})
    elsewhere: Mapping[str, str] = field(default_factory=dict[str, str])

    def tell(self, answer: OutgoingAnswer) -> bool | None:
        """Return whether an API said that the token is not valid; None: the body has to be read first."""
        if answer.status not in self.statuses:
            return False
        fields = _refusal_fields(answer)
        if fields is None:
            return None
        code = code_of(fields.get(self.code))
        if code in self.elsewhere:
            code = code_of(fields.get(self.elsewhere[code]))
        return code in self.codes or (answer.status == 401 and not code)


def code_of(raw: object) -> str:
    """Return a code as text, in lower case: numbers come as numbers or as text. "" is "no error".

    >>> code_of(40014), code_of("40014"), code_of("InvalidAuthentication"), code_of(0), code_of(None)
    ('40014', '40014', 'invalidauthentication', '', '')
    """
    if raw is None or raw is False or raw in ("", "0"):
        return ""
    text = str(raw).lower() if isinstance(raw, (int, str)) else "an error that is no code"
    return "" if text == "0" else text


def code_in(answer: Answer, name: str) -> str:
    """Return the code in a token endpoint's answer, as :func:`code_of` does."""
    return code_of((_object(answer.body) or {}).get(name))


def _grant(fields: Mapping[str, Any], tokens: tuple[str, ...], other: str, *, life: str, floor: float | None) -> Grant:
    value = next((fields[name] for name in tokens if fields.get(name)), "")
    another = fields.get(other)
    differs = isinstance(another, str) and another not in ("", value)
    return Grant(
        value,
        expires_in=lifetime(fields.get(life), default=floor),
        extra={other: another} if differs else None,
    )


def _refusal_fields(answer: OutgoingAnswer) -> Mapping[str, Any] | None:
    """Return the JSON fields of an API's answer, empty if it has none; None: the body has to be read first.

    Bodies that cannot be a refusal are not asked for: downloads, event streams, and text of more than 64 KiB.
    """
    if answer.body is not None:
        return _object(answer.body) or {}
    media_type = answer.headers.get("content-type", "").partition(";")[0].strip().lower()
    length = declared_length(answer.headers)
    if length is not None and length > _REFUSAL_BYTES:
        return {}
    if media_type.endswith(("/json", "+json")):
        return None
    # Some of these platforms' older APIs name their JSON so, or not at all.
    return None if media_type in ("", _PLAIN_TEXT) and length is not None else {}


def declared_length(headers: Mapping[str, str]) -> int | None:
    """Return the bytes that an answer says its body has (RFC 9110 §8.6); None: it does not say, or says nonsense."""
    text = headers.get("content-length", "")
    return int(text) if _LENGTH.fullmatch(text) else None


def _object(body: bytes) -> dict[str, Any] | None:
    try:
        document: Any = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return cast("dict[str, Any]", document) if isinstance(document, dict) else None
