"""What an error reporter would write down of an error: texts, notes, chains, and the variables of each frame."""

from __future__ import annotations

import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Final, cast

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["REPORTED", "rendered"]

# Frames of the user's and of his framework hold what he put there, above all the request with its headers.
_ANSWERED_FOR: Final = ("tokenmw", "httpx", "httpx2", "httpcore", "httpcore2", "redis", "h11")


REPORTED: Final = "reported: "
"""What a line begins with that only such reporters show as look into frames, or behind `raise … from None`."""


def rendered(error: BaseException) -> str:
    """Return all that can be seen of an error, and of the errors behind it."""
    lines = traceback.format_exception(error)
    for one, hidden in _family(error):
        texts = [repr(one), str(one), repr(one.args), repr(vars(one)), repr(getattr(one, "__notes__", ()))]
        lines += [_reported(text) for text in texts] if hidden else texts
        for frame, number in traceback.walk_tb(one.__traceback__):
            if _is_ours(frame.f_code.co_filename):
                place = f"{frame.f_code.co_qualname}, line {number}"
                lines += [_reported(f"{place}: {name} = {_shown(value)}") for name, value in frame.f_locals.items()]
    return "\n".join(lines)


def _reported(text: str) -> str:
    return REPORTED + text.replace("\n", " ")


def _family(error: BaseException) -> Iterator[tuple[BaseException, bool]]:
    waiting, seen = [(error, False)], set[int]()
    while waiting:
        one, hidden = waiting.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        yield one, hidden
        if isinstance(one, BaseExceptionGroup):
            waiting += [(part, hidden) for part in cast("BaseExceptionGroup[BaseException]", one).exceptions]
        if one.__context__ is not None:
            waiting.append((one.__context__, hidden or one.__suppress_context__))
        if one.__cause__ is not None:
            waiting.append((one.__cause__, hidden))


def _is_ours(file: str) -> bool:
    parts = Path(file).parts
    return "tests" not in parts and not set(_ANSWERED_FOR).isdisjoint(parts)


def _shown(value: object) -> str:
    try:
        return repr(value)
    except Exception as error:  # noqa: BLE001  as reporters do, which meet half-made objects
        return f"<{type(error).__name__}>"
