"""Token exchange (RFC 8693) at idpyoidc, a token server of another project."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from tests.interop.running import python, running
from tokenmw import CredentialRejected, TokenBroker, TokenMiddleware
from tokenmw.errors import SubjectRefused
from tokenmw.providers import SubjectToken, TokenExchange

if TYPE_CHECKING:
    from collections.abc import Generator

    from tokenmw.values import Token

pytestmark = pytest.mark.sdk

SECRETS = {"front": "a secret of the front end", "orders": "a secret:with/special+characters%3D&as=well"}
SCOPES = ["openid", "profile", "offline_access"]
TYPES = "urn:ietf:params:oauth:token-type:"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Generator[str]:
    """The URL of a server with a user and two clients."""
    command = python("idpyoidc_server.py", modules=["idpyoidc", "flask"])
    directory = str(tmp_path_factory.mktemp("idpyoidc"))
    with running(command, clients=SECRETS, scopes=SCOPES, users=["ada"], directory=directory) as url:
        yield url


async def got(url: str) -> dict[str, Any]:
    """Return what the server answers."""
    async with httpx.AsyncClient(trust_env=False) as http:
        fields: dict[str, Any] = (await http.get(url)).json()
    return fields


async def tokens_of_user(server: str) -> dict[str, str]:
    """Return new tokens of the user, as the front end has them."""
    return await got(f"{server}/tokens/ada")


def orders(server: str, **options: Any) -> TokenExchange:
    """Make the exchange of the service behind the front end."""
    given: dict[str, Any] = {"token_url": f"{server}/token", "client_id": "orders", "client_secret": SECRETS["orders"]}
    # This server reads credentials in the form decoded, and does not decode those in the header.
    return TokenExchange(**{**given, "auth_method": "client_secret_post", **options})


async def exchanged(provider: TokenExchange) -> Token:
    """Return the token that a broker gets."""
    async with TokenBroker({"orders": provider}) as broker:
        return await broker.token("orders")


async def test_a_callers_token_is_exchanged(server: str) -> None:
    """The new token is the same user's and this client's, has the type that was granted, and ends with the caller's."""
    subject = (await tokens_of_user(server))["access_token"]
    token = await exchanged(orders(server, subject=subject))
    known = await got(f"{server}/known/{token.value}")
    assert ("ada", "orders") == (known["user"], known["client"])
    assert (f"{TYPES}access_token", "Bearer") == (token.extra["issued_token_type"], token.token_type)
    assert 0 < token.expires_at - time.time() <= 600


async def test_the_header_has_the_credentials(server: str) -> None:
    """Basic, which this server does not form-decode."""
    subject = (await tokens_of_user(server))["access_token"]
    options: dict[str, Any] = {"auth_method": "client_secret_basic", "form_encode_basic": False}
    assert (await exchanged(orders(server, subject=subject, **options))).value
    with pytest.raises(CredentialRejected, match="form_encode_basic=False"):
        await exchanged(orders(server, subject=subject, auth_method="client_secret_basic"))


async def test_fewer_scopes_are_granted(server: str) -> None:
    """Those that are asked for."""
    subject = (await tokens_of_user(server))["access_token"]
    token = await exchanged(orders(server, subject=subject, scope="profile"))
    assert ["profile"] == (await got(f"{server}/known/{token.value}"))["scope"]


async def test_other_types_are_exchanged(server: str) -> None:
    """A refresh token for an access token, and an access token for a refresh token."""
    tokens = await tokens_of_user(server)
    token = await exchanged(orders(server, subject=tokens["refresh_token"], subject_type="refresh_token"))
    assert f"{TYPES}access_token" == token.extra["issued_token_type"]
    token = await exchanged(orders(server, subject=tokens["access_token"], requested_type="refresh_token"))
    assert f"{TYPES}refresh_token" == token.extra["issued_token_type"]


async def test_a_refused_subject_is_the_callers_fault(server: str) -> None:
    """An unknown token, and a revoked one."""
    revoked = (await tokens_of_user(server))["access_token"]
    await got(f"{server}/revoke/{revoked}")
    for subject in ("a.b.c", revoked):
        with pytest.raises(SubjectRefused, match=r"\(invalid_request, HTTP 400\): the subject's token is refused"):
            await exchanged(orders(server, subject=subject))


async def test_a_refused_client_is_the_services_fault(server: str) -> None:
    """The caller gets no 401 for it."""
    subject = (await tokens_of_user(server))["access_token"]
    with pytest.raises(CredentialRejected, match="check client_id, client_secret"):
        await exchanged(orders(server, subject=subject, client_secret="a wrong secret"))


async def test_requests_exchange_their_callers_tokens(server: str) -> None:
    """One exchange for each caller's token, in an application."""
    first, second = [(await tokens_of_user(server))["access_token"] for _ in range(2)]

    async def answer(request: Request) -> JSONResponse:
        return JSONResponse((await request.state.tokens.resolve("orders")).value)

    broker = TokenBroker({"orders": orders(server, subject=SubjectToken())})
    app = TokenMiddleware(Starlette(routes=[Route("/", answer)]), broker=broker)
    with TestClient(app) as client:
        values = [
            client.get("/", headers={"authorization": f"Bearer {subject}"}).json() for subject in (first, second, first)
        ]
        refused = client.get("/", headers={"authorization": "Bearer a.b.c"})
    assert values[0] == values[2] != values[1]
    assert (401, 'Bearer error="invalid_token"') == (refused.status_code, refused.headers["www-authenticate"])
