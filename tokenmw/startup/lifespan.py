"""The lifespan of an application with the broker open in it, and the state that its requests get."""

from __future__ import annotations

from contextlib import asynccontextmanager, nullcontext
from typing import TYPE_CHECKING, Any, Final, NoReturn

from tokenmw.errors import ConfigurationError
from tokenmw.redaction import Unpicklable
from tokenmw.startup.declared_names import check_declared_names

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Iterable
    from contextlib import AbstractAsyncContextManager

__all__ = ["STATE_KEY", "opened_for"]

STATE_KEY: Final = "tokenmw"  # where dependencies find the broker in a connection's state

_FIX: Final = (
    "request.state.tokens and request.state.session_id are set by TokenMiddleware, and this application has the "
    "broker's lifespan, but not the middleware: add Middleware(TokenMiddleware, broker=broker), or in FastAPI depend "
    'on provider_token("name"), session_id or request_tokens.'
)


@asynccontextmanager
async def opened_for(
    app: object,
    broker: AbstractAsyncContextManager[object],
    *,
    names: Iterable[str],
    other_names: Iterable[str],
    lifespan: Callable[[Any], AbstractAsyncContextManager[Any]] | None = None,
) -> AsyncGenerator[dict[str, Any]]:
    """Check an application's routes, open the broker, run the application's own lifespan, and yield the state.

    Args:
        app: The application.
        broker: The broker.
        names: The names of the broker's providers.
        other_names: The names of all brokers of the program.
        lifespan: The application's own lifespan, inside of the broker's; its state is kept.

    Raises:
        ConfigurationError: A route depends on a provider that no broker has.
    """
    check_declared_names(app, names=names, other_names=other_names)
    async with broker, nullcontext() if lifespan is None else lifespan(app) as state:
        yield {"tokens": _NO_MIDDLEWARE, **(state or {}), STATE_KEY: broker}


class _NoMiddleware(Unpicklable):
    """The value of `request.state.tokens` until the middleware or a dependency of the request replaces it.

    Every use raises an error with the fix; Starlette would raise one about its `State`. There is none for `session_id`:
    a program could take the value for an id, and all of its callers would share it.
    """

    __slots__ = ()

    def __bool__(self) -> bool:
        return False  # for `if request.state.tokens`, in a program that runs with and without the middleware

    def __getattr__(self, name: str) -> NoReturn:
        if name.startswith("__"):
            raise AttributeError(name)  # what copy, inspect and error reports look for is not a use
        raise ConfigurationError(_FIX)

    def __getitem__(self, _name: object) -> NoReturn:
        raise ConfigurationError(_FIX)

    __contains__ = __getitem__

    def __iter__(self) -> NoReturn:
        raise ConfigurationError(_FIX)

    __len__ = __iter__

    def __repr__(self) -> str:
        return "<no tokens: the application runs without TokenMiddleware>"


_NO_MIDDLEWARE: Final = _NoMiddleware()
