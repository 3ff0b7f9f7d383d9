"""The authorization code flow as RFC 9700 wants it: PKCE, `state`, `nonce` and `iss`, for one browser and one user."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, cast

from tokenmw.connections.flow_problem import FlowProblem
from tokenmw.redaction import Unpicklable, not_encoded

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tokenmw.connections.app import OAuthApp

__all__ = ["FLOW_SECONDS", "PendingFlow", "code_in", "one_value"]

FLOW_SECONDS: Final = 600.0
"""Seconds from the redirect to the server until the redirect back."""
_FORMAT: Final = 1
_CODE: Final = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_MAX_CODE: Final = 4096  # characters of an authorization code
_DENIED: Final = frozenset(
    {"access_denied", "consent_required", "interaction_required", "login_required", "account_selection_required"}
)
_BUSY: Final = frozenset({"server_error", "temporarily_unavailable"})


@not_encoded
@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class PendingFlow(Unpicklable):
    """A flow between the redirect to the server and the redirect back. The browser keeps it, sealed.

    Attributes:
        app: The app's name.
        subject: The user who began it.
        state: The `state` of the request.
        verifier: The `code_verifier` of PKCE.
        nonce: The nonce of the ID token; "" if none is expected.
        redirect_uri: The redirect URI of the request.
        scope: The requested scopes, separated by spaces.
        return_to: The path to which the user returns; "" for a page.
        begun: When it began, in seconds since 1970.
    """

    app: str
    subject: str
    state: str
    verifier: str
    nonce: str
    redirect_uri: str
    scope: str
    return_to: str
    begun: float

    @classmethod
    def begin(
        cls, app: str, subject: str, *, redirect_uri: str, scope: str, return_to: str, has_id_token: bool, now: float
    ) -> PendingFlow:
        """Return a new flow, with 256 random bits in each of its secrets."""
        return cls(
            app=app,
            subject=subject,
            state=secrets.token_urlsafe(32),
            verifier=secrets.token_urlsafe(32),
            nonce=secrets.token_urlsafe(32) if has_id_token and "openid" in scope.split() else "",
            redirect_uri=redirect_uri,
            scope=scope,
            return_to=return_to,
            begun=now,
        )

    @property
    def challenge(self) -> str:
        """The `code_challenge` by S256 (RFC 7636 §4.2)."""
        digest = hashlib.sha256(self.verifier.encode()).digest()
        return base64.urlsafe_b64encode(digest).decode().rstrip("=")

    def encode(self) -> bytes:
        """Return the flow as JSON, before it is sealed."""
        return json.dumps([_FORMAT, *(getattr(self, name) for name in self.__slots__)]).encode()

    @classmethod
    def decode(cls, raw: bytes) -> PendingFlow | None:
        """Read a flow; None if it is not one of this version."""
        try:
            given: object = json.loads(raw)
        except ValueError:
            return None
        names = tuple(cls.__slots__)
        if not isinstance(given, list):
            return None
        values = cast("Sequence[Any]", given)
        if len(values) != len(names) + 1 or values[0] != _FORMAT:
            return None
        return cls(**dict(zip(names, values[1:], strict=True)))


def one_value(query: Sequence[tuple[str, str]], name: str) -> str:
    """Return a parameter of a request, or "" without one.

    Raises:
        FlowProblem: It is there twice (RFC 6749 §3.1).
    """
    values = [value for key, value in query if key == name]
    if len(values) > 1:
        raise FlowProblem("invalid", f"the redirect has {len(values)} parameters {name}")
    return values[0] if values else ""


def code_in(query: Sequence[tuple[str, str]], flow: PendingFlow, *, app: OAuthApp, sends_issuer: bool) -> str:
    """Return the authorization code of a redirect back.

    Args:
        query: The parameters of the request.
        flow: The flow that the browser has kept for its `state`.
        app: The app.
        sends_issuer: Whether the server promises an `iss`.

    Raises:
        FlowProblem: The response is another server's, it has an error, or it has no code.
    """
    if not hmac.compare_digest(one_value(query, "state").encode(), flow.state.encode()):
        raise FlowProblem("foreign", "the redirect has another state")
    _check_issuer(one_value(query, "iss"), app=app, required=sends_issuer)
    error = one_value(query, "error")
    if error:
        raise _problem_of(error)
    code = one_value(query, app.dialect.code_parameter)
    if not code or len(code) > _MAX_CODE or not code.isprintable():
        raise FlowProblem(
            "invalid", f"the redirect has no {app.dialect.code_parameter} of at most {_MAX_CODE} characters"
        )
    return code


def _check_issuer(given: str, *, app: OAuthApp, required: bool) -> None:
    # RFC 9207 §2.4. Each app has a redirect URI of its own as well (RFC 9700 §4.4.2).
    if given and app.issuer and not hmac.compare_digest(given.encode(), app.issuer.encode()):
        raise FlowProblem("foreign", "the redirect has the iss of another server")
    if required and not given:
        raise FlowProblem("foreign", "the redirect has no iss, which the server promises in its metadata")


def _problem_of(error: str) -> FlowProblem:
    shown = error if _CODE.fullmatch(error) else "an error that is no code"
    if error in _DENIED:
        return FlowProblem("denied", f"the server answered {shown}")
    if error in _BUSY:
        return FlowProblem("unavailable", f"the server answered {shown}")
    return FlowProblem("refused", f"the server answered {shown}: check scope, params and the registered redirect URI")
