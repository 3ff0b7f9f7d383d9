"""Keeps secrets out of tracebacks, `repr`, pickles and encoders.

Error reports show the variables of each frame: those of Sentry and rich do, and `traceback` with `capture_locals`. In
this package and in the libraries that it calls, variables hold secrets, tokens, API keys and whole requests. So where
an error leaves the package, the variables of the frames behind it are cleared. Their files and lines stay.
"""

from __future__ import annotations

import functools
import inspect
import sys
from typing import TYPE_CHECKING, Any, ClassVar, Final, NoReturn, ParamSpec, Self, SupportsIndex, TypeVar, cast

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

__all__ = ["FrozenValue", "HiddenStr", "Unpicklable", "forget_locals", "not_encoded", "without_locals"]

P = ParamSpec("P")
T = TypeVar("T")

_OURS: Final = __name__.partition(".")[0]
# Libraries whose frames are cleared when this package called them. Frames of the program's callables keep their
# variables, and so do the frames of everything that those call.
_UNDER_US: Final = sys.stdlib_module_names | {
    "aiosqlite",
    "anyio",
    "asyncpg",
    "cachetools",
    "cryptography",
    "glide",
    "glide_shared",
    "h11",
    "httpcore",
    "httpcore2",
    "httpx",
    "httpx2",
    "jwt",
    "redis",
    "sqlalchemy",
}


def without_locals(function: Callable[P, T]) -> Callable[P, T]:
    """Wrap a function, sync or async: its errors show neither its variables nor those of the functions it calls.

    The wrapper is one more call, so nothing on the warm path of a request has one.
    """
    if inspect.iscoroutinefunction(function):

        @functools.wraps(function)
        async def awaited(*args: P.args, **kwargs: P.kwargs) -> Any:
            handled = sys.exception()
            try:
                return await function(*args, **kwargs)
            except BaseException as error:
                del args, kwargs
                forget_locals(error, handled=handled)
                raise

        return cast("Callable[P, T]", awaited)

    @functools.wraps(function)
    def called(*args: P.args, **kwargs: P.kwargs) -> T:
        handled = sys.exception()
        try:
            return function(*args, **kwargs)
        except BaseException as error:
            del args, kwargs
            forget_locals(error, handled=handled)
            raise

    return called


def forget_locals(error: BaseException, *, handled: BaseException | None) -> None:
    """Clear the variables of the frames in the tracebacks of an error, its causes and contexts; running frames stay.

    Args:
        error: The error, inside the `except` that caught it.
        handled: The exception that the caller was already handling. It is a context of this error too, but it is
            skipped: one of its frames may belong to a suspended task, which clearing would terminate.
    """
    waiting: list[BaseException | None] = [error]
    seen = {id(handled)}
    while waiting:
        one = waiting.pop()
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        _clear(one.__traceback__)
        waiting += (one.__cause__, one.__context__)
        if isinstance(one, BaseExceptionGroup):
            waiting += cast("tuple[BaseException, ...]", one.exceptions)


def _clear(step: TracebackType | None) -> None:
    called_by_us = True
    while step is not None:
        package = str(step.tb_frame.f_globals.get("__name__", "")).partition(".")[0]
        if package == _OURS or (called_by_us and package in _UNDER_US):
            try:  # noqa: SIM105  a flood of refused requests comes here, and `suppress` takes longer than all the rest
                step.tb_frame.clear()
            except RuntimeError:  # it is running: it is the caller of this function, or one of its callers
                pass
        else:
            called_by_us = False
        step = step.tb_next


class Unpicklable:
    """The base class of objects that hold or reach secrets: they are not pickled or encoded; a copy is the object.

    Pickle, jsonpickle, jsons and whatever reads `__getstate__` or every attribute get a `TypeError` or
    `AttributeError`. Subclasses that hold a secret have no `__dict__` and are not dataclasses, whose fields FastAPI's
    encoder would read, to put a token into a response.
    """

    __slots__ = ()

    _fix: ClassVar[str] = "Make it where it is used."

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, _memo: object) -> Self:
        return self

    def __reduce_ex__(self, _protocol: SupportsIndex) -> NoReturn:
        raise TypeError(_refusal(self, "pickled"))

    def __reduce__(self) -> NoReturn:
        raise TypeError(_refusal(self, "pickled"))

    # From Python 3.11 on, every object has one, which returns the values of all attributes.
    def __getstate__(self) -> NoReturn:
        raise TypeError(_refusal(self, "pickled"))

    @property
    def _0_not_encoded(self) -> NoReturn:
        """Stop an encoder that reads every attribute in the order of `dir`, such as jsons, at its first one."""
        raise AttributeError(_refusal(self, "encoded"))


def _refusal(of: Unpicklable, what: str) -> str:
    return f"A {type(of).__name__} is not {what}: it holds secrets. {of._fix}"


def not_encoded(dataclass: type[T]) -> type[T]:
    """Keep encoders from the fields of an `Unpicklable` dataclass that has `__slots__`."""
    del dataclass.__dataclass_fields__  # type: ignore[attr-defined]
    # A frozen dataclass with `__slots__` gets one of its own, which returns the fields.
    if "__getstate__" in vars(dataclass):
        del dataclass.__getstate__
    return dataclass


class FrozenValue(Unpicklable):
    """The base class of slotted values that cannot be changed, pickled or encoded."""

    __slots__ = ()

    def __setattr__(self, name: str, _value: object) -> None:
        raise AttributeError(f"{type(self).__name__}.{name} cannot be set: it is a frozen value.")

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"{type(self).__name__}.{name} cannot be deleted: it is a frozen value.")


class HiddenStr(Unpicklable, str):
    """A secret as text, with a `repr` that does not show it. A JSON encoder writes it like any other text."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "<not shown>"
