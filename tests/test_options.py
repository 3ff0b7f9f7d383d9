"""A callable given as an option must take the right number of arguments."""

from __future__ import annotations

import functools
from typing import Any

import pytest

from tokenmw.errors import ConfigurationError
from tokenmw.options import checked_callback


class Callable:
    """An object that can be called, with methods."""

    def __call__(self, connection: object, key: str) -> None:
        """Take two arguments."""

    def method(self, connection: object, key: str) -> None:
        """Take two arguments."""

    @staticmethod
    async def plain(*_given: object, more: int = 0) -> None:
        """Take any number of arguments."""


def three(_first: object, _second: object, _third: object) -> None:
    """Take three arguments."""


def two_or_three(_first: object, _second: object, _third: object = None) -> None:
    """Take two or three arguments."""


def by_name(*, connection: object, key: str) -> None:
    """Take two arguments by keyword only."""


TWO: list[Any] = [
    Callable(),
    Callable().method,
    Callable.plain,
    functools.partial(three, 1),
    two_or_three,
    min,  # has no signature
    isinstance,
    dict[str, int].setdefault,
]


@pytest.mark.parametrize("function", TWO)
def test_a_callable_of_two_arguments_is_accepted(function: Any) -> None:
    """Functions, methods, partials, objects, and callables without a known signature."""
    checked_callback(function, option="authenticate", takes="(connection, key) -> object | None")


@pytest.mark.parametrize("function", [three, Callable.method, by_name, functools.partial(three, 1, 2)])
def test_a_callable_of_another_number_is_refused(function: Any) -> None:
    """The text has its parameters, and no value that a partial holds."""
    with pytest.raises(ConfigurationError, match=r"authenticate must be a callable \(connection, key\).*takes \("):
        checked_callback(function, option="authenticate", takes="(connection, key) -> object | None")
