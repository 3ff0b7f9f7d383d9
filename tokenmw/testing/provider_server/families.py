"""Refresh tokens of users: rotation, detection of reuse, and the family that a revocation ends."""

from __future__ import annotations

import dataclasses
import itertools
import secrets
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, final

from tokenmw.testing.provider_server.endpoint import whole_seconds

if TYPE_CHECKING:
    from tokenmw.clock import Clock
    from tokenmw.testing.provider_server.endpoint import TokenEndpoint
    from tokenmw.testing.provider_server.issued import IssuedTokens
    from tokenmw.testing.provider_server.user_options import UserOptions

__all__ = ["Families", "Family", "Pair", "RefusedError", "TokenPost"]


class RefusedError(Exception):
    """A grant is refused.

    Attributes:
        code: The error code of the answer, such as `invalid_grant`.
        reason: What is wrong, such as `reused`; for tests, never in an answer.
    """

    def __init__(self, code: str, reason: str = "") -> None:
        super().__init__(f"{code}: {reason}")
        self.code = code
        self.reason = reason or code


@dataclass(eq=False)
class TokenPost:
    """One request with a credential of a user at a token endpoint, recorded when it arrives.

    Attributes:
        grant: The grant type: `refresh_token`, `authorization_code` or the device code's.
        credential: The refresh token, the code, or the device code.
        client: The client that the request names.
        at: When it arrived, by the monotonic clock, in seconds.
        family: The family that it is about, if there is one.
        outcome: `granted`; `repeated` for the same pair again; why it was refused: `reused`, `revoked`, `expired`,
            `unknown`, `client`, …, or the error code; "" if a fault has answered, or the client has not proved itself.
    """

    grant: str
    credential: str
    client: str
    at: float
    family: Family | None = None
    outcome: str = ""


@dataclass(eq=False)
class Family:
    """All tokens that come from one consent of a user.

    Attributes:
        user: The user.
        client: The client that the user has consented to.
        scope: What the user has consented to. An access token may have less of it.
        endpoint: The prefix of the endpoint that serves it, such as `"oauth2"`.
        issuer: The `iss` of its id tokens.
        access_tokens: Its access tokens, in order.
        refresh_tokens: Its refresh tokens, in order; only the last one is not spent.
        posts: The requests with its refresh tokens, in order.
        revoked_because: Why it was revoked: `reuse`, `revocation`, `code` (a second use of a code), or `test`; "" if it
            is alive.
    """

    user: str
    client: str
    scope: str
    endpoint: str
    issuer: str = ""
    access_tokens: list[str] = field(default_factory=list[str])
    refresh_tokens: list[str] = field(default_factory=list[str])
    posts: list[TokenPost] = field(default_factory=list[TokenPost])
    revoked_because: str = ""

    @property
    def alive(self) -> bool:
        """Whether its tokens are accepted."""
        return not self.revoked_because

    @property
    def refreshes(self) -> int:
        """The number of requests with its refresh tokens."""
        return len(self.posts)


@dataclass(frozen=True)
class Pair:
    """An access token, and the refresh token issued with it.

    Attributes:
        access_token: The access token.
        refresh_token: The refresh token, or "".
        expires_in: The lifetime of the access token, in seconds.
        scope: The scope of the access token.
        family: The family of both.
        repeated: Whether it is the same pair again, within the grace window.
    """

    access_token: str
    refresh_token: str
    expires_in: float
    scope: str
    family: Family
    repeated: bool = False


@dataclass
class _RefreshToken:
    family: Family
    expires_at: float
    spent_at: float = 0.0
    successor: Pair | None = None


