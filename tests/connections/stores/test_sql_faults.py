"""`SQLStore` while its database fails: each fault raises in time, with its cause and without secrets."""

from __future__ import annotations

import sqlite3
import time
import traceback
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from tests.ports import free_port
from tests.postgres import PostgresServer
from tokenmw.connections import ConnectionKey, SQLStore, StoreUnavailable

KEY = ConnectionKey("app", "user", "d" * 32)
VALUE = b"a-sealed-value"


@asynccontextmanager
async def opened(url: str, *, create: bool = True, seconds: float = 1.0) -> AsyncGenerator[SQLStore]:
    """Open a store."""
    store = SQLStore(url, create=create, seconds=seconds)
    yield store
    await store.aclose()


async def failure(store: SQLStore, *, expected: int = 1) -> str:
    """Return the text of the error of a save, which comes in time and shows neither value nor password."""
    began = time.monotonic()
    with pytest.raises(StoreUnavailable) as raised:
        await store.save(KEY, VALUE, expected=expected)
    assert time.monotonic() - began < 3
    shown = "".join(traceback.format_exception(raised.value))
    assert "a-sealed-value" not in shown
    assert "a-password" not in shown
    assert (None, None) == (raised.value.__cause__, raised.value.__context__)
    return str(raised.value)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """The path of an SQLite database."""
    return tmp_path / "connections.db"


@pytest.fixture
def private_postgres() -> Iterator[PostgresServer]:
    """A server for one test, which may kill and freeze it."""
    with PostgresServer() as server:
        yield server


async def test_sqlite_locked_by_another_process(file: Path) -> None:
    """While another process holds a write transaction, reads go on and writes raise; then writes go on."""
    async with opened(f"sqlite+aiosqlite:///{file}") as store:
        assert await store.save(KEY, VALUE, expected=0)
        other = sqlite3.connect(file)
        other.execute("BEGIN IMMEDIATE")
        assert await store.load(KEY) is not None
        assert "SQLITE_BUSY, another process holds its lock" in await failure(store)
        other.rollback()
        other.close()
        assert await store.save(KEY, VALUE, expected=1)


async def test_sqlite_read_only(file: Path) -> None:
    """A read-only database is read, and a write says what to fix."""
    async with opened(f"sqlite+aiosqlite:///{file}") as store:
        assert await store.save(KEY, VALUE, expected=0)
        async with opened(f"sqlite+aiosqlite:///file:{file}?mode=ro&uri=true", create=False) as reader:
            assert await reader.load(KEY) is not None
            assert "SQLITE_READONLY, the file, or its directory, is read-only" in await failure(reader)


async def test_sqlite_where_there_is_no_directory(tmp_path: Path) -> None:
    """A path in a directory that does not exist cannot be opened."""
    async with opened(f"sqlite+aiosqlite:///{tmp_path}/none/connections.db") as store:
        assert "SQLITE_CANTOPEN" in await failure(store)


@pytest.fixture
def another_file(file: Path) -> Path:
    """A file that is no database."""
    file.write_bytes(b"not a database at all " * 100)
    return file


async def test_sqlite_with_a_file_of_another_kind(another_file: Path) -> None:
    """A file that is no database says so."""
    async with opened(f"sqlite+aiosqlite:///{another_file}") as store:
        assert "SQLITE_NOTADB" in await failure(store)


async def test_sqlite_on_a_full_disk(file: Path) -> None:
    """When the disk is full, a write raises, and what was stored before is there."""
    async with opened(f"sqlite+aiosqlite:///{file}") as store:
        assert await store.save(KEY, VALUE, expected=0)

        async def limit(connection: object) -> None:
            await connection.exec_driver_sql("PRAGMA max_page_count=1")  # type: ignore[attr-defined]

        await store._database.run(limit)
        with pytest.raises(StoreUnavailable, match="SQLITE_FULL, the disk is full"):
            await store.save(KEY, VALUE * 4000, expected=1)
        found = await store.load(KEY)
        assert found is not None
        assert (1, VALUE) == (found.version, found.value)


