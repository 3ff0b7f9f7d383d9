"""Feishu store apps: a tenant's token needs the app's token, and that needs a ticket from the platform."""

from __future__ import annotations

from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import TYPE_CHECKING

import anyio
import httpx
import pytest

from tests.brokers import runtime_of
from tests.providers.platforms import BASE
from tokenmw import ConfigurationError, CredentialRejected, TokenBroker, TokenUnavailable
from tokenmw.providers import FeishuStoreApp, FeishuStoreTenant, FeishuTicket
from tokenmw.testing import ManualClock, ProviderServer

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from tests.servers import RedisServer

APP = {"app_id": "cli_s1", "app_secret": "s3cr3t", "base_url": BASE}
TICKET = FeishuTicket(app_id="cli_s1", app_secret="s3cr3t", base_url=BASE)


def tenant(key: str, secret: str = "s3cr3t") -> FeishuStoreTenant:
    """Make the credential of one tenant."""
    return FeishuStoreTenant(app_id="cli_s1", app_secret=secret, tenant_key=key, base_url=BASE)


@asynccontextmanager
async def instances(
    server: ProviderServer, *, clock: ManualClock, redis: str | None = None, count: int = 1
) -> AsyncGenerator[list[TokenBroker]]:
    """Start instances of a service."""
    async with AsyncExitStack() as stack:
        http = await stack.enter_async_context(httpx.AsyncClient(transport=server.transport()))
        made = [
            TokenBroker({}, redis=redis, secret_key="a secret for the tests only", http=http, clock=clock)
            for _ in range(count)
        ]
        yield [await stack.enter_async_context(broker) for broker in made]


async def test_one_ticket_and_one_app_token_serve_all_tenants() -> None:
    """Two tenants of one app have two tokens, fetched with one app token."""
    server, clock = ProviderServer(clients={"cli_s1": "s3cr3t"}), ManualClock()
    server.feishu_ticket.tickets["cli_s1"] = "ticket-1"
    async with instances(server, clock=clock) as [broker]:
        await broker.hand_in(TICKET, FeishuTicket.grant("ticket-1"))
        values = {(await broker.token(tenant(key))).value for key in ("one", "two", "one")}
        app = await broker.token(FeishuStoreApp(app_id="cli_s1", app_secret="s3cr3t", base_url=BASE))
    assert (2, "a-") == (len(values), app.value[:2])
    counted = ("feishu_ticket", "feishu_store_app", "feishu_store_tenant")
    assert [0, 1, 2] == [server.calls[name] for name in counted]


async def test_without_a_ticket_the_platform_is_asked_to_send_it() -> None:
    """The platform is asked once for many requests, and the first request after the event succeeds."""
    server, clock = ProviderServer(clients={"cli_s1": "s3cr3t"}), ManualClock()
    async with instances(server, clock=clock) as [broker]:
        for _ in range(5):
            with pytest.raises(TokenUnavailable, match="which comes as an event"):
                await broker.token(tenant("one"))
        assert 1 == server.calls["feishu_ticket"]
        server.feishu_ticket.tickets["cli_s1"] = "ticket-1"
        await broker.hand_in(TICKET, FeishuTicket.grant("ticket-1"))
        assert (await broker.token(tenant("one"))).value


async def test_refused_ticket_is_dropped_and_requested_again() -> None:
    """Code 10012 drops the ticket, and the next attempt asks the platform for another."""
    server, clock = ProviderServer(clients={"cli_s1": "s3cr3t"}), ManualClock()
    server.feishu_ticket.tickets["cli_s1"] = "ticket-2"
    async with instances(server, clock=clock) as [broker]:
        await broker.hand_in(TICKET, FeishuTicket.grant("ticket-1"))
        clock.advance(10)
        with pytest.raises(TokenUnavailable, match="refuses the app_ticket"):
            await broker.token(tenant("one"))
        clock.advance(5)
        with pytest.raises(TokenUnavailable, match="comes as an event"):
            await broker.token(tenant("one"))
        assert 1 == server.calls["feishu_ticket"]
        await broker.hand_in(TICKET, FeishuTicket.grant("ticket-2"))
        clock.advance(10)
        assert (await broker.token(tenant("one"))).value


