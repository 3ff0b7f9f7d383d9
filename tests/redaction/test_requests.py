"""What goes wrong while requests are served shows no API key and no token, whoever writes down variables."""

from __future__ import annotations

import traceback
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, NoReturn

import pytest
from starlette.requests import HTTPConnection

from tests.asgi_client import scope_of
from tests.redaction.test_tracebacks import KEY, SECRET, shown
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

AWAY = f"redis://:{SECRET}@127.0.0.1:9/0"
HEADERS = [(b"authorization", b"Bearer " + KEY), (b"cookie", b"key=" + KEY)]
CALLS: dict[str, Callable[[TokenBroker], Awaitable[object]]] = {
    "session_id": lambda broker: broker.session_id(SECRET),
    "session_id, no UTF-8": lambda broker: broker.session_id(f"{SECRET}\ud800"),
    "reset_session": lambda broker: broker.reset_session(KEY),
    "invalidate": lambda broker: broker.invalidate(SECRET),  # type: ignore[arg-type]
    "hand_in": lambda broker: broker.hand_in("crm", SECRET),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("method", CALLS)
async def test_call_of_the_broker_that_fails_shows_no_secret(method: str) -> None:
    """Neither the API key, nor a token that was given instead of a `Token`."""
    async with TokenBroker({"crm": StaticToken("t")}, redis=AWAY, session_policy="required") as broker:
        with pytest.raises((SessionUnavailable, ConfigurationError)) as caught:
            await CALLS[method](broker)
    assert SECRET not in shown(caught.value)


async def refuse_all(_connection: HTTPConnection, _key: str) -> None:
    """Know nobody."""


async def unavailable(_connection: HTTPConnection, key: str) -> NoReturn:
    """Find no answer."""
    raise SessionUnavailable("The directory is away.") from LookupError(len(key))


async def app_that_fails(_scope: Scope, _receive: Receive, send: Send) -> None:
    """Begin an answer, and fail."""
    await send({"type": "http.response.start", "status": 200, "headers": []})
    raise TokenUnavailable("late")


async def app_with_a_slip(_scope: Scope, _receive: Receive, _send: Send) -> None:
    """Fail in a way of its own."""
    raise LookupError


async def receive_nothing() -> NoReturn:
    """Be a client that sends nothing. A plain function, whose `repr` tells nothing."""
    raise AssertionError("nobody asks")


async def drop(_message: Message) -> None:
    """Be a client that looks at nothing."""


async def fail(_message: Message) -> None:
    """Be a client that has gone."""
    raise OSError


def choose_nothing(_connection: HTTPConnection) -> NoReturn:
    """Have a slip."""
    raise LookupError


def answer_nothing(_connection: HTTPConnection, _error: RequestError) -> NoReturn:
    """Have a slip in what answers errors."""
    raise LookupError


REQUESTS: dict[str, tuple[dict[str, Any], dict[str, Any], Any]] = {
    "refused": ({"authenticate": refuse_all}, {}, app_with_a_slip),
    "gone": ({"authenticate": refuse_all}, {}, app_with_a_slip),
    "away": ({"authenticate": unavailable}, {}, app_with_a_slip),
    "required": ({"redis": AWAY, "session_policy": "required"}, {}, app_with_a_slip),
    "late": ({}, {}, app_that_fails),
    "slip": ({}, {}, app_with_a_slip),
    "choice": ({}, {"inject": choose_nothing}, app_with_a_slip),
    "answer": ({"authenticate": refuse_all}, {"on_error": answer_nothing}, app_with_a_slip),
}


@pytest.mark.parametrize("kind", ["http", "websocket"])
@pytest.mark.parametrize("case", REQUESTS)
async def test_request_that_fails_shows_no_api_key(case: str, kind: str) -> None:
    """Neither to what reports errors around the middleware, nor to what makes the answer."""
    of_broker, of_middleware, app = REQUESTS[case]
    seen: list[BaseException] = []
    reports: list[str] = []

    def answer(connection: HTTPConnection, error: RequestError) -> Response:
        reports.append(shown(error))
        return problem_response(connection, error)

    async with TokenBroker({"crm": StaticToken("t")}, **of_broker) as broker:
        options: dict[str, Any] = {"on_error": answer, **of_middleware}
        middleware = TokenMiddleware(app, broker=broker, **options)
        try:
            send = fail if case == "gone" else drop
            await middleware(scope_of(kind, headers=HEADERS, query_string=b"key=" + KEY), receive_nothing, send)
        except (LookupError, OSError, TokenUnavailable) as error:
            seen.append(error)
    assert seen or reports
    assert SECRET not in "".join([*reports, *map(shown, seen)])


def wrong(_connection: HTTPConnection) -> Any:
    """Choose the secret instead of a provider."""
    return SECRET


DEPENDENCIES: dict[str, Callable[[HTTPConnection], Awaitable[object]]] = {
    "session_id": session_id,
    "token_from": lambda connection: token_from(wrong)(connection=connection, provider=SECRET),
    "resolve": lambda connection: _resolve(connection, "wrong"),
    "resolve, a slip": lambda connection: _resolve(connection, "slip"),
}


async def _resolve(connection: HTTPConnection, name: str) -> object:
    return await (await request_tokens(connection)).resolve(name)


@pytest.mark.parametrize("dependency", DEPENDENCIES)
async def test_dependency_that_fails_shows_no_secret(dependency: str) -> None:
    """Without the middleware, too; and a credential in place of a provider is not repeated."""
    providers: dict[str, Any] = {"wrong": wrong, "slip": choose_nothing}
    async with TokenBroker(providers, authenticate=refuse_all) as broker:
        connection = HTTPConnection(scope_of("http", headers=HEADERS, state={"tokenmw": broker}))
        with pytest.raises((APIKeyRefused, ConfigurationError, LookupError)) as caught:
            await DEPENDENCIES[dependency](connection)
    assert SECRET not in shown(caught.value)


@without_locals
def of_the_package(call_back: Callable[[], object], secret: str) -> None:
    """Call the program back."""
    call_back()
    assert secret


def test_variables_of_the_program_stay() -> None:
    """What it handled already is left alone, also what came from here, and so is what its own callable called."""
    seen: list[BaseException] = []
    try:
        lifetime("before")
    except TokenUnavailable as before:
        seen.append(before)
        with pytest.raises(ValueError, match="within") as caught:
            of_the_package(lambda: ip_address("within"), SECRET)
        seen.append(caught.value)
    assert seen[0] is seen[1].__context__
    for error, name, value in zip(seen, ("raw", "address"), ("before", "within"), strict=True):
        assert value in [frame.f_locals.get(name) for frame, _ in traceback.walk_tb(error.__traceback__)]
    assert SECRET not in shown(seen[1])


def test_variables_of_a_group_go() -> None:
    """With those of the errors in it, and of what is behind each."""

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
    assert SECRET not in shown(caught.value) + "".join(map(shown, caught.value.exceptions))


def test_limits_are_no_secret() -> None:
    """A report that shows nothing would help nobody."""
    with pytest.raises(ConfigurationError) as caught:
        Limits(tokens=-7)
    assert "-7" in shown(caught.value)
