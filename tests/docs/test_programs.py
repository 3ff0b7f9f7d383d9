"""The programs of the README and the guides do what the text beside them says."""

from __future__ import annotations

import asyncio
import inspect
import logging
import re
import time
from typing import TYPE_CHECKING, Any

import httpx
import httpx2
import prometheus_client
import pytest
from fastapi import FastAPI, Request
from starlette.responses import PlainTextResponse
from starlette.testclient import TestClient

import tokenmw
from tests.docs.pages import PAGES, README, page
from tests.docs.world import ENVIRONMENT, World
from tokenmw.observe.metrics import METRICS
from tokenmw.providers import ClientCredentials
from tokenmw.testing import make_token

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

    from tests.servers import RedisServer

# Each section that has python blocks to run, as (document, heading).
PROGRAMS = list(
    dict.fromkeys(
        (name, block.section)
        for name, of in PAGES.items()
        for block in of.blocks
        if block.language == "python" and not block.not_run
    )
)


@pytest.mark.parametrize(("name", "section"), PROGRAMS, ids=[f"{name}: {section}" for name, section in PROGRAMS])
def test_every_program_runs(hosts: World, name: str, section: str) -> None:
    """Each python block of each document runs as it stands, and so do the tests in it."""
    with hosts.run(page(name), section):
        pass


def test_every_page_with_programs_is_among_them() -> None:
    """The README and most guides have programs, so a reader of blocks that finds none is noticed."""
    assert len({name for name, _ in PROGRAMS}) > 9
    assert len(PROGRAMS) > 25


def test_the_code_before_has_the_faults_that_are_listed(hosts: World) -> None:
    """The usual code fetches once for each request, and serves the old token after a change of the secret."""
    with hosts.run(README, "Before") as before:
        fetch = before["get_cached_token"]
        secret = ENVIRONMENT["CRM_SECRET"]

        async def ask() -> tuple[str, str]:
            many = await asyncio.gather(*(fetch("crm", secret) for _ in range(10)))
            other = await fetch("crm", "another secret")
            await before["cache"].aclose()
            return many[-1], other

        cached, other = before.call(ask)
        assert hosts.server.calls["oauth2"] == 10
        assert hosts.server.issued.find(other.decode())
        assert cached


def test_the_code_after_fetches_once(hosts: World) -> None:
    """Ten requests at the same time are one fetch."""
    with hosts.run(README, "After") as after:

        async def ask() -> set[str]:
            async with after["broker"] as broker:
                return {token.value for token in await asyncio.gather(*(broker.token("crm") for _ in range(10)))}

        assert len(after.call(ask)) == 1
        assert hosts.server.calls["oauth2"] == 1


def test_the_program_in_fastapi(hosts: World) -> None:
    """One key has one id in both headers, and `/docs` shows the locks."""
    with hosts.run(README, "FastAPI") as running, TestClient(running["api"]) as client:
        first = client.get("/", headers={"authorization": "Bearer alice"}).json()
        second = client.get("/", headers={"x-api-key": "alice"}).json()
        assert first == second
        running["api"].dependency_overrides[tokenmw.provider_token("crm")] = lambda: make_token(token_type="Test")
        assert client.get("/").json()["token_type"] == "Test"
        assert {"http", "apiKey"} == {
            scheme["type"] for scheme in client.get("/openapi.json").json()["components"]["securitySchemes"].values()
        }


def test_tenants_of_the_readme(hosts: World) -> None:
    """The callable of the README chooses the credentials by the caller, and an unknown caller is refused."""
    with hosts.run(README, "Credentials per tenant") as running:
        app = tokenmw.TokenMiddleware(_token_type, broker=running["tenants"], inject=["crm"])
        with TestClient(app) as client:
            assert client.get("/", headers={"x-api-key": "the key of acme"}).text == "Bearer"
            assert client.get("/", headers={"x-api-key": "another key"}).status_code == 401
        assert hosts.server.calls["oauth2", "acme"] == 1


