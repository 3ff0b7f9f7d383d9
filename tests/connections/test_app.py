"""OAuthApp: its token requests, and how it reads their answers."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from tests.connections.over_http import http_over
from tokenmw.connections.app import OAuthApp
from tokenmw.connections.dialect import Dialect
from tokenmw.connections.pair import GrantRefused, TokenPair
from tokenmw.errors import ConfigurationError, CredentialRejected, TokenUnavailable
from tokenmw.testing import ProviderServer

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping

    from tokenmw.providers import TokenHTTP

URLS: Mapping[str, Any] = {
    "authorize_url": "https://idp.example/authorize",
    "token_url": "https://idp.example/token",
    "revoke_url": "https://idp.example/revoke",
}
CLIENT: Mapping[str, Any] = {"client_id": "crm", "client_secret": "s3cret-of-crm"}
GRANTED: Mapping[str, Any] = {"access_token": "a-2", "token_type": "bearer", "expires_in": 3600}


class Endpoint:
    """Answers each request with what a test sets, and keeps the requests."""

    def __init__(self) -> None:
        self.requests: list[httpx.Request] = []
        self.status = 200
        self.body: Any = {**GRANTED, "refresh_token": "r-2"}

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        return httpx.Response(self.status, json=self.body)

    @property
    def form(self) -> dict[str, str]:
        """The form of the last request."""
        return dict(httpx.QueryParams(self.requests[-1].content.decode()))


@pytest.fixture
def endpoint() -> Endpoint:
    """The endpoint of all requests."""
    return Endpoint()


@pytest.fixture
async def http(endpoint: Endpoint) -> AsyncGenerator[TokenHTTP]:
    """The object that apps get."""
    async with httpx.AsyncClient(transport=httpx.MockTransport(endpoint)) as client:
        yield http_over(client)


def fields_of(pair: TokenPair) -> dict[str, Any]:
    """Return what a pair holds."""
    return {name: getattr(pair, name) for name in TokenPair.__slots__}


async def test_a_refresh_sends_the_token_and_the_clients_proof(endpoint: Endpoint, http: TokenHTTP) -> None:
    """As RFC 6749 §6 says, without a scope unless one is asked for."""
    pair = await OAuthApp(**URLS, **CLIENT, token_params={"audience": "api"}).refresh(http, "r-1")
    assert {"grant_type": "refresh_token", "refresh_token": "r-1", "audience": "api"} == endpoint.form
    assert endpoint.requests[-1].headers["authorization"].startswith("Basic ")
    assert fields_of(pair) == {
        "access_token": "a-2",
        "refresh_token": "r-2",
        "expires_in": 3600.0,
        "scope": None,
        "token_type": "Bearer",
        "id_token": None,
        "extra": {},
    }
    await OAuthApp(**URLS, **CLIENT, scope_separator=",").refresh(http, "r-1", scope="read write")
    assert "read,write" == endpoint.form["scope"]


async def test_a_real_server_rotates() -> None:
    """The issuer's metadata name the endpoint; a second use of a refresh token is GrantRefused."""
    server = ProviderServer(clients={"crm": CLIENT["client_secret"]})
    granted = server.users.grant("ada", client="crm", scope="read")
    app = OAuthApp(issuer="https://idp.example", scope="read", **CLIENT)
    async with httpx.AsyncClient(transport=server.transport()) as client:
        http = http_over(client)
        pair = await app.refresh(http, granted.refresh_token)
        assert (pair.scope, granted.family.refresh_tokens[-1]) == ("read", pair.refresh_token)
        with pytest.raises(GrantRefused) as refused:
            await app.refresh(http, granted.refresh_token)
        assert "invalid_grant" == refused.value.code
        assert granted.refresh_token not in str(refused.value)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        pytest.param({"refresh_token": ""}, {"refresh_token": None}, id="no refresh token"),
        pytest.param({"refresh_token": None}, {"refresh_token": None}, id="null"),
        pytest.param({"scope": ["read", "write"]}, {"scope": "read write"}, id="scope as a list"),
        pytest.param({"scope": " read  write"}, {"scope": "read write"}, id="blanks"),
        pytest.param({"scope": 7}, {"scope": None}, id="scope as a number"),
        pytest.param({"refresh_token": "r-2"}, {"refresh_token": "r-2", "expires_in": 3600.0}, id="both"),
        pytest.param({"instance_url": "https://na1.example"}, {"extra": {"instance_url": "https://na1.example"}}),
        pytest.param({"expires_in": None}, {"expires_in": math.inf}, id="no lifetime, no refresh token"),
        pytest.param({"expires_in": None, "refresh_token": "r"}, {"expires_in": 3600.0}, id="no lifetime"),
        pytest.param({"expires_in": 5_184_000}, {"expires_in": 5_184_000.0}, id="60 days, no refresh token"),
        pytest.param({"id_token": "e.y.z"}, {"id_token": "e.y.z"}, id="id token"),
    ],
)
async def test_what_answers_leave_out(endpoint: Endpoint, http: TokenHTTP, fields: Any, expected: Any) -> None:
    """Real servers leave fields out, and send them in other types."""
    endpoint.body = {**GRANTED, **fields}
    pair = fields_of(await OAuthApp(**URLS, **CLIENT).refresh(http, "r-1"))
    assert expected.items() <= pair.items()


