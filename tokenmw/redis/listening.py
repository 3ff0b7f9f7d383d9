"""The types of what a guard notifies of its server and its commands."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeAlias

__all__ = ["OnCommand", "ServerListener"]

OnCommand: TypeAlias = Callable[[str, float, str], None]
"""Takes the operation of a command, its seconds, and the reason of its failure, or ""."""


class ServerListener(Protocol):
    """Is notified when a server becomes unavailable and when it has recovered."""

    def server_unavailable(self, reason: str, *, server: str) -> None:
        """Note that the circuit of a server, by its address, has opened."""
        ...

    def server_recovered(self, *, server: str) -> None:
        """Note that a probe has closed the circuit of a server."""
        ...
