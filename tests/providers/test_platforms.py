from __future__ import annotations

import logging
import traceback
from typing import TYPE_CHECKING, Any

import pytest

from tests.providers.platforms import BASE, CLIENT, PLATFORMS, SECRET, Platform
from tests.providers.wire import http_answer, wire
from tokenmw import TokenBroker
from tokenmw.clock import SYSTEM_CLOCK
from tokenmw.errors import ConfigurationError, CredentialRejected, TokenUnavailable
from tokenmw.limits import Limits
from tokenmw.providers import TokenHTTP
from tokenmw.testing import Fault, ManualClock, ProviderServer

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

pytestmark = pytest.mark.parametrize("platform", PLATFORMS, ids=str)


@pytest.fixture
def server() -> ProviderServer:
    """A server that knows one client."""
    return ProviderServer(clients={CLIENT: SECRET})


@pytest.fixture
async def in_process(server: ProviderServer, library: Any) -> AsyncGenerator[TokenHTTP]:
    """The server without a socket, through a client of each library."""
    async with library.AsyncClient(transport=server.transport(library.__name__)) as client:
        yield TokenHTTP(client, limits=Limits(fetch_seconds=0.5, answer_bytes=10_000), clock=SYSTEM_CLOCK)


async def test_secret_gets_a_token(platform: Platform, server: ProviderServer, in_process: TokenHTTP) -> None:
    """One request gets a token of 7200 s, with secrets of any letters."""
    grant = await platform.make().fetch(in_process)
    issued = server.issued.find(grant.value)
    assert issued is not None
    assert (CLIENT, 7200.0) == (issued.client, grant.expires_in)
    assert {} == dict(grant.extra)
    assert 1 == server.calls[platform.name] == server.calls[platform.name, CLIENT] == len(server.issued)


@pytest.mark.parametrize(("value", "seconds"), [("7200", 7200.0), (599, 599.0), (7199.5, 7199.5)])
async def test_lifetime_has_any_json_type(
    platform: Platform, server: ProviderServer, in_process: TokenHTTP, value: object, seconds: float
) -> None:
    """The lifetime is read from a number or from text."""
    platform.endpoint(server).script.then(Fault(fields={platform.lifetime: value}))
    assert seconds == (await platform.make().fetch(in_process)).expires_in


@pytest.mark.parametrize("null", [False, True])
async def test_missing_lifetime_is_the_documented_one(
    platform: Platform, server: ProviderServer, in_process: TokenHTTP, *, null: bool
) -> None:
    """Deployments of WeCom and DingTalk leave it out; Feishu's tokens always have 1800 s left."""
    missing = Fault(fields={platform.lifetime: None}) if null else Fault(without=[platform.lifetime])
    platform.endpoint(server).script.always = missing
    documented = 1800.0 if platform.name.startswith("feishu") else 7200.0
    assert documented == (await platform.make().fetch(in_process)).expires_in


@pytest.mark.parametrize("value", [0, -5, "soon", True, [7200], float("nan")])
async def test_invalid_lifetime_is_a_failure(
    platform: Platform, server: ProviderServer, in_process: TokenHTTP, value: object
) -> None:
    """A lifetime that is not a positive, finite number raises, so the token is never cached."""
    platform.endpoint(server).script.then(Fault(fields={platform.lifetime: value}))
    with pytest.raises(TokenUnavailable, match="the token's lifetime"):
        await platform.make().fetch(in_process)


@pytest.mark.parametrize("fault", ["", None, 5, {"a": 1}, "two words", "line\nline"])
async def test_invalid_token_is_a_failure(
    platform: Platform, server: ProviderServer, in_process: TokenHTTP, fault: object
) -> None:
    """A token that is empty, not text, or unfit for a header raises."""
    fields = dict.fromkeys(("app_access_token", "tenant_access_token", platform.token), fault)
    platform.endpoint(server).script.then(Fault(fields=fields))
    with pytest.raises(TokenUnavailable, match=r"the token (is empty|has spaces)|with an empty \w+"):
        await platform.make().fetch(in_process)


@pytest.mark.parametrize(
    ("fault", "text", "said"),
    [
        (Fault(status=503, headers={"Retry-After": "2"}), "busy or broken", True),
        (Fault(status=429, body="<html>slow down", headers={"Retry-After": "2"}), "limits the rate", True),
        (Fault(status=503, body={"message": "x"}, headers={"Retry-After": "2"}), "gives no token to .* now", True),
        (Fault(body="<html>Sign in to the network"), r"JSON object \(HTTP 200, text/html", False),
        (Fault(status=404, body="<html>"), r"JSON object \(HTTP 404", False),
        (Fault(body=[1]), "JSON object", False),
        (Fault(body=b"\x80" * 100), "JSON object", False),
        (Fault(body=b"[" * 9_000), "JSON object", False),
        (Fault(body="x" * 20_000), "more than 10000 bytes", False),
        (Fault(status=302, headers={"location": "https://elsewhere.example"}), "redirect", False),
        (Fault(close=True), "did not answer", False),
        (Fault(delay=5), "did not answer within", False),
        (Fault(body={}), "HTTP|empty|how long", False),
    ],
)
async def test_fault_is_transient_and_the_next_call_succeeds(
    platform: Platform, server: ProviderServer, in_process: TokenHTTP, *, fault: Fault, text: str, said: bool
) -> None:
    """No fault rejects the credential, and only the platform's own errors are shared with other instances."""
    platform.endpoint(server).script.then(fault)
    with pytest.raises(TokenUnavailable, match=text) as caught:
        await platform.make().fetch(in_process)
    assert (said, 2.0 if "Retry-After" in fault.headers else None) == (caught.value.said, caught.value.retry_after)
    assert (await platform.make().fetch(in_process)).value