@pytest.mark.parametrize("dialect", ["sqlite", "postgresql"])
async def test_a_missing_table(dialect: str, file: Path, request: pytest.FixtureRequest) -> None:
    """Without `create`, a missing table is named with both fixes; the SQL that is shown creates it."""
    is_sqlite = dialect == "sqlite"
    postgres: PostgresServer | None = None if is_sqlite else request.getfixturevalue("postgres")
    url = f"sqlite+aiosqlite:///{file}" if postgres is None else postgres.url
    async with opened(url, create=False) as store:
        text = await failure(store)
        assert "the table tokenmw_connections does not exist: pass create=True" in text
        sql = text.partition("or run: ")[2]
        if postgres is None:
            with sqlite3.connect(file) as connection:
                connection.execute(sql)
            connection.close()
        else:
            postgres.command(sql)
        assert await store.save(KEY, VALUE, expected=0)


async def test_a_table_that_is_dropped_is_created_again(file: Path) -> None:
    """With `create`, the call after the one that has failed works."""
    async with opened(f"sqlite+aiosqlite:///{file}") as store:
        assert await store.save(KEY, VALUE, expected=0)
        with sqlite3.connect(file) as connection:
            connection.execute("DROP TABLE tokenmw_connections")
        connection.close()
        await failure(store)
        assert await store.save(KEY, VALUE, expected=0)


async def test_postgresql_read_only(postgres: PostgresServer) -> None:
    """A server that refuses writes says so."""
    async with opened(postgres.url) as store:
        assert await store.save(KEY, VALUE, expected=0)
    postgres.command("CREATE ROLE reader LOGIN; ALTER ROLE reader SET default_transaction_read_only = on")
    postgres.command("GRANT ALL ON tokenmw_connections TO reader; GRANT USAGE ON SCHEMA public TO reader")
    try:
        async with opened(postgres.url.replace("tester", "reader"), create=False) as store:
            assert await store.load(KEY) is not None
            assert "25006, it is read-only" in await failure(store)
    finally:
        postgres.command("DROP OWNED BY reader; DROP ROLE reader")


async def test_postgresql_with_a_locked_row(postgres: PostgresServer) -> None:
    """A row that another transaction holds raises in time; when that is rolled back, writes go on."""
    async with opened(postgres.url) as store:
        assert await store.save(KEY, VALUE, expected=0)
        driver: Any = asyncpg
        other = await driver.connect(postgres.url.replace("+asyncpg", ""))
        await other.execute("BEGIN")
        await other.execute("UPDATE tokenmw_connections SET version = 7")
        assert "took longer than 1 s" in await failure(store)
        await other.execute("ROLLBACK")
        await other.close()
        found = await store.load(KEY)  # what has waited for the lock may be done by now
        assert found is not None
        assert await store.save(KEY, VALUE, expected=found.version)


async def test_postgresql_frozen_killed_and_restarted(private_postgres: PostgresServer) -> None:
    """A server that hangs, and one that is killed, raise in time; afterwards the store has what it confirmed."""
    async with opened(private_postgres.url, seconds=2.0) as store:
        assert await store.save(KEY, VALUE, expected=0)
        private_postgres.freeze()
        assert "took longer than 2 s" in await failure(store)
        private_postgres.thaw()
        found = await store.load(KEY)
        assert found is not None
        private_postgres.kill()
        await failure(store, expected=found.version)
        private_postgres.restart()
        assert found == await store.load(KEY)
        assert await store.save(KEY, VALUE, expected=found.version)


async def test_nothing_listens() -> None:
    """A refused connection names host and port, and not the password."""
    port = free_port()
    async with opened(f"postgresql+asyncpg://tester:a-password@127.0.0.1:{port}/postgres") as store:
        text = await failure(store)
    assert f"(postgresql, 127.0.0.1:{port}/postgres) failed: ConnectionRefusedError, nothing listens there" in text
