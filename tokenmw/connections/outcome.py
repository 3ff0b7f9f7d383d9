"""How an attempt to connect an account ended, for the program's own pages."""

from __future__ import annotations

from dataclasses import dataclass

from tokenmw.connections.flow_problem import ProblemKind  # noqa: TC001  pydantic reads the fields' types

__all__ = ["Connected", "NotConnected"]


@dataclass(frozen=True, slots=True)
class Connected:
    """What `ConnectApp(on_success=…)` gets.

    Attributes:
        app: The app's name.
        subject: The user.
        scope: The granted scopes, separated by spaces.
        return_to: The path to which the user returns; "" if there is none.
    """

    app: str
    subject: str
    scope: str
    return_to: str


@dataclass(frozen=True, slots=True)
class NotConnected:
    """What `ConnectApp(on_error=…)` gets.

    Attributes:
        app: The app's name; "" for a list of states.
        kind: What happened, as of `FlowProblem`.
        status: The HTTP status.
        detail: A sentence for the user.
        return_to: The path to which the user returns; "" if there is none.
    """

    app: str
    kind: ProblemKind
    status: int
    detail: str
    return_to: str
