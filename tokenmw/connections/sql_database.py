"""One SQL database, in any event loop: engines, the time limit of a call, and errors without secrets.

Each call is one statement, and each statement is a transaction of its own (autocommit). Then a call needs one round
trip, leaves no transaction open, and never waits for the transaction of another one of this process.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, Final, TypeVar

from tokenmw.connections.sql_errors import failure_text
from tokenmw.connections.store import StoreUnavailable
from tokenmw.errors import ConfigurationError
from tokenmw.redaction import Unpicklable

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from sqlalchemy.engine import URL
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

__all__ = ["Database"]

T = TypeVar("T")

_CONNECTIONS: Final = 5  # of one process; further calls wait
_RECYCLE_SECONDS: Final = 1_800  # firewalls forget connections that are idle for longer
_LOCK_PART: Final = 0.8  # of the time limit: SQLite's own error says more than a timeout
_INSTALL: Final = 'pip install "tokenmw[sql]"'
_ASYNC_FORMS: Final = {"sqlite": "sqlite+aiosqlite", "postgresql": "postgresql+asyncpg"}
_FILE: Final = "sqlite+aiosqlite:///connections.db"
_SYNC_NAMES: Final = {"postgres": "postgresql"}  # a name that other libraries know


class Database(Unpicklable):
    """Runs statements, each within `seconds`.

    Args:
        given: A URL of SQLAlchemy with an async driver, or an AsyncEngine, which is never disposed here.
        seconds: How long a call may take.

    Raises:
        ConfigurationError: The URL is not valid or has no async driver, or a library is not installed.

    Attributes:
        dialect: `sqlite` or `postgresql`.
    """

    __slots__ = ("_engines", "_given", "_make", "_place", "_running", "_seconds", "dialect")

    def __init__(self, given: str | URL | AsyncEngine, *, seconds: float) -> None:
        self._seconds = seconds
        self._engines: dict[asyncio.AbstractEventLoop, AsyncEngine] = {}
        self._running: set[asyncio.Task[Any]] = set()
        self._given: AsyncEngine | None = None
        try:
            from sqlalchemy.ext.asyncio import AsyncEngine
        except ImportError:
            raise ConfigurationError(f"SQLStore needs SQLAlchemy, which is not installed: {_INSTALL}") from None
        if isinstance(given, AsyncEngine):
            self._given = given.execution_options(isolation_level="AUTOCOMMIT")
            url = given.url
        else:
            url = _checked_url(given)
        self.dialect = url.get_backend_name()
        if self.dialect not in _ASYNC_FORMS:
            raise ConfigurationError(
                f"SQLStore is made for SQLite and PostgreSQL, not for {self.dialect}: a collation of it may take two "
                "users for one. Write a ConnectionStore for it, and run tokenmw.testing.connection_store_suite."
            )
        # A function, because the URL has the password, and an object's attributes are shown by debuggers.
        self._make: Callable[[], AsyncEngine] = lambda: _make_engine(url, seconds=seconds)
        if self._given is None:
            self._make()  # connects nothing, and finds what is wrong with the URL
        self._place = f"{self.dialect}, {_place(url)}"

    @property
    def ours(self) -> bool:
        """Whether the engines are made here."""
        return self._given is None

    async def run(self, statement: Callable[[AsyncConnection], Awaitable[T]]) -> T:
        """Return what a statement returns. That of a cancelled call is finished, within the time limit.

        Raises:
            StoreUnavailable: It failed, or took longer than the time limit; it may have been executed nevertheless.
        """
        loop = asyncio.get_running_loop()
        # In a task: drivers lose a connection that is given up while it is made, and when a server hangs, so does the
        # driver while it gives up a statement.
        task = loop.create_task(self._attempt(self._engine_of(loop), statement), name="tokenmw connection store")
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        await asyncio.wait([task], timeout=self._seconds)
        if not task.done() or task.cancelled():
            raise StoreUnavailable(self._too_slow)
        result, failure = task.result()
        if failure is not None:
            raise StoreUnavailable(failure)
        return result  # type: ignore[return-value]  # without a failure it is the statement's

    async def aclose(self) -> None:
        """Finish the calls of this event loop, and close its connections, each within `seconds`."""
        loop = asyncio.get_running_loop()
        running = [task for task in self._running if task.get_loop() is loop]
        if running:
            await asyncio.wait(running, timeout=self._seconds)
        engine = self._engines.pop(loop, None)
        if engine is not None:
            closing = loop.create_task(_dispose(engine), name="tokenmw closing of the connection store")
            await asyncio.wait([closing], timeout=self._seconds)
            closing.cancel()

    @property
    def _too_slow(self) -> str:
        return f"the database of connections ({self._place}) took longer than {self._seconds:g} s"

    def _engine_of(self, loop: asyncio.AbstractEventLoop) -> AsyncEngine:
        if self._given is not None:
            return self._given
        engine = self._engines.get(loop)
        if engine is None:
            for closed in [one for one in self._engines if one.is_closed()]:
                del self._engines[closed]
            engine = self._engines[loop] = self._make()
        return engine

    async def _attempt(
        self, engine: AsyncEngine, statement: Callable[[AsyncConnection], Awaitable[T]]
    ) -> tuple[T | None, str | None]:
        try:
            async with asyncio.timeout(self._seconds), engine.connect() as connection:
                return await statement(connection), None
        except TimeoutError:
            return None, self._too_slow
        except StoreUnavailable as error:
            return None, str(error)
        except Exception as error:  # noqa: BLE001  drivers raise their own errors, with the values of the statement
            return None, failure_text(error, place=self._place)


def _kind_of(given: object) -> str:
    kind = type(given).__name__
    if given is None:
        return f"{kind}: is the variable set that it is read from?"
    if isinstance(given, PurePath):
        return f"{kind}: write {_FILE}."
    if hasattr(given, "connect") or hasattr(given, "begin"):
        return f"{kind}: make the engine with sqlalchemy.ext.asyncio.create_async_engine."
    return f"{kind}."


def _checked_url(given: str | URL) -> URL:
    from sqlalchemy.engine import URL, make_url
    from sqlalchemy.exc import ArgumentError, NoSuchModuleError

    url: URL | None = None
    is_async = unknown = False
    if not isinstance(given, (str, URL)):
        raise ConfigurationError(f"SQLStore takes a URL or an AsyncEngine, not {_kind_of(given)}")
    name = (given.partition(":")[0] if isinstance(given, str) else given.drivername)[:60]
    try:
        url = make_url(given)
        backend = url.get_backend_name()
        is_async = url.get_dialect().is_async and url.drivername != backend
    except NoSuchModuleError:
        unknown = True
    except (ArgumentError, ValueError, TypeError):
        pass
    # Raised outside of `except`: an error that quotes the URL must not be the context.
    backend = _SYNC_NAMES.get(name.partition("+")[0], name.partition("+")[0])
    form = _ASYNC_FORMS.get(backend, "postgresql+asyncpg")
    if url is None:
        if isinstance(given, str) and "://" not in given:
            raise ConfigurationError(
                f"SQLStore: the URL is not valid. Write {_FILE}, or {form}://user:password@host/name."
            )
        raise ConfigurationError(
            f"SQLStore: the URL is not valid. Write {form}://…, and special characters in a password as %XX."
        )
    if name.startswith(("redis", "valkey", "unix")):
        raise ConfigurationError("SQLStore is for SQLite and PostgreSQL: for Redis, write RedisStore(…).")
    if unknown or not is_async:
        raise ConfigurationError(f"SQLStore needs an async driver: write {form}://… and not {name}://….")
    if backend == "sqlite" and url.host:
        raise ConfigurationError(f"SQLStore: write three slashes before the path of a file, as in {_FILE}.")
    if backend == "sqlite" and (url.database in (None, "", ":memory:") or url.query.get("mode") == "memory"):
        raise ConfigurationError(
            "SQLStore: a database in memory is lost with the process, and other workers have none. "
            f"Name a file: {_FILE}"
        )
    return url


def _make_engine(url: URL, *, seconds: float) -> AsyncEngine:
    from sqlalchemy import event
    from sqlalchemy.ext.asyncio import create_async_engine

    options: dict[str, Any] = {
        "isolation_level": "AUTOCOMMIT",
        "hide_parameters": True,
        "pool_size": _CONNECTIONS,
        "max_overflow": 0,
        "pool_timeout": seconds,
        "pool_recycle": _RECYCLE_SECONDS,
    }
    driver = url.drivername
    sqlite = url.get_backend_name() == "sqlite"
    if sqlite:
        options["connect_args"] = {"timeout": seconds * _LOCK_PART}
    else:
        options["pool_pre_ping"] = True  # a connection may have been closed since, and a write is not repeated
        if driver == "postgresql+asyncpg" and "target_session_attrs" not in url.query:
            # Of several hosts, the one that takes writes: a replica may be behind.
            options["connect_args"] = {"target_session_attrs": "primary"}
    engine: AsyncEngine | None = None
    with suppress(ImportError):
        engine = create_async_engine(url, **options)
    if engine is None:
        raise ConfigurationError(
            f"SQLStore: the driver of {driver}:// is not installed. {_INSTALL} has aiosqlite; for PostgreSQL, "
            "pip install asyncpg"
        )
    if sqlite:
        event.listen(engine.sync_engine, "connect", _prepare_sqlite)
    return engine


def _prepare_sqlite(connection: Any, _record: object) -> None:
    # A commit is on the disk before its call returns, in each journal mode.
    cursor = connection.cursor()
    cursor.execute("PRAGMA synchronous=FULL")
    cursor.close()


def _place(url: URL) -> str:
    if url.host is None:
        return str(url.database)
    port = "" if url.port is None else f":{url.port}"
    return f"{url.host}{port}/{url.database or ''}"


async def _dispose(engine: AsyncEngine) -> None:
    await engine.dispose()
