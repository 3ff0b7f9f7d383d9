from __future__ import annotations

from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING

import httpx
import pytest

from tests.providers.platforms import BASE, CLIENT, PLATFORMS, SECRET, Platform
from tokenmw import CredentialRejected, TokenBroker, TokenUnavailable
from tokenmw.providers import DingTalk, DingTalkLegacy, FeishuApp, FeishuTenant, WeCom
from tokenmw.testing import Fault, ManualClock, ProviderServer

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from tokenmw.providers import Provider

BY_NAME = {platform.name: platform for platform in PLATFORMS}


class World:
    """A platform and a broker that uses it, on one clock."""

    def __init__(self, server: ProviderServer, clock: ManualClock, broker: TokenBroker) -> None:
        self.server = server
        self.clock = clock
        self.broker = broker

    async def value(self, provider: str | Provider) -> str:
        return (await self.broker.token(provider)).value


@asynccontextmanager
async def world(providers: dict[str, Provider] | None = None, **clients: str) -> AsyncGenerator[World]:
    """Start a platform and a broker."""
    clock = ManualClock()
    server = ProviderServer(clients=clients or None, clock=clock)
    async with AsyncExitStack() as stack:
        http = await stack.enter_async_context(httpx.AsyncClient(transport=server.transport()))
        broker = TokenBroker(providers or {}, http=http, clock=clock)
        yield World(server, clock, await stack.enter_async_context(broker))


@pytest.mark.parametrize("first", ["app", "tenant"])
async def test_one_fetch_serves_feishus_app_and_tenant_tokens(first: str) -> None:
    """For a self-built app the two tokens are one value, whichever is requested first."""
    both: dict[str, Provider] = {
        "app": FeishuApp(app_id="cli_a1", app_secret="s", base_url=BASE),
        "tenant": FeishuTenant(app_id="cli_a1", app_secret="s", base_url=BASE),
    }
    names = [first, *({"app", "tenant"} - {first})]
    async with world({name: both[name] for name in names}) as one:
        assert 1 == len({await one.value(name) for name in (*names, *names)})
        assert {f"feishu_{first}": 1, (f"feishu_{first}", "cli_a1"): 1} == dict(one.server.calls)


async def test_two_tokens_of_one_response_are_both_kept() -> None:
    """If the app token and the tenant token differ, the provider's own is the value and the other is in `extra`."""
    async with world() as one:
        one.server.feishu_app.script.then(Fault(fields={"app_access_token": "a-1", "tenant_access_token": "t-1"}))
        token = await one.broker.token(FeishuApp(app_id="cli_a1", app_secret="s", base_url=BASE))
    assert ("a-1", {"tenant_access_token": "t-1"}) == (token.value, dict(token.extra))


async def test_two_secrets_of_one_corp_have_two_tokens_and_two_expiries() -> None:
    """An agent and the contacts each have a token; sharing one would get 301002 from WeCom."""
    agent, contacts = (WeCom(corp_id="ww1", corp_secret=secret, base_url=BASE) for secret in ("agent", "contacts"))
    async with world({"agent": agent, "contacts": contacts}, ww1="agent") as one:
        one.server.wecom.secrets["ww1"] = {"contacts"}
        first = await one.broker.token("agent")
        one.clock.advance(3600)
        second = await one.broker.token("contacts")
        assert first.value != second.value
        assert 3600 == second.expires_at - first.expires_at
        assert [first.value, second.value] == [await one.value("agent"), await one.value("contacts")]
        assert 2 == one.server.calls["wecom"]


async def test_two_corps_of_one_app_and_both_apis_of_dingtalk_are_separate() -> None:
    """Corps and APIs do not share tokens: DingTalk does not document that one API accepts the other's."""
    providers: list[Provider] = [
        DingTalk(app_key="ding1", app_secret="s", base_url=BASE),
        DingTalk(app_key="ding1", app_secret="s", base_url=BASE, corp_id="one"),
        DingTalk(app_key="ding1", app_secret="s", base_url=BASE, corp_id="two"),
        DingTalkLegacy(app_key="ding1", app_secret="s", base_url=BASE),
    ]
    async with world() as one:
        assert 4 == len({await one.value(provider) for provider in providers})


