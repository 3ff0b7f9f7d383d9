"""A flow is completed once, over all processes if they share Redis, and in each process without it."""

from __future__ import annotations

from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.routing import Mount

from tests.connections.connecting import CALLBACK, IDP, PAGE, SECRET, SITE, kind_of
from tests.connections.memory_store import MemoryStore
from tokenmw import TokenBroker
from tokenmw.connections import ConnectApp, Connections, OAuthApp
from tokenmw.testing import ProviderServer

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from starlette.requests import HTTPConnection

    from tests.servers import RedisServer

SEALS = "k7Qm-secret-of-the-sealer-91"


def user_of(connection: HTTPConnection) -> str | None:
    """Return the user that a header names."""
    return connection.headers.get("x-user")


class Program:
    """Two processes of one program, one browser, and a server that revokes what a code got if it comes again."""

    def __init__(self, *, redis: str | None) -> None:
        self.server = ProviderServer(clients={"crm": SECRET})
        self.server.users.register("crm", CALLBACK)
        self.server.users.auto = "ada@idp"
        self.idp = httpx.AsyncClient(transport=self.server.transport())
        store = MemoryStore()
        self.brokers: list[TokenBroker] = []
        self.browsers: list[httpx.AsyncClient] = []
        for _ in range(2):
            app = OAuthApp(issuer=IDP, client_id="crm", client_secret=SECRET, scope="openid")
            config = Connections({"crm": app}, store=store, subject=user_of)
            options: dict[str, Any] = {"secret_key": SEALS, "redis": redis, "http": self.idp}
            broker = TokenBroker({}, connections=config, **options)
            connect = Starlette(routes=[Mount("/connect", ConnectApp(broker, allow=lambda _: True))])
            transport = httpx.ASGITransport(app=connect)
            self.brokers.append(broker)
            self.browsers.append(httpx.AsyncClient(transport=transport, base_url=SITE, headers=dict(PAGE)))

    async def replayed(self) -> tuple[httpx.Response, httpx.Response]:
        """Complete a flow in one process, and send the same request with the same cookie to the other one."""
        first, second = self.browsers
        begun = await first.get("/connect/crm")
        cookie = "; ".join(f"{name}={value}" for name, value in first.cookies.items())
        callback = (await self.idp.get(begun.headers["location"])).headers["location"]
        return await first.get(callback), await second.get(callback, headers={"cookie": cookie})


@asynccontextmanager
async def program(redis: str | None) -> AsyncGenerator[Program]:
    """Open both processes."""
    made = Program(redis=redis)
    async with AsyncExitStack() as stack:
        opened: Any
        for opened in (made.idp, *made.brokers, *made.browsers):
            await stack.enter_async_context(opened)
        yield made


async def test_another_process_refuses_a_flow_that_was_completed(redis_server: RedisServer) -> None:
    """The code is not sent again, so the connection stays alive; Redis keeps a digest for as long as a flow lasts."""
    async with program(redis_server.url) as made:
        answer, again = await made.replayed()
        assert (200, "expired") == (answer.status_code, kind_of(again))
        (post,) = made.server.users.posts
        assert post.family is not None
        assert post.family.alive
        (key,) = redis_server.command("KEYS", "*:flow")
        assert 600_000 < redis_server.command("PTTL", key) <= 660_000


@pytest.mark.parametrize("fault", ["none", "stopped"])
async def test_without_redis_each_process_completes_a_flow_once(private_redis: RedisServer, fault: str) -> None:
    """While Redis is unavailable, users connect all the same: the code and the cookie have one use of their own."""
    url = None if fault == "none" else private_redis.url
    async with program(url) as made:
        if fault == "stopped":
            private_redis.kill()
        answer, again = await made.replayed()
        assert 200 == answer.status_code
        assert again.status_code in (200, 502)  # the server refuses the code
        assert "expired" == kind_of(await made.browsers[0].get(answer.request.url, headers=answer.request.headers))
