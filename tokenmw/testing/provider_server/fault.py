"""Faults: how an endpoint of the test server can misbehave, and at which call."""

from __future__ import annotations

import json
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, final

from starlette.responses import Response

from tokenmw.testing.provider_server.latch import Latch

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

__all__ = ["ConnectionClosedError", "Fault", "Hang", "Script"]


class ConnectionClosedError(Exception):
    """Raised inside the server to close the connection without an answer."""


@final
class Hang:
    """Holds back answers until :meth:`release` is called.

    Attributes:
        arrived: Set when the first caller waits.
        released: Set by :meth:`release`.
    """

    def __init__(self) -> None:
        self.arrived = Latch()
        self.released = Latch()

    def release(self) -> None:
        """Send all answers that are held back, and do not hold back later ones."""
        self.released.set()


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One way to misbehave. Fields that are not given change nothing.

    Examples from real servers::

        Fault(status=429, headers={"Retry-After": "2"})
        Fault(body="<h1>Sign in to the network</h1>", delay=0.2)
        Fault(fields={"expires_in": "3600"}, without=["scope"])
        Fault(status=502, after=True)

    Attributes:
        after: Misbehave after the endpoint has done its work and before the answer is sent: a refresh token is spent,
            and the client does not learn the new one.
        delay: Seconds of real time to wait before the answer.
        hang: Holds back the answer until it is released.
        close: Close the connection instead of answering.
        status: The HTTP status. With it, or with `body`, the endpoint's own answer is not sent.
        body: The body: `bytes` unchanged, `str` as an HTML page, anything else as JSON.
        headers: Header lines to add or replace.
        fields: JSON fields to add to a successful answer, or to replace in it.
        without: JSON fields to leave out of a successful answer.
    """

    after: bool = False
    delay: float = 0.0
    hang: Hang | None = None
    close: bool = False
    status: int | None = None
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    fields: Mapping[str, Any] = field(default_factory=dict[str, Any])
    without: Collection[str] = ()

    @property
    def answers(self) -> bool:
        """Whether the fault answers in place of the endpoint."""
        return self.status is not None or self.body is not None

    def response(self) -> Response:
        """Return the answer that replaces the endpoint's."""
        if self.body is None:
            content, media_type = b"", None
        elif isinstance(self.body, bytes):
            content, media_type = self.body, "application/octet-stream"
        elif isinstance(self.body, str):
            content, media_type = self.body.encode(), "text/html"
        else:
            content, media_type = json.dumps(self.body).encode(), "application/json"
        return Response(content, self.status or 200, headers=dict(self.headers), media_type=media_type)

    def change(self, answer: dict[str, Any]) -> dict[str, Any]:
        """Return the fields of a successful answer with this fault's changes."""
        kept = {name: value for name, value in answer.items() if name not in self.without}
        return {**kept, **self.fields}


@final
class Script:
    """The faults of one endpoint: a queue for the next calls, then one for all later calls.

    Attributes:
        always: The fault of every call after the queue, or None.
    """

    def __init__(self) -> None:
        self.always: Fault | None = None
        self._queue: deque[Fault | None] = deque()

    def then(self, *faults: Fault | None) -> None:
        """Queue faults, one for each of the next calls. None is a call without a fault."""
        self._queue.extend(faults)

    def hang(self, *, after: bool = False) -> Hang:
        """Hold back all answers from now on, until `release` of the returned object is called.

        Args:
            after: Whether the endpoint does its work first, and only its answer is held back.
        """
        hang = Hang()
        self.always = Fault(hang=hang, after=after)
        return hang

    def clear(self) -> None:
        """Remove all faults. Answers that are held back already stay so."""
        self.always = None
        self._queue.clear()

    def take(self) -> Fault:
        """Return the fault of a call that starts now, and remove it from the queue."""
        fault = self._queue.popleft() if self._queue else self.always
        return _NONE if fault is None else fault


_NONE = Fault()