async def test_wrong_secret_and_unknown_client_are_permanent(
    platform: Platform, in_process: TokenHTTP, server: ProviderServer
) -> None:
    """The error has the platform's code, and the text names the option to check."""
    for options in ({platform.secret: "wrong"}, {platform.client: "nobody"}):
        with pytest.raises(CredentialRejected, match=f"refuses .* check .*{platform.client.split('_')[0]}") as caught:
            await platform.make(**options).fetch(in_process)
        assert caught.value.code
        assert caught.value.said
    assert 0 == len(server.issued)


async def test_no_error_shows_a_secret(platform: Platform, http: TokenHTTP, caplog: pytest.LogCaptureFixture) -> None:
    """Errors with all variables of all frames, and logs at every level, show no secret that the server repeats."""
    caplog.set_level(logging.DEBUG)
    secret = "s3cr3t-of-crm"
    answers = [
        http_answer(200, body=f'{{"code": "{secret}", "errcode": "{secret}", "errmsg": "{secret}"}}'.encode()),
        http_answer(400, body=f'{{"code": 10014, "errcode": 40001, "msg": "{secret}"}}'.encode()),
        http_answer(401, body=f"<html>{secret}".encode()),
        http_answer(302, headers="location: https://elsewhere.example/\r\n"),
        b"",
    ]
    for answer in answers:
        async with wire(answer) as opened:
            provider = platform.make(opened.url, **{platform.secret: secret})
            with pytest.raises((CredentialRejected, TokenUnavailable)) as caught:
                await provider.fetch(http)
        assert secret.encode() in opened.requests[0]
        trace = traceback.TracebackException.from_exception(caught.value, capture_locals=True)
        trace.stack = traceback.StackSummary.from_list(trace.stack[1:])
        assert secret not in "".join(trace.format()) + repr(provider) + repr(caught.value.__dict__)
        assert caught.value.__context__ is None
    names = {record.name.partition(".")[0] for record in caplog.records}
    assert names & {"httpx", "httpx2"}
    assert secret not in caplog.text


async def test_token_goes_where_the_api_wants_it_and_into_no_log(
    platform: Platform, server: ProviderServer, library: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """A refused token is replaced once, the rest of the request stays, and no log shows a token."""
    caplog.set_level(logging.DEBUG)
    clock = ManualClock()
    with server.running() as base_url:
        async with TokenBroker({"bot": platform.make(base_url)}, clock=clock) as broker:
            token = await broker.token("bot")
            clock.advance(10)  # a rejection of a token that is younger than 5 s is ignored
            server.revoke(token)
            caplog.clear()
            async with library.AsyncClient(auth=broker.auth("bot"), trust_env=False) as client:
                answer = await client.post(f"{base_url}{platform.api}?type=a%20b&z=1+2", json={"text": "hi"})
    assert CLIENT in answer.text
    assert b"type=a%20b&z=1+2" in answer.request.url.query
    newer = newest(server)
    assert newer != token.value
    assert (2, 2) == (server.calls[platform.name], server.calls[platform.api_name])
    assert token.value not in caplog.text
    assert newer not in caplog.text
    assert platform.api in caplog.text
    if platform.name.startswith("feishu"):
        assert f"Bearer {token.value}" == token.authorization
    else:
        with pytest.raises(ConfigurationError, match="does not take its token in the Authorization header"):
            _ = token.authorization


def newest(server: ProviderServer) -> str:
    """Return the newest token that was issued."""
    return list(server.issued._tokens)[-1]


@pytest.mark.parametrize("other", ["client", "secret", "base_url"])
def test_every_part_of_the_credential_makes_another_one(platform: Platform, other: str) -> None:
    """Another id, secret or base URL makes another credential."""
    name = {"client": platform.client, "secret": platform.secret}.get(other, other)
    assert platform.make() == platform.make()
    assert platform.make() != platform.make(**{name: "https://other.example"})


def test_options_about_use_make_no_other_credential(platform: Platform) -> None:
    """Another spelling of the base URL, `hosts` and `allow_http` make no other credential."""
    one = platform.make(f"{BASE.upper().replace('HTTPS', 'https')}:443/", hosts=["api.example"], allow_http=True)
    assert platform.make() == one
    assert (frozenset({"api.example"}), frozenset({"platform.example"})) == (one.hosts, platform.make().hosts)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"base_url": "http://platform.example"}, r"\(base_url=…\) would send .* allow_http=True"),
        ({"base_url": "https://platform.example?a=b"}, r"\(base_url=…\) has a query"),
        ({"base_url": "platform.example"}, r"\(base_url=…\) must be an absolute URL"),
        ({"hosts": "api.example"}, r"\(hosts=…\) must be a list"),
    ],
)
def test_options_that_cannot_work_are_refused_at_construction(
    platform: Platform, options: dict[str, Any], text: str
) -> None:
    """The text names the option."""
    with pytest.raises(ConfigurationError, match=text):
        platform.make(**options)
    for name in (platform.client, platform.secret):
        with pytest.raises(ConfigurationError, match=rf"\({name}=…\) is empty"):
            platform.make(**{name: ""})
