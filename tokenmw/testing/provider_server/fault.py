"""What an endpoint of the test server can be told to do instead of its best."""

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
    """Raised inside of the server to close the connection without an answer."""


@final
class Hang:
    """Holds back answers until :meth:`release`. Each caller that arrives is counted.

    Attributes:
        arrived: Set as soon as a first caller hangs.
        released: Set by :meth:`release`.
    """

    def __init__(self) -> None:
        self.arrived = Latch()
        self.released = Latch()

    def release(self) -> None:
        """Let all answers go, also later ones."""
        self.released.set()


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One way to misbehave. Fields that are left out change nothing.

    Some that real servers have::

        Fault(status=429, headers={"Retry-After": "2"})
        Fault(body="<h1>Sign in to the network</h1>", delay=0.2)
        Fault(fields={"expires_in": "3600"}, without=["scope"])

    Attributes:
        delay: Seconds to wait before the answer; real ones, as on a slow network.
        hang: Holds the answer back until it is released.
        close: Close the connection instead of answering.
        status: The HTTP status. With it (or with `body`), the endpoint itself is not asked.
        body: The body: `bytes` as they are, `str` as an HTML page, anything else as JSON.
        headers: More header lines, or others.
        fields: JSON fields that replace those of an answer that went well.
        without: JSON fields to leave out of it.
    """

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
        """Whether it answers in place of the endpoint."""
        return self.status is not None or self.body is not None

    def response(self) -> Response:
        """Make the answer that stands in for the endpoint's."""
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
        """Return the fields of an answer that went well, changed."""
        kept = {name: value for name, value in answer.items() if name not in self.without}
        return {**kept, **self.fields}


@final
class Script:
    """What happens at the next calls of one endpoint, and at all others.

    Attributes:
        always: The fault of every call that none was queued for, or None.
    """

    def __init__(self) -> None:
        self.always: Fault | None = None
        self._queue: deque[Fault | None] = deque()

    def then(self, *faults: Fault | None) -> None:
        """Queue faults, one for each of the next calls. None stands for a call that goes well."""
        self._queue.extend(faults)

    def hang(self) -> Hang:
        """Hold back all answers from now on; `release` of what is returned lets them go."""
        hang = Hang()
        self.always = Fault(hang=hang)
        return hang

    def clear(self) -> None:
        """Forget all faults. Answers that hang already go on hanging."""
        self.always = None
        self._queue.clear()

    def take(self) -> Fault:
        """Take the fault of a call that begins now."""
        fault = self._queue.popleft() if self._queue else self.always
        return _NONE if fault is None else fault


_NONE = Fault()
