"""Tracebacks without the variables of frames that have seen a secret.

Reports of errors write down the variables of each frame: Sentry and rich do, and so does `traceback` with
`capture_locals`. In this package and in the libraries under it those are secrets, tokens, API keys, and whole requests.
So where an error leaves the package, what the frames behind it held is dropped; their files and lines stay.
"""

from __future__ import annotations

import functools
import inspect
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any, ClassVar, Final, NoReturn, ParamSpec, Self, TypeVar, cast

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

__all__ = ["FrozenValue", "HiddenStr", "Unpicklable", "forget_locals", "without_locals"]

P = ParamSpec("P")
T = TypeVar("T")

_OURS: Final = __name__.partition(".")[0]
# What works for this package. The program's own callables keep their variables, and so does all that they call.
_UNDER_US: Final = sys.stdlib_module_names | {
    "anyio",
    "cachetools",
    "cryptography",
    "h11",
    "httpcore",
    "httpcore2",
    "httpx",
    "httpx2",
    "redis",
}


def without_locals(function: Callable[P, T]) -> Callable[P, T]:
    """Return a function, sync or async, whose errors show neither its variables nor those of what it calls.

    It costs a call more: not for what a warm request does.
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
    """Drop the variables of the frames that an error and those behind it came through; frames that run keep theirs.

    Args:
        error: The error, in the `except` that caught it.
        handled: What the caller was handling already. It is behind this error, too, and is left alone: a frame of it
            may belong to a task that has yet to go on, and would end with its variables.
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
            with suppress(RuntimeError):  # it runs: it is the one that called this, or one further out
                step.tb_frame.clear()
        else:
            called_by_us = False
        step = step.tb_next


class Unpicklable:
    """What has secrets in it or behind it: no pickle looks into it, and it is its own copy, as a function is.

    It has no `__dict__` and is no dataclass on purpose: FastAPI's encoder would walk into one and put a token into a
    response.
    """

    __slots__ = ()

    _mend: ClassVar[str] = "Make it where it is used."

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, _memo: object) -> Self:
        return self

    def __reduce__(self) -> NoReturn:
        raise TypeError(f"A {type(self).__name__} is not pickled: it holds secrets. {self._mend}")


class FrozenValue(Unpicklable):
    """A slotted value that cannot be changed, and that no encoder, pickle or traceback can look into."""

    __slots__ = ()

    def __setattr__(self, name: str, _value: object) -> None:
        raise AttributeError(f"{type(self).__name__}.{name} cannot be set: it is a frozen value.")

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"{type(self).__name__}.{name} cannot be deleted: it is a frozen value.")


class HiddenStr(str):
    """A secret inside of an object: text as any other, but for `repr`, which does not tell it."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "<not shown>"