async def test_refused_app_token_is_replaced() -> None:
    """Code 99991664 drops the app's token, and the tenant's next attempt uses a new one."""
    server, clock = ProviderServer(clients={"cli_s1": "s3cr3t"}), ManualClock()
    server.feishu_ticket.tickets["cli_s1"] = "ticket-1"
    async with instances(server, clock=clock) as [broker]:
        await broker.hand_in(TICKET, FeishuTicket.grant("ticket-1"))
        await broker.token(tenant("one"))
        server.issued.revoke_all()
        clock.advance(10)
        with pytest.raises(TokenUnavailable, match="refuses the app token of app_id="):
            await broker.token(tenant("two"))
        clock.advance(2)
        assert (await broker.token(tenant("two"))).value
        assert 2 == server.calls["feishu_store_app"]


async def test_ticket_of_one_process_is_used_by_another(redis_server: RedisServer) -> None:
    """A ticket is shared through Redis, sealed, and a later one replaces it, whichever process receives it."""
    server, clock = ProviderServer(clients={"cli_s1": "s3cr3t"}), ManualClock()
    async with instances(server, clock=clock, redis=redis_server.url, count=3) as [first, second, third]:
        for number, getter in enumerate((first, second), 1):
            server.feishu_ticket.tickets["cli_s1"] = f"ticket-{number}"
            await getter.hand_in(TICKET, FeishuTicket.grant(f"ticket-{number}"))
        assert "ticket-2" == (await third.token(TICKET)).value
        assert (await third.token(tenant("one"))).value == (await first.token(tenant("one"))).value
    assert (0, 1) == (server.calls["feishu_ticket"], server.calls["feishu_store_tenant"])


async def test_late_ticket_ends_the_backoff_in_all_processes(redis_server: RedisServer) -> None:
    """The process that receives it uses it for the next request, the others within a second of their next request."""
    server, clock = ProviderServer(clients={"cli_s1": "s3cr3t"}), ManualClock()
    async with instances(server, clock=clock, redis=redis_server.url, count=2) as [first, second]:
        for _ in range(40):
            for broker in (first, second):
                with pytest.raises(TokenUnavailable, match="comes as an event"):
                    await broker.token(tenant("one"))
            clock.advance(5)
        for broker in (first, second):  # the time stands still from here on, so that a backoff is running
            with pytest.raises(TokenUnavailable, match="comes as an event"):
                await broker.token(tenant("one"))
        asked = server.calls["feishu_ticket"]
        server.feishu_ticket.tickets["cli_s1"] = "ticket-1"
        await first.hand_in(TICKET, FeishuTicket.grant("ticket-1"))
        value = (await first.token(tenant("one"))).value
        with suppress(TokenUnavailable):  # unless a hint has arrived before it
            await second.token(tenant("one"))
        with anyio.fail_after(10):
            while runtime_of(second).tokens.refreshing(second._data.tokens.entry(TICKET, "ticket")):  # noqa: ASYNC110  no event reports it
                await anyio.sleep(0.001)
        assert value == (await second.token(tenant("one"))).value
        assert asked == server.calls["feishu_ticket"]


async def test_wrong_secret_is_permanent_for_all_three() -> None:
    """The first request for a tenant's token gets the platform's code."""
    server = ProviderServer(clients={"cli_s1": "s3cr3t"})
    async with instances(server, clock=ManualClock()) as [broker]:
        with pytest.raises(CredentialRejected, match="10014"):
            await broker.token(tenant("one", secret="wrong"))


def test_tenants_clouds_and_kinds_are_separate() -> None:
    """Tenant, secret, cloud and kind each make another credential."""
    lark = FeishuStoreTenant(app_id="cli_s1", app_secret="s3cr3t", tenant_key="one")
    different = [tenant("one"), tenant("two"), tenant("one", "t"), lark, FeishuStoreApp(**APP), TICKET]  # type: ignore[arg-type]
    assert len(different) == len(set(different))
    assert tenant("one") == tenant("one")
    with pytest.raises(ConfigurationError, match=r"FeishuStoreTenant\(tenant_key=…\) is empty"):
        tenant("")
