"""What Microsoft's token endpoints answer, beyond RFC 6749: numbers of their own for what went wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, cast

from tokenmw.errors import CredentialRejected, TokenUnavailable
from tokenmw.providers.oauth2_answer import grant_of
from tokenmw.redaction import without_locals

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from tokenmw.providers.answer import Answer
    from tokenmw.values import Grant

__all__ = ["entra_grant", "error_codes"]

DEFAULT_LIFE: Final = 600.0  # seconds; what Microsoft's own library takes for an answer that does not say

_MENDS: Final = {
    50059: "check tenant",
    70011: "check scope",
    90002: "there is no such tenant in this cloud: check tenant and cloud",
    700016: "the tenant does not know the app: check the app's id, tenant and cloud",
    700021: "the assertion's issuer or subject is not the app",
    700023: "the assertion's audience must be the token endpoint",
    700024: "the assertion is not valid now: check its times and this machine's clock",
    700027: "the assertion is signed with a key that the app does not have",
    1002012: 'the scope must be one resource with "/.default" behind it',
    7000215: "the secret is wrong: give the secret's value, not its id",
    7000218: "give a secret or an assertion",
    7000222: "the secret has expired: make a new one",
}
_MOST_CODES: Final = 8  # of one answer
# "Try again" and "you ask in a loop", which come with status 400 as well.
_TRANSIENT: Final = frozenset({90033, 50196})


@without_locals
def entra_grant(answer: Answer, *, repeats_secret: Callable[[str], bool]) -> Grant:
    """Return what a token endpoint of Entra granted; `refresh_in` is in `extra` if it came.

    What is refused for good is decided by `error` and the status; the numbers only say why
    (https://learn.microsoft.com/entra/identity-platform/reference-error-codes).

    Raises:
        CredentialRejected: The endpoint refuses the credential or the request.
        TokenUnavailable: It is busy, or its answer makes no sense.
    """
    codes = error_codes(answer)
    if not _TRANSIENT.isdisjoint(codes):
        raise TokenUnavailable(
            f"the token endpoint cannot serve now ({_text(codes)}, HTTP {answer.status})",
            retry_after=answer.retry_after,
            said=True,
        )
    outcome = _grant_or_refusal(answer, repeats_secret)
    if not isinstance(outcome, CredentialRejected):
        return outcome
    if not codes:
        raise outcome
    mend = next((_MENDS[code] for code in codes if code in _MENDS), "")
    detail = f"{outcome} ({_text(codes)}{': ' if mend else ''}{mend})"
    raise CredentialRejected(detail, code=outcome.code, said=outcome.said)


def error_codes(answer: Answer) -> tuple[int, ...]:
    """Return the numbers of an answer that went wrong, without which it is none of Microsoft's."""
    if 200 <= answer.status < 300:
        return ()
    try:
        fields: Mapping[str, Any] = answer.json()
    except TokenUnavailable:
        return ()
    codes = fields.get("error_codes")
    listed = cast("list[object]", codes)[:_MOST_CODES] if isinstance(codes, list) else []
    return tuple(code for code in listed if isinstance(code, int) and 0 < code < 10**9)


def _grant_or_refusal(answer: Answer, repeats_secret: Callable[[str], bool]) -> Grant | CredentialRejected:
    # Given back, so that what is raised of it has no other error behind it.
    try:
        return grant_of(answer, default_life=DEFAULT_LIFE, repeats_secret=repeats_secret)
    except CredentialRejected as refusal:
        return refusal


def _text(codes: tuple[int, ...]) -> str:
    return ", ".join(f"AADSTS{code}" for code in codes)
