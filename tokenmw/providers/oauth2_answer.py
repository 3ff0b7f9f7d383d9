"""What an OAuth 2.0 token endpoint and the APIs behind it answer (RFC 6749 §5, RFC 6750 §3)."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any, Final

from tokenmw.errors import CredentialRejected, TokenUnavailable
from tokenmw.providers.base import lifetime
from tokenmw.redaction import without_locals
from tokenmw.values import Grant

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from tokenmw.providers.answer import Answer
    from tokenmw.providers.base import OutgoingAnswer

__all__ = ["bearer_rejected", "grant_of"]

# RFC 6749 §5.2 and RFC 8707 §2: the same request will get the same answer. With what to look at.
_PERMANENT: Final = {
    "invalid_client": "check client_id, the secret and auth_method",
    "invalid_grant": "check the credential",
    "invalid_request": "check auth_method and the other options",
    "invalid_scope": "check scope",
    "invalid_target": "check resource and audience",
    "unauthorized_client": "the client needs the permission to use this grant type",
    "unsupported_grant_type": "check token_url: this endpoint does not offer the grant type",
}
# RFC 6749 §4.1.2.1, RFC 8628 §3.5: token endpoints use them too, some with status 400.
_TRANSIENT: Final = frozenset({"server_error", "slow_down", "temporarily_unavailable"})

_CODE: Final = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_ERROR_OF_CHALLENGE: Final = re.compile(r"""(?<![\w-])error\s*=\s*"?([\w.-]+)""", re.ASCII)
# A new token of the same kind would have the same permissions (RFC 6750 §3.1, RFC 9470 §3).
_NOT_ABOUT_VALIDITY: Final = frozenset({"insufficient_scope", "insufficient_claims"})

_CLIENT_ERROR: Final = 400
_FORBIDDEN: Final = 403
_REFUSED: Final = frozenset({400, 401, 403})

_NOT_EXTRA: Final = frozenset(
    {"access_token", "refresh_token", "id_token", "expires_in", "token_type", "error", "error_description"}
)
# The answer is held as long as the token, once for each credential.
_MAX_EXTRAS: Final = 32
_MAX_EXTRA_CHARACTERS: Final = 4096


@without_locals
def grant_of(answer: Answer, *, default_life: float | None, repeats_secret: Callable[[str], bool]) -> Grant:
    """Return what a token endpoint granted.

    Args:
        answer: Its answer.
        default_life: Seconds that a token lives if the answer does not say; None: then it is an error.
        repeats_secret: Tells whether a text repeats a secret that was sent. Such an error code is not shown, and such
            a field is not kept.

    Raises:
        CredentialRejected: The endpoint refuses the credential or the request, or is none.
        TokenUnavailable: It is busy, or its answer makes no sense.
    """
    answer.check_busy()
    if not 200 <= answer.status < 300:
        raise _refusal(answer, _fields_or_none(answer), repeats_secret)
    fields = answer.json()
    if fields.get("error"):
        raise _refusal(answer, fields, repeats_secret)
    kind = fields.get("token_type")
    return Grant(
        fields.get("access_token", ""),
        expires_in=lifetime(fields.get("expires_in"), default=default_life),
        # The type is case-insensitive (RFC 6749 §5.1), but APIs that compare it are not.
        token_type="Bearer" if not kind or str(kind).lower() == "bearer" else kind,
        extra=_extra(fields, repeats_secret),
    )


def bearer_rejected(answer: OutgoingAnswer) -> bool:
    """Return whether an API answered "this token is not valid" (RFC 6750 §3.1).

    It is a 401, unless its challenge says that the token is valid but not enough.
    """
    if answer.status != 401:
        return False
    errors = set(_ERROR_OF_CHALLENGE.findall(answer.headers.get("www-authenticate", "").lower()))
    return not errors or not errors <= _NOT_ABOUT_VALIDITY


def _fields_or_none(answer: Answer) -> dict[str, Any]:
    try:
        return answer.json()
    except TokenUnavailable:
        return {}


def _refusal(
    answer: Answer, fields: Mapping[str, Any], repeats_secret: Callable[[str], bool]
) -> CredentialRejected | TokenUnavailable:
    status = answer.status
    code = fields.get("error")
    code = code if isinstance(code, str) else ""
    shown = code if _CODE.fullmatch(code) and not repeats_secret(code) else ""
    answered = f"{shown}, HTTP {status}" if shown else f"HTTP {status}"
    if code in _TRANSIENT:
        return TokenUnavailable(
            f"the token endpoint cannot serve now ({answered})", retry_after=answer.retry_after, said=True
        )
    if code in _PERMANENT or status in _REFUSED or (code and status < _CLIENT_ERROR):
        mend = _PERMANENT.get(code, "check the credential")
        # A bare 403 is no answer of RFC 6749, but one of a firewall that looks at the caller's address.
        return CredentialRejected(
            f"the token endpoint refuses ({answered}): {mend}",
            code=shown,
            said=bool(code) or status != _FORBIDDEN,
        )
    if status < _CLIENT_ERROR:
        return TokenUnavailable("the token endpoint answered with an error that is not text")
    return CredentialRejected(f"no token endpoint answers there ({answered}): check token_url", code=shown)


def _extra(fields: Mapping[str, Any], repeats_secret: Callable[[str], bool]) -> dict[str, Any]:
    extra: dict[str, Any] = {}
    for name, value in fields.items():
        if name in _NOT_EXTRA or len(extra) == _MAX_EXTRAS or len(name) > _MAX_EXTRA_CHARACTERS:
            continue
        # It goes into Redis with the token, and is readable there if values are not sealed.
        if repeats_secret(name) or (isinstance(value, str) and repeats_secret(value)):
            continue
        # NaN and Infinity are no JSON; Python's reader lets them through.
        finite = isinstance(value, int) or (isinstance(value, float) and math.isfinite(value))
        if finite or (isinstance(value, str) and len(value) <= _MAX_EXTRA_CHARACTERS):
            extra[name] = value
    return extra
