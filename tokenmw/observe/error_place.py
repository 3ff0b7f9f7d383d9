"""Where a program's own code raised an error. Its class and place may be logged; its text may contain a secret."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["place_of", "with_place"]


def place_of(error: BaseException, *, called: object) -> str:
    """Return where an error was raised, as "module:line", or "" if its traceback has no Python frame.

    That is the innermost line in the package of `called`: the line at which a program called a library says more to
    its author than a line inside the library.

    Args:
        error: The error, with its traceback.
        called: The program's callable or class that was called; None if a Redis client may have called the program.
    """
    frames = list(_frames(error))
    this_package = _package(__name__)
    packages = [_package(module) for module, _ in frames]
    wanted = _package(getattr(called, "__module__", None))
    if wanted not in packages:
        # `called` is wrapped by another package, such as functools.partial or a Redis client.
        foreign = (package for package in packages if package not in (this_package, "redis"))
        wanted = next(foreign, (packages or [this_package])[-1])
    places = [place for place, package in zip(frames, packages, strict=True) if package == wanted]
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
