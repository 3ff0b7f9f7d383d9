"""An error in a program's own callable is reported with its class and line, never with its text."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.asgi_client import answering, call, session_of
from tokenmw import Grant, Provider, TokenBroker, TokenMiddleware, TokenUnavailable
from tokenmw.observe.error_place import place_of, with_place
from tokenmw.providers import ClientCredentials, StaticToken, TokenHTTP
from tokenmw.redis.keys import subkey

TEXT = "canary-of-a-secret"
HERE = "tests.observe.test_error_place"


def fail(*_: object) -> Any:
    """Raise inside a library that a function of the program calls."""
    json.loads(_not_json())


def _not_json() -> str:
    return "{" + TEXT


async def fail_later(*_: object) -> Any:
    """Raise the same in a coroutine."""
    fail()


def line_of(function: Callable[..., Any]) -> int:
    """Return the line of a function's only statement after its docstring."""
    return function.__code__.co_firstlineno + 2


class Failing(Provider):
    """A provider with a mistake in its code."""

    __slots__ = ()
    kind = "failing"

    def identity(self) -> tuple[object, ...]:
        """Return nothing: there is only one."""
        return ()

    async def fetch(self, http: TokenHTTP) -> Grant:
        """Fail."""
        return Grant(fail(), expires_in=60)


CREDENTIALS = {
    "a provider": Failing(),
    "a token": StaticToken(fail),
    "a token, async": StaticToken(fail_later),
    "an assertion": ClientCredentials(
        token_url="https://idp.example/token", client_id="a", client_assertion=fail, auth_method="private_key_jwt"
    ),
}


@pytest.mark.parametrize("provider", CREDENTIALS.values(), ids=list(CREDENTIALS))
async def test_error_in_a_credential_is_reported_with_its_line(
    caplog: pytest.LogCaptureFixture, provider: Provider
) -> None:
    """The place is in the log and on the error, but not in the error's text, which callers see."""
    place = f"{HERE}:{line_of(fail)}"
    async with TokenBroker({"crm": provider}) as broker:
        for _ in range(2):  # the first attempt, and the failure that is remembered
            with pytest.raises(TokenUnavailable) as raised:
                await broker.token("crm")
            assert place == raised.value.place
            assert [f"Raised at {place}."] == raised.value.__notes__
            assert HERE not in str(raised.value)
            assert "JSONDecodeError" in str(raised.value)
        assert HERE not in str(broker.status())
    assert f"(at {place})" in caplog.text
    assert TEXT not in caplog.text


@pytest.mark.parametrize("authenticate", [fail, fail_later])
async def test_error_in_authenticate_is_reported_with_its_line(
    caplog: pytest.LogCaptureFixture, authenticate: Any
) -> None:
    """The operator sees the line; the caller only sees that the key could not be checked."""
    async with TokenBroker({}, authenticate=authenticate) as broker:
        middleware = TokenMiddleware(answering(session_of), broker=broker)
        answer = await call(middleware, headers=[(b"x-api-key", b"k")])
    assert 503 == answer.status
    assert b"raised" not in answer.body.lower()
    assert f"authenticate raised JSONDecodeError at {HERE}:{line_of(fail)}" in caplog.text
    assert TEXT not in caplog.text


async def test_error_in_an_observer_is_reported_with_its_line(caplog: pytest.LogCaptureFixture) -> None:
    """The observer is skipped, and its mistake can be found."""
    async with TokenBroker({"a": StaticToken("t")}, observers=[fail]) as broker:
        await broker.token("a")
    assert f"An observer raised JSONDecodeError at {HERE}:{line_of(fail)}" in caplog.text


def test_wrapped_callable_is_found() -> None:
    """The wrapper belongs to another package than the function it wraps."""
    wrapped = functools.partial(fail)
    # Caught as the package catches it, so the traceback begins here.
    with pytest.raises(json.JSONDecodeError) as raised:
        wrapped()
    assert f"{HERE}:{line_of(fail)}" == place_of(raised.value, called=wrapped)


def test_mistake_in_this_package_has_a_place() -> None:
    """If no code of the program was called, the place is the innermost line."""
    unusable: Any = None
    with pytest.raises(AttributeError) as raised:
        subkey(unusable, "names")
    # Caught as the package catches it, so the traceback begins in the package.
    error = raised.value.with_traceback(raised.tb.tb_next)
    assert place_of(error, called=None).startswith("tokenmw.redis.keys:")


def test_error_without_a_frame_has_no_place() -> None:
    """An error that was never raised, or was raised by a C function, is reported by its class."""
    assert "" == place_of(KeyError(), called=fail)
    assert "KeyError" == with_place(KeyError(), called=fail)