def test_tenants(hosts: World) -> None:
    """A tenant gets a token of its own, and one that does not exist is a 404."""
    with hosts.run(page("tenants.md"), "FastAPI") as running, TestClient(running["api"]) as client:
        assert client.get("/acme").json() == {"tenant": "acme", "token_type": "Bearer"}
        assert client.get("/nobody").status_code == 404
        assert hosts.server.calls["oauth2", "acme"] == 1


def test_the_tenant_of_a_failure_is_logged(hosts: World, caplog: pytest.LogCaptureFixture) -> None:
    """The handler of the guide logs each tenant; the line of tokenmw for each has a name of the credential."""
    with hosts.run(page("tenants.md"), "Which tenant's credential failed") as running:
        running["SECRETS"].update(initech="initech's secret")
        with TestClient(running["app"]) as client:
            statuses = {name: client.get("/", headers={"x-tenant": name}).status_code for name in running["SECRETS"]}
            assert statuses == {"acme": 200, "globex": 502, "initech": 502}
            assert running["broker"].status().providers["crm"].state == "per request"
        lines = [(record.name, record.getMessage()) for record in caplog.records]
        failed = [line for name, line in lines if name == "tokenmw" and "rejected" in line]
        logged = [line for name, line in lines if name == "myapp"]
        matches = [re.match(r"tokenmw: crm\[(.{8})\]: credential rejected: ", line) for line in failed]
        assert 2 == len({match[1] for match in matches if match})
        assert [line.partition(": ")[0] for line in logged] == ["tenant 'globex'", "tenant 'initech'"]

        async def ask() -> list[str]:
            found: list[str] = []
            async with running["named"] as broker:
                for provider in ("crm-globex", running["crm_of"]("initech")):
                    with pytest.raises(tokenmw.CredentialRejected) as caught:
                        await broker.token(provider)
                    found.append(caught.value.provider)
                assert broker.status().providers["crm-globex"].state == "failing"
            return found

        assert running.call(ask) == ["crm-globex", "oauth2"]


def test_a_token_outside_of_a_request(hosts: World) -> None:
    """The script of the guide gets a tenant's token by the provider itself."""
    with hosts.run(page("tenants.md"), "Outside of a request") as running:
        assert running.call(running["sync_contacts"]) > time.time()
        assert hosts.server.calls["oauth2", "acme"] == 1


def test_an_assertion_is_accepted(hosts: World) -> None:
    """The assertion that the guide signs is one that a token server verifies with the public key."""
    with hosts.run(page("tenants.md"), "A private key instead of a secret") as running:
        key = running["private_key"].public_key()
        claims = running["jwt"].decode(
            running["assertion"](), key, algorithms=["RS256"], audience=hosts.text("https://idp.example/oauth2/token")
        )
        assert (claims["iss"], claims["sub"]) == ("crm", "crm")


def test_the_auth_object(hosts: World) -> None:
    """The API behind the auth object sees the token of the right client."""
    with hosts.run(page("outgoing.md"), "One client for an API") as running, TestClient(running["outgoing"]) as client:
        assert client.get("/contacts").json()["client"] == "crm"
    with hosts.run(README, "Outgoing requests") as running:

        async def ask() -> Any:
            async with running["broker"]:
                return await running["fetch_contacts"]()

        assert running.call(ask)["client"] == "crm"


@pytest.mark.parametrize(
    ("section", "handler"),
    [("Credentials of the request", "create_contact"), ("Without an auth object", "delete_contact")],
)
def test_handlers_that_send(hosts: World, section: str, handler: str) -> None:
    """The handlers of the guide reach the API with a valid token."""
    with hosts.run(page("outgoing.md"), section) as running:
        route = running["Route"]("/", running[handler], methods=["POST"])
        app = tokenmw.TokenMiddleware(running["Starlette"](routes=[route]), broker=running["broker"])
        with TestClient(app) as client:
            assert client.post("/", json={"name": "Ada"}).status_code == 200


def test_callers_are_checked(hosts: World) -> None:
    """The example of `authenticate` accepts a known key and refuses others."""
    with hosts.run(page("sessions.md"), "Authenticating callers") as running:
        app = tokenmw.TokenMiddleware(_caller, broker=running["broker"])
        with TestClient(app) as client:
            assert client.get("/", headers={"x-api-key": "alice"}).text == "Alice"
            assert client.get("/", headers={"x-api-key": "mallory"}).status_code == 401
            assert client.get("/").status_code == 401


