"""What can go wrong while a user connects an account, with the texts for the user."""

from __future__ import annotations

from typing import Final, Literal

from tokenmw.errors import TokenmwError

__all__ = ["STATUSES", "TEXTS", "FlowProblem", "ProblemKind"]

ProblemKind = Literal[
    "denied", "expired", "foreign", "other_user", "refused", "unavailable", "invalid", "not_allowed", "not_signed_in"
]

STATUSES: Final[dict[ProblemKind, int]] = {
    "denied": 403,
    "expired": 400,
    "foreign": 400,
    "other_user": 403,
    "refused": 502,
    "unavailable": 503,
    "invalid": 400,
    "not_allowed": 403,
    "not_signed_in": 401,
}
"""The HTTP status of each kind."""
TEXTS: Final[dict[ProblemKind, str]] = {
    "denied": "The account was not connected, because access was not granted.",
    "expired": "This attempt to connect the account has expired or was completed before. Begin again.",
    "foreign": "This response does not belong to the account that was to be connected. Begin again.",
    "other_user": "Another user began to connect this account. Begin again.",
    "refused": "The other service did not accept the connection. Begin again; if it fails again, ask the operator.",
    "unavailable": "This is not possible now, because a service cannot be reached. Try again later.",
    "invalid": "This request is not valid.",
    "not_allowed": "You may not do that.",
    "not_signed_in": "Sign in first.",
}
"""What the user reads; it names nothing internal."""


class FlowProblem(TokenmwError):
    """Raised when a flow cannot go on.

    Attributes:
        kind: What happened. `denied`: the user or the server did not consent. `expired`: the browser has no cookie of
            this flow, or it is too old, or the flow was completed before. `foreign`: the response is that of another
            server or app, or its `state`, `iss` or `nonce` differs. `other_user`: another user is signed in than at
            the beginning. `refused`: the server refuses the code or the client. `unavailable`: the server or the store
            cannot be reached. `invalid`: the request has parameters that are not allowed.
            `not_allowed`: `ConnectApp(allow=…)` refuses the request. `not_signed_in`: the request has no user.
    """

    def __init__(self, kind: ProblemKind, text: str) -> None:
        super().__init__(kind, text)
        self.kind: ProblemKind = kind

    def __str__(self) -> str:
        return str(self.args[1])
