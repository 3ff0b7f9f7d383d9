"""Connections in a table of SQLite or PostgreSQL, over SQLAlchemy 2 (extra `sql`)."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from tokenmw.connections.sql_database import Database
from tokenmw.connections.sql_errors import is_missing_table
from tokenmw.connections.store import ConnectionKey, StoredConnection, StoreUnavailable
from tokenmw.errors import ConfigurationError
from tokenmw.observe.throttle import warn
from tokenmw.options import checked_flag, positive_number
from tokenmw.redaction import Unpicklable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Executable, Table
    from sqlalchemy.engine import URL
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

__all__ = ["SQLStore"]

_TABLE: Final = re.compile(r"(?:[A-Za-z_][A-Za-z0-9_]{0,62}\.)?[A-Za-z_][A-Za-z0-9_]{0,62}")
_LONGEST_SUBJECT: Final = 512
_LONGEST_APP: Final = 128
_NOT_DURABLE: Final = (
    "SQLStore: the database confirms writes before they are on the disk (%s), so a crash of the machine may lose a "
    "refresh token, and its user has to connect again. Set %s."
)


class SQLStore(Unpicklable):
    """Keeps connections in one table of SQLite or PostgreSQL. Needs the extra `sql`.

    A value is durable when `save` returns True: an engine that is made here sets `synchronous=FULL` in SQLite, and a
    server that confirms writes too early is logged. `load` reads what was committed last, on the primary. Names of apps
    and users are readable in the table, tokens are sealed.

    Args:
        database: A URL with an async driver, such as `sqlite+aiosqlite:///connections.db` or
            `postgresql+asyncpg://user:password@host/name`, or an `AsyncEngine` of the program's, which belongs to one
            event loop and is not disposed.
        create: Whether the table is created if it does not exist. Otherwise create it with the SQL of `schema`, or with
            `examples/connections_migration.py` for Alembic.
        table: The table's name, perhaps with its schema, as in `"auth.connections"`.
        seconds: How long one call may take. Then it fails, and may have been done nevertheless.
    """

    __slots__ = ("_create", "_database", "_prepared", "_table", "_warned")

    def __init__(
        self,
        database: str | URL | AsyncEngine,
        *,
        create: bool = False,
        table: str = "tokenmw_connections",
        seconds: float = 5.0,
    ) -> None:
        if not isinstance(table, str) or not _TABLE.fullmatch(table):
            raise ConfigurationError(
                "SQLStore: table must be a name of letters, digits and _, perhaps behind a schema."
            )
        checked_flag(create, option="SQLStore(create=…)")
        self._create = create
        self._database = Database(database, seconds=positive_number(seconds, option="SQLStore: seconds"))
        self._table = _make_table(table)
        self._prepared = False
        self._warned = False

    def schema(self) -> str:
        """Return the SQL that creates the table, for this kind of database."""
        from sqlalchemy.dialects import postgresql, sqlite
        from sqlalchemy.schema import CreateTable

        dialect: Any = {"sqlite": sqlite, "postgresql": postgresql}[self._database.dialect]
        return f"{str(CreateTable(self._table).compile(dialect=dialect.dialect())).strip()};"

    async def load(self, key: ConnectionKey) -> StoredConnection | None:
        """Return the latest committed value; None if there is none."""
        _check(key)
        columns = self._table.c
        rows = await self._rows(self._select(columns.version, columns.value).where(*self._is(key)))
        return StoredConnection(rows[0][0], bytes(rows[0][1])) if rows else None

    async def save(self, key: ConnectionKey, value: bytes, *, expected: int) -> bool:
        """Store a value as version `expected + 1` if the present version is `expected`; 0: if there is none."""
        from sqlalchemy import func, insert, update

        _check(key)
        changed: dict[str, Any] = {
            "version": expected + 1,
            "value": value,
            "digest": key.digest,
            "updated_at": func.now(),
        }
        if expected == 0:
            return await self._write(
                insert(self._table).values(subject=key.subject, app=key.app, **changed), inserts=True
            )
        return await self._write(
            update(self._table).where(*self._is(key), self._table.c.version == expected).values(**changed)
        )

    async def delete(self, key: ConnectionKey, *, expected: int) -> bool:
        """Delete the value if the present version is `expected`. Return whether it was deleted."""
        from sqlalchemy import delete

        _check(key)
        return await self._write(delete(self._table).where(*self._is(key), self._table.c.version == expected))

    async def scan(
        self, *, after: ConnectionKey | None, limit: int
    ) -> Sequence[tuple[ConnectionKey, StoredConnection]]:
        """Return up to `limit` connections, ordered by subject and app, those after a key."""
        from sqlalchemy import tuple_

        columns = self._table.c
        query = self._select(columns.app, columns.subject, columns.digest, columns.version, columns.value)
        if after is not None:
            _check(after)
            query = query.where(tuple_(columns.subject, columns.app) > (after.subject, after.app))
        rows = await self._rows(query.order_by(columns.subject, columns.app).limit(limit))
        return [(ConnectionKey(row[0], row[1], row[2]), StoredConnection(row[3], bytes(row[4]))) for row in rows]

    async def aclose(self) -> None:
        """Close the connections of the running event loop. The store may be used again, also in another loop."""
        await self._database.aclose()

    def __repr__(self) -> str:
        return f"<SQLStore in {self._table.fullname!r} of {self._database.dialect}>"

    def _select(self, *columns: Any) -> Any:
        from sqlalchemy import select

        return select(*columns)

    def _is(self, key: ConnectionKey) -> tuple[Any, Any]:
        return self._table.c.subject == key.subject, self._table.c.app == key.app

    async def _rows(self, query: Executable) -> list[Any]:
        async def read(connection: AsyncConnection) -> list[Any]:
            return list((await self._execute(connection, query)).fetchall())

        return await self._database.run(read)

    async def _write(self, statement: Executable, *, inserts: bool = False) -> bool:
        from sqlalchemy.exc import IntegrityError

        async def write(connection: AsyncConnection) -> bool:
            try:
                result = await self._execute(connection, statement)
            except IntegrityError:
                if inserts:  # there is one
                    return False
                raise
            return inserts or result.rowcount == 1

        return await self._database.run(write)

    async def _execute(self, connection: AsyncConnection, statement: Executable) -> Any:
        from sqlalchemy.exc import DBAPIError

        await self._prepare(connection)
        missing = False
        try:
            return await connection.execute(statement)
        except DBAPIError as error:
            missing = is_missing_table(error)
            if not missing:
                raise
        self._prepared = False  # with create=True, the next call creates it
        sql = " ".join(self.schema().split())
        raise StoreUnavailable(
            f"the table {self._table.fullname} does not exist: pass create=True to SQLStore, or run: {sql}"
        )

    async def _prepare(self, connection: AsyncConnection) -> None:
        """Check once how the database stores, and create the table. What fails is tried again by the next call."""
        if self._prepared:
            return
        if self._database.dialect == "sqlite":
            await self._prepare_sqlite(connection)
        else:
            await self._check_postgresql(connection)
        if self._create:
            await self._create_table(connection)
        self._prepared = True

    async def _prepare_sqlite(self, connection: AsyncConnection) -> None:
        from sqlalchemy.exc import DBAPIError

        if self._database.ours:
            try:  # readers do not wait for writers; without it, all is as durable
                await connection.exec_driver_sql("PRAGMA journal_mode=WAL")
            except DBAPIError:
                return
        elif (await connection.exec_driver_sql("PRAGMA synchronous")).scalar_one() < 2:
            self._warn_not_durable("PRAGMA synchronous", "PRAGMA synchronous=FULL on each connection of the engine")

    async def _check_postgresql(self, connection: AsyncConnection) -> None:
        query = "SELECT pg_is_in_recovery(), current_setting('fsync'), current_setting('synchronous_commit')"
        result: Any = await connection.exec_driver_sql(query)
        replica, fsync, commit = result.one()
        if replica:
            raise StoreUnavailable("the database of connections is a replica, which may be behind: name the primary")
        if fsync == "off" or commit == "off":
            self._warn_not_durable("fsync or synchronous_commit is off", "both to on, for the role of this service")

    def _warn_not_durable(self, what: str, fix: str) -> None:
        if not self._warned:
            self._warned = True
            warn("store-not-durable", _NOT_DURABLE % (what, fix))

    async def _create_table(self, connection: AsyncConnection) -> None:
        from sqlalchemy import select
        from sqlalchemy.exc import DBAPIError
        from sqlalchemy.schema import CreateTable

        try:
            await connection.execute(CreateTable(self._table, if_not_exists=True))
        except DBAPIError:
            # Another process creates it at the same time, or this user may not create tables, and need not.
            await connection.execute(select(self._table.c.version).limit(0))


def _check(key: ConnectionKey) -> None:
    """Check what a database would cut, or refuse in its own way."""
    for text, longest in ((key.subject, _LONGEST_SUBJECT), (key.app, _LONGEST_APP)):
        if len(text) > longest or "\0" in text or any("\ud800" <= letter <= "\udfff" for letter in text):
            raise StoreUnavailable(
                f"SQLStore: a subject has at most {_LONGEST_SUBJECT} characters, the name of an app {_LONGEST_APP}, "
                "and none of them is a NUL or half of a surrogate pair"
            )


def _make_table(name: str) -> Table:
    from sqlalchemy import BigInteger, Column, DateTime, LargeBinary, MetaData, String, Table, func

    schema, _, table = name.rpartition(".")

    def text(longest: int) -> Any:
        # Compared and sorted by bytes, whatever the database's own collation is. SQLite does so by default.
        return String(longest).with_variant(String(longest, collation="C"), "postgresql")

    return Table(
        table,
        MetaData(schema=schema or None),
        Column("subject", text(_LONGEST_SUBJECT), primary_key=True),
        Column("app", text(_LONGEST_APP), primary_key=True),
        Column("digest", String(64), nullable=False),
        Column("version", BigInteger, nullable=False),
        Column("value", LargeBinary, nullable=False),
        Column("updated_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    )