def test_one_app_id_in_two_clouds_is_two_apps() -> None:
    """Feishu and Lark have separate apps, so credentials and hosts differ."""
    lark = FeishuTenant(app_id="cli_a1", app_secret="s", base_url="https://open.larksuite.com")
    feishu = FeishuTenant(app_id="cli_a1", app_secret="s")
    assert feishu != lark
    assert (frozenset({"open.feishu.cn"}), frozenset({"open.larksuite.com"})) == (feishu.hosts, lark.hosts)


async def test_changed_secret_is_used_at_once() -> None:
    """A new secret gets a new token; a cache by app id would serve the old one for two hours."""
    async with world(cli_a1="old") as one:
        old = await one.value(FeishuTenant(app_id="cli_a1", app_secret="old", base_url=BASE))
        one.server.clients = {"cli_a1": "new"}
        one.server.issued.revoke_all()
        assert old != await one.value(FeishuTenant(app_id="cli_a1", app_secret="new", base_url=BASE))


async def test_repeated_token_keeps_its_remaining_lifetime() -> None:
    """WeCom repeats a token with the seconds that are left; it is fetched again only when it has expired."""
    wecom = WeCom(corp_id="ww1", corp_secret="s", base_url=BASE)
    async with world() as elsewhere:
        server, clock = elsewhere.server, elsewhere.clock
        first = await elsewhere.value(wecom)
        clock.advance(7000)
        async with (
            httpx.AsyncClient(transport=server.transport()) as http,
            TokenBroker({"wecom": wecom}, http=http, clock=clock) as broker,
        ):
            for _ in range(19):
                assert first == (await broker.token("wecom")).value
                clock.advance(10)
            assert 2 == server.calls["wecom"]
            clock.advance(10)
            assert first != (await broker.token("wecom")).value
            assert 3 == server.calls["wecom"]


@pytest.mark.parametrize("name", ["feishu_tenant", "wecom", "dingtalk"])
async def test_platform_is_not_polled(name: str) -> None:
    """Four hours of steady use cause at most four fetches, although these platforms repeat tokens."""
    async with world({"bot": BY_NAME[name].make()}) as one:
        for _ in range(4 * 60):
            await one.broker.token("bot")
            await one.clock.elapse(60)
        assert 2 <= one.server.calls[name] <= 4


@pytest.mark.parametrize("seconds", [100, 300, "1"])
async def test_short_lifetime_does_not_cause_a_fetch_on_every_call(seconds: object) -> None:
    """A token of a few seconds is cached for its lifetime, and not longer."""
    async with world({"bot": BY_NAME["dingtalk"].make()}) as one:
        one.server.dingtalk.script.always = Fault(fields={"expireIn": seconds})
        for _ in range(50):
            await one.broker.token("bot")
        token = await one.broker.token("bot")
        assert 1 == one.server.calls["dingtalk"]
        assert float(str(seconds)) == token.expires_at - one.clock.time()


@pytest.mark.parametrize("platform", PLATFORMS, ids=str)
async def test_wrong_secret_causes_one_request(platform: Platform) -> None:
    """A hundred requests with a wrong secret cause one fetch, because platforms ban for failing calls."""
    async with world({"bot": platform.make()}, **{CLIENT: "another"}) as one:
        for _ in range(100):
            with pytest.raises(CredentialRejected):
                await one.broker.token("bot")
        assert 1 == one.server.calls[platform.name]
        one.server.clients = {CLIENT: SECRET}
        one.clock.advance(900)
        assert await one.value("bot")


@pytest.mark.parametrize("platform", PLATFORMS, ids=str)
async def test_busy_platform_is_not_asked_before_retry_after(platform: Platform) -> None:
    """Each caller gets an error with the seconds to wait, and the next attempt is made after them."""
    async with world({"bot": platform.make()}) as one:
        platform.endpoint(one.server).script.then(Fault(status=503, headers={"Retry-After": "30"}, body={}))
        for _ in range(10):
            with pytest.raises(TokenUnavailable) as caught:
                await one.broker.token("bot")
            assert 30 <= (caught.value.retry_after or 0) <= 33
        one.clock.advance(33)
        assert await one.value("bot")
        assert 2 == one.server.calls[platform.name]
