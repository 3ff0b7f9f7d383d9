"""Tokens made from those of the callers, in applications that share a Redis."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Annotated, Any

import httpx
import pytest
from fastapi import Depends, FastAPI
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import HTTPConnection
from starlette.responses import JSONResponse
from starlette.routing import Route

from tests.asgi_client import call
from tests.redis.waiting import until
from tokenmw import Limits, TokenBroker, TokenMiddleware
from tokenmw.errors import ConfigurationError
from tokenmw.fastapi import token_from
from tokenmw.problems import add_problem_handlers
from tokenmw.providers import ClientCredentials, Provider, SubjectToken, TokenExchange
from tokenmw.testing import Fault, ProviderServer
from tokenmw.values import Token

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from starlette.requests import Request
    from starlette.responses import Response

    from tests.servers import RedisServer

SECRET = "a secret for the tests only"


def exchange(subject: str | SubjectToken, **options: Any) -> TokenExchange:
    """Make a provider for a subject's token."""
    return TokenExchange(
        token_url="https://idp.example/oauth2/token", client_id="shop", client_secret="s", subject=subject, **options
    )


def application(server: ProviderServer, broker: TokenBroker) -> Starlette:
    """Make an application that answers with the user of the token it was given."""

    async def whose(request: Request) -> Response:
        token = await request.state.tokens.resolve("orders")
        issued = server.issued.find(token.value)
        return JSONResponse({"user": None if issued is None else issued.user, "left": token.expires_at - time.time()})

    return Starlette(routes=[Route("/", whose)], middleware=[Middleware(TokenMiddleware, broker=broker)])


@asynccontextmanager
async def client(server: ProviderServer, redis: str | None, **options: Any) -> AsyncGenerator[tuple[Any, TokenBroker]]:
    """Run one instance of the application, and yield a client of it and its broker."""
    async with AsyncExitStack() as stack:
        http = await stack.enter_async_context(httpx.AsyncClient(transport=server.transport()))
        broker = TokenBroker(
            {"orders": exchange(SubjectToken())},
            redis=redis,
            secret_key=SECRET if redis else None,
            http=http,
            **options,
        )
        await stack.enter_async_context(broker)
        transport = httpx.ASGITransport(app=application(server, broker))
        yield await stack.enter_async_context(httpx.AsyncClient(transport=transport, base_url="http://app")), broker


def bearer(subject: str) -> dict[str, str]:
    """Return the headers of a caller with a token."""
    return {"Authorization": f"Bearer {subject}"}


async def test_each_caller_gets_the_token_of_its_user() -> None:
    """One exchange serves all requests with one caller's token."""
    server = ProviderServer()
    async with client(server, None) as (app, _broker):
        subjects = {user: server.subjects.issue(user) for user in ("ada", "bob")}
        for _ in range(3):
            for user, subject in subjects.items():
                answer = await app.get("/", headers=bearer(subject))
                assert user == answer.json()["user"]
    assert 2 == server.calls["oauth2"]


async def test_a_refused_caller_gets_a_401_and_is_remembered() -> None:
    """The other callers are served, and the response says nothing of the server that refused."""
    server = ProviderServer()
    async with client(server, None) as (app, _broker):
        refused, good = server.subjects.issue("ada"), server.subjects.issue("bob")
        server.subjects.refuse(refused)
        for _ in range(3):
            answer = await app.get("/", headers=bearer(refused))
            assert 401 == answer.status_code
            assert 'Bearer error="invalid_token"' == answer.headers["www-authenticate"]
            assert "idp.example" not in answer.text
        assert "bob" == (await app.get("/", headers=bearer(good))).json()["user"]
        none = await app.get("/", headers={"x-api-key": "k"})
        assert (401, "Bearer") == (none.status_code, none.headers["www-authenticate"])
    assert 2 == server.calls["oauth2"]


async def test_refusals_are_one_kind_of_log_line(caplog: pytest.LogCaptureFixture) -> None:
    """They are the callers' fault, so that no line says that the provider is back after the next caller."""
    server = ProviderServer()
    async with client(server, None) as (app, _broker):
        for number in range(5):
            subject = server.subjects.issue(f"user-{number}")
            server.subjects.refuse(subject)
            await app.get("/", headers=bearer(subject))
            await app.get("/", headers=bearer(server.subjects.issue("ada")))
    lines = [record.getMessage() for record in caplog.records if record.name == "tokenmw"]
    (line,) = lines
    assert line.startswith("tokenmw: orders: a caller's token is refused: idp.example:443 refuses client_id=shop")


async def test_a_provider_of_callers_has_no_token_without_a_request() -> None:
    """The text says what to use."""
    async with client(ProviderServer(), None) as (_app, broker):
        with pytest.raises(ConfigurationError, match=r"depend on the request: use request\.state\.tokens"):
            await broker.token("orders")
        with pytest.raises(ConfigurationError, match="depends on the request"):
            await broker.token(exchange(SubjectToken()))
        assert "per request" == broker.status().providers["orders"].state


