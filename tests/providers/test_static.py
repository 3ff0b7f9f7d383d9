from __future__ import annotations

from typing import Any

import pytest

from tokenmw.errors import ConfigurationError, CredentialRejected, TokenUnavailable
from tokenmw.providers import Grant, StaticToken
from tokenmw.values import MAX_LIFETIME

NO_HTTP: Any = None
"""A static token sends no request."""


async def as_text() -> str:
    """Return a token."""
    return "t-2"


@pytest.mark.parametrize(
    ("token", "value", "seconds"),
    [
        (StaticToken("t-1"), "t-1", MAX_LIFETIME),
        (StaticToken("t-1", expires_in=60), "t-1", 60.0),
        (StaticToken(lambda: "t-3"), "t-3", 300.0),
        (StaticToken(as_text), "t-2", 300.0),
        (StaticToken(as_text, expires_in=9), "t-2", 9.0),
        (StaticToken(lambda: Grant("t-4", expires_in=7), expires_in=99), "t-4", 7.0),
    ],
)
async def test_token_is_given_as_text_or_by_a_function(token: StaticToken, value: str, seconds: float) -> None:
    """Every token has a lifetime: `expires_in`, a default, or that of the function's `Grant`."""
    grant = await token.fetch(NO_HTTP)
    assert (value, seconds) == (grant.value, grant.expires_in)


async def test_function_is_called_for_each_fetch() -> None:
    """Each fetch calls the function, which decides whether the token is a new one."""
    numbers = iter(range(9))
    token = StaticToken(lambda: f"t-{next(numbers)}")
    assert ["t-0", "t-1"] == [(await token.fetch(NO_HTTP)).value for _ in range(2)]


async def test_token_type_goes_in_front_of_the_token() -> None:
    """QQ, for example, expects `Authorization: QQBot …`."""
    token = StaticToken("t", token_type="QQBot")
    assert "QQBot" == token.scheme == (await token.fetch(NO_HTTP)).token_type


@pytest.mark.parametrize("result", [None, 5, b"t", "", "two words", {"access_token": "t"}])
async def test_function_that_returns_no_token_is_unavailability(result: Any) -> None:
    """A result that is empty, malformed or not text raises."""
    with pytest.raises(TokenUnavailable):
        await StaticToken(lambda: result).fetch(NO_HTTP)


async def test_error_in_the_function_is_unavailability_without_its_text() -> None:
    """The error has only the exception's type, because its text may quote a secret."""

    def broken() -> str:
        raise OSError("/run/secrets/s3cr3t")

    with pytest.raises(TokenUnavailable, match="the function of StaticToken raised OSError") as caught:
        await StaticToken(broken).fetch(NO_HTTP)
    assert caught.value.__context__ is None
    assert "s3cr3t" not in str(caught.value)


def of_request(request: object) -> str:
    """Return a token for a request."""
    return f"t-{request}"


@pytest.mark.parametrize("function", [of_request, len, divmod])
def test_function_that_needs_arguments_is_refused(function: Any) -> None:
    """It would fail in the first request; the text says what gives a token per request."""
    with pytest.raises(
        ConfigurationError, match=r"function of StaticToken must be a callable \(\).*\(connection\) -> "
    ):
        StaticToken(function)


async def test_function_may_raise_credential_rejected() -> None:
    """Our own errors pass unchanged."""

    async def refused() -> str:
        raise CredentialRejected("no")

    with pytest.raises(CredentialRejected, match=r"^no$"):
        await StaticToken(refused).fetch(NO_HTTP)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (StaticToken("t"), StaticToken("t"), True),
        (StaticToken("t"), StaticToken("u"), False),
        (StaticToken("t"), StaticToken("t", token_type="QQBot"), False),
        (StaticToken(as_text), StaticToken(as_text), False),
        (StaticToken(as_text, credential_id="a"), StaticToken(str, credential_id="a"), True),
        (StaticToken(as_text, credential_id="a"), StaticToken(as_text, credential_id="b"), False),
        (StaticToken("a"), StaticToken(as_text, credential_id="a"), False),
    ],
)
def test_equality_is_the_text_or_the_name(one: StaticToken, other: StaticToken, *, same: bool) -> None:
    """Texts are compared by value, functions by `credential_id`, and functions without one are never equal."""
    assert same is (one == other)


def test_only_a_named_function_is_shared_through_redis() -> None:
    """Text and functions without a `credential_id` are not shared through Redis."""
    assert not StaticToken("t").shareable
    assert not StaticToken("t", credential_id="a").shareable
    assert not StaticToken(as_text).shareable
    assert StaticToken(as_text, credential_id="a").shareable


class Masked:
    def get_secret_value(self) -> str:
        return "s3cr3t"


@pytest.mark.parametrize(
    ("value", "options", "text"),
    [
        ("", {}, r"StaticToken\(…\) is empty"),
        (None, {}, "must be a str"),
        (Masked(), {}, "get_secret_value"),
        ("s3cr3t\n", {}, r"strip\(\)"),
        ("s3cr3t t", {}, "has spaces"),
        ("密" * 9, {}, "outside ASCII"),
        ("s3cr3t" * 9999, {}, "longer than"),
        ("t", {"token_type": "two words"}, "not one word"),
        (as_text, {"token_type": ""}, "not one word"),
        ("t", {"expires_in": 0}, r"expires_in=…\) must be a positive"),
        ("t", {"hosts": "api.example"}, r"hosts=…\) must be a list"),
        (as_text, {"credential_id": ""}, r"credential_id=…\) is empty"),
    ],
)
def test_options_that_cannot_work_are_refused_at_construction(value: Any, options: dict[str, Any], text: str) -> None:
    """A token that does not fit into a header, or another wrong option, is refused, and the text has no secret."""
    with pytest.raises(ConfigurationError, match=text) as caught:
        StaticToken(value, **options)
    assert "s3cr3t" not in str(caught.value) + repr(caught.value.__context__)


def test_repr_does_not_show_the_token() -> None:
    """The token is a secret like any other."""
    assert "<StaticToken>" == repr(StaticToken("s3cr3t"))
