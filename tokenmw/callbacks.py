"""Callables that a program hands in: whether they can be called as they will be, said when they are handed in."""

from __future__ import annotations

import inspect
from typing import cast

from tokenmw.errors import ConfigurationError

__all__ = ["checked_callback", "checked_lifespan"]


def checked_callback(function: object, *, option: str, takes: str) -> None:
    """Raise unless a callable takes as many arguments as it will be given.

    Args:
        function: What was given.
        option: How the user knows it.
        takes: Its signature for the text, `(connection, key) -> object | None`; its commas count the arguments.

    Raises:
        ConfigurationError: It cannot be called, or not with so many arguments.
    """
    if not callable(function):
        raise ConfigurationError(f"{option} must be a callable {takes}.")
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return  # of some that are written in C nothing is known
    given = takes.partition(")")[0].count(",") + 1
    try:
        signature.bind(*range(given))
    except TypeError:
        # Not its own text, which would name parameters and no option.
        raise ConfigurationError(
            f"{option} must be a callable {takes}: this one takes {_described(signature)}."
        ) from None


def checked_lifespan(lifespan: object) -> None:
    """Raise unless it is what an application takes as its `lifespan`."""
    checked_callback(lifespan, option="lifespan_with", takes="(app) -> async context manager")
    if inspect.isasyncgenfunction(lifespan):
        name = cast("object", getattr(lifespan, "__name__", "it"))
        raise ConfigurationError(f"lifespan_with: {name} is an async generator; write @asynccontextmanager above it.")


def _described(signature: inspect.Signature) -> str:
    return f"({', '.join(signature.parameters)})"
