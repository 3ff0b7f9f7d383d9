"""The responses of OAuth 2.0 token endpoints (RFC 6749 §5), and of APIs that take bearer tokens (RFC 6750 §3)."""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from tokenmw.errors import CredentialRejected, TokenUnavailable
from tokenmw.providers.answer import grant_in
from tokenmw.providers.expiry import remaining_seconds
from tokenmw.values import MAX_EXTRA_BYTES, MAX_LIFETIME

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tokenmw.providers.answer import Answer
    from tokenmw.providers.base import OutgoingAnswer
    from tokenmw.providers.proof import Proof
    from tokenmw.values import Grant

__all__ = ["INVALID_REQUEST_FIX", "GrantReader", "bearer_rejected", "bearer_type"]

INVALID_REQUEST_FIX: Final = (
    "the server misses a parameter or does not know one: check auth_method and the other options"
)

_DPOP_FIX: Final = "the server wants a DPoP proof of this client: set dpop=DPoPKey(file=…)"
# RFC 6749 §5.2, RFC 8707 §2 and RFC 9449 §5: the same request will get the same response. Each with the fix.
_PERMANENT: Final = {
    "invalid_client": "",  # the fix depends on how the client authenticates
    "invalid_grant": "the server does not accept the grant: check the credential and its permissions",
    "invalid_request": INVALID_REQUEST_FIX,
    "invalid_scope": "check scope",
    "invalid_target": "check resource and audience",
    "invalid_dpop_proof": _DPOP_FIX,
    "unauthorized_client": "the client needs the permission to use this grant type",
    "unsupported_grant_type": "this endpoint does not offer the grant type client_credentials: check the URL",
    "use_dpop_nonce": _DPOP_FIX,
}
# RFC 6749 §4.1.2.1, RFC 8628 §3.5: token endpoints use them too, some with status 400; `internal_failure` is Google's,
# which sends it in `error_description` too.
_TRANSIENT: Final = frozenset({"internal_failure", "server_error", "slow_down", "temporarily_unavailable"})
_CLIENT_ERROR: Final = 400
_UNAUTHORIZED: Final = 401
_FORBIDDEN: Final = 403
_REFUSED: Final = frozenset({400, 401, 403})
_AGAIN: Final = frozenset({409, 425})  # a conflict with another request, as of Hydra; too early
# An OAuth server answers a wrong request with 400 or 401, so the URL is not that of its token endpoint.
_WRONG_URL: Final = {
    404: "has no token endpoint at",
    405: "takes no POST at",
    406: "takes no token request at",
    410: "no longer has a token endpoint at",
    415: "takes no form at",
}

_CODE: Final = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_PATH: Final = re.compile(r"[!-~]{1,200}")
_TYPE: Final = re.compile(r"[A-Za-z0-9_.: -]+")
_MAX_TYPE: Final = 64  # characters
# Types of tokens that each request must prove the possession of a key for (RFC 9449, RFC 7800, Microsoft's). In lower
# case and without hyphens and underscores.
_NEEDS_PROOF: Final = frozenset({"dpop", "mac", "mtlspop", "pop"})
_NO_ACCESS_TOKEN: Final = "na"  # RFC 8693 §2.2.1
_ERROR_OF_CHALLENGE: Final = re.compile(r"""(?<![\w-])error\s*=\s*"?([\w.-]+)""", re.ASCII)
# A new token of the same kind would have the same permissions (RFC 6750 §3.1, RFC 9470 §3), and no other proof of its
# key's possession (RFC 9449 §7.1, §9).
_NOT_ABOUT_VALIDITY: Final = frozenset(
    {"insufficient_scope", "insufficient_claims", "invalid_dpop_proof", "use_dpop_nonce"}
)

_NOT_EXTRA: Final = frozenset(
    {"access_token", "refresh_token", "id_token", "expires_in", "token_type", "error", "error_description"}
)
_MAX_FIELDS: Final = 64  # that are looked at; an answer of a megabyte may have 100 000
# The extra fields are kept as long as the token, once for each credential.
_MAX_EXTRAS: Final = 32
_MAX_EXTRA_CHARACTERS: Final = 4096
_MAX_EXTRA_BITS: Final = 64  # of an integer; more digits take longer to write than to receive
_MAX_DESCRIPTION: Final = 200  # characters that are shown


