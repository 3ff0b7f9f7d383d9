"""Tokens of users that are bound to a key (RFC 9449) or to a certificate (RFC 8705)."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount, Route

from tests.connections.connecting import CALLBACK, IDP, SECRET, SITE
from tests.connections.memory_store import MemoryStore
from tests.providers.mtls import Files, tls_server
from tests.providers.private_keys import make_key, pem_of
from tokenmw import TokenBroker, TokenMiddleware
from tokenmw.connections import ConnectApp, Connections, OAuthApp
from tokenmw.errors import ConfigurationError
from tokenmw.providers import DPoPKey, HTTPOptions
from tokenmw.testing import Fault, ProviderServer

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path

    from starlette.requests import HTTPConnection, Request

KEY = pem_of(make_key("P-256"))
SEALS = "k7Qm-secret-of-the-sealer-91"
PAGE = {"x-user": "ada", "accept": "text/html"}


def user_of(connection: HTTPConnection) -> str | None:
    """Return the user that a header names."""
    return connection.headers.get("x-user")


class Bound:
    """A program whose app has a DPoP key, and a server that grants bound tokens only.

    Attributes:
        server: The server; its token endpoint and its API want nonces.
        app: The app.
        broker: The program's broker.
        browser: A browser in front of the program.
    """

    def __init__(self, **options: Any) -> None:
        self.server = ProviderServer(clients={"crm": SECRET})
        self.server.users.register("crm", CALLBACK)
        self.server.users.auto = "ada@idp"
        for check in (self.server.oauth2.dpop, self.server.api.dpop):
            check.required = check.nonces = True
        self.http = httpx.AsyncClient(transport=self.server.transport())
        client: dict[str, Any] = {"client_id": "crm", "client_secret": SECRET, "dpop": DPoPKey(KEY)}
        self.app = OAuthApp(issuer=IDP, scope="openid read", **(client | options))
        config = Connections({"crm": self.app}, store=MemoryStore(), subject=user_of)
        self.broker = TokenBroker({}, connections=config, secret_key=SEALS, http=self.http)
        routes = [Mount("/connect", ConnectApp(self.broker, allow=lambda _: True)), Route("/orders", self._orders)]
        program = TokenMiddleware(Starlette(routes=routes), broker=self.broker, sessions=False)
        self.browser = httpx.AsyncClient(transport=httpx.ASGITransport(app=program), base_url=SITE, headers=PAGE)

    async def _orders(self, request: Request) -> Response:
        auth = request.state.tokens.auth("crm")
        async with httpx.AsyncClient(transport=self.server.transport(), auth=auth) as api:
            answer = await api.get(f"{IDP}/api/orders")
        return JSONResponse(answer.json(), answer.status_code)

    async def connect(self) -> httpx.URL:
        """Connect the account, and return the URL to which the browser was sent."""
        begun = await self.browser.get("/connect/crm")
        back = await self.http.get(begun.headers["location"])
        answer = await self.browser.get(back.headers["location"])
        assert 200 == answer.status_code, answer.text
        return httpx.URL(begun.headers["location"])


@pytest.fixture
async def bound() -> AsyncGenerator[Bound]:
    """An open program."""
    made = Bound()
    async with made.http, made.broker, made.browser:
        yield made


async def test_codes_and_tokens_are_bound_to_the_key(bound: Bound) -> None:
    """The request names the key (RFC 9449 §10); code, refresh and API requests have proofs, also with nonces."""
    url = await bound.connect()
    assert bound.app.dpop is not None
    assert bound.app.dpop.thumbprint == url.params["dpop_jkt"]
    token = await bound.broker.connections.token("crm", "ada")
    assert "DPoP" == token.token_type
    answer = await bound.browser.get("/orders")
    assert (200, "ada@idp") == (answer.status_code, answer.json()["user"])
    # Without an access token, the first request refreshes.
    granted = bound.server.users.grant("bob", client="crm")
    await bound.broker.connections.save("crm", "bob", refresh_token=granted.refresh_token)
    answer = await bound.browser.get("/orders", headers={"x-user": "bob"})
    assert (200, "bob") == (answer.status_code, answer.json()["user"])
    assert "DPoP" == (await bound.broker.connections.token("crm", "bob")).token_type


async def test_disconnecting_revokes_bound_tokens(bound: Bound) -> None:
    """Revocation needs the client's authentication and no proof (RFC 7009)."""
    await bound.connect()
    family = bound.server.users.posts[-1].family
    assert family is not None
    assert family.alive
    assert await bound.broker.connections.disconnect("crm", "ada")
    assert not family.alive


