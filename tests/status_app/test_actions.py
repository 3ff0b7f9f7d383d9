"""Actions: only by those that may act, from pages of the same origin, each with a line in the log."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

import pytest

from tests.asgi_client import Source
from tests.status_app.serving import AT, everyone, serve_status
from tokenmw import ConfigurationError, TokenBroker, TokenUnavailable
from tokenmw.providers import StaticToken
from tokenmw.status_app import StatusApp

if TYPE_CHECKING:
    from tests.servers import RedisServer

KEY = "c4n4ry-api-key"
SAME = {"sec-fetch-site": "same-origin"}
ACTIONS = ("retry", "invalidate", "reset-session")
FORM = {"provider": "crm", "api_key": KEY}


def no(_connection: object) -> None:
    """Refuse every request."""


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return the lines about actions."""
    found = [one for one in caplog.records if getattr(one, "tokenmw.kind", "") == "action"]
    return [record.getMessage() for record in found]


@pytest.mark.parametrize("action", ACTIONS)
async def test_nobody_acts_unless_allowed(action: str) -> None:
    """Without `allow_actions`, or refused by it or by `allow`, a form is a 403, changes nothing, and is not shown."""
    source = Source()
    refusing: list[dict[str, Any]] = [
        {"allow_all": True},
        {"allow_all": True, "allow_actions": no},
        {"allow": no, "allow_actions": everyone},
    ]
    for options in refusing:
        broker = TokenBroker({"crm": StaticToken(source)})
        async with serve_status(broker, **options) as client:
            before = await broker.token("crm"), await broker.session_id(KEY)
            answered = await client.post(f"{AT}/{action}", data=FORM, headers=SAME)
            assert (answered.status_code, answered.text) == (403, "Not allowed.")
            assert before == (await broker.token("crm"), await broker.session_id(KEY))
            assert "<form" not in (await client.get(f"{AT}/")).text


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {"sec-fetch-site": "none"},
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {**SAME, "origin": "https://evil.example"},
    ],
)
@pytest.mark.parametrize("action", ACTIONS)
async def test_pages_of_other_sites_cannot_act(action: str, headers: dict[str, str]) -> None:
    """A form of another origin, and one that does not say its origin, changes nothing."""
    broker = TokenBroker({"crm": StaticToken(Source())})
    async with serve_status(broker, allow_all=True, allow_actions=everyone) as client:
        before = await broker.token("crm"), await broker.session_id(KEY)
        assert (await client.post(f"{AT}/{action}", data=FORM, headers=headers)).status_code == 403
        assert before == (await broker.token("crm"), await broker.session_id(KEY))
        assert (await client.get(f"{AT}/{action}", params=FORM, headers=SAME)).status_code == 405


async def test_the_public_url_is_the_origin() -> None:
    """Behind a proxy that ends TLS, forms of the public origin are accepted, and others are not."""
    broker = TokenBroker({"crm": StaticToken(Source())})
    public = "https://app.example/_tokenmw"
    async with serve_status(broker, allow_all=True, allow_actions=everyone, public_url=public) as client:
        for origin, status in (("https://app.example", 303), ("http://app.example", 403)):
            answered = await client.post(f"{AT}/invalidate", data=FORM, headers={"origin": origin})
            assert answered.status_code == status
    with pytest.raises(ConfigurationError, match="public_url"):
        StatusApp(broker, allow_all=True, public_url="app.example")


async def test_retry_now_ends_a_backoff(redis_server: RedisServer, caplog: pytest.LogCaptureFixture) -> None:
    """A provider that named an hour is asked now, although its answer is noted in Redis; the page says so."""
    caplog.set_level(logging.INFO, logger="tokenmw")
    source = Source()
    source.error = TokenUnavailable("busy", retry_after=3600)
    broker = TokenBroker({"crm": StaticToken(source, credential_id="crm")}, redis=redis_server.url, secret_key=KEY * 2)
    async with serve_status(broker, allow_all=True, allow_actions=everyone) as client:
        with pytest.raises(TokenUnavailable):
            await broker.token("crm")
        source.error = None
        with pytest.raises(TokenUnavailable):
            await broker.token("crm")
        answered = await client.post(f"{AT}/retry", data=FORM, headers=SAME)
        assert (answered.status_code, answered.headers["location"]) == (303, f"{AT}/?done=retry")
        async with asyncio.timeout(5):
            while source.calls < 2:  # noqa: ASYNC110  the source has no event
                await asyncio.sleep(0.01)
        assert (await broker.token("crm")).value == "t-2"
        page = await client.get(answered.headers["location"])
        assert "The provider is asked again." in page.text
    assert lines(caplog) == ["tokenmw: An operator at 127.0.0.1 requested retry of crm"]


async def test_a_token_is_invalidated(caplog: pytest.LogCaptureFixture) -> None:
    """The next request gets another token."""
    caplog.set_level(logging.INFO, logger="tokenmw")
    broker = TokenBroker({"crm": StaticToken(Source())})
    async with serve_status(broker, allow_all=True, allow_actions=everyone) as client:
        first = await broker.token("crm")
        await client.post(f"{AT}/invalidate", data=FORM, headers=SAME)
        assert (await broker.token("crm")).value != first.value
    assert lines(caplog) == ["tokenmw: An operator at 127.0.0.1 requested invalidate of crm"]


async def test_a_session_is_reset_without_a_trace_of_the_key(caplog: pytest.LogCaptureFixture) -> None:
    """The key and both ids are in no response, no log line, and no URL."""
    caplog.set_level(logging.DEBUG)
    broker = TokenBroker({}, name_key="c4n4ry-name-key-long-enough")
    async with serve_status(broker, allow_all=True, allow_actions=everyone) as client:
        before = await broker.session_id(KEY)
        answered = await client.post(f"{AT}/reset-session", data={"api_key": KEY}, headers=SAME)
        after = await broker.session_id(KEY)
        page = await client.get(answered.headers["location"])
        status = await client.get(f"{AT}/status.json")
    assert before != after
    seen = f"{answered.headers}{answered.text}{page.text}{status.text}"
    logged = caplog.text
    assert [secret for secret in (KEY, before, after) if secret in seen or secret in logged] == []
    assert lines(caplog) == ["tokenmw: An operator at 127.0.0.1 requested reset-session of an API key"]


@pytest.mark.parametrize(
    ("action", "form", "status"),
    [
        ("retry", {"provider": "other"}, 400),
        ("retry", {}, 400),
        ("invalidate", {"provider": "tenants"}, 400),
        ("reset-session", {"api_key": ""}, 400),
        ("reset-session", {"api_key": "c4n4ry" * 10_000}, 413),
        ("retry", {f"c4n4ry{number}": "" for number in range(20)}, 400),
    ],
)
async def test_unusable_forms_are_refused(action: str, form: dict[str, str], status: int) -> None:
    """An unknown provider, a callable, and what is no API key are errors that repeat nothing."""
    broker = TokenBroker({"crm": StaticToken("t"), "tenants": lambda _: StaticToken("t")})
    async with serve_status(broker, allow_all=True, allow_actions=everyone) as client:
        answered = await client.post(f"{AT}/{action}", data=form, headers=SAME)
    assert answered.status_code == status
    assert "c4n4ry" not in answered.text
