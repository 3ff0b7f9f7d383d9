"""The table: by `create=True`, by the SQL of `schema`, and by the migration, it is the same one."""

from __future__ import annotations

import importlib.util
import sqlite3
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic.migration import MigrationContext
from alembic.operations import Operations
from sqlalchemy.ext.asyncio import create_async_engine

from tests.postgres import PostgresServer
from tokenmw import ConfigurationError
from tokenmw.connections import ConnectionKey, SQLStore, StoreUnavailable

KEY = ConnectionKey("app", "user", "d" * 32)
EXAMPLE = Path(__file__).parents[3] / "examples" / "connections_migration.py"
COLUMNS = (
    "SELECT column_name, data_type, character_maximum_length, collation_name, is_nullable, column_default "
    "FROM information_schema.columns WHERE table_name = 'tokenmw_connections' ORDER BY ordinal_position"
)


def migrate(connection: sa.Connection, step: str) -> None:
    """Run a step of the migration."""
    spec = importlib.util.spec_from_file_location("connections_migration", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    migration: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(migration)
    with Operations.context(MigrationContext.configure(connection)):
        getattr(migration, step)()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """The path of an SQLite database."""
    return tmp_path / "connections.db"


def sqlite_columns(file: Path) -> list[Any]:
    """Return the columns of the table."""
    connection = sqlite3.connect(file)
    found = connection.execute("PRAGMA table_info(tokenmw_connections)").fetchall()
    connection.close()
    return found


async def test_a_migrated_sqlite_has_the_same_table(file: Path, tmp_path: Path) -> None:
    """The store works on the migration's table, whose columns are those of `create=True`; a downgrade drops it."""
    engine = sa.create_engine(f"sqlite:///{file}")
    with engine.begin() as connection:
        migrate(connection, "upgrade")
    created = tmp_path / "created.db"
    for path, create in ((file, False), (created, True)):
        store = SQLStore(f"sqlite+aiosqlite:///{path}", create=create)
        assert await store.save(KEY, b"value", expected=0)
        await store.aclose()
    assert sqlite_columns(file) == sqlite_columns(created) != []
    with engine.begin() as connection:
        migrate(connection, "downgrade")
    engine.dispose()
    assert sqlite_columns(file) == []


async def test_a_migrated_postgresql_has_the_same_table(postgres: PostgresServer) -> None:
    """The store works on the migration's table, whose columns are those of `create=True`."""
    engine = create_async_engine(postgres.url)
    async with engine.begin() as connection:
        await connection.run_sync(migrate, "upgrade")
    await engine.dispose()
    store = SQLStore(postgres.url)
    assert await store.save(KEY, b"value", expected=0)
    await store.aclose()
    migrated = postgres.command(COLUMNS)
    postgres.command("DROP TABLE tokenmw_connections")
    store = SQLStore(postgres.url, create=True)
    assert await store.load(KEY) is None
    await store.aclose()
    assert migrated == postgres.command(COLUMNS) != ""


async def test_a_table_in_another_schema(postgres: PostgresServer) -> None:
    """The table's name may have a schema."""
    postgres.command("DROP SCHEMA IF EXISTS auth CASCADE; CREATE SCHEMA auth")
    store = SQLStore(postgres.url, create=True, table="auth.connections")
    assert await store.save(KEY, b"value", expected=0)
    await store.aclose()
    assert "1" == postgres.command("SELECT count(*) FROM auth.connections")


async def test_an_engine_of_the_program_is_used_and_not_disposed(file: Path) -> None:
    """After `aclose`, the program's engine still has its connections, and its own transactions work as before."""
    engine = create_async_engine(f"sqlite+aiosqlite:///{file}")
    store = SQLStore(engine, create=True)
    assert await store.save(KEY, b"value", expected=0)
    await store.aclose()
    pool: Any = engine.pool
    assert 1 == pool.checkedin()
    async with engine.connect() as connection:
        await connection.exec_driver_sql("DELETE FROM tokenmw_connections")
        await connection.rollback()
    assert await store.load(KEY) is not None
    await engine.dispose()


@pytest.mark.parametrize(
    ("database", "text"),
    [
        ("sqlite:///connections.db", r"write sqlite\+aiosqlite://… and not sqlite://…"),
        ("postgresql://u:a-password@host/name", r"write postgresql\+asyncpg://… and not postgresql://…"),
        ("postgres://u:a-password@host/name", r"write postgresql\+asyncpg://… and not postgres://…"),
        ("postgresql+psycopg2://u:a-password@host/name", r"needs an async driver: write postgresql\+asyncpg://…"),
        ("nothing like a URL with a-password", "the URL is not valid"),
        ("postgresql+asyncpg://u:a-password@host:port/name", "the URL is not valid"),
        ("sqlite+aiosqlite://", "a database in memory is lost"),
        ("sqlite+aiosqlite:///:memory:", "a database in memory is lost"),
        ("mysql+aiomysql://u:a-password@host/name", "made for SQLite and PostgreSQL"),
        (7, "takes a URL or an AsyncEngine, not int"),
    ],
)
def test_a_database_that_cannot_work_is_refused(database: Any, text: str) -> None:
    """The error says what to write, and has no password; neither has its context."""
    with pytest.raises(ConfigurationError, match=text) as raised:
        SQLStore(database)
    assert "a-password" not in repr((raised.value, raised.value.__context__))


@pytest.mark.parametrize("option", [{"table": "a; b"}, {"table": "a.b.c"}, {"table": ""}, {"seconds": 0}])
def test_an_option_that_cannot_work_is_refused(option: Any) -> None:
    """A name that is none, and a time that is none, raise `ConfigurationError`."""
    with pytest.raises(ConfigurationError, match="SQLStore: "):
        SQLStore("sqlite+aiosqlite:///connections.db", **option)


@pytest.mark.parametrize("module", ["sqlalchemy.ext.asyncio", "aiosqlite"])
def test_a_missing_library_is_named_with_its_fix(module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without SQLAlchemy or the driver, the error has the line that installs it."""
    monkeypatch.setitem(__import__("sys").modules, module, None)
    with pytest.raises(ConfigurationError, match=r'pip install "tokenmw\[sql\]"'):
        SQLStore("sqlite+aiosqlite:///connections.db")


@pytest.mark.parametrize("subject", ["a" * 513, "nul\0", "\ud800"])
async def test_a_subject_that_a_database_would_change_is_refused(subject: str, file: Path) -> None:
    """A subject that is too long, or that not every database takes, is refused by all of them alike."""
    store = SQLStore(f"sqlite+aiosqlite:///{file}", create=True)
    with pytest.raises(StoreUnavailable, match="a subject has at most 512 characters"):
        await store.load(KEY._replace(subject=subject))
    await store.aclose()


async def test_no_text_shows_the_password() -> None:
    """Neither `repr` nor an attribute of a store shows the password of its URL."""
    store = SQLStore("postgresql+asyncpg://u:a-password@host/name")
    database = store._database
    assert "a-password" not in repr((store, [getattr(database, name, None) for name in database.__slots__]))


async def test_a_server_that_confirms_too_early_is_logged(
    postgres: PostgresServer, caplog: pytest.LogCaptureFixture
) -> None:
    """With synchronous_commit off, one line says what may be lost, and what to set."""
    postgres.command("CREATE ROLE hasty LOGIN SUPERUSER; ALTER ROLE hasty SET synchronous_commit = off")
    try:
        store = SQLStore(postgres.url.replace("tester", "hasty"), create=True)
        await store.load(KEY)
        await store.load(KEY)
        await store.aclose()
    finally:
        postgres.command("DROP OWNED BY hasty; DROP ROLE hasty")
    assert 1 == len([one for one in caplog.records if "before they are on the disk" in one.getMessage()])
