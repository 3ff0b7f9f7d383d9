from __future__ import annotations

import asyncio
import json
import traceback
from typing import TYPE_CHECKING, Any

import pytest

from tests.providers.microsoft import SECRET, TENANT, bot, entra
from tests.providers.wire import http_answer, wire
from tokenmw.clock import SYSTEM_CLOCK
from tokenmw.errors import CredentialRejected, TokenUnavailable
from tokenmw.limits import Limits
from tokenmw.providers import Answer, TokenHTTP
from tokenmw.testing import Fault, ProviderServer

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator


@pytest.fixture
def server() -> ProviderServer:
    """A login host that knows one app."""
    return ProviderServer(clients={"app": SECRET})


@pytest.fixture
async def in_process(server: ProviderServer, library: Any) -> AsyncGenerator[TokenHTTP]:
    """The server without a socket, through a client of each library."""
    async with library.AsyncClient(transport=server.transport(library.__name__)) as client:
        yield TokenHTTP(client, limits=Limits(answer_bytes=10_000, fetch_seconds=2.0), clock=SYSTEM_CLOCK)


async def test_app_and_bot_get_a_token_in_their_tenant(server: ProviderServer, in_process: TokenHTTP) -> None:
    """Each takes one request; a bot without a tenant uses the Bot Framework's tenant."""
    granted = {
        (await entra().fetch(in_process)).value: f"{TENANT} https://graph.microsoft.com/.default",
        (await entra(scope="api://crm/.default").fetch(in_process)).value: f"{TENANT} api://crm/.default",
        (await bot().fetch(in_process)).value: "botframework.com https://api.botframework.com/.default",
        (await bot(tenant=TENANT).fetch(in_process)).value: f"{TENANT} https://api.botframework.com/.default",
    }
    assert list(granted.values()) == [token.scope for value in granted if (token := server.issued.find(value))]
    assert 4 == server.calls["entra", "app"]


async def test_response_has_token_lifetime_and_refresh_in(server: ProviderServer, in_process: TokenHTTP) -> None:
    """Every call returns another token; `refresh_in`, which comes with long lifetimes, is kept in `extra`."""
    server.entra.life = 86399.0
    first, second = await entra().fetch(in_process), await entra().fetch(in_process)
    assert (86399.0, "Bearer", 43199) == (first.expires_in, first.token_type, first.extra["refresh_in"])
    assert first.value != second.value


async def test_assertions_are_made_anew_for_each_attempt(server: ProviderServer, in_process: TokenHTTP) -> None:
    """The function is called for each attempt, and its tokens are shared only with a `credential_id`."""
    asked: list[str] = []

    async def assertion() -> str:
        asked.append(f"jwt-{len(asked)}")
        return asked[-1]

    app = entra(client_secret=None, client_assertion=assertion, credential_id="key-1")
    assert (await app.fetch(in_process)).value != (await app.fetch(in_process)).value
    assert ["jwt-0", "jwt-1"] == asked
    assert app.shareable
    assert app == entra(client_secret=None, client_assertion=lambda: "other", credential_id="key-1")
    unnamed = bot(app_secret=None, client_assertion=assertion)
    assert not unnamed.shareable
    assert (await unnamed.fetch(in_process)).value


@pytest.mark.parametrize(
    ("status", "error", "code", "text"),
    [
        (401, "invalid_client", 7000215, r"AADSTS7000215\): the secret is wrong"),
        (401, "invalid_client", 7000222, "the secret has expired"),
        (401, "invalid_client", 7000218, "give a secret"),
        (401, "invalid_client", 700027, "signed with a key"),
        (401, "invalid_client", 700024, "clock"),
        (400, "unauthorized_client", 700016, "the tenant does not know the app"),
        (400, "invalid_request", 90002, "no such tenant"),
        (400, "invalid_scope", 70011, "check scope"),
        (400, "invalid_grant", 123456, r"\(invalid_grant, HTTP 400, AADSTS123456\): the server does not accept"),
    ],
)
async def test_permanent_refusals_give_the_reason(
    server: ProviderServer, in_process: TokenHTTP, *, status: int, error: str, code: int, text: str
) -> None:
    """The text has Microsoft's numeric code with its fix, and never the server's own text."""
    body = {"error": error, "error_codes": [code], "error_description": f"AADSTS{code}: {SECRET}"}
    server.entra.script.then(Fault(status=status, body=body))
    with pytest.raises(CredentialRejected, match=text) as caught:
        await entra().fetch(in_process)
    assert (error, True, None) == (caught.value.code, caught.value.said, caught.value.__context__)
    trace = traceback.TracebackException.from_exception(caught.value, capture_locals=True)
    trace.stack = traceback.StackSummary.from_list(trace.stack[1:])
    assert SECRET not in "".join(trace.format()) + str(caught.value) + repr(entra())
    assert (await entra().fetch(in_process)).value


