"""Finds free ports for the servers of tests."""

from __future__ import annotations

import os
import random
import socket

__all__ = ["free_port"]

# Below the range of ports that the operating system assigns to outgoing connections. A client that connects to a
# closed port in that range can be assigned the same port, and is then connected to itself. The demo uses ports
# from 20 000 on. A node of a cluster also listens on its port plus 10 000.
PORTS = range(10_000, 20_000)
# Each process of pytest-xdist has ports of its own, so that none takes the port of a server that another has stopped.
_WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
_WORKERS = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))


def free_port() -> int:
    """Return a port that no process listens on; another process may take it before the caller does."""
    for port in random.SystemRandom().sample(PORTS[_WORKER::_WORKERS], k=100):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise RuntimeError(f"None of 100 ports between {PORTS.start} and {PORTS.stop} is free")
