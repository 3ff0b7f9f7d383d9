"""Callables are checked for the number of arguments, and whatever can be called so is taken."""

from __future__ import annotations

import functools
from typing import Any

import pytest

from tokenmw.errors import ConfigurationError
from tokenmw.options import checked_callback


class Callable:
    """An object with a method, and a call."""

    def __call__(self, connection: object, key: str) -> None:
        """Take two."""

    def method(self, connection: object, key: str) -> None:
        """Take two."""

    @staticmethod
    async def plain(*_given: object, more: int = 0) -> None:
        """Take any number."""


def three(_first: object, _second: object, _third: object) -> None:
    """Take three."""


def two_or_three(_first: object, _second: object, _third: object = None) -> None:
    """Take two, or three."""


def by_name(*, connection: object, key: str) -> None:
    """Take two, by their names only."""


TWO: list[Any] = [
    Callable(),
    Callable().method,
    Callable.plain,
    functools.partial(three, 1),
    two_or_three,
    min,  # of which no signature is known
    isinstance,
    dict[str, int].setdefault,
]


@pytest.mark.parametrize("function", TWO)
def test_what_takes_two_arguments_is_taken(function: Any) -> None:
    """However it comes by them."""
    checked_callback(function, option="authenticate", takes="(connection, key) -> object | None")


@pytest.mark.parametrize("function", [three, Callable.method, by_name, functools.partial(three, 1, 2)])
def test_what_takes_another_number_is_refused(function: Any) -> None:
    """With what it takes, and without a value that it was made with."""
    with pytest.raises(ConfigurationError, match=r"authenticate must be a callable \(connection, key\).*takes \("):
        checked_callback(function, option="authenticate", takes="(connection, key) -> object | None")