@dataclass(frozen=True, slots=True, kw_only=True)
class GrantReader:
    """How one provider's token endpoint is read, and the words in which its failures are reported.

    Attributes:
        client: The client, such as `client_id=crm`.
        client_fix: What to check if the client is refused.
        url: The token endpoint.
        url_options: The options that decide `url`.
        default_lifetime: Seconds that a token lives if the response does not say; None: that is an error.
        zero_is_default: Whether a lifetime of zero means `default_lifetime`.
        max_lifetime: Seconds to which a longer lifetime is cut.
        fixes: Fixes of error codes that differ from the usual ones.
        scheme: The type of every token, whatever the response says; None: only bearer tokens are accepted.
        scheme_option: The option that sets `scheme`; "" if the provider has none.
        log_description: Whether texts have the server's `error_description`.
        dpop: Whether only tokens are accepted that are bound to a key (RFC 9449).
    """

    client: str
    client_fix: str
    url: str
    url_options: str = "token_url"
    default_lifetime: float | None
    zero_is_default: bool = False
    max_lifetime: float = MAX_LIFETIME
    fixes: Mapping[str, str] = field(default_factory=dict[str, str])
    scheme: str | None = None
    scheme_option: str = ""
    log_description: bool = False
    dpop: bool = False

    def at(self, url: str) -> GrantReader:
        """Return the same reader for another endpoint, such as the one that an issuer publishes."""
        return self if url == self.url else replace(self, url=url)

    def read(self, answer: Answer, proof: Proof, *, detail: str = "", fix: str = "") -> Grant:
        """Return the token that the endpoint granted.

        Args:
            answer: The endpoint's response.
            proof: What was sent. An error code that repeats it is not shown, and such a field is not kept.
            detail: More about a refusal, such as the server's numeric code.
            fix: The fix of a refusal, where `detail` tells it.

        Raises:
            CredentialRejected: The endpoint refuses the credential or the request.
            TokenUnavailable: The endpoint is busy, its response cannot be used, or it is no token endpoint.
        """
        answer.check_busy()
        fields = answer.fields
        if not 200 <= answer.status < 300:
            raise self._refusal(answer, fields or {}, proof, detail=detail, fix=fix)
        if fields is None:
            raise answer.not_json(check=self.url_options)
        if fields.get("error"):
            raise self._refusal(answer, fields, proof, detail=detail, fix=fix)
        return grant_in(
            answer,
            fields,
            "access_token",
            seconds=lambda: self._lifetime(answer, fields),
            token_type=self.scheme or self._type(answer, fields, proof),
            extra=_extra(fields, proof),
        )

    def _type(self, answer: Answer, fields: Mapping[str, Any], proof: Proof) -> str:
        if not self.dpop:
            return bearer_type(answer, fields, proof, option=self.scheme_option)
        given = fields.get("token_type")
        if isinstance(given, str) and given.lower() == "dpop":
            return "DPoP"
        # The server has ignored the proof, so the token is of use to a thief (RFC 9449 §5).
        shown = f' "{given}"' if isinstance(given, str) and _is_shown(given, proof) else ""
        raise TokenUnavailable(
            f"{answer.endpoint} granted a token whose token_type{shown} is not DPoP, so that it is not bound to the "
            f"key: have the server bind this client's tokens (dpop_bound_access_tokens), or leave dpop out"
        )

    def refusal(self, answer: Answer, proof: Proof) -> CredentialRejected | TokenUnavailable:
        """Return the error of a response that grants nothing, for an endpoint other than the token endpoint."""
        return self._refusal(answer, answer.fields or {}, proof, detail="", fix="")

    def _lifetime(self, answer: Answer, fields: Mapping[str, Any]) -> float:
        left = remaining_seconds(answer, fields, default=self.default_lifetime, zero_is_default=self.zero_is_default)
        return min(left, self.max_lifetime)

    def _refusal(
        self, answer: Answer, fields: Mapping[str, Any], proof: Proof, *, detail: str, fix: str
    ) -> CredentialRejected | TokenUnavailable:
        status = answer.status
        code = fields.get("error")
        code = code if isinstance(code, str) else ""
        known = code in _PERMANENT or code in _TRANSIENT
        shown = code if known or (_CODE.fullmatch(code) and not proof.has_piece_in(code)) else ""
        media_type = "" if code else answer.media_type
        answered = ", ".join(part for part in (shown, f"HTTP {status}", media_type, detail) if part)
        description = self._description(fields, proof)
        transient = _is_transient(code, fields)
        # A 401 is about the client, whatever the code.
        if (transient and status != _UNAUTHORIZED) or status in _AGAIN:
            return TokenUnavailable(
                f"{answer.endpoint} cannot serve {self.client} now ({answered}){description}",
                retry_after=answer.retry_after,
                said=transient,
            )
        if code in _PERMANENT or status in _REFUSED or (code and status < _CLIENT_ERROR):
            return CredentialRejected(
                f"{answer.endpoint} refuses {self.client} ({answered}): {fix or self._fix(code, status)}{description}",
                code="" if transient else shown,
                retry_after=answer.retry_after,
                # A bare 403 comes from a firewall that refuses this machine's address, not from an RFC 6749 server.
                said=bool(code) or status != _FORBIDDEN,
            )
        if status < _CLIENT_ERROR:
            return TokenUnavailable(
                f"{answer.endpoint} answered with an error that is not text ({answered}): check {self.url_options}"
            )
        path = urlsplit(self.url).path or "/"
        path = path if _PATH.fullmatch(path) and not proof.has_piece_in(path) else "this path"
        return TokenUnavailable(
            f"{answer.endpoint} {_WRONG_URL.get(status, 'answers as no token endpoint does at')} {path} ({answered}): "
            f"check {self.url_options}{description}",
            retry_after=answer.retry_after,
            said=True,
        )

    def _fix(self, code: str, status: int) -> str:
        if not code and status == _FORBIDDEN:
            return "a firewall or a proxy may refuse this machine's address; if not, check the credential"
        if not code and status == _CLIENT_ERROR:
            return f"check {self.url_options} and the other options"
        if code and code not in _PERMANENT and code not in _TRANSIENT:
            return "the server's documentation explains the code"
        return self.fixes.get(code) or _PERMANENT.get(code) or self.client_fix

    def _description(self, fields: Mapping[str, Any], proof: Proof) -> str:
        text = fields.get("error_description") if self.log_description else None
        if not isinstance(text, str) or not text:
            return ""
        text = "".join(one if one.isprintable() else " " for one in text[: _MAX_DESCRIPTION + 100])
        # Checked before it is cut, because the cut may be in the middle of the secret.
        if proof.has_piece_in(text):
            return "; its error_description repeats the secret and is not shown"
        text = " ".join(text.replace('"', "'").split())[:_MAX_DESCRIPTION]
        return f'; error_description: "{text}"'


