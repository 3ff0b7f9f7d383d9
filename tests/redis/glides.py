"""Clients of valkey-glide for tests, which are skipped where it is not installed."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from tests.interop.running import imported

__all__ = ["configuration", "configuration_of", "glide"]


def glide() -> Any:
    """Return the module; skip the test where it is not installed."""
    module = imported("glide")
    module.Logger.set_logger_config(module.LogLevel.OFF)  # it writes to stdout
    return module


def configuration(port: int, **options: Any) -> Any:
    """Return the configuration of a client of a server on this machine."""
    module = glide()
    return module.GlideClientConfiguration([module.NodeAddress("127.0.0.1", port)], **options)


def configuration_of(url: str, **options: Any) -> Any:
    """Return the configuration of a client of the server of a `redis://` URL."""
    parts = urlsplit(url)
    if parts.password:
        options["credentials"] = glide().ServerCredentials(parts.password)
    assert parts.port is not None
    return configuration(parts.port, **options)
