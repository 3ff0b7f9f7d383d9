"""The mutations: data only. Paths are relative to the root of the tree; `old` must be in its file exactly once."""

from __future__ import annotations

from tests.mutations.failing_providers import FAILING_PROVIDERS
from tests.mutations.mutation import Mutation
from tests.mutations.of_connections import OF_CONNECTIONS
from tests.mutations.of_package import OF_PACKAGE
from tests.mutations.of_redis import OF_REDIS
from tests.mutations.of_sessions import OF_SESSIONS

__all__ = ["MUTATIONS", "Mutation"]

MUTATIONS = (*FAILING_PROVIDERS, *OF_REDIS, *OF_SESSIONS, *OF_PACKAGE, *OF_CONNECTIONS)
