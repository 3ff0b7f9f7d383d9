"""Generic checks of options: callables, numbers, and secrets that are easy to guess."""

from __future__ import annotations

import contextlib
import datetime as dt
import functools
import secrets
import time
import uuid
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenmw import TokenBroker
from tokenmw.errors import ConfigurationError
from tokenmw.options import checked_callback, checked_name_key, checked_secrets, positive_number, positive_seconds


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


@pytest.mark.parametrize("function", [lambda: "t", two_or_three])
@pytest.mark.parametrize("takes", ["() -> str", "(connection, key) -> str"])
def test_a_signature_without_parameters_has_none(function: Any, takes: str) -> None:
    """`()` is no argument, and not one."""
    if (function is two_or_three) is (takes == "() -> str"):
        with pytest.raises(ConfigurationError, match="this one takes"):
            checked_callback(function, option="o", takes=takes)
    else:
        checked_callback(function, option="o", takes=takes)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (dt.timedelta(minutes=5), "not a timedelta: pass its .total_seconds()."),
        ("300", "not the text '300': convert it with float() or int()."),
        (" 1.5\n", "not the text ' 1.5\\n': convert"),
        ("s3cr3t", "not text."),
        ("1234567890123456", "not text."),
        (b"300", "not bytes."),
        (None, "not NoneType."),
        ([60], "not list."),
        (True, "not True."),
        (-1, "not -1."),
        (float("nan"), "not nan."),
    ],
)
def test_a_wrong_number_is_shown(value: Any, shown: str) -> None:
    """A number from an environment variable is text; any other text may be a secret in the wrong place."""
    for check in (positive_number, positive_seconds):
        with pytest.raises(ConfigurationError, match=r"^o must be a positive, finite number") as caught:
            check(value, option="o")
        assert shown in str(caught.value)
        assert "s3cr3t" not in str(caught.value)


WEAK = [
    *(
        "a" * 16,
        "ab" * 8,
        "abcabcabcabcabcabc",
        "passwordpassword",
        "changeme-changeme",
        "Xk3!Xk3!Xk3!Xk3!",
        "x" * 5_000,
    ),
    *("0123456789abcdef", "fedcba9876543210", "abcdefghijklmnop", "1234567890123456", "aabbccddeeffgghh"),
    *("Internationalization2024", "development-2024", "Zusammenarbeit_24!", "SUPERSECRETPASSWORD", "mysupersecretkey"),
    *("password12345678", "secretsecret1234", "Telecommunication1"),
]


@pytest.mark.parametrize("weak", WEAK)
@pytest.mark.parametrize("option", ["secret_key", "name_key"])
def test_a_secret_that_is_easy_to_guess_is_refused(option: str, weak: str) -> None:
    """The text has the line that makes a good one, and not the secret."""
    options: dict[str, Any] = {option: weak}
    with pytest.raises(ConfigurationError, match=f"^{option} is easy to guess: ") as caught:
        TokenBroker({}, **options)
    assert 'python -c "import secrets; print(secrets.token_urlsafe(32))" makes a good one.' in str(caught.value)
    assert weak not in str(caught.value)


def test_each_secret_of_a_list_is_checked() -> None:
    """Values that a guessed old secret opens could be forged."""
    with pytest.raises(ConfigurationError, match="secret_key is easy to guess"):
        checked_secrets([secrets.token_hex(16), "a" * 16])


def test_every_generated_secret_is_accepted() -> None:
    """Those of the standard library with 128 bits, in all of their forms."""
    for _ in range(2_000):
        made = (secrets.token_hex(16), secrets.token_urlsafe(16), secrets.token_urlsafe(32), str(uuid.uuid4()))
        for secret in (*made, secrets.token_hex(16).upper(), uuid.uuid4().hex):
            assert (secret,) == checked_secrets(secret)
            assert secret == checked_name_key(secret, secrets=())


@given(st.text(st.characters(exclude_categories=["C", "Z"]) | st.just(" "), min_size=16, max_size=200))
def test_any_secret_is_accepted_or_refused(secret: str) -> None:
    """The check raises nothing else, and accepts no secret of one or two characters."""
    with contextlib.suppress(ConfigurationError):
        assert checked_secrets(secret) == (secret,)
        assert len(set(secret)) > 4


def test_a_long_secret_is_checked_quickly() -> None:
    """A file that was read by mistake does not stop the start."""
    begun = time.thread_time()  # processor time, so that other programs do not count
    checked_secrets(secrets.token_hex(100_000))
    assert time.thread_time() - begun < 1