async def test_a_token_that_is_not_bound_is_refused(bound: Bound) -> None:
    """A server that ignores the key is noticed at the code, before anything is stored."""
    begun = await bound.browser.get("/connect/crm")
    back = await bound.http.get(begun.headers["location"])
    bearer = Fault(fields={"token_type": "Bearer"})
    bound.server.oauth2.script.then(bearer, bearer)
    answer = await bound.browser.get(back.headers["location"])
    assert 503 == answer.status_code
    assert await bound.broker.connections.state("crm", "ada") is None


def test_a_key_of_one_process_is_refused() -> None:
    """Other processes, and this one after a restart, use the same connections."""
    options: dict[str, Any] = {"issuer": IDP, "client_id": "crm", "client_secret": SECRET}
    with pytest.raises(ConfigurationError, match=r"OAuthApp\(dpop=DPoPKey\(\)\).*DPoPKey\(file=…\)"):
        OAuthApp(**options, dpop=DPoPKey())
    refused: list[dict[str, Any]] = [{"dpop": KEY}, {"certificate": "tls.crt"}, {"params": {"dpop_jkt": "x"}}]
    for wrong in refused:
        with pytest.raises(ConfigurationError, match=next(iter(wrong))):
            OAuthApp(**options, **wrong)


def test_a_public_client_has_no_certificate(tmp_path: Path) -> None:
    """The error names all three options that a public client leaves out."""
    certificate = Files(tmp_path).load()
    with pytest.raises(ConfigurationError, match="certificate out"):
        OAuthApp(issuer=IDP, client_id="crm", auth_method="none", certificate=certificate)
    assert OAuthApp(issuer=IDP, client_id="crm", certificate=certificate).certificate is certificate


async def test_a_client_of_the_program_shows_no_certificate(tmp_path: Path) -> None:
    """The broker says so when it is made, and not at the first request of a user."""
    options: dict[str, Any] = {"issuer": "https://idp.example", "client_id": "crm"}
    certified = OAuthApp(**options, certificate=await asyncio.to_thread(Files(tmp_path).load))
    public = OAuthApp(**options, client_secret=SECRET, allow_private=False)
    async with httpx.AsyncClient() as http:
        for app in (certified, public):
            config = Connections({"crm": app}, store=MemoryStore(), subject=user_of)
            with pytest.raises(ConfigurationError, match=r"connections\['crm'\].*HTTPOptions"):
                TokenBroker({}, connections=config, secret_key=SEALS, http=http)


def test_tokens_of_another_key_are_other_tokens() -> None:
    """Two processes with different keys do not take each other's cached tokens; without a key, names stay."""
    options: dict[str, Any] = {"issuer": IDP, "client_id": "crm", "client_secret": SECRET}

    def identity(**more: Any) -> Any:
        app = OAuthApp(**options, **more)
        return Connections({"crm": app}, store=MemoryStore(), subject=user_of).provider("crm", "ada").identity()

    assert ("crm", "crm", "ada") == identity()
    other = DPoPKey(pem_of(make_key("P-256", number=2)))
    assert 3 == len({identity(), identity(dpop=DPoPKey(KEY)), identity(dpop=other)})


async def test_every_request_of_the_client_shows_the_certificate(tmp_path: Path) -> None:
    """Token, device and revocation endpoint, each at its own URL for certificates (RFC 8705 §5)."""
    files = Files(tmp_path)
    certificate = await asyncio.to_thread(files.load)
    async with tls_server(tmp_path) as server:
        names = ("token", "revocation", "device_authorization")
        server.metadata = {
            "issuer": server.url,
            "authorization_endpoint": f"{server.url}/authorize",
            **{f"{name}_endpoint": f"{server.url}/plain/{name}" for name in names},
            "mtls_endpoint_aliases": {f"{name}_endpoint": f"{server.url}/mtls/{name}" for name in names},
        }
        app = OAuthApp(issuer=server.url, client_id="crm", certificate=certificate)
        config = Connections({"crm": app}, store=MemoryStore(), subject=user_of)
        options = HTTPOptions(ca_file=server.ca_file)
        async with TokenBroker({}, connections=config, secret_key=SEALS, http=options) as broker:
            pair = {"access_token": "a-1", "refresh_token": "r-2", "token_type": "Bearer", "expires_in": 3600}
            codes = {"device_code": "d", "user_code": "A-B", "verification_uri": f"{server.url}/d", "expires_in": 600}
            server.answers = [(200, pair), (200, codes), (200, {})]
            await broker.connections.save("crm", "ada", refresh_token="r-1")
            assert "a-1" == (await broker.connections.token("crm", "ada")).value
            await broker.connections.device("crm", "ada")
            await broker.connections.disconnect("crm", "ada")
    assert [f"/mtls/{name}" for name in ("token", "device_authorization", "revocation")] == [
        path for path, _, _ in server.requests
    ]
    assert {files.thumbprint} == {shown for _, _, shown in server.requests}
    assert {"crm"} == {form["client_id"] for _, form, _ in server.requests}
