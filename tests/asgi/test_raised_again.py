"""An exception that a connection raises again and again collects nothing: neither frames nor what they hold."""

from __future__ import annotations

import gc
import traceback
import weakref
from collections.abc import Callable
from typing import Any, NoReturn

import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import HTTPConnection
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket

from tests.asgi_client import call
from tokenmw import RequestTokens, TokenBroker, TokenMiddleware, TokenUnavailable
from tokenmw.errors import copy_of

RAISES = 1_000


class Composed(Exception):
    """An exception that composes its text."""

    def __init__(self, tenant: str) -> None:
        super().__init__(f"no tenant {tenant}")


class Keyword(Exception):
    """An exception that `copy.copy` cannot make: its constructor needs an argument by name."""

    def __init__(self, *, tenant: str) -> None:
        super().__init__(f"no tenant {tenant}")
        self.tenant = tenant


class Uncopyable(OSError):
    """An exception that cannot be copied in any way."""

    def __init__(self, *, tenant: str) -> None:
        super().__init__(2, f"no tenant {tenant}")


COPYABLE: list[Callable[[], Exception]] = [
    lambda: TokenUnavailable("busy", retry_after=3.0).at("app:1"),
    lambda: LookupError("no tenant acme"),
    lambda: Composed("acme"),
    lambda: Keyword(tenant="acme"),
    lambda: ExceptionGroup("both", [LookupError("acme")]),
]
UNCOPYABLE: list[Callable[[], Exception]] = [lambda: Uncopyable(tenant="acme")]


class Local:
    """A local variable of a handler, to see when it is freed."""


class Handler:
    """A WebSocket endpoint that uses its token again and again.

    Attributes:
        depths: The length of the traceback of each exception.
        texts: The exceptions as text.
        alive: How many local variables of finished calls were still alive, at most.
    """

    def __init__(self, way: str) -> None:
        self._use = {"lookup": self._lookup, "resolve": self._resolve}[way]
        self._locals: list[weakref.ref[Local]] = []
        self.depths: set[int] = set()
        self.texts: set[str] = set()
        self.alive = 0

    async def __call__(self, websocket: WebSocket) -> None:
        """Use the token."""
        await websocket.accept()
        for _ in range(RAISES):
            await self._use(websocket.state.tokens)
            self._locals = [local for local in self._locals if local() is not None]
            self.alive = max(self.alive, len(self._locals))

    async def _lookup(self, tokens: RequestTokens) -> None:
        local = Local()
        try:
            tokens["x"]
        except Exception as error:  # noqa: BLE001  any of the program's
            self._note(error)
        self._locals.append(weakref.ref(local))

    async def _resolve(self, tokens: RequestTokens) -> None:
        local = Local()
        try:
            await tokens.resolve("x")
        except Exception as error:  # noqa: BLE001  any of the program's
            self._note(error)
        self._locals.append(weakref.ref(local))

    def _note(self, error: Exception) -> None:
        self.depths.add(len(list(traceback.walk_tb(error.__traceback__))))
        error.add_note("seen by the handler")
        self.texts.add("".join(traceback.format_exception_only(error)))


async def raised(way: str, error: Exception) -> Handler:
    """Serve one anonymous WebSocket whose credential cannot be chosen."""

    def choose(_connection: HTTPConnection) -> NoReturn:
        raise error

    handler = Handler(way)

    async def endpoint(websocket: WebSocket) -> None:
        await handler(websocket)

    async with TokenBroker({"x": choose}) as broker:
        middleware = [Middleware(TokenMiddleware, broker=broker, inject=["x"])]
        app = Starlette(routes=[WebSocketRoute("/", endpoint)], middleware=middleware)
        gc.disable()
        try:
            await call(app, kind="websocket")
        finally:
            gc.enable()
    return handler


@pytest.mark.parametrize("make", COPYABLE, ids=lambda make: type(make()).__name__)
@pytest.mark.parametrize("way", ["lookup", "resolve"])
async def test_each_raise_has_an_exception_of_its_own(way: str, make: Callable[[], Exception]) -> None:
    """Its traceback does not grow, its notes do not add up, and nothing of the handler outlives the handler's call."""
    handler = await raised(way, make())
    assert 1 == len(handler.depths)
    assert 0 == handler.alive
    (text,) = handler.texts
    assert 1 == text.count("seen by the handler")
    assert str(make()) in text


@pytest.mark.parametrize("make", UNCOPYABLE, ids=lambda make: type(make()).__name__)
@pytest.mark.parametrize("way", ["lookup", "resolve"])
async def test_an_exception_that_cannot_be_copied_holds_the_last_raise_only(
    way: str, make: Callable[[], Exception]
) -> None:
    """Its traceback does not grow, and the frames of earlier raises are freed."""
    handler = await raised(way, make())
    assert 1 == len(handler.depths)
    assert 1 == handler.alive


@pytest.mark.parametrize("make", COPYABLE, ids=lambda make: type(make()).__name__)
def test_a_copy_is_equal(make: Callable[[], Exception]) -> None:
    """It has the class, the text, the attributes, the cause, the context, the notes and the traceback."""
    kept: Any = None
    try:
        try:
            raise KeyError("context")
        except KeyError:
            raise make() from ValueError("cause")
    except Exception as error:  # noqa: BLE001  any of the program's
        kept = error
    kept.add_note("a note")
    again = copy_of(kept, kept.__traceback__)
    assert again is not kept
    same = ("__class__", "__dict__", "__cause__", "__context__", "__suppress_context__", "__traceback__")
    assert [getattr(kept, name) for name in same] == [getattr(again, name) for name in same]
    assert str(kept) == str(again)
    again.add_note("another")
    assert "another" not in kept.__notes__
