"""The grants that give tokens of users: a code, a refresh token, a device code. Each is recorded with its outcome."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from tokenmw.testing.provider_server.families import RefusedError

if TYPE_CHECKING:
    from starlette.requests import Request

    from tokenmw.testing.provider_server.endpoint import TokenEndpoint
    from tokenmw.testing.provider_server.families import Pair, TokenPost
    from tokenmw.testing.provider_server.users import Users

__all__ = ["AUTHORIZATION_CODE", "CREDENTIALS", "DEVICE_CODE", "REFRESH_TOKEN", "UserCredential", "exchange", "record"]

AUTHORIZATION_CODE: Final = "authorization_code"
REFRESH_TOKEN: Final = "refresh_token"
DEVICE_CODE: Final = "urn:ietf:params:oauth:grant-type:device_code"

CREDENTIALS: Final = {AUTHORIZATION_CODE: "code", REFRESH_TOKEN: "refresh_token", DEVICE_CODE: "device_code"}
"""The field that has the credential, for each grant type."""

_POST: Final = "token_post"


@dataclass(frozen=True, kw_only=True)
class UserCredential:
    """What a client sends to get a user's tokens.

    Attributes:
        grant: The grant type, as in OAuth 2.
        value: The code, the refresh token or the device code; "" if it is missing.
        client: The client, whose proof was verified.
        scope: The requested scope of a refresh, or "".
        redirect_uri: The redirect URI; None if the platform does not take one.
        verifier: The `code_verifier`, or "".
    """

    grant: str
    value: str
    client: str
    scope: str = ""
    redirect_uri: str | None = None
    verifier: str = ""


def record(users: Users, request: Request, *, grant: str, value: str, client: str) -> None:
    """Record a request when it arrives; `exchange` adds its outcome."""
    setattr(request.state, _POST, users.record(grant, value, client))


def exchange(users: Users, endpoint: TokenEndpoint, request: Request, credential: UserCredential) -> Pair:
    """Return the tokens for a credential.

    Raises:
        RefusedError: The credential is refused.
    """
    post: TokenPost = getattr(request.state, _POST)
    try:
        pair = _exchanged(users, endpoint, credential)
    except RefusedError as refused:
        post.outcome = refused.reason
        raise
    post.family, post.outcome = pair.family, "repeated" if pair.repeated else "granted"
    return pair


def _exchanged(users: Users, endpoint: TokenEndpoint, credential: UserCredential) -> Pair:
    value, client = credential.value, credential.client
    if not value:
        raise RefusedError("invalid_request", "missing")
    if credential.grant == REFRESH_TOKEN:
        return users.families.refresh(endpoint, value, client=client, scope=credential.scope)
    if credential.grant == DEVICE_CODE:
        device = users.devices.take(value, client=client)
        return users.families.begin(endpoint, device.user, client, scope=device.scope, issuer=device.issuer)
    code = users.codes.take(
        endpoint.prefix, value, client=client, redirect_uri=credential.redirect_uri, verifier=credential.verifier
    )
    pair = users.families.begin(endpoint, code.user, client, scope=code.scope, issuer=code.issuer)
    code.family = pair.family
    return pair
