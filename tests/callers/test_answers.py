"""Only an answer of `authenticate` that means a caller lets a request in; one that means neither is a 503."""

from __future__ import annotations

import asyncio
import functools
import sqlite3
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from contextlib import asynccontextmanager, closing, contextmanager, nullcontext
from types import SimpleNamespace
from typing import Any, NamedTuple, NoReturn

import pytest
from fastapi import HTTPException as FastAPIHTTPException
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection
from starlette.responses import PlainTextResponse

from tests.asgi_client import Exchange, answering, call
from tokenmw import APIKeyRefused, ConfigurationError, TokenBroker, TokenMiddleware
from tokenmw.callers.answers import checked_authenticate

KEY = (b"x-api-key", b"k-1")


class Customer(NamedTuple):
    """A caller."""

    name: str
    tenant: str | None = None


class Ambiguous:
    """An object whose truth value raises, as that of a numpy array or of an SQL expression does."""

    def __bool__(self) -> bool:
        raise ValueError("k-1: the truth value of an array is ambiguous")


class Empty:
    """An object of a class of its own that is false because it has no items."""

    def __len__(self) -> int:
        return 0


async def nobody() -> None:
    """Return what a directory without the key would."""


async def request(broker: TokenBroker) -> Exchange:
    """Send one request with a key."""

    async def let_in(scope: Any) -> str:
        return repr(scope["state"]["caller"])

    return await call(TokenMiddleware(answering(let_in), broker=broker), headers=[KEY])


FALSY: list[object] = [None, False, 0, 0.0, "", b"", {}, [], (), set[str](), Empty()]


@pytest.mark.parametrize("answer", FALSY)
async def test_every_falsy_answer_refuses(answer: object, caplog: pytest.LogCaptureFixture) -> None:
    """`sismember` and `exists` return 0, a lookup in a mapping of lists returns an empty one."""
    async with TokenBroker({}, authenticate=lambda _connection, _key: answer, missing_key="reject") as broker:
        assert [401, 401] == [(await request(broker)).status for _ in range(2)]
    assert not caplog.records


@pytest.mark.parametrize("answer", [True, 1, "alice", {"tenant": 1}, ["admin"], Customer("alice"), SimpleNamespace()])
async def test_a_true_answer_is_the_caller(answer: object) -> None:
    """Named tuples, too: a bare one is more often a pair of a caller and a reason."""
    async with TokenBroker({}, authenticate=lambda _connection, _key: answer, missing_key="reject") as broker:
        response = await request(broker)
    assert (200, repr(answer)) == (response.status, response.json)


def items() -> Generator[str]:
    """Yield nothing."""
    yield from ()


async def pages() -> AsyncGenerator[str]:
    """Yield one item."""
    yield "alice"


@asynccontextmanager
async def opened() -> AsyncGenerator[str]:
    """Open something."""
    yield "alice"


def no_rows() -> sqlite3.Cursor:
    """Return the cursor of a query that has found nothing."""
    with closing(sqlite3.connect(":memory:")) as database:
        return database.execute("select 1 where 1 = 0")


UNDECIDED: dict[str, tuple[Callable[[], object], str]] = {
    "a pair": (lambda: (None, "unknown key"), "tuple"),
    "a row": (lambda: ("alice", 1), "tuple"),
    "a generator": (items, "generator"),
    "an async generator": (pages, "async_generator"),
    "a filter": (lambda: filter(None, [0]), "filter"),
    "a cursor": (no_rows, "Cursor"),
    "a context manager": (nullcontext, "nullcontext"),
    "an async context manager": (opened, "_AsyncGeneratorContextManager"),
    "a function": (lambda: nobody, "function"),
    "a method": (lambda: "k-1".isdigit, "builtin_function_or_method"),
    "an exception": (lambda: APIKeyRefused("No."), "APIKeyRefused"),
    "a class of exceptions": (lambda: HTTPException, "type"),
    "a response": (lambda: PlainTextResponse("No.", 401), "PlainTextResponse"),
    "an ambiguous object": (Ambiguous, "Ambiguous"),
}