async def orders_of_tenant(tenant: str, subject: Annotated[str, Depends(SubjectToken())]) -> Provider:
    """Return the credential of one tenant for the caller."""
    return exchange(subject, audience=tenant)


OrdersToken = Annotated[Token, Depends(token_from(orders_of_tenant))]


async def test_a_dependency_can_choose_the_exchange() -> None:
    """With FastAPI: `SubjectToken()` is a dependency that returns the caller's token."""
    server = ProviderServer()

    async with httpx.AsyncClient(transport=server.transport()) as http:
        broker = TokenBroker({}, http=http)
        api = FastAPI()
        api.add_middleware(TokenMiddleware, broker=broker)
        add_problem_handlers(api)

        @api.get("/{tenant}")  # noqa: FAST003  the dependency takes it
        async def orders(token: OrdersToken) -> str | None:
            issued = server.issued.find(token.value)
            return None if issued is None else issued.user

        async with broker, httpx.AsyncClient(transport=httpx.ASGITransport(app=api), base_url="http://app") as app:
            subject = server.subjects.issue("ada")
            assert "ada" == (await app.get("/acme", headers=bearer(subject))).json()
            assert 401 == (await app.get("/acme")).status_code
            refused = server.subjects.issue("bob")
            server.subjects.refuse(refused)
            answer = await app.get("/acme", headers=bearer(refused))
    assert (401, 'Bearer error="invalid_token"') == (answer.status_code, answer.headers["www-authenticate"])


@pytest.mark.parametrize(
    ("fault", "detail"),
    [
        (Fault(status=503, headers={"Retry-After": "60"}), "is busy or broken"),
        (Fault(status=429, headers={"Retry-After": "60"}), "limits the rate of token requests"),
        (Fault(status=401, body={"error": "invalid_client"}), "refuses client_id=shop (invalid_client, HTTP 401)"),
    ],
)
async def test_a_failure_of_the_client_costs_one_request(fault: Fault, detail: str) -> None:
    """1 000 callers get the error, and the status shows why, until one of them is served."""
    server = ProviderServer()
    server.oauth2.script.always = fault
    async with client(server, None) as (_app, broker):
        app = application(server, broker)
        for number in range(1_000):
            answer = await call(app, headers=[(b"authorization", f"Bearer caller-{number}".encode())])
            assert answer.status in {502, 503}
        assert 1 == server.calls["oauth2"]
        status = broker.status().providers["orders"]
        assert ("failing", None) == (status.state, status.expires_in)
        assert detail in status.failure
        assert status.retry_in is not None
        assert 20.0 <= status.retry_in <= 66.0
        server.oauth2.script.always = None
        await broker.invalidate_provider(exchange("of-an-operator"))
        subject = server.subjects.issue("ada")
        assert 200 == (await call(app, headers=[(b"authorization", f"Bearer {subject}".encode())])).status
        assert "per request" == broker.status().providers["orders"].state


async def test_options_that_the_server_never_accepts_are_shown() -> None:
    """After five callers with `invalid_request` and none that was served, it is a 503, and no longer a 401."""
    server = ProviderServer()
    server.oauth2.script.always = Fault(status=400, body={"error": "invalid_request"})
    async with client(server, None) as (app, broker):
        statuses = [(await app.get("/", headers=bearer(f"caller-{one}"))).status_code for one in range(10)]
        assert [401] * 5 + [503] * 5 == statuses
        status = broker.status().providers["orders"]
        assert "failing" == status.state
        assert "5 callers were refused so and none was served, so the options may be wrong" in status.failure
        server.oauth2.script.always = None
        assert "ada" == (await app.get("/", headers=bearer(server.subjects.issue("ada")))).json()["user"]
        assert "per request" == broker.status().providers["orders"].state


def exchange_of_any_caller() -> Provider:
    """Return a provider that takes the token of each request."""
    return exchange(SubjectToken())


async def test_a_dependency_can_leave_the_subject_to_the_provider() -> None:
    """`token_from` with `SubjectToken()` takes the token of the request."""
    server = ProviderServer()
    async with httpx.AsyncClient(transport=server.transport()) as http:
        broker = TokenBroker({}, http=http)
        api = FastAPI()
        api.add_middleware(TokenMiddleware, broker=broker)
        add_problem_handlers(api)

        @api.get("/")
        async def orders(token: Annotated[Token, Depends(token_from(exchange_of_any_caller))]) -> str | None:
            issued = server.issued.find(token.value)
            return None if issued is None else issued.user

        async with broker, httpx.AsyncClient(transport=httpx.ASGITransport(app=api), base_url="http://app") as app:
            assert "ada" == (await app.get("/", headers=bearer(server.subjects.issue("ada")))).json()
            assert 401 == (await app.get("/")).status_code


