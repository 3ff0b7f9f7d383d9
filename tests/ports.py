"""Free ports of this machine for servers of the tests."""

from __future__ import annotations

import random
import socket

__all__ = ["free_port"]

# Below the range from which the operating system takes the ports of outgoing connections. A client that dials
# a dead server in that range can be given the very port it dials, and then it talks to itself.
PORTS = range(10_000, 30_000)


def free_port() -> int:
    """Return one that nobody listens on; another process may take it before you do."""
    for port in random.SystemRandom().sample(PORTS, k=100):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise RuntimeError(f"None of a hundred ports between {PORTS.start} and {PORTS.stop} is free.")
