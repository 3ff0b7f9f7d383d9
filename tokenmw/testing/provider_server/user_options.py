"""How the test server treats users and their tokens: every option, with what real servers do."""

from __future__ import annotations

from dataclasses import dataclass, field

__all__ = ["UserOptions"]

_DAY = 86400.0


@dataclass(eq=False)
class UserOptions:
    """The options of `ProviderServer.users`, which a test may set at any time.

    Attributes:
        auto: The user who consents to each authorization request, without a page; None for a page with a form. A
            request may have it as a parameter, too: `/oauth2/authorize?…&auto=ada`.
        denies: The error code that answers each authorization request, such as `access_denied`; "" for none.
        iss: The `iss` in authorization responses (RFC 9207): "" for the issuer, None to leave it out, or a foreign one.
        requires_pkce: Whether an authorization request without a `code_challenge` is refused.
        scopes: The known scopes; others are `invalid_scope`. None for any.
        refused_scopes: Scopes that the user does not consent to. The token response then has a smaller `scope`.
        offline_scope: The scope without which no refresh token is issued, such as `offline_access`; "" for none.
        code_life: The lifetime of a code, in seconds.
        rotation: Whether each refresh gives a new refresh token. If not, the answer has none, and the old one stays.
        detects_reuse: Whether a second use of a spent refresh token revokes the whole family. If not, it is refused.
        grace: Seconds in which a spent refresh token is answered with the pair that its first use gave, unless the
            refresh token of that pair is spent, too.
        revokes_old_access_token: Whether a refresh revokes the access tokens issued before, as GitHub does.
        refresh_life: The lifetime of a refresh token, in seconds.
        id_token_algorithm: `HS256`, signed with the client's secret, or `RS256`, which needs PyJWT and cryptography.
        device_interval: The seconds between two polls with a device code.
        device_life: The lifetime of a device code, in seconds.
    """

    auto: str | None = None
    denies: str = ""
    iss: str | None = ""
    requires_pkce: bool = True
    scopes: set[str] | None = None
    refused_scopes: set[str] = field(default_factory=set[str])
    offline_scope: str = ""
    code_life: float = 60.0
    rotation: bool = True
    detects_reuse: bool = True
    grace: float = 0.0
    revokes_old_access_token: bool = False
    refresh_life: float = 30 * _DAY
    id_token_algorithm: str = "HS256"
    device_interval: float = 5.0
    device_life: float = 600.0
