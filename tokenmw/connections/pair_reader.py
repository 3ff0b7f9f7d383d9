"""The answer of a token endpoint to a code, a refresh token or a device code, read as a `TokenPair`."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final, cast

from tokenmw.connections.pair import AccessTokenUnusable, GrantRefused, TokenPair
from tokenmw.errors import CredentialRejected, TokenUnavailable
from tokenmw.providers.answer import number
from tokenmw.values import MAX_LIFETIME

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tokenmw.connections.dialect import Dialect
    from tokenmw.providers.answer import Answer
    from tokenmw.providers.grant_reader import GrantReader
    from tokenmw.providers.proof import Proof

__all__ = ["read_pair", "read_refreshed"]

_MAX_REFRESH_TOKEN: Final = 16 << 10  # characters
_MAX_ID_TOKEN: Final = 64 << 10
_MAX_SCOPE: Final = 16 << 10
_LIFETIME_FIELDS: Final = ("expires_in", "expires_on", "expires_at", "expires")


def read_pair(answer: Answer, proof: Proof, *, reader: GrantReader, dialect: Dialect) -> TokenPair:
    """Return what the endpoint granted.

    Args:
        answer: The endpoint's response.
        proof: What was sent, the code or refresh token included.
        reader: Reads the response of the standard.
        dialect: What the platform does otherwise.

    Raises:
        GrantRefused: The endpoint refuses the code or refresh token itself.
        CredentialRejected: It refuses the client or the request.
        TokenUnavailable: It is busy, or its response cannot be used.
    """
    answer.check_busy()
    answer = dialect.standard(answer)
    fields: Mapping[str, Any] = answer.fields or {}
    try:
        grant = reader.read(answer, proof)
    except CredentialRejected as error:
        code = fields.get("error")
        if isinstance(code, str) and dialect.refuses_grant(code):
            raise GrantRefused(str(error), code=code) from None
        raise
    refresh_token = _text(answer, fields, "refresh_token", limit=_MAX_REFRESH_TOKEN)
    return TokenPair(
        access_token=grant.value,
        refresh_token=refresh_token,
        expires_in=_lifetime(fields, grant.expires_in, has_refresh_token=refresh_token is not None),
        scope=scopes_in(fields.get("scope"), separator=dialect.answer_separator),
        token_type=grant.token_type,
        id_token=_id_token(fields),
        extra={name: value for name, value in grant.extra.items() if name != "scope"},
    )


def read_refreshed(answer: Answer, proof: Proof, *, reader: GrantReader, dialect: Dialect) -> TokenPair:
    """Return what the endpoint granted for a refresh token, as `read_pair` does.

    Raises:
        AccessTokenUnusable: The answer has a new refresh token, and is not usable otherwise.
        Exception: What `read_pair` raises.
    """
    try:
        return read_pair(answer, proof, reader=reader, dialect=dialect)
    except TokenUnavailable as error:
        standard = dialect.standard(answer)
        fields: Mapping[str, Any] = standard.fields or {}
        if not 200 <= answer.status < 300 or fields.get("error"):
            raise
        token = _text(standard, fields, "refresh_token", limit=_MAX_REFRESH_TOKEN)
        if token is None:
            raise
        unusable = AccessTokenUnusable(str(error), refresh_token=token)
    raise unusable


def scopes_in(given: object, *, separator: str = "") -> str | None:
    """Return the scopes of an answer, separated by spaces; None if it names none.

    >>> scopes_in("repo,gist", separator=","), scopes_in(["read", "write"]), scopes_in(None)
    ('repo gist', 'read write', None)
    """
    if isinstance(given, (list, tuple)):
        given = " ".join(one for one in cast("list[object]", given) if isinstance(one, str))
    if not isinstance(given, str) or len(given) > _MAX_SCOPE:
        return None
    if separator:
        given = given.replace(separator, " ")
    return " ".join(given.split()) or None


def _lifetime(fields: Mapping[str, Any], seconds: float, *, has_refresh_token: bool) -> float:
    """Return the lifetime: of a token that cannot be refreshed, as long as the server says, or without an end."""
    if has_refresh_token:
        return seconds
    if all(fields.get(name) in (None, "") for name in _LIFETIME_FIELDS):
        return math.inf
    return max(seconds, number(fields.get("expires_in")) or 0.0) if seconds >= MAX_LIFETIME else seconds


def _id_token(fields: Mapping[str, Any]) -> str | None:
    # One that is no text counts as none: it must not cost the refresh token beside it.
    value = fields.get("id_token")
    return value if isinstance(value, str) and 0 < len(value) <= _MAX_ID_TOKEN and value.isprintable() else None


def _text(answer: Answer, fields: Mapping[str, Any], name: str, *, limit: int) -> str | None:
    value = fields.get(name)
    if value is None or value == "":
        return None
    if not isinstance(value, str) or len(value) > limit or not value.isprintable():
        raise TokenUnavailable(f"{answer.endpoint} granted a {name} that is not text of at most {limit} characters")
    return value
