"""Which tests need a redis-py with which a cluster's URL is taken."""

from __future__ import annotations

import pytest
import redis

__all__ = ["needs_cluster_urls"]

needs_cluster_urls = pytest.mark.skipif(
    redis.__version__.startswith(("6.", "7.", "8.0.0")),
    reason=f"redis-py {redis.__version__} loses a cluster's connections, so its URL is refused",
)
