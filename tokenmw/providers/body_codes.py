"""Responses whose JSON body has a platform's own error code, often with HTTP 200."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Protocol

from tokenmw.errors import CredentialRejected, TokenUnavailable
from tokenmw.providers.answer import grant_in, json_object, lifetime, retry_after

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tokenmw.providers.answer import Answer
    from tokenmw.providers.base import OutgoingAnswer
    from tokenmw.values import Grant

__all__ = ["App", "GrantCodes", "RejectionCodes", "code_in", "code_of", "declared_length"]

_CODE: Final = re.compile(r"[a-z0-9_.-]{1,64}", re.ASCII)
_MAX_CODE: Final = 64  # characters
_MAX_CODE_BITS: Final = 64  # of an integer; more digits take longer to write than to receive
_MAX_SECOND: Final = 4096  # characters of a second token
_WRONG_URL: Final = frozenset({404, 405, 410})
_LENGTH: Final = re.compile(r"[0-9]{1,18}", re.ASCII)
_PLAIN_TEXT: Final = "text/plain"
_MAX_REJECTION_BYTES: Final = 64 << 10  # every rejection is shorter, so a longer download is not read for its code


class App(Protocol):
    """The app that requested a token, for error texts."""

    @property
    def shown(self) -> str:
        """The option with the app's id, such as `app_id=cli_a1`."""
        ...

    def repeats_secret(self, text: str) -> bool:
        """Return whether a text of at most some thousand characters repeats the app's secret, or a piece of it."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class GrantCodes:
    """How a platform's token endpoint reports success and failure.

    Attributes:
        code_field: The field with the code. A missing code, zero and "" mean success.
        lifetime_field: The field with the token's lifetime in seconds.
        permanent: Codes that the same request will get again, each with its fix.
        address: Codes about this machine's address, each with its fix: other machines get another response.
        retry_header: The header with the seconds to wait, where that is not `Retry-After`.
        default_lifetime: Seconds that a token lives if the response does not say; None: that is an error.
    """

    code_field: str
    lifetime_field: str
    permanent: Mapping[str, str]
    address: Mapping[str, str] = field(default_factory=dict[str, str])
    retry_header: str = ""
    default_lifetime: float | None = None

    def grant(self, answer: Answer, *tokens: str, app: App, other: str = "") -> Grant:
        """Return the token that the endpoint granted.

        Args:
            answer: The endpoint's response.
            tokens: The fields that may hold the token, in order of preference.
            app: The app that requested it.
            other: A field with a second token, which is kept in `extra` if it differs.

        Raises:
            CredentialRejected: The endpoint refuses the credential or this machine's address.
            TokenUnavailable: The endpoint is busy, or its response cannot be used.
        """
        self.check(answer, app=app)
        fields = answer.json()
        value = next((fields[name] for name in tokens if fields.get(name)), "")
        second = fields.get(other)
        second = second if isinstance(second, str) and second != value and len(second) <= _MAX_SECOND else ""
        # It goes into Redis with the token, and is readable there unless values are sealed.
        kept = second != "" and not app.repeats_secret(second)
        name = self.lifetime_field
        return grant_in(
            answer,
            fields,
            *tokens,
            seconds=lambda: lifetime(fields.get(name), default=self.default_lifetime, field=name),
            extra={other: second} if kept else None,
        )

    def check(self, answer: Answer, *, app: App) -> None:
        """Raise unless the response reports success.

        Raises:
            CredentialRejected: The endpoint refuses the credential or this machine's address.
            TokenUnavailable: The endpoint is busy, or its response cannot be used.
        """
        fields = answer.fields
        if fields is None:
            answer.check_busy()
            raise answer.not_json(check="base_url")
        code = code_of(fields.get(self.code_field))
        fix = self.permanent.get(code) or self.address.get(code)
        # Any other code may repeat the secret.
        shown = f"{code}, " if fix or (_CODE.fullmatch(code) and not app.repeats_secret(code)) else ""
        answered = f"{shown}HTTP {answer.status}"
        if fix:
            raise CredentialRejected(
                f"{answer.endpoint} refuses {app.shown} ({answered}): {fix}",
                code=code,
                retry_after=self._wait(answer),
                said=code not in self.address,
            )
        if not code and answer.status in _WRONG_URL:
            raise TokenUnavailable(
                f"{answer.endpoint} has no token endpoint of this platform ({answered}): check base_url", said=True
            )
        if code or not 200 <= answer.status < 300:
            fix = ": see the platform's list of codes" if shown else ""
            raise TokenUnavailable(
                f"{answer.endpoint} gives no token to {app.shown} now ({answered}){fix}",
                retry_after=self._wait(answer),
                said=True,
            )

    def _wait(self, answer: Answer) -> float | None:
        if answer.retry_after is not None or not self.retry_header:
            return answer.retry_after
        return retry_after({"retry-after": answer.headers.get(self.retry_header, "")}, now=0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class RejectionCodes:
    """How a platform's APIs report that a token is not valid.

    Attributes:
        code_field: The field with the code.
        codes: The codes that mean it. Permissions, quotas, rate limits and wrong apps have other codes.
        statuses: The HTTP statuses that come with those codes.
        sub_codes: Codes that only point to another field, each with that field's name.
    """

    code_field: str
    codes: frozenset[str]
    statuses: frozenset[int] = frozenset({200})
    sub_codes: Mapping[str, str] = field(default_factory=dict[str, str])

    def match(self, answer: OutgoingAnswer) -> bool | None:
        """Return whether an API's response says that the token is not valid; None if the body must be read first."""
        if answer.status not in self.statuses:
            return False
        fields = _rejection_fields(answer)
        if fields is None:
            return None
        code = code_of(fields.get(self.code_field))
        if code in self.sub_codes:
            code = code_of(fields.get(self.sub_codes[code]))
        return code in self.codes or (answer.status == 401 and not code)


