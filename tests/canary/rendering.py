"""Renders an error like an error tracker: texts, notes, chained errors and the local variables of each frame."""

from __future__ import annotations

import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final, cast

from sentry_sdk.serializer import serialize

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["REPORTED", "rendered"]

# Frames of the application and its framework hold the request with its headers; they are not the package's.
_OUR_LIBRARIES: Final = ("tokenmw", "httpx", "httpx2", "httpcore", "httpcore2", "redis", "h11")
_TESTS: Final = Path(__file__).parents[1]

REPORTED: Final = "reported: "
"""The beginning of a line that only error trackers show: local variables, and errors behind `raise … from None`."""


def rendered(error: BaseException) -> str:
    """Return all that can be seen of an error and of the errors that it is chained to."""
    lines = traceback.format_exception(error)
    for chained, hidden in _chain(error):
        texts = [repr(chained), str(chained), repr(chained.args), repr(vars(chained))]
        texts.append(repr(getattr(chained, "__notes__", ())))
        lines += [_reported(text) for text in texts] if hidden else texts
        for frame, number in traceback.walk_tb(chained.__traceback__):
            if _is_ours(frame.f_code.co_filename):
                place = f"{frame.f_code.co_qualname}, line {number}"
                lines += [_reported(f"{place}: {name} = {_repr(value)}") for name, value in frame.f_locals.items()]
                lines.append(_reported(f"{place}, by Sentry: {serialize(dict(frame.f_locals), is_vars=True)}"))
    return "\n".join(lines)


def _reported(text: str) -> str:
    return REPORTED + text.replace("\n", " ")


def _chain(error: BaseException) -> Iterator[tuple[BaseException, bool]]:
    """Yield an error and all that it is chained to or groups, and whether a traceback hides it."""
    waiting, seen = [(error, False)], set[int]()
    while waiting:
        current, hidden = waiting.pop()
        if id(current) in seen:
            continue
        seen.add(id(current))
        yield current, hidden
        if isinstance(current, BaseExceptionGroup):
            waiting += [(part, hidden) for part in cast("BaseExceptionGroup[BaseException]", current).exceptions]
        if current.__context__ is not None:
            waiting.append((current.__context__, hidden or current.__suppress_context__))
        if current.__cause__ is not None:
            waiting.append((current.__cause__, hidden))


def _is_ours(file: str) -> bool:
    path = Path(file)
    return not path.is_relative_to(_TESTS) and not set(_OUR_LIBRARIES).isdisjoint(path.parts)


def _repr(value: object) -> str:
    try:
        # Sentry walks into mappings, whatever their `repr` shows: an HTTPConnection is one.
        return repr(dict(cast("Mapping[object, object]", value)) if isinstance(value, Mapping) else value)
    except Exception as error:  # noqa: BLE001  half-constructed objects raise anything
        return f"<{type(error).__name__}>"
