"""What one process knows of one session."""

from __future__ import annotations

__all__ = ["SessionEntry"]


class SessionEntry:
    """This process's copy of one session.

    Attributes:
        id: The session id.
        used: The monotonic time of the last request.
        placed: The monotonic time at which it was put behind the others, for the local cache.
        due: The monotonic time from which a request queues a touch, which keeps it alive in Redis.
        shared: Whether Redis has it; if not, it is offered "if absent".
        overwrite: Whether it is to replace what Redis has: it was reset while Redis was away.
    """

    __slots__ = ("due", "id", "overwrite", "placed", "shared", "used")

    def __init__(self, session_id: str, *, now: float, due: float, shared: bool) -> None:
        self.id = session_id
        self.used = now
        self.placed = now
        self.due = due
        self.shared = shared
        self.overwrite = False
