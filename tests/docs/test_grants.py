"""The programs of the guide "Which grant do I need?" get tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import httpx
import jwt
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

import tokenmw
from tests.docs.pages import page
from tests.docs.world import World
from tests.providers.private_keys import make_key
from tokenmw import providers
from tokenmw.providers import secret_sources

if TYPE_CHECKING:
    from pathlib import Path

GUIDE = page("grants.md")


def test_the_endpoint_may_be_named_in_both_ways(hosts: World) -> None:
    """Both find the same endpoint, and get tokens."""
    with hosts.run(GUIDE, "Where is the token endpoint?") as running:

        async def ask() -> list[str]:
            async with httpx.AsyncClient(trust_env=False) as http, tokenmw.TokenBroker({}, http=http) as broker:
                return [(await broker.token(running[name])).token_type for name in ("by_url", "by_issuer")]

        assert ["Bearer", "Bearer"] == running.call(ask)


def test_a_secret_is_read_where_it_is_kept(hosts: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """In a vault, and in a file."""
    monkeypatch.setenv("VAULT_ADDR", "https://vault.example")
    monkeypatch.setenv("VAULT_TOKEN", "hvs.token")
    path = tmp_path / "crm"
    path.write_text("the secret of the client\n", encoding="utf-8")

    def mounted(_path: str) -> Path:
        return path

    monkeypatch.setattr(secret_sources, "Path", mounted)
    secret = {"data": {"data": {"client_secret": "the secret of the client"}}}

    async def vault(self: httpx.AsyncClient, url: str, **_options: object) -> httpx.Response:
        assert ("/v1/kv/data/crm", "hvs.token") == (url, self.headers["x-vault-token"])
        return httpx.Response(200, json=secret, request=httpx.Request("GET", f"{self.base_url}{url}"))

    monkeypatch.setattr(httpx.AsyncClient, "get", vault)
    with hosts.run(GUIDE, "Where is the secret kept?") as running:

        async def ask() -> list[str]:
            async with httpx.AsyncClient(trust_env=False) as http, tokenmw.TokenBroker({}, http=http) as broker:
                return [(await broker.token(running[name])).token_type for name in ("of_file", "of_vault")]

        assert ["Bearer", "Bearer"] == running.call(ask)


def test_a_key_gets_a_token(hosts: World) -> None:
    """The key of the environment signs, and the server grants the scope."""
    with hosts.run(GUIDE, "How does the client prove its identity?") as running:

        async def ask() -> object:
            async with running["broker"] as broker:
                return (await broker.token("crm")).extra["scope"]

        assert "crm.read" == running.call(ask)


def test_two_servers_need_more(hosts: World) -> None:
    """Both are made with the options of their documentation."""
    with hosts.run(GUIDE, "What is the token for?") as running:
        assert running["zoom"] != running["box"]


def test_a_service_account_signs_its_claims(hosts: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The program's claims are signed with the key of the environment."""
    public = make_key("P-256").public_key()
    signed: list[dict[str, Any]] = []

    def user(assertion: str) -> str:
        signed.append(jwt.decode(assertion, public, algorithms=["ES256"], options={"verify_aud": False}))
        return str(signed[-1]["sub"])

    monkeypatch.setattr(hosts.server.subjects, "user", user)
    with hosts.run(GUIDE, "A service account") as running:

        async def ask() -> str:
            async with running["broker"] as broker:
                return str((await broker.token("calendar")).token_type)

        assert "Bearer" == running.call(ask)
    assert hosts.text("https://idp.example/oauth2/token") == signed[0]["aud"]
    assert ("robot@project.example", "calendar.readonly") == (signed[0]["iss"], signed[0]["scope"])


def test_azure_gives_an_identity(hosts: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The program finds the endpoint of App Service by its variables."""
    server = hosts.server.managed_identity
    monkeypatch.setattr(server, "header", "platform-secret")
    monkeypatch.setenv("IDENTITY_ENDPOINT", f"{hosts.text('https://idp.example')}{server.path}")
    monkeypatch.setenv("IDENTITY_HEADER", "platform-secret")
    monkeypatch.delenv("IDENTITY_SERVER_THUMBPRINT", raising=False)
    with hosts.run(GUIDE, "On Azure, without a secret") as running:

        async def ask() -> str:
            async with running["broker"] as broker:
                return str((await broker.token("graph")).token_type)

        assert "Bearer" == running.call(ask)


def test_the_callers_token_is_exchanged(hosts: World) -> None:
    """The token of the request's header becomes one for the next API."""
    with hosts.run(GUIDE, "On behalf of the caller") as running:

        async def orders(request: Request) -> PlainTextResponse:
            token = await request.state.tokens.resolve("orders")
            return PlainTextResponse(token.token_type)

        app = tokenmw.TokenMiddleware(Starlette(routes=[Route("/", orders)]), broker=running["broker"])
        with TestClient(app) as client:
            for subject, answer in ((hosts.server.subjects.issue("ada"), (200, "Bearer")), ("unknown", (401, None))):
                response = client.get("/", headers={"authorization": f"Bearer {subject}"})
                assert answer[0] == response.status_code
                assert answer[1] in (None, response.text)


def test_the_table_has_every_grant() -> None:
    """Each provider is in the first table, or on the page that it links to."""
    named = "\n".join(cell for row in GUIDE.rows("Whose rights are needed?") for cell in row)
    linked = page("bot_platforms.md").text
    every = [getattr(providers, name) for name in providers.__all__]
    missing = [
        one.__name__
        for one in every
        if isinstance(one, type)
        and issubclass(one, tokenmw.Provider)
        and one is not tokenmw.Provider
        and one.__name__ not in named + linked
    ]
    assert [] == missing