@final
class Families:
    """All families, and the rules by which refresh tokens are spent.

    Args:
        issued: Where access tokens are issued.
        options: The options, read at each use.
        clock: The clock by which refresh tokens expire.
    """

    def __init__(self, issued: IssuedTokens, options: UserOptions, *, clock: Clock) -> None:
        self._issued = issued
        self._options = options
        self._clock = clock
        self._numbers = itertools.count(1)
        self._refresh_tokens: dict[str, _RefreshToken] = {}
        self._families: list[Family] = []

    def all(self) -> list[Family]:
        """Return all families, in the order of their consent."""
        return list(self._families)

    def begin(self, endpoint: TokenEndpoint, user: str, client: str, *, scope: str = "", issuer: str = "") -> Pair:
        """Return the first pair of a new family."""
        family = Family(user, client, scope, endpoint.prefix, issuer)
        self._families.append(family)
        offline = not self._options.offline_scope or self._options.offline_scope in scope.split()
        return self._pair(family, endpoint, scope, refresh_token=self._refresh_token(family) if offline else "")

    def find(self, refresh_token: str) -> Family | None:
        """Return the family of a refresh token, spent or not; None if it was not issued here."""
        known = self._refresh_tokens.get(refresh_token)
        return None if known is None else known.family

    def is_good(self, refresh_token: str) -> bool:
        """Return whether a refresh token would be accepted now, without reuse."""
        known = self._refresh_tokens.get(refresh_token)
        if known is None or known.successor is not None:
            return False
        return known.family.alive and self._clock.monotonic() < known.expires_at

    def refresh(self, endpoint: TokenEndpoint, refresh_token: str, *, client: str, scope: str = "") -> Pair:
        """Spend a refresh token, and return the new pair (RFC 6749 §6, RFC 9700 §4.14.2).

        Raises:
            RefusedError: It is unknown, expired, revoked, of another client or spent, or the scope is too wide.
        """
        known = self._refresh_tokens.get(refresh_token)
        if known is None or known.family.endpoint != endpoint.prefix:
            raise RefusedError("invalid_grant", "unknown")
        family, now = known.family, self._clock.monotonic()
        if family.client != client:
            raise RefusedError("invalid_grant", "client")
        if not family.alive:
            raise RefusedError("invalid_grant", "revoked")
        if known.successor is not None:
            return self._repeated(known, known.successor, now)
        if now >= known.expires_at:
            raise RefusedError("invalid_grant", "expired")
        if not set(scope.split()) <= set(family.scope.split()):
            raise RefusedError("invalid_scope")
        if self._options.revokes_old_access_token or endpoint.revokes_old_tokens:
            for value in family.access_tokens:
                self._issued.revoke(value)
        # The new refresh token has the whole scope, whatever that of the access token is.
        new = self._refresh_token(family) if self._options.rotation else ""
        pair = self._pair(family, endpoint, scope or family.scope, refresh_token=new)
        if new:
            known.spent_at, known.successor = now, pair
        return pair

    def revoke(self, family: Family, because: str = "test") -> None:
        """Revoke all tokens of a family."""
        family.revoked_because = family.revoked_because or because
        for value in family.access_tokens:
            self._issued.revoke(value)

    def _repeated(self, known: _RefreshToken, pair: Pair, now: float) -> Pair:
        if now < known.spent_at + self._options.grace and self.is_good(pair.refresh_token):
            issued = self._issued.find(pair.access_token)
            left = 0.0 if issued is None else self._issued.remaining(issued)
            return dataclasses.replace(pair, expires_in=whole_seconds(max(left, 0.0)), repeated=True)
        if self._options.detects_reuse:
            self.revoke(known.family, "reuse")
        raise RefusedError("invalid_grant", "reused")

    def _pair(self, family: Family, endpoint: TokenEndpoint, scope: str, *, refresh_token: str) -> Pair:
        value, life = endpoint.grant_for(family.user, family.client, scope=scope)
        family.access_tokens.append(value)
        return Pair(value, refresh_token, life, scope, family)

    def _refresh_token(self, family: Family) -> str:
        value = f"{family.endpoint}-refresh-{next(self._numbers)}-{secrets.token_urlsafe(12)}"
        self._refresh_tokens[value] = _RefreshToken(family, self._clock.monotonic() + self._options.refresh_life)
        family.refresh_tokens.append(value)
        return value
