"""README.md is true: its programs and commands do what stands beside them."""

from __future__ import annotations

import asyncio
import inspect
import json
import re
import shlex
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import httpx
import httpx2
import prometheus_client
import pytest
from starlette.responses import PlainTextResponse
from starlette.testclient import TestClient

import tokenmw
from tests import servers
from tests.readme_blocks import (
    ENVIRONMENT,
    TEXT,
    World,
    block,
    blocks,
    curl,
    masked,
    program,
    programs,
    wait_for,
    world,
)
from tokenmw.testing import make_token

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from starlette.types import Receive, Scope, Send

    from tests.servers import RedisServer


@pytest.fixture(scope="module")
def _hosts() -> Iterator[World]:
    with world() as opened:
        yield opened


@pytest.fixture
def readme(_hosts: World, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> World:
    """The world of the README's programs, with an empty Redis and counts from zero."""
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(prometheus_client, "REGISTRY", prometheus_client.CollectorRegistry())
    _hosts.server.calls.clear()
    return World(_hosts.server, {**_hosts.replacements, "redis://localhost:6379/0": redis_server.url})


@pytest.mark.parametrize("section", programs())
def test_every_program_runs(readme: World, section: str) -> None:
    """Each python block of the README runs as it stands, and so do the tests in it."""
    with readme.run(section):
        pass


def test_the_faults_of_the_code_before_are_there(readme: World) -> None:
    """The code that everybody writes fetches once for each request, and serves a changed secret the old token."""
    with readme.run("Before") as before:
        fetch = before["get_cached_token"]
        secret = ENVIRONMENT["CRM_SECRET"]

        async def ask() -> tuple[str, str]:
            many = await asyncio.gather(*(fetch("crm", secret) for _ in range(10)))
            other = await fetch("crm", "another secret")
            await before["cache"].aclose()
            return many[-1], other

        cached, other = before.call(ask)
        assert readme.server.calls["oauth2"] == 10
        assert readme.server.issued.find(other.decode())
        assert cached


def test_the_code_after_has_them_not(readme: World) -> None:
    """Ten requests at once are one fetch."""
    with readme.run("After") as after:

        async def ask() -> set[str]:
            async with after["broker"] as broker:
                return {token.value for token in await asyncio.gather(*(broker.token("crm") for _ in range(10)))}

        assert len(after.call(ask)) == 1
        assert readme.server.calls["oauth2"] == 1


def test_the_program_in_fastapi(readme: World) -> None:
    """Both routes have their token, one key has one id, and `/docs` shows the locks."""
    with readme.run("FastAPI") as program, TestClient(program["api"]) as client:
        first = client.get("/", headers={"authorization": "Bearer alice"}).json()
        second = client.get("/", headers={"x-api-key": "alice"}).json()
        assert first == second
        program["api"].dependency_overrides[tokenmw.provider_token("crm")] = lambda: make_token(token_type="Test")
        assert client.get("/").json()["token_type"] == "Test"
        assert {"http", "apiKey"} == {
            scheme["type"] for scheme in client.get("/openapi.json").json()["components"]["securitySchemes"].values()
        }


def test_tenants(readme: World) -> None:
    """A tenant gets a token of its own, and one that does not exist is a 404."""
    with readme.run("Credentials per tenant") as program, TestClient(program["api"]) as client:
        assert client.get("/acme").json() == {"tenant": "acme", "token_type": "Bearer"}
        assert client.get("/nobody").status_code == 404
        assert readme.server.calls["oauth2", "acme"] == 1


def test_the_auth_object(readme: World) -> None:
    """The API behind the auth object knows whose token it got."""
    with readme.run("Outgoing requests") as program, TestClient(program["outgoing"]) as client:
        assert client.get("/contacts").json()["client"] == "crm"


def test_callers_are_checked(readme: World) -> None:
    """The example of `authenticate` takes a known key and refuses others."""
    with readme.run("Sessions") as program:
        app = tokenmw.TokenMiddleware(_caller, broker=program["broker"])
        with TestClient(app) as client:
            assert client.get("/", headers={"x-api-key": "alice"}).text == "Alice"
            assert client.get("/", headers={"x-api-key": "mallory"}).status_code == 401
            assert client.get("/").status_code == 401


async def _caller(scope: Scope, receive: Receive, send: Send) -> None:
    await PlainTextResponse(scope["state"]["caller"]["name"])(scope, receive, send)


def test_errors_are_seen_by_browsers(readme: World) -> None:
    """With CORS outside, a refusal has the CORS headers."""
    with readme.run("Errors") as program, TestClient(program["browsers"]) as client:
        answer = client.get("/", headers={"origin": "https://app.example"})
        assert answer.status_code == 401
        assert answer.headers["access-control-allow-origin"] == "https://app.example"
        assert answer.headers["content-type"] == "application/problem+json"


def test_the_status(readme: World) -> None:
    """The health route works."""
    with readme.run("Status, log and metrics") as program, TestClient(program["healthy"]) as client:
        assert client.get("/health").json() == {"redis": "up", "crm": "cold"}


def test_the_metrics(readme: World) -> None:
    """A fetch is counted, and the text names every metric."""
    with readme.run("Status, log and metrics") as program:

        async def ask() -> None:
            async with program["measured"] as broker:
                await broker.token("crm")

        program.call(ask)
        exposed = prometheus_client.generate_latest(prometheus_client.REGISTRY).decode()
        assert 'tokenmw_token_fetches_total{outcome="granted",provider="crm"} 1.0' in exposed
        names = [name for name in re.findall(r"^# TYPE (\w+)", exposed, re.MULTILINE) if not name.endswith("_created")]
        assert sorted(names) == sorted(re.findall(r"`(tokenmw_\w+)`", TEXT))


@pytest.mark.parametrize("library", [httpx, httpx2])
def test_the_provider_of_the_readme(readme: World, library: Any) -> None:
    """It takes under thirty lines, gets a token, puts it into its header, and refuses a wrong secret."""
    with readme.run("Writing a provider") as program:
        lines = inspect.cleandoc(next(b.text for b in blocks() if "class Acme" in b.text)).split("class Acme")[1]
        assert len(lines.split("\n\n\n")[0].splitlines()) < 30

        async def ask() -> Any:
            async with program["broker"] as broker, library.AsyncClient(auth=broker.auth("acme")) as http:
                answer = await http.get(readme.text("https://acme.example/echo"))
                with pytest.raises(tokenmw.CredentialRejected):
                    await broker.token(program["Acme"](key="k", secret="wrong"))
                return answer.json()

        assert program.call(ask) == {"token": "acme-token"}


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


def test_the_demo_prints_what_the_readme_shows() -> None:
    """The excerpt has the lines of the demo; ids and tokens differ from run to run."""
    command = [sys.executable, "-m", "tokenmw", "demo", "--once"]
    run = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (run.returncode, run.stderr) == (0, "")
    lines = [masked(line) for line in run.stdout.splitlines()]
    assert [line for line in block("text", "API key").splitlines() if masked(line) not in lines] == []


def test_the_application_under_uvicorn(readme: World, tmp_path: Path) -> None:
    """The commands of "Use" start two workers, and curl gets the answers that stand below each."""
    port = servers._free_port()
    readme.replacements["8000"] = str(port)
    (tmp_path / "app.py").write_text("\n".join(readme.text(one.text) for one in program("After")))
    start, *asked = re.split(r"^\$ ", readme.text(block("console", "$ uvicorn")), flags=re.MULTILINE)[1:]
    server = subprocess.Popen([sys.executable, "-m", *shlex.split(start)], cwd=tmp_path)
    try:
        wait_for(port, server)
        ids: dict[str, str] = {}
        for exchange in asked:
            command, expected = exchange.splitlines()
            wanted = json.loads(expected)
            for _ in range(8):  # some of them reach the other worker
                got = json.loads(curl(shlex.split(command)))
                assert wanted | {"session": None} == got | {"session": None}
                assert got["session"] == ids.setdefault(wanted["session"], got["session"])
        assert len(set(ids.values())) == 2
        assert readme.server.calls["oauth2"] == 1
    finally:
        server.terminate()
        server.wait(20)