def test_exempt_requests_are_not_checked(hosts: World) -> None:
    """The example of `exempt` serves its health check without a key, and no other path."""
    with hosts.run(page("sessions.md"), "Requests without a check") as running, TestClient(running["app"]) as client:
        assert client.get("/health").text == "up"
        assert client.get("/health/").status_code == 401
        assert client.get("/other").status_code == 401


async def _caller(scope: Scope, receive: Receive, send: Send) -> None:
    await PlainTextResponse(scope["state"]["caller"]["name"])(scope, receive, send)


async def _token_type(scope: Scope, receive: Receive, send: Send) -> None:
    await PlainTextResponse(scope["state"]["tokens"]["crm"].token_type)(scope, receive, send)


def test_errors_are_seen_by_browsers(hosts: World) -> None:
    """With CORS outside, a refusal has the CORS headers."""
    with hosts.run(page("errors.md"), "CORS") as running, TestClient(running["browsers"]) as client:
        answer = client.get("/", headers={"origin": "https://app.example"})
        assert answer.status_code == 401
        assert answer.headers["access-control-allow-origin"] == "https://app.example"
        assert answer.headers["content-type"] == "application/problem+json"


def test_other_answers_to_errors(hosts: World) -> None:
    """`on_error` of the guide answers a refusal as plain text, with its headers."""
    with hosts.run(page("errors.md"), "Responses") as running, TestClient(running["plain"]) as client:
        answer = client.get("/")
        assert (answer.status_code, answer.headers["content-type"]) == (401, "text/plain; charset=utf-8")
        assert "www-authenticate" in answer.headers


def test_other_answers_to_errors_of_a_route(hosts: World) -> None:
    """`on_error` does not see the error of a token; the exception handler of the guide does."""
    with hosts.run(page("errors.md"), "Responses") as running:
        url = hosts.text("https://idp.example/oauth2/token")
        wrong = ClientCredentials(token_url=url, client_id="crm", client_secret="wrong")

        async def contacts(request: Request) -> str:
            return str(request.state.tokens["crm"].value)

        answers: list[tuple[int, str]] = []
        without: dict[Any, Any] = {}
        for handlers in (without, running["plain"].exception_handlers):
            api = FastAPI(exception_handlers=handlers)
            api.add_middleware(
                tokenmw.TokenMiddleware, broker=running["broker"], inject=["crm"], on_error=running["as_text"]
            )
            api.get("/")(contacts)
            with running["broker"].override({"crm": wrong}), TestClient(api) as client:
                answer = client.get("/")
                answers.append((answer.status_code, answer.headers["content-type"].partition(";")[0]))
        assert answers == [(502, "application/json"), (502, "text/plain")]


def test_problem_details_of_a_route(hosts: World) -> None:
    """The application of the guide answers the error of a token in the format of the middleware."""
    with hosts.run(page("errors.md"), "Responses") as running:
        url = hosts.text("https://idp.example/oauth2/token")
        wrong = ClientCredentials(token_url=url, client_id="crm", client_secret="wrong")
        with running["broker"].override({"crm": wrong}), TestClient(running["problems"]) as client:
            for headers, status in (({}, 401), ({"x-api-key": "key-1"}, 502)):
                answer = client.get("/", headers=headers)
                assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")


def test_the_status(hosts: World) -> None:
    """The health route answers the words that the guide explains."""
    with hosts.run(page("operations.md"), "Status") as running, TestClient(running["healthy"]) as client:
        assert client.get("/health").json() == {"redis": "up", "crm": "cold"}


def test_the_metrics(hosts: World) -> None:
    """A fetch is counted, and the table names every metric."""
    guide = page("observability.md")
    with hosts.run(guide, "Metrics") as running:

        async def ask() -> None:
            async with running["measured"] as broker:
                await broker.token("crm")

        running.call(ask)
        exposed = prometheus_client.generate_latest(prometheus_client.REGISTRY).decode()
        assert 'tokenmw_token_fetches_total{outcome="granted",provider="crm"} 1.0' in exposed
        names = {name for name in re.findall(r"^# TYPE (\w+)", exposed, re.MULTILINE) if not name.endswith("_created")}
        table = {row[0].strip("`"): row[1:3] for row in guide.rows("Metrics")}
        labels = {metric.name: ", ".join(f"`{label}`" for label in metric.labels) or "none" for metric in METRICS}
        assert {metric.name: [metric.kind, labels[metric.name]] for metric in METRICS} == table
        assert names <= table.keys()