def bearer_type(answer: Answer, fields: Mapping[str, Any], proof: Proof, *, option: str = "") -> str:
    """Return "Bearer", which is sent for tokens of every type but a few.

    Servers have many words for bearer tokens, such as "BearerToken" of Apigee, "jwt-bearer" of Azure DevOps and
    "Application Access Token" of eBay, and all their APIs expect `Bearer`. `DPoP`, `MAC` and `PoP` tokens need a proof
    in each request, and `N_A` is no access token (RFC 8693 §2.2.1): a client must not use them as bearer tokens
    (RFC 6749 §7.1).

    Args:
        answer: The token endpoint's response.
        fields: Its fields.
        proof: What was sent; a type that repeats it is not shown.
        option: The provider's option that accepts every type, for the error text.

    Raises:
        TokenUnavailable: The token needs a proof, is no access token, or its type is not text of at most 64 characters.
    """
    given = fields.get("token_type")
    named = given if isinstance(given, str) and len(given) <= _MAX_TYPE else None
    # Case-insensitive (RFC 6749 §5.1), but APIs that compare it are not.
    kind = None if named is None else re.sub(r"[\s/_-]", "", named.lower())
    if given is None or (kind is not None and kind not in _NEEDS_PROOF and kind != _NO_ACCESS_TOKEN):
        return "Bearer"
    shown = f' "{named}"' if named and _is_shown(named, proof) else ""
    reason = "cannot be used as a bearer token"
    if kind in _NEEDS_PROOF:
        reason = "needs a proof in each request, so it cannot be sent as a bearer token: have the server issue those"
        if kind == "dpop":
            reason += ", or set dpop=DPoPKey(file=…)"
    elif kind == _NO_ACCESS_TOKEN:
        reason = "is no access token"
    fix = f"; if the API takes it nevertheless, set {option} to the word before the token" if option else ""
    raise TokenUnavailable(f"{answer.endpoint} granted a token whose token_type{shown} {reason}{fix}")


def _is_shown(token_type: str, proof: Proof) -> bool:
    return len(token_type) <= _MAX_TYPE and bool(_TYPE.fullmatch(token_type)) and not proof.has_piece_in(token_type)


def bearer_rejected(answer: OutgoingAnswer) -> bool:
    """Return whether an API answered that the token is not valid (RFC 6750 §3.1).

    That is a 401, unless its challenge says that the token is valid and lacks a permission; some APIs send
    `invalid_token` with a 400.
    """
    if answer.status not in (400, 401):
        return False
    errors = set(_ERROR_OF_CHALLENGE.findall(answer.headers.get("www-authenticate", "").lower()))
    if answer.status == 400:
        return "invalid_token" in errors
    return not errors or not errors <= _NOT_ABOUT_VALIDITY


def _is_transient(code: str, fields: Mapping[str, Any]) -> bool:
    if code in _TRANSIENT:
        return True
    description = fields.get("error_description")
    return isinstance(description, str) and description in _TRANSIENT


def _extra(fields: Mapping[str, Any], proof: Proof) -> dict[str, Any]:
    extra: dict[str, Any] = {}
    left = MAX_EXTRA_BYTES
    for name, value in islice(fields.items(), _MAX_FIELDS):
        if name in _NOT_EXTRA or len(extra) == _MAX_EXTRAS or not _is_kept(value):
            continue
        if len(name) > _MAX_EXTRA_CHARACTERS or not _is_text(name):
            continue
        size = len(json.dumps({name: value}))
        # Extra fields go into Redis with the token, and are readable there unless values are sealed.
        if size > left or proof.is_in(name) or (isinstance(value, str) and proof.is_in(value)):
            continue
        extra[name] = value
        left -= size
    return extra


def _is_kept(value: object) -> bool:
    if isinstance(value, str):
        return len(value) <= _MAX_EXTRA_CHARACTERS and _is_text(value)
    if isinstance(value, int):
        return value.bit_length() <= _MAX_EXTRA_BITS
    # NaN and Infinity are not JSON, but Python's reader accepts them.
    return isinstance(value, float) and math.isfinite(value)


def _is_text(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:  # half of a surrogate pair, which nothing could print
        return False
    return True
