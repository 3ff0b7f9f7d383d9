"""The lifespan of an application with the broker open in it, and the state that its requests get."""

from __future__ import annotations

from contextlib import asynccontextmanager, nullcontext
from typing import TYPE_CHECKING, Any, ClassVar, Final, NoReturn

from tokenmw.errors import ConfigurationError
from tokenmw.redaction import Unpicklable
from tokenmw.startup.declared_names import check_declared_names

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Iterable
    from contextlib import AbstractAsyncContextManager

__all__ = ["STATE_KEY", "opened_for", "remove_hint"]

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
        yield {"tokens": _NO_TOKENS, "session_id": _NO_SESSION_ID, **(state or {}), STATE_KEY: broker}


def remove_hint(state: dict[str, Any]) -> None:
    """Remove the value that stands for a missing session id: with `sessions=False` there is no such attribute."""
    if state.get("session_id") is _NO_SESSION_ID:
        del state["session_id"]


class _NoMiddleware(Unpicklable):
    """The value of `request.state.tokens` until the middleware or a dependency of the request replaces it.

    Every use raises an error with the fix; Starlette would raise one about its `State`.
    """

    __slots__ = ()

    _missing: ClassVar[str] = "tokens"

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
        return f"<no {self._missing}: the application runs without TokenMiddleware>"


class _NoSessionId(_NoMiddleware):
    """The value of `request.state.session_id`, in the same way.

    It cannot be a text, a key or a part of either: a program that took it for an id would give all callers the same.
    """

    __slots__ = ()

    _missing = "session_id"

    def __str__(self) -> str:
        raise ConfigurationError(_FIX)

    def __format__(self, _spec: str) -> str:
        raise ConfigurationError(_FIX)

    def __eq__(self, _other: object) -> bool:
        raise ConfigurationError(_FIX)

    def __hash__(self) -> int:
        raise ConfigurationError(_FIX)


_NO_TOKENS: Final = _NoMiddleware()
_NO_SESSION_ID: Final = _NoSessionId()