async def later(_connection: HTTPConnection) -> Provider:
    """Return such a provider after a wait."""
    await asyncio.sleep(0)
    return exchange_of_any_caller()


def now(_connection: HTTPConnection) -> Provider:
    """Return such a provider."""
    return exchange_of_any_caller()


@pytest.mark.parametrize("choose", [now, later])
async def test_a_callable_can_leave_the_subject_to_the_provider(choose: Any) -> None:
    """A callable may return one that takes the token of the request, too."""
    server = ProviderServer()
    async with httpx.AsyncClient(transport=server.transport()) as http:
        broker = TokenBroker({"orders": choose}, http=http)
        transport = httpx.ASGITransport(app=application(server, broker))
        async with broker, httpx.AsyncClient(transport=transport, base_url="http://app") as app:
            for user in ("ada", "bob", "ada"):
                subject = server.subjects.issue(user)
                assert user == (await app.get("/", headers=bearer(subject))).json()["user"]
            assert 401 == (await app.get("/", headers={"x-api-key": "k"})).status_code


async def test_callers_evict_no_other_token() -> None:
    """They have a bound of their own."""
    server = ProviderServer()
    async with client(server, None, limits=Limits(tokens=2, subject_tokens=3)) as (app, broker):
        tenant = ClientCredentials(token_url="https://idp.example/oauth2/token", client_id="t", client_secret="t")
        await broker.token(tenant)
        for number in range(20):
            await app.get("/", headers=bearer(server.subjects.issue(f"user-{number}")))
        assert 4 == len(broker._data.tokens)
        await broker.token(tenant)
    assert 1 == server.calls["oauth2", "t"]


async def test_fetches_for_callers_take_no_place_of_the_others() -> None:
    """Any caller can start them, with any token."""
    server = ProviderServer()
    server.oauth2.script.then(*(Fault(delay=5.0) for _ in range(3)))
    async with client(server, None, limits=Limits(flights=3)) as (app, broker):
        tenant = ClientCredentials(token_url="https://idp.example/oauth2/token", client_id="t", client_secret="t")
        callers = [asyncio.create_task(app.get("/", headers=bearer(f"junk-{number}"))) for number in range(3)]
        await until(lambda: server.calls["oauth2"] == len(callers), within=5)
        assert (await broker.token(tenant)).value
        for caller in callers:
            caller.cancel()
        await asyncio.gather(*callers, return_exceptions=True)


async def test_one_exchange_for_each_subject_and_life_under_load(redis_server: RedisServer) -> None:
    """1 000 callers of two instances with 200 tokens: some refused, some expiring, and more than the caches hold."""
    server, refused, short = ProviderServer(), set[str](), set[str]()
    users: dict[str, str] = {}
    for number in range(200):
        life = 3.0 if number % 10 == 1 else 600.0
        subject = server.subjects.issue(f"user-{number}", lifetime=life)
        users[subject] = f"user-{number}"
        if number % 10 == 0:
            server.subjects.refuse(subject)
            refused.add(subject)
        elif number % 10 == 1:
            short.add(subject)
    asked = Counter[str]()
    expired = False
    async with AsyncExitStack() as stack:
        options: dict[str, Any] = {"limits": Limits(subject_tokens=100, command_seconds=5.0), "namespace": "subjects"}
        both = [await stack.enter_async_context(client(server, redis_server.url, **options)) for _ in range(2)]
        apps = [application(server, broker) for _client, broker in both]

        async def request(number: int, subject: str) -> None:
            authorization = f"Bearer {subject}".encode()
            answer = await call(apps[number % 2], headers=[(b"authorization", authorization)])
            if subject in refused or (expired and subject in short):
                assert 401 == answer.status
            elif answer.status in {401, 503}:
                assert subject in short  # it has expired in the middle of the round, before its exchange or during it
            else:
                assert users[subject] == answer.json["user"]
                asked[subject] += 1

        subjects, began = list(users), time.monotonic()
        await asyncio.gather(*(request(number, subjects[number // 5]) for number in range(1_000)))
        took = time.monotonic() - began
        assert all(len(broker._data.tokens) <= 100 for _client, broker in both)
        await asyncio.sleep(3.0)
        expired = True
        await asyncio.gather(*(request(number, subjects[number // 5]) for number in range(1_000)))
    assert len(asked) >= 160
    # Those that expire in less than the second after an exchange are not exchanged again.
    # On a slow machine they expire in the middle of the round, and some are asked for once more.
    assert 180 <= server.calls["oauth2"] <= 200 + (len(short) if took > 1.5 else 0)
