"""The example of a backend for a front end: users of `oidc-provider`, two workers, SQLite and PostgreSQL."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from tests.interop.running import imported, node, running
from tests.postgres import PostgresServer

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

imported("authlib")
imported("itsdangerous")
pytestmark = pytest.mark.sdk

ROOT = Path(__file__).parents[2]
SECRET = "s3cret-of-a-client-91"
START_SECONDS = 30.0


class Example:
    """The running example.

    Attributes:
        url: Where browsers reach it.
        rows: Returns everything that its database has, as text.
    """

    def __init__(self, url: str, rows: Callable[[], list[str]]) -> None:
        self.url = url
        self.rows = rows

    def browser(self) -> httpx.Client:
        """Return a new browser."""
        return httpx.Client(trust_env=False, follow_redirects=True, headers={"accept": "text/html"}, timeout=20.0)

    def go(self, browser: httpx.Client, path: str, *, login: str = "ada") -> httpx.Response:
        """Open a page, sign in and consent wherever a server asks, and return where that ends."""
        answer = browser.get(f"{self.url}{path}")
        for _ in range(10):
            action = re.search(r'<form[^>]* action="([^"]+)"', answer.text)
            if action is None or str(answer.url).startswith(self.url):
                return answer
            prompt = re.search(r'name="prompt" value="(\w+)"', answer.text)
            assert prompt is not None
            answer = browser.post(action[1], data={"prompt": prompt[1], "login": login, "password": "x"})
        raise AssertionError("the forms have no end")


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.campaign)])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Generator[tuple[str, Callable[[], list[str]]]]:
    """The URL of an empty database, and a function that returns its rows."""
    if request.param == "sqlite":
        path = tmp_path / "connections.db"
        yield f"sqlite+aiosqlite:///{path}", lambda: _sqlite_rows(path)
        return
    with PostgresServer() as server:
        yield server.url, lambda: server.command("SELECT row_to_json(t) FROM tokenmw_connections t").splitlines()


def _sqlite_rows(path: Path) -> list[str]:
    with contextlib.closing(sqlite3.connect(path)) as database:
        names = [name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        return [repr(row) for name in names for row in database.execute(f'SELECT * FROM "{name}"')]


@pytest.fixture
def example(database: tuple[str, Callable[[], list[str]]]) -> Generator[Example]:
    """The example with two workers, and a server that signs users in and has their accounts."""
    port = _free_port()
    url = f"http://localhost:{port}"
    database_url, rows = database
    clients: list[dict[str, Any]] = [
        {
            "client_id": name,
            "client_secret": SECRET,
            "redirect_uris": [f"{url}{path}"],
            "application_type": "native",
        }
        for name, path in (("web", "/login/callback"), ("crm", "/connect/crm/callback"))
    ]
    with running(node("oidc_users.mjs"), clients=clients) as issuer:
        settings = {
            "LOGIN_ISSUER": issuer,
            "LOGIN_CLIENT_ID": "web",
            "LOGIN_CLIENT_SECRET": SECRET,
            "CRM_ISSUER": issuer,
            "CRM_CLIENT_ID": "crm",
            "CRM_CLIENT_SECRET": SECRET,
            "CRM_API": f"{issuer}/me",
            "SECRET_KEY": "k7Qm-secret-of-the-sealer-91",
            "DATABASE": database_url,
            "PUBLIC_URL": url,
            "NO_PROXY": "*",
        }
        with _program(settings, port=port):
            yield Example(url, rows)


@contextlib.contextmanager
def _program(settings: dict[str, str], *, port: int) -> Generator[None]:
    command = [sys.executable, "-m", "uvicorn", "examples.connections.app:app", "--workers", "2", "--port", str(port)]
    with subprocess.Popen(command, cwd=ROOT, env={**os.environ, **settings}, start_new_session=True) as process:
        try:
            _wait_for(f"http://localhost:{port}/connect/", process)
            yield
        finally:
            process.terminate()
            try:
                process.wait(timeout=20.0)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)


def _wait_for(url: str, process: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + START_SECONDS
    while time.monotonic() < until and process.poll() is None:
        with contextlib.suppress(httpx.TransportError):
            assert 403 == httpx.get(url, trust_env=False, timeout=5.0).status_code
            return
        time.sleep(0.1)
    pytest.fail("the example has not started")


def test_a_user_signs_in_and_connects_an_account(example: Example) -> None:
    """Both workers have the user's token, another user has none, and after disconnecting nobody has."""
    with example.browser() as ada, example.browser() as bob:
        page = example.go(ada, "/", login="ada")
        assert 'id="state">none' in page.text
        refused = ada.get(f"{example.url}/api/me")
        assert (403, "/connect/crm") == (refused.status_code, refused.json()["connect_url"])
        page = example.go(ada, "/connect/crm", login="ada")
        assert 'id="state">ok' in page.text
        session = next(str(cookie.value) for cookie in ada.cookies.jar if cookie.name == "session")
        workers: set[int] = set()
        for _ in range(60):
            # A new connection each time, because one stays with its worker.
            answer = httpx.get(f"{example.url}/api/me", cookies={"session": session}, trust_env=False, timeout=20.0)
            assert {"sub": "ada"} == answer.json()["crm"]
            workers.add(answer.json()["worker"])
        assert 2 == len(workers)
        example.go(bob, "/", login="bob")
        assert 403 == bob.get(f"{example.url}/api/me").status_code
        listed = ada.get(f"{example.url}/connect/").json()
        assert "ok" == listed["crm"]["state"]
        assert 403 == ada.post(f"{example.url}/connect/crm/disconnect").status_code
        page = ada.post(f"{example.url}/connect/crm/disconnect", headers={"origin": example.url})
        assert 'id="state">none' in page.text
        assert 403 == ada.get(f"{example.url}/api/me").status_code


def test_the_database_has_no_readable_token(example: Example) -> None:
    """The pair is sealed, and the browser has a session and no token."""
    with example.browser() as ada:
        example.go(ada, "/", login="ada")
        example.go(ada, "/connect/crm", login="ada")
        assert {"session"} == {cookie.name for cookie in ada.cookies.jar if cookie.name and cookie.name[0] != "_"}
    (row,) = example.rows()
    assert "crm" in row
    assert "refresh_token" not in row
