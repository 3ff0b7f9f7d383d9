"""Where somebody else's code raised an error: its class and its place can be told, its text might hold anything."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["place_of", "with_place"]


def place_of(error: BaseException, *, called: object) -> str:
    """Return where an error was raised, as "module:line", or "" if no frame of Python's tells.

    That is the innermost line in the package of what was called: the line of a program at which it called a library
    says more to its author than the one deep inside of the library.

    Args:
        error: The error, with its traceback.
        called: The program's callable or class; None where a Redis client may have called the program.
    """
    frames = list(_frames(error))
    ours = _package(__name__)
    packages = [_package(module) for module, _ in frames]
    own = _package(getattr(called, "__module__", None))
    if own not in packages:
        # What was called is wrapped in something of another package, such as a functools.partial or a Redis client.
        own = next((package for package in packages if package not in (ours, "redis")), (packages or [ours])[-1])
    places = [place for place, package in zip(frames, packages, strict=True) if package == own]
    return ":".join(map(str, places[-1])) if places else ""


def with_place(error: BaseException, *, called: object) -> str:
    """Return an error's class and place for a log line: "KeyError at app.secrets:17"."""
    place = place_of(error, called=called)
    return f"{type(error).__name__} at {place}" if place else type(error).__name__


def _frames(error: BaseException) -> Iterator[tuple[str, int]]:
    step = error.__traceback__
    while step is not None:
        yield str(step.tb_frame.f_globals.get("__name__", "?")), step.tb_lineno
        step = step.tb_next


def _package(module: object) -> str:
    return module.partition(".")[0] if isinstance(module, str) else ""
