"""The ID token of OpenID Connect, as far as it proves that a code belongs to the flow that asked for it.

Its signature is not verified: the token came straight from the token endpoint over TLS, which is as good (OpenID
Connect Core 3.1.3.7, number 6). Its claims are compared all the same.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import json
from typing import TYPE_CHECKING, Any, Final, cast

from tokenmw.connections.flow_problem import FlowProblem

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["checked_claims"]

_LEEWAY: Final = 60.0  # seconds
_SEGMENTS: Final = 3


def checked_claims(id_token: str | None, *, issuer: str, client_id: str, nonce: str, now: float) -> Mapping[str, Any]:
    """Return the claims of an ID token after the checks of OpenID Connect Core 3.1.3.7.

    Args:
        id_token: The token, or None if the answer had none.
        issuer: What `iss` must be; names in braces stand for other claims, as in Microsoft's
            `https://login.microsoftonline.com/{tid}/v2.0`. "": any.
        client_id: What `aud` must contain.
        nonce: What `nonce` must be.
        now: The time in seconds since 1970.

    Raises:
        FlowProblem: It is missing, no ID token, or one of another server, client or flow, or it has expired.
    """
    if id_token is None:
        raise FlowProblem("foreign", 'the answer to a request with the scope "openid" has no id_token')
    claims = _claims(id_token)
    if claims is None:
        raise FlowProblem("foreign", "the id_token is not a JWT")
    expected = _filled(issuer, claims)
    if issuer and not _is(claims.get("iss"), expected):
        raise FlowProblem("foreign", "the id_token has the iss of another server")
    audience = claims.get("aud")
    audiences = cast("list[object]", audience) if isinstance(audience, list) else [audience]
    if client_id not in audiences:
        raise FlowProblem("foreign", "the id_token has the aud of another client")
    # With several audiences, `azp` says for which the token is.
    if ("azp" in claims or len(audiences) > 1) and not _is(claims.get("azp"), client_id):
        raise FlowProblem("foreign", "the id_token has the azp of another client")
    expiry = claims.get("exp")
    # Compared without a sum: an integer of JSON may be too large for a float.
    if isinstance(expiry, bool) or not isinstance(expiry, (int, float)) or not now - _LEEWAY < expiry:
        raise FlowProblem("foreign", "the id_token has expired, or this machine's clock is wrong")
    if not _is(claims.get("nonce"), nonce):
        raise FlowProblem("foreign", "the id_token has another nonce")
    subject = claims.get("sub")
    if not isinstance(subject, str) or not subject:
        raise FlowProblem("foreign", "the id_token has no sub")
    return claims


def _claims(token: str) -> Mapping[str, Any] | None:
    segments = token.split(".")
    if len(segments) != _SEGMENTS:
        return None
    header, claims = map(_object, segments[:2])
    # `none` is for clients that have registered it (OpenID Connect Core 2).
    if header is None or not isinstance(header.get("alg"), str) or header["alg"].lower() == "none":
        return None
    return claims


def _object(segment: str) -> dict[str, Any] | None:
    try:
        raw = base64.b64decode(f"{segment}{'=' * (-len(segment) % 4)}", altchars=b"-_", validate=True)
        found: object = json.loads(raw)
    except (binascii.Error, ValueError, RecursionError):
        return None
    return cast("dict[str, Any]", found) if isinstance(found, dict) else None


def _filled(issuer: str, claims: Mapping[str, Any]) -> str:
    before, brace, rest = issuer.partition("{")
    if not brace:
        return issuer
    name, _, after = rest.partition("}")
    value = claims.get(name)
    # A value with a slash could make the URL that of another issuer.
    return f"{before}{value}{after}" if isinstance(value, str) and value.replace("-", "").isalnum() else ""


def _is(given: object, expected: str) -> bool:
    return (
        isinstance(given, str)
        and expected != ""
        and hmac.compare_digest(given.encode("utf-8", "surrogatepass"), expected.encode())
    )