@pytest.mark.parametrize(
    ("status", "body", "error"),
    [
        (400, {"error": "invalid_grant"}, GrantRefused),
        (401, {"error": "invalid_grant"}, GrantRefused),
        (403, {"error": "invalid_grant"}, GrantRefused),
        (400, {"error": "interaction_required"}, GrantRefused),
        (400, {"error": "invalid_client"}, CredentialRejected),
        (401, {"error": "invalid_client"}, CredentialRejected),
        (400, {"error": "unauthorized_client"}, CredentialRejected),
        (400, {"error": "invalid_scope"}, CredentialRejected),
        (400, {"error": "invalid_request"}, CredentialRejected),
        (401, {}, CredentialRejected),
        (403, {}, CredentialRejected),
        (400, {"error": "temporarily_unavailable"}, TokenUnavailable),
        (500, {"error": "invalid_grant"}, TokenUnavailable),
        (503, {"error": "invalid_grant"}, TokenUnavailable),
        (429, {"error": "invalid_grant"}, TokenUnavailable),
        (404, {}, TokenUnavailable),
        (200, {"access_token": ""}, TokenUnavailable),
        (200, {}, TokenUnavailable),
        (200, [], TokenUnavailable),
        (200, {**GRANTED, "refresh_token": 7}, TokenUnavailable),
        (200, {**GRANTED, "refresh_token": "r" * 20_000}, TokenUnavailable),
        (200, {**GRANTED, "token_type": "DPoP"}, TokenUnavailable),
        (200, {"error": "invalid_grant"}, GrantRefused),
    ],
)
async def test_only_a_refusal_of_the_grant_ends_a_connection(
    endpoint: Endpoint, http: TokenHTTP, status: int, body: Any, error: type[Exception]
) -> None:
    """A refused client, a busy server and a broken answer are other errors, because the refresh token may be good."""
    endpoint.status, endpoint.body = status, body
    with pytest.raises(error) as raised:
        await OAuthApp(**URLS, **CLIENT).refresh(http, "the-refresh-token")
    assert type(raised.value) is error
    assert "the-refresh-token" not in str(raised.value)


async def test_an_answer_that_repeats_the_refresh_token_is_not_shown(endpoint: Endpoint, http: TokenHTTP) -> None:
    """Neither in a text nor in the extra fields."""
    app = OAuthApp(**URLS, **CLIENT, log_description=True)
    endpoint.status, endpoint.body = 400, {"error": "invalid_grant", "error_description": "r: the-refresh-token"}
    with pytest.raises(GrantRefused) as refused:
        await app.refresh(http, "the-refresh-token")
    assert "the-refresh-token" not in str(refused.value)
    endpoint.status, endpoint.body = 200, {**GRANTED, "used": "the-refresh-token"}
    assert {} == (await app.refresh(http, "the-refresh-token")).extra


async def test_the_second_secret_is_sent_if_the_first_is_refused(http: TokenHTTP, endpoint: Endpoint) -> None:
    """A refused client has spent nothing, so the same refresh token is sent again."""
    used: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        used.append(request.headers["authorization"])
        first = len(used) == 1
        return httpx.Response(401 if first else 200, json={"error": "invalid_client"} if first else {**GRANTED})

    async with httpx.AsyncClient(transport=httpx.MockTransport(answer)) as client:
        over = http_over(client)
        app = OAuthApp(**URLS, client_id="crm", client_secret=["new-secret", "old-secret"])
        assert "a-2" == (await app.refresh(over, "r-1")).access_token
    assert 2 == len(set(used))


async def test_a_public_client_has_no_secret(endpoint: Endpoint, http: TokenHTTP) -> None:
    """It sends its id, and only if the program says that it is public."""
    app = OAuthApp(**URLS, client_id="cli", auth_method="none")
    await app.exchange_code(http, "c-1", verifier="v" * 43, redirect_uri="http://127.0.0.1/callback")
    assert {"client_id": "cli", "code": "c-1", "code_verifier": "v" * 43}.items() <= endpoint.form.items()
    assert "authorization" not in endpoint.requests[-1].headers
    endpoint.status, endpoint.body = 400, {"error": "invalid_grant"}
    with pytest.raises(GrantRefused, match="client_id=cli"):
        await app.refresh(http, "r-1")