def code_of(raw: object) -> str:
    """Return a code as text in lower case; platforms send numbers and text. "" means no error.

    >>> code_of(40014), code_of("40014"), code_of("InvalidAuthentication"), code_of(0), code_of(None)
    ('40014', '40014', 'invalidauthentication', '', '')
    """
    if raw is None or raw is False or raw in ("", "0"):
        return ""
    if isinstance(raw, str) and len(raw) <= _MAX_CODE:
        text = raw.lower()
    elif isinstance(raw, int) and raw.bit_length() <= _MAX_CODE_BITS:
        text = str(raw).lower()
    else:
        text = "an error that is no code"
    return "" if text == "0" else text


def code_in(answer: Answer, name: str) -> str:
    """Return the code in a field of a token endpoint's response, as :func:`code_of` does."""
    return code_of((answer.fields or {}).get(name))


def declared_length(headers: Mapping[str, str]) -> int | None:
    """Return the body's length in bytes by its header (RFC 9110 §8.6), or None if that is missing or malformed."""
    text = headers.get("content-length", "")
    return int(text) if _LENGTH.fullmatch(text) else None


def _rejection_fields(answer: OutgoingAnswer) -> Mapping[str, Any] | None:
    """Return the JSON fields of an API's response, empty if it has none; None if the body must be read first.

    The body is not requested if it cannot be a rejection: a download, an event stream, or more than 64 KiB.
    """
    if answer.body is not None:
        return json_object(answer.body) or {}
    media_type = answer.headers.get("content-type", "").partition(";")[0].strip().lower()
    length = declared_length(answer.headers)
    if length is not None and length > _MAX_REJECTION_BYTES:
        return {}
    if media_type.endswith(("/json", "+json")):
        return None
    # Some older APIs of these platforms send JSON as text/plain, or without a content type.
    return None if media_type in ("", _PLAIN_TEXT) and length is not None else {}
