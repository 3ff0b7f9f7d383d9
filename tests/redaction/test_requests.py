"""An error that is raised while a request is served shows no API key and no token, in its local variables either."""

from __future__ import annotations

import traceback
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, NoReturn

import pytest
from starlette.requests import HTTPConnection

from tests.asgi_client import scope_of
from tests.redaction.test_tracebacks import KEY, SECRET, report_of
from tokenmw import (
    APIKeyRefused,
    ConfigurationError,
    Limits,
    SessionUnavailable,
    TokenBroker,
    TokenMiddleware,
    TokenUnavailable,
    request_tokens,
    session_id,
)
from tokenmw.asgi.problems import problem_response
from tokenmw.fastapi import token_from
from tokenmw.providers import StaticToken, lifetime
from tokenmw.redaction import without_locals

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from starlette.responses import Response
    from starlette.types import Message, Receive, Scope, Send

    from tokenmw.errors import RequestError

UNAVAILABLE_REDIS = f"redis://:{SECRET}@127.0.0.1:9/0"
HEADERS = [(b"authorization", b"Bearer " + KEY), (b"cookie", b"key=" + KEY)]
CALLS: dict[str, Callable[[TokenBroker], Awaitable[object]]] = {
    "session_id": lambda broker: broker.session_id(SECRET),
    "session_id, no UTF-8": lambda broker: broker.session_id(f"{SECRET}\ud800"),
    "reset_session": lambda broker: broker.reset_session(KEY),
    "invalidate": lambda broker: broker.invalidate(SECRET),  # type: ignore[arg-type]
    "hand_in": lambda broker: broker.hand_in("crm", SECRET),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("method", CALLS)
async def test_a_failed_call_of_the_broker_shows_no_secret(method: str) -> None:
    """The error shows neither the API key nor the text that was passed instead of a `Token`."""
    async with TokenBroker({"crm": StaticToken("t")}, redis=UNAVAILABLE_REDIS, session_policy="required") as broker:
        with pytest.raises((SessionUnavailable, ConfigurationError)) as caught:
            await CALLS[method](broker)
    assert SECRET not in report_of(caught.value)


async def refuse_all(_connection: HTTPConnection, _key: str) -> None:
    """Reject every key."""


async def unavailable(_connection: HTTPConnection, key: str) -> NoReturn:
    """Fail to check a key."""
    raise SessionUnavailable("The directory is unavailable") from LookupError(len(key))


async def app_that_fails(_scope: Scope, _receive: Receive, send: Send) -> None:
    """Start a response, then raise."""
    await send({"type": "http.response.start", "status": 200, "headers": []})
    raise TokenUnavailable("after the start")


async def app_with_a_bug(_scope: Scope, _receive: Receive, _send: Send) -> None:
    """Raise an exception that the package does not know."""
    raise LookupError


async def receive_nothing() -> NoReturn:
    """Receive for a client that sends nothing. It is a function because the `repr` of one shows no state."""
    raise AssertionError("not called")


async def drop(_message: Message) -> None:
    """Ignore a message."""


async def disconnected(_message: Message) -> None:
    """Raise as for a client that has disconnected."""
    raise OSError


def broken_callable(_connection: HTTPConnection) -> NoReturn:
    """Raise instead of returning names or a provider."""
    raise LookupError


def broken_on_error(_connection: HTTPConnection, _error: RequestError) -> NoReturn:
    """Raise instead of returning a response."""
    raise LookupError


REQUESTS: dict[str, tuple[dict[str, Any], dict[str, Any], Any]] = {
    "refused": ({"authenticate": refuse_all}, {}, app_with_a_bug),
    "disconnected": ({"authenticate": refuse_all}, {}, app_with_a_bug),
    "unavailable": ({"authenticate": unavailable}, {}, app_with_a_bug),
    "session required": ({"redis": UNAVAILABLE_REDIS, "session_policy": "required"}, {}, app_with_a_bug),
    "after the start": ({}, {}, app_that_fails),
    "bug": ({}, {}, app_with_a_bug),
    "inject": ({}, {"inject": broken_callable}, app_with_a_bug),
    "on_error": ({"authenticate": refuse_all}, {"on_error": broken_on_error}, app_with_a_bug),
}


@pytest.mark.parametrize("kind", ["http", "websocket"])
@pytest.mark.parametrize("case", REQUESTS)
async def test_a_failed_request_shows_no_api_key(case: str, kind: str) -> None:
    """Neither an error tracker outside of the middleware nor the `on_error` callback gets the API key."""
    broker_options, middleware_options, app = REQUESTS[case]
    raised: list[BaseException] = []
    reports: list[str] = []

    def on_error(connection: HTTPConnection, error: RequestError) -> Response:
        reports.append(report_of(error))
        return problem_response(connection, error)

    async with TokenBroker({"crm": StaticToken("t")}, **broker_options) as broker:
        options: dict[str, Any] = {"on_error": on_error, **middleware_options}
        middleware = TokenMiddleware(app, broker=broker, **options)
        try:
            send = disconnected if case == "disconnected" else drop
            await middleware(scope_of(kind, headers=HEADERS, query_string=b"key=" + KEY), receive_nothing, send)
        except (LookupError, OSError, TokenUnavailable) as error:
            raised.append(error)
    assert raised or reports
    assert SECRET not in "".join([*reports, *map(report_of, raised)])


def wrong(_connection: HTTPConnection) -> Any:
    """Return the secret instead of a provider."""
    return SECRET


DEPENDENCIES: dict[str, Callable[[HTTPConnection], Awaitable[object]]] = {
    "session_id": session_id,
    "token_from": lambda connection: token_from(wrong)(connection=connection, provider=SECRET),
    "resolve": lambda connection: _resolve(connection, "wrong"),
    "resolve, a bug": lambda connection: _resolve(connection, "bug"),
}


async def _resolve(connection: HTTPConnection, name: str) -> object:
    return await (await request_tokens(connection)).resolve(name)


@pytest.mark.parametrize("dependency", DEPENDENCIES)
async def test_a_failed_dependency_shows_no_secret(dependency: str) -> None:
    """Without the middleware, an error shows no API key, and no secret that was returned instead of a provider."""
    providers: dict[str, Any] = {"wrong": wrong, "bug": broken_callable}
    async with TokenBroker(providers, authenticate=refuse_all) as broker:
        connection = HTTPConnection(scope_of("http", headers=HEADERS, state={"tokenmw": broker}))
        with pytest.raises((APIKeyRefused, ConfigurationError, LookupError)) as caught:
            await DEPENDENCIES[dependency](connection)
    assert SECRET not in report_of(caught.value)


@without_locals
def function_of_the_package(callback: Callable[[], object], secret: str) -> None:
    """Call a callback of the program."""
    callback()
    assert secret


def test_variables_of_the_program_are_kept() -> None:
    """Frames of callbacks, and of errors that the program had handled before, keep their variables."""
    seen: list[BaseException] = []
    try:
        lifetime("before")
    except TokenUnavailable as before:
        seen.append(before)
        with pytest.raises(ValueError, match="inside") as caught:
            function_of_the_package(lambda: ip_address("inside"), SECRET)
        seen.append(caught.value)
    assert seen[0] is seen[1].__context__
    for error, name, value in zip(seen, ("raw", "address"), ("before", "inside"), strict=True):
        assert value in [frame.f_locals.get(name) for frame, _ in traceback.walk_tb(error.__traceback__)]
    assert SECRET not in report_of(seen[1])


def test_variables_of_an_exception_group_are_removed() -> None:
    """The frames of all errors in a group, and of the errors that they are chained to, lose their variables."""

    @without_locals
    def gather() -> NoReturn:
        errors: list[Exception] = []
        for _ in range(2):
            try:
                lifetime(SECRET)
            except TokenUnavailable as error:
                errors.append(error)
        raise ExceptionGroup("both", errors) from errors[0]

    with pytest.raises(ExceptionGroup) as caught:
        gather()
    assert SECRET not in report_of(caught.value) + "".join(map(report_of, caught.value.exceptions))


def test_limits_are_not_secret() -> None:
    """The error of an option that is no secret shows its value."""
    with pytest.raises(ConfigurationError) as caught:
        Limits(tokens=-7)
    assert "-7" in report_of(caught.value)
