"""Servers of the tests of stores."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.postgres import PostgresServer


@pytest.fixture(scope="session")
def _shared_postgres() -> Iterator[PostgresServer]:
    with PostgresServer() as server:
        yield server


@pytest.fixture
def postgres(_shared_postgres: PostgresServer) -> PostgresServer:
    """A running server without tables; all tests share its processes."""
    _shared_postgres.command("DROP SCHEMA public CASCADE; CREATE SCHEMA public")
    return _shared_postgres
