"""The status of a broker over HTTP: probes, JSON, and a page with actions. It imports from everything below `asgi`.

A program mounts it: `app.mount("/_tokenmw", StatusApp(broker, allow=is_operator))`.
"""

from __future__ import annotations

from tokenmw.status_app.app import StatusApp

__all__ = ["StatusApp"]
