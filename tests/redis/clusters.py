"""A mark for tests that need a redis-py with which the package accepts the URL of a cluster."""

from __future__ import annotations

import pytest
import redis

__all__ = ["needs_cluster_urls"]

needs_cluster_urls = pytest.mark.skipif(
    redis.__version__.startswith(("6.", "7.", "8.0.0")),
    reason=f"redis-py {redis.__version__} loses the connections of a cluster, so its URL is refused",
)