@pytest.mark.parametrize("name", UNDECIDED)
async def test_an_answer_that_means_neither_is_503(name: str, caplog: pytest.LogCaptureFixture) -> None:
    """Such answers are true by default, or have no truth value. The log line names the class and the fix."""
    make, described = UNDECIDED[name]

    async def authenticate(_connection: HTTPConnection, _key: str) -> object:
        return make()

    async with TokenBroker({}, authenticate=authenticate, missing_key="reject") as broker:
        responses = [await request(broker) for _ in range(2)]
    assert [503, 503] == [response.status for response in responses]
    assert 1 == len(caplog.records)
    assert f"authenticate returned a value of type {described}, which " in caplog.text
    assert "k-1" not in caplog.text + responses[0].body.decode()


@pytest.mark.parametrize("make", [nobody, lambda: asyncio.get_running_loop().create_future()])
async def test_an_answer_that_was_not_awaited_is_503(
    make: Callable[[], Awaitable[None]], caplog: pytest.LogCaptureFixture, recwarn: pytest.WarningsRecorder
) -> None:
    """`return find(key)` of a coroutine function in another one lacks an `await`. Python need not warn as well."""

    async def authenticate(_connection: HTTPConnection, _key: str) -> object:
        return make()

    async with TokenBroker({}, authenticate=authenticate, missing_key="reject") as broker:
        assert 503 == (await request(broker)).status
    assert "`await`" in caplog.text
    assert not recwarn.list


def generator(_connection: HTTPConnection, _key: str) -> Generator[str]:
    """Yield a caller, as a FastAPI dependency may."""
    yield "alice"


async def async_generator(_connection: HTTPConnection, _key: str) -> AsyncGenerator[str]:
    """Yield a caller, as a FastAPI dependency may."""
    yield "alice"


def plain(_connection: HTTPConnection, _key: str) -> str:
    """Return a caller."""
    return "alice"


class Service:
    """The methods of an object."""

    def __call__(self, _connection: HTTPConnection, _key: str) -> Generator[str]:
        yield "alice"

    def generator(self, _connection: HTTPConnection, _key: str) -> Generator[str]:
        """Yield a caller."""
        yield "alice"

    @staticmethod
    async def static(_connection: HTTPConnection, _key: str) -> AsyncGenerator[str]:
        """Yield a caller."""
        yield "alice"


def decorated(function: Callable[..., Any]) -> Callable[..., Any]:
    """Decorate a function as most decorators do."""

    @functools.wraps(function)
    def wrapper(*args: Any, **options: Any) -> Any:
        return function(*args, **options)

    return wrapper


def first_of(function: Callable[..., AsyncGenerator[str]]) -> Callable[..., Awaitable[str]]:
    """Make a coroutine function of an async generator function."""

    @functools.wraps(function)
    async def wrapper(*args: Any) -> str:
        return await anext(function(*args))

    return wrapper


GENERATORS: dict[str, Any] = {
    "function": generator,
    "async function": async_generator,
    "context manager": contextmanager(generator),
    "async context manager": asynccontextmanager(async_generator),
    "partial": functools.partial(async_generator),
    "partial of a context manager": functools.partial(contextmanager(generator)),
    "method": Service().generator,
    "static method": Service.static,
    "callable object": Service(),
    "partial of an object": functools.partial(Service()),
    "decorated": decorated(generator),
    "decorated twice": decorated(functools.lru_cache(async_generator)),
    "decorated method": decorated(Service().generator),
}


@pytest.mark.parametrize("name", GENERATORS)
def test_a_generator_function_is_refused_when_the_broker_is_made(name: str) -> None:
    """Its result is true for every key. The error names the fix."""
    with pytest.raises(ConfigurationError, match=r"authenticate must return the caller.*`return`.*`yield`"):
        TokenBroker({}, authenticate=GENERATORS[name])


@pytest.mark.parametrize("function", [plain, decorated(plain), functools.partial(plain), first_of(async_generator)])
def test_a_function_that_returns_is_accepted(function: Any) -> None:
    """So is a coroutine function that wraps a generator: it returns what it has taken from it."""
    checked_authenticate(function)


def test_a_wrapper_of_itself_is_no_endless_loop() -> None:
    """`__wrapped__` is an attribute that any code can set."""

    def wrapper(_connection: HTTPConnection, _key: str) -> str:
        return "alice"

    wrapper.__wrapped__ = wrapper  # type: ignore[attr-defined]
    checked_authenticate(wrapper)


