"""What a program's own callable raised is told with its class and its line, and never with its text."""

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
    """Raise what a program might, by a function of its own and in the depth of a library."""
    json.loads(_not_json())


def _not_json() -> str:
    return "{" + TEXT


async def fail_later(*_: object) -> Any:
    """Do so in a coroutine."""
    fail()


def line_of(function: Callable[..., Any]) -> int:
    """Return the line of a function's only statement behind its docstring."""
    return function.__code__.co_firstlineno + 2


class Failing(Provider):
    """A provider with a slip in its code."""

    __slots__ = ()
    kind = "failing"

    def identity(self) -> tuple[object, ...]:
        """Return nothing: there is one."""
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
async def test_a_credentials_callable_is_told_with_its_line(
    caplog: pytest.LogCaptureFixture, provider: Provider
) -> None:
    """In the log and on the error, for whoever mends it; not in the text, which callers see."""
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
async def test_authenticate_is_told_with_its_line(caplog: pytest.LogCaptureFixture, authenticate: Any) -> None:
    """The caller sees no more than that the key could not be checked."""
    async with TokenBroker({}, authenticate=authenticate) as broker:
        middleware = TokenMiddleware(answering(session_of), broker=broker)
        answer = await call(middleware, headers=[(b"x-api-key", b"k")])
    assert 503 == answer.status
    assert b"raised" not in answer.body.lower()
    assert f"authenticate raised JSONDecodeError at {HERE}:{line_of(fail)}." in caplog.text
    assert TEXT not in caplog.text


async def test_an_observer_is_told_with_its_line(caplog: pytest.LogCaptureFixture) -> None:
    """It is passed over, and can be found."""
    async with TokenBroker({"a": StaticToken("t")}, observers=[fail]) as broker:
        await broker.token("a")
    assert f"An observer raised JSONDecodeError at {HERE}:{line_of(fail)} and was passed over." in caplog.text


def test_a_wrapped_callable_is_found_all_the_same() -> None:
    """The wrapper's package is not that of what it wraps."""
    wrapped = functools.partial(fail)
    # Caught as the package catches it, so that the traceback begins here.
    with pytest.raises(json.JSONDecodeError) as raised:
        wrapped()
    assert f"{HERE}:{line_of(fail)}" == place_of(raised.value, called=wrapped)


def test_a_slip_of_this_package_has_a_place_too() -> None:
    """Where no program was called, it is the innermost line that tells."""
    unusable: Any = None
    with pytest.raises(AttributeError) as raised:
        subkey(unusable, "names")
    # Caught as the package catches it, so that the traceback begins in it.
    error = raised.value.with_traceback(raised.tb.tb_next)
    assert place_of(error, called=None).startswith("tokenmw.redis.keys:")


def test_what_no_frame_tells_has_no_place() -> None:
    """An error that was never raised, or raised by a function in C, is told by its class."""
    assert "" == place_of(KeyError(), called=fail)
    assert "KeyError" == with_place(KeyError(), called=fail)
