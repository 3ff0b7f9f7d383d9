"""`SQLStore` passes the suite of connection stores, on SQLite and on PostgreSQL."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.postgres import PostgresServer
from tokenmw.connections.sql_store import SQLStore
from tokenmw.testing.connection_store_suite import ConnectionStoreSuite

if TYPE_CHECKING:
    from collections.abc import Callable


def open_store(url: str) -> SQLStore:
    """Make a store that creates its table."""
    return SQLStore(url, create=True)


class TestSQLite(ConnectionStoreSuite):
    """SQLite, in a file."""

    @pytest.fixture
    def url(self, tmp_path: Path) -> str:
        """The URL of the file."""
        return f"sqlite+aiosqlite:///{tmp_path}/connections.db"

    @pytest.fixture
    def make_store(self, url: str) -> Callable[[], SQLStore]:
        """Return a function that makes a store."""
        return lambda: open_store(url)

    @pytest.fixture
    def process_store(self, url: str) -> Any:
        """Return what makes a store in another process."""
        return open_store, (url,)


class TestPostgreSQL(ConnectionStoreSuite):
    """PostgreSQL, Debian's server."""

    @pytest.fixture
    def make_store(self, postgres: PostgresServer) -> Callable[[], SQLStore]:
        """Return a function that makes a store."""
        return lambda: open_store(postgres.url)

    @pytest.fixture
    def process_store(self, postgres: PostgresServer) -> Any:
        """Return what makes a store in another process."""
        return open_store, (postgres.url,)