def raising(error: Exception) -> Callable[[HTTPConnection, str], NoReturn]:
    """Make an `authenticate` that raises."""

    def authenticate(_connection: HTTPConnection, _key: str) -> NoReturn:
        raise error from LookupError("k-1")

    return authenticate


@pytest.mark.parametrize("kind", [HTTPException, FastAPIHTTPException])
@pytest.mark.parametrize("status", [401, 403])
async def test_an_http_exception_of_401_or_403_refuses(
    kind: type[HTTPException], status: int, caplog: pytest.LogCaptureFixture
) -> None:
    """It is a habit of FastAPI dependencies. Both are answered with 401, with the program's own text."""
    error = kind(status, "The account is suspended.", {"www-authenticate": "Bearer realm=x"})
    async with TokenBroker({}, authenticate=raising(error), missing_key="reject") as broker:
        for _ in range(2):
            response = await request(broker)
            assert 401 == response.status
            assert "The account is suspended." == response.json["detail"]
            assert "Bearer realm=x" == response.headers["www-authenticate"]
    assert not caplog.records


@pytest.mark.parametrize("detail", [None, {"code": 7}])
async def test_an_http_exception_without_a_text_has_ours(detail: Any) -> None:
    """Starlette's default is the phrase of the status; FastAPI takes any JSON."""
    error = FastAPIHTTPException(403, detail)
    async with TokenBroker({}, authenticate=raising(error), missing_key="reject") as broker:
        response = await request(broker)
    assert "The API key is not accepted." == response.json["detail"]
    assert "Bearer" == response.headers["www-authenticate"]


@pytest.mark.parametrize("status", [400, 404, 429, 500, 503])
async def test_any_other_http_exception_is_503(status: int, caplog: pytest.LogCaptureFixture) -> None:
    """All requests with the key share the call, so a status that is about one of them is not passed on."""
    async with TokenBroker({}, authenticate=raising(HTTPException(status, "k-1")), missing_key="reject") as broker:
        response = await request(broker)
    assert 503 == response.status
    assert "k-1" not in response.body.decode() + caplog.text
    assert "authenticate raised HTTPException at tests.callers.test_answers" in caplog.text


class Suspended(APIKeyRefused):
    """A refusal of the program, which `copy.copy` cannot make."""

    def __init__(self, *, until: str) -> None:
        super().__init__(f"Suspended until {until}.")
        self.until = until


@pytest.mark.parametrize(
    ("error", "text"),
    [(APIKeyRefused("The key has expired."), "The key has expired."), (Suspended(until="May"), "Suspended until May.")],
)
async def test_a_raised_refusal_is_kept_for_five_seconds(error: APIKeyRefused, text: str) -> None:
    """A wrong key costs one call however it is refused, and each response has the program's text."""
    calls: list[str] = []
    refuse = raising(error)

    def authenticate(connection: HTTPConnection, key: str) -> NoReturn:
        calls.append(key)
        refuse(connection, key)

    async with TokenBroker({}, authenticate=authenticate, missing_key="reject") as broker:
        assert [(401, text)] * 3 == [((one := await request(broker)).status, one.json["detail"]) for _ in range(3)]
        (kept,) = broker._data.refused_keys.values()
    assert ["k-1"] == calls
    # What it was raised from, and the variables of the frames that raised it, may hold the key.
    assert kept is not None
    assert (None, None, None) == (kept.__traceback__, kept.__cause__, kept.__context__)


async def test_a_header_that_a_handler_adds_is_in_one_response_only() -> None:
    """Each request has a copy of a kept refusal, with headers of its own."""

    def number(_connection: HTTPConnection, error: Any) -> PlainTextResponse:
        error.headers["x-number"] = str(len(error.headers))
        return PlainTextResponse("", 401, headers=error.headers)

    async with TokenBroker({}, authenticate=raising(APIKeyRefused("No.")), missing_key="reject") as broker:
        app = TokenMiddleware(answering(nothing), broker=broker, on_error=number)
        assert ["1", "1"] == [(await call(app, headers=[KEY])).headers["x-number"] for _ in range(2)]


async def nothing(_scope: Any) -> None:
    """Answer nothing."""