async def test_a_dialect_renames_fields_and_codes(endpoint: Endpoint, http: TokenHTTP) -> None:
    """The platform's names go out and come in; its codes decide."""
    dialect = Dialect(
        request_names={"client_id": "clientId", "client_secret": "clientSecret", "refresh_token": "refreshToken"},
        answer_names={"accessToken": "access_token", "refreshToken": "refresh_token", "expireIn": "expires_in"},
        inside="user",
        error_code="code",
        grant_refused=frozenset({"20037"}),
        client_refused=frozenset({"20002"}),
        transient=frozenset({"20050"}),
    )
    app = OAuthApp(**URLS, **CLIENT, json=True, auth_method="client_secret_post", dialect=dialect)
    endpoint.body = {"code": 0, "user": {"accessToken": "a", "refreshToken": "r", "expireIn": "7200"}}
    pair = await app.refresh(http, "r-1")
    assert ("a", "r", 7200.0) == (pair.access_token, pair.refresh_token, pair.expires_in)
    sent = json.loads(endpoint.requests[-1].content)
    assert {"clientId", "clientSecret", "refreshToken", "grant_type"} == set(sent)
    for code, error in ((20037, GrantRefused), (20002, CredentialRejected), (20050, TokenUnavailable)):
        endpoint.body = {"code": code, "message": "no"}
        with pytest.raises(error):
            await app.refresh(http, "r-1")


async def test_a_revocation_names_the_token(endpoint: Endpoint, http: TokenHTTP) -> None:
    """As RFC 7009 §2.1 says; without an endpoint nothing is sent."""
    await OAuthApp(**URLS, **CLIENT).revoke(http, "r-1", hint="refresh_token")
    assert {"token": "r-1", "token_type_hint": "refresh_token"} == endpoint.form
    endpoint.status, endpoint.body = 401, {"error": "invalid_client"}
    with pytest.raises(CredentialRejected):
        await OAuthApp(**URLS, **CLIENT).revoke(http, "r-1", hint="refresh_token")
    sent = len(endpoint.requests)
    without = OAuthApp(authorize_url=URLS["authorize_url"], token_url=URLS["token_url"], **CLIENT)
    await without.revoke(http, "r-1", hint="refresh_token")
    assert sent == len(endpoint.requests)


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({}, "issuer"),
        ({"issuer": "https://idp.example", "token_url": "https://idp.example/t"}, "not both"),
        ({"token_url": "https://idp.example/t"}, "authorize_url"),
        ({**URLS, "token_url": "http://idp.example/t"}, "TLS"),
        ({**URLS, "authorize_url": "http://idp.example/a"}, "TLS"),
        ({**URLS, "revoke_url": "http://idp.example/a"}, "TLS"),
        ({"issuer": "http://idp.example"}, "TLS"),
        ({**URLS, "params": {"state": "x"}}, "state"),
        ({**URLS, "params": {"response_mode": "fragment"}}, "response_mode"),
        ({**URLS, "params": {"prompt": ""}}, "empty"),
        ({**URLS, "params": [("a", "b")]}, "dict"),
        ({**URLS, "params": {"a b": "c"}}, "name"),
        ({**URLS, "params": {f"a{number}": "b" for number in range(40)}}, "at most"),
        ({**URLS, "token_params": {"refresh_token": "x"}}, "refresh_token"),
        ({**URLS, "scope": ["a"]}, "list"),
        ({**URLS, "scope_separator": ";"}, "scope_separator"),
        ({**URLS, "json": "yes"}, "json"),
        ({**URLS, "dialect": {}}, "Dialect"),
        ({**URLS, "default_life": 0}, "default_life"),
        ({**URLS, "client_secret": ""}, "client_secret"),
        ({**URLS, "auth_method": "none"}, "auth_method"),
        ({**URLS, "auth_method": "secret"}, "auth_method"),
        ({**URLS, "client_secret": None}, "client_secret"),
        ({**URLS, "allow_private": False, "token_url": "https://10.0.0.1/t"}, "private"),
    ],
)
def test_options_that_cannot_work_are_refused(options: Any, word: str) -> None:
    """At construction, with the option's name and never with a secret."""
    with pytest.raises(ConfigurationError, match=word) as refused:
        OAuthApp(**{**CLIENT, **options})
    assert "s3cret" not in str(refused.value)