def test_the_events_in_the_log(hosts: World, caplog: pytest.LogCaptureFixture) -> None:
    """A fetch is a record with the event's name and its fields."""
    caplog.set_level(logging.INFO)
    with hosts.run(page("observability.md"), "Events") as running:

        async def ask() -> None:
            async with running["logged"] as broker:
                await broker.token("crm")

        running.call(ask)
    (record,) = [record for record in caplog.records if record.getMessage() == "tokenmw.token_fetched"]
    assert ("tokenmw.events", "crm", "granted") == (
        record.name,
        record.__dict__["tokenmw.provider"],
        record.__dict__["tokenmw.outcome"],
    )


@pytest.mark.parametrize("library", [httpx, httpx2])
def test_the_provider_of_the_guide(hosts: World, library: Any) -> None:
    """It takes under thirty lines, gets a token, puts it into its header, and refuses a wrong secret."""
    guide = page("writing_a_provider.md")
    with hosts.run(guide, "An example") as running:
        lines = inspect.cleandoc(next(b.text for b in guide.blocks if "class Acme" in b.text)).split("class Acme")[1]
        assert len(lines.split("\n\n\n")[0].splitlines()) < 30

        async def ask() -> Any:
            async with running["broker"] as broker, library.AsyncClient(auth=broker.auth("acme")) as http:
                answer = await http.get(hosts.text("https://acme.example/echo"))
                with pytest.raises(tokenmw.CredentialRejected):
                    await broker.token(running["Acme"](key="k", secret="wrong"))
                return answer.json()

        assert running.call(ask) == {"token": "acme-token"}


def test_plain_asgi(hosts: World) -> None:
    """A plain ASGI application and one with the lifespan alone answer with a session id and a token."""
    guide = page("other_frameworks.md")
    with hosts.run(guide, "Plain ASGI and every other framework") as running, TestClient(running["wrapped"]) as client:
        assert re.fullmatch(r"[0-9a-f-]{36} Bearer", client.get("/", headers={"x-api-key": "alice"}).text)
    with hosts.run(guide, "With a connection and no middleware") as running, TestClient(running["bare"]) as client:
        assert client.get("/", headers={"x-api-key": "alice"}).json()["token_type"] == "Bearer"


def test_a_plain_function_and_a_mounted_application(hosts: World) -> None:
    """Both resolve a token; the mounted application shares the broker of the outer lifespan."""
    guide = page("other_frameworks.md")
    with hosts.run(guide, "FastAPI") as running, TestClient(running["api"]) as client:
        assert client.get("/report").json() == {"token_type": "Bearer"}
    with hosts.run(guide, "Mounted applications") as running, TestClient(running["outer"]) as client:
        assert client.get("/crm/").json()["token_type"] == "Bearer"


def test_a_script(hosts: World) -> None:
    """A script without a web server has tokens and session ids."""
    with hosts.run(page("other_frameworks.md"), "Scripts and queue workers") as running:
        assert running.call(running["nightly"])[0] == "Bearer"


def test_secrets_rotate_in_three_steps(redis_server: RedisServer) -> None:
    """At each step the instances that are a step behind still agree with the new ones on a session."""
    name, old, new = "the secret for names", "the secret until today", "the secret from today"
    steps = [("alice", [old]), ("alice", [old, new]), ("bob", [new, old]), ("bob", [new])]

    async def ids() -> list[str]:
        found: list[str] = []
        for key, ring in steps:
            async with tokenmw.TokenBroker({}, redis=redis_server.url, secret_key=ring, name_key=name) as broker:
                found.append(await broker.session_id(key))
        return found

    alice_1, alice_2, bob_1, bob_2 = asyncio.run(ids())
    assert alice_1 == alice_2
    assert bob_1 == bob_2