@pytest.mark.parametrize(
    ("fault", "retry_after", "said"),
    [
        (Fault(status=429, headers={"Retry-After": "60"}), 60.0, True),
        (Fault(status=429, headers={"Retry-After": "99999"}), 3600.0, True),
        (Fault(status=503, body={"error": "temporarily_unavailable"}), None, True),
        (Fault(status=400, body={"error": "temporarily_unavailable", "error_codes": [90033]}), None, True),
        (Fault(status=400, body={"error": "invalid_grant", "error_codes": [50196]}), None, True),
        (Fault(status=400, body={"error": "server_error"}), None, True),
        (Fault(body="<h1>Sign in to the network</h1>"), None, False),
        (Fault(status=307, headers={"Location": "https://elsewhere.example/"}), None, False),
        (Fault(close=True), None, False),
        (Fault(body=b"x" * 20_000), None, False),
        (Fault(fields={"access_token": ""}), None, False),
        (Fault(without=["access_token"]), None, False),
        (Fault(fields={"expires_in": "0"}), None, False),
        (Fault(fields={"expires_in": "soon"}), None, False),
    ],
)
async def test_transient_faults_are_not_refusals(
    server: ProviderServer, in_process: TokenHTTP, fault: Fault, retry_after: float | None, *, said: bool
) -> None:
    """Busy servers, malformed responses and network faults are transient; only the server's own error is shared."""
    server.entra.script.then(fault)
    with pytest.raises(TokenUnavailable) as caught:
        await entra().fetch(in_process)
    assert (retry_after, said) == (caught.value.retry_after, caught.value.said)


async def test_slow_response_is_abandoned(server: ProviderServer, library: Any) -> None:
    """The request ends after `Limits.fetch_seconds`."""
    hang = server.entra.script.hang()
    async with library.AsyncClient(transport=server.transport(library.__name__)) as client, asyncio.timeout(10):
        http = TokenHTTP(client, limits=Limits(fetch_seconds=0.05), clock=SYSTEM_CLOCK)
        with pytest.raises(TokenUnavailable, match="read timeout"):
            await entra().fetch(http)
    hang.release()


@pytest.mark.parametrize(("value", "seconds"), [("3599", 3599.0), (3599.5, 3599.5), (None, 600.0)])
async def test_lifetime_may_be_text_or_missing(
    server: ProviderServer, in_process: TokenHTTP, value: object, seconds: float
) -> None:
    """Older endpoints send text; a missing lifetime counts as 600 s."""
    server.entra.script.then(Fault(fields={"expires_in": value}))
    assert seconds == (await entra().fetch(in_process)).expires_in


async def test_each_wrong_request_has_its_numeric_code(server: ProviderServer, in_process: TokenHTTP) -> None:
    """The test server's codes for an unknown app, a wrong secret and a foreign tenant are Microsoft's."""
    server.entra.tenants = {TENANT}
    for wrong, code in (({"client_id": "x"}, 700016), ({"client_secret": "x"}, 7000215), ({"tenant": "x"}, 90002)):
        with pytest.raises(CredentialRejected, match=f"AADSTS{code}"):
            await entra(**wrong).fetch(in_process)


@pytest.mark.parametrize(
    ("status", "challenge", "rejected"),
    [
        (401, "", True),
        (401, 'Bearer realm="", authorization_uri="https://login.example", error="invalid_token"', True),
        (401, 'Bearer realm="", error="insufficient_claims", claims="eyJhY2Nlc3Nf"', False),
        (403, "", False),
        (429, "", False),
        (200, "", False),
    ],
)
def test_401_is_a_rejection_unless_claims_are_missing(status: int, challenge: str, *, rejected: bool) -> None:
    """Permissions, throttling and continuous access evaluation are no rejections: a new token would not help."""
    answer = Answer(status, headers={"WWW-Authenticate": challenge} if challenge else {})
    assert (rejected, rejected) == (entra().is_rejected(answer), bot().is_rejected(answer))


async def test_request_has_only_microsoft_s_form(http: TokenHTTP) -> None:
    """The secret is in the body, not in the URL, and the form has no other fields."""
    body = json.dumps({"token_type": "Bearer", "expires_in": 3599, "access_token": "t"}).encode()
    async with wire(http_answer(200, body=body)) as server:
        await entra(base_url=server.url).fetch(http)
    head, _, form = server.requests[0].partition(b"\r\n\r\n")
    assert head.startswith(f"POST /{TENANT}/oauth2/v2.0/token HTTP".encode())
    assert {b"grant_type", b"scope", b"client_id", b"client_secret"} == {one.split(b"=")[0] for one in form.split(b"&")}
