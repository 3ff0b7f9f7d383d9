"""A reply that is not that of its command ends its connection, and no request gets what it holds."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from redis.asyncio import RedisCluster

from tests.proxies import Proxy
from tests.redis.glides import configuration_of
from tokenmw import Limits, TokenBroker
from tokenmw.providers import ClientCredentials
from tokenmw.testing import ProviderServer

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator

    from tests.servers import RedisServer

NAMES = ("crm", "billing", "support")
CLIENTS = pytest.mark.parametrize("client", ["redis-py", pytest.param("glide", marks=pytest.mark.sdk)])
KEYS = [f"key-{number}" for number in range(6)]


class StaleProxy(Proxy):
    """Forwards in place of each reply the one before it, as if the first one had been doubled, a little late.

    Nothing is left over that a client could notice: when it sends a command, it has read all that has arrived.
    """

    def __init__(self, target: int) -> None:
        super().__init__(target)
        self.stale = False
        self._before: dict[int, bytes] = {}

    async def _reply(self, writer: asyncio.StreamWriter, chunk: bytes) -> bool:
        before = self._before.get(id(writer), chunk) if self.stale else chunk
        self._before[id(writer)] = chunk
        return await super()._reply(writer, before)


@pytest.fixture
async def proxy(redis_server: RedisServer) -> AsyncGenerator[StaleProxy]:
    """The proxy in front of the server."""
    async with StaleProxy(redis_server.port) as proxy:
        yield proxy


@pytest.fixture
def base_url() -> Iterator[str]:
    """The URL of a token server."""
    with ProviderServer().running() as url:
        yield url


def broker_of(given: Any, base_url: str, **options: Any) -> TokenBroker:
    """Make a broker with a token for each name."""
    providers = {
        name: ClientCredentials(token_url=f"{base_url}/oauth2/token", client_id=name, client_secret="secret")
        for name in NAMES
    }
    limits = Limits(command_seconds=1.0, connections=4)
    return TokenBroker(providers, redis=given, secret_key="a secret for the tests only", limits=limits, **options)


def given(proxy: Proxy, client: str) -> Any:
    """Return what a program passes as `redis=`."""
    return proxy.url if client == "redis-py" else configuration_of(proxy.url)


@CLIENTS
@pytest.mark.parametrize("seal", [True, False], ids=["sealed", "plain"])
async def test_a_stale_reply_gives_nobody_a_foreign_token(
    redis_server: RedisServer, proxy: StaleProxy, base_url: str, client: str, *, seal: bool
) -> None:
    """The reply with another provider's token has the right form: it is seen to be stale all the same."""
    async with (
        broker_of(redis_server.url, base_url, seal=seal) as first,
        broker_of(given(proxy, client), base_url, seal=seal) as second,
    ):
        stored = {name: (await first.token(name)).value for name in NAMES}
        await second.token("support")
        proxy.stale = True
        served = {name: (await second.token(name)).value for name in NAMES}
    foreign = {name: value for name, value in served.items() if value in set(stored.values()) - {stored[name]}}
    assert {} == foreign


@CLIENTS
@pytest.mark.parametrize("seal", [True, False], ids=["sealed", "plain"])
async def test_a_stale_reply_gives_nobody_a_foreign_session_id(
    redis_server: RedisServer, proxy: StaleProxy, base_url: str, client: str, *, seal: bool
) -> None:
    """Nor do several keys of one batch."""
    options = {"seal": seal, "session_ids": "random"}
    async with (
        broker_of(redis_server.url, base_url, **options) as first,
        broker_of(given(proxy, client), base_url, **options) as second,
    ):
        stored = {key: await first.session_id(key) for key in KEYS}
        proxy.stale = True
        one_by_one = {key: await second.session_id(key) for key in KEYS[:3]}
        together = dict(zip(KEYS[3:], await asyncio.gather(*map(second.session_id, KEYS[3:])), strict=True))
    for key, session_id in (one_by_one | together).items():
        assert session_id not in set(stored.values()) - {stored[key]}


async def test_an_echo_is_of_the_same_server_in_a_cluster(cluster: RedisServer, base_url: str) -> None:
    """Values that are not sealed are shared through a cluster as well."""
    async with (
        RedisCluster(host="127.0.0.1", port=cluster.port, protocol=3) as client,
        broker_of(client, base_url, seal=False) as first,
        broker_of(client, base_url, seal=False) as second,
    ):
        assert (await first.token("crm")).value == (await second.token("crm")).value
        ids = [[await broker.session_id(key) for key in KEYS] for broker in (first, second)]
        assert ids[0] == ids[1]
        assert ["up", "up"] == [broker.status().shared for broker in (first, second)]
    assert 6 == len(cluster.command("KEYS", "tokenmw:*:session"))


@pytest.mark.parametrize(
    "reply", [b"*1\r\n$3\r\nfoo\r\n", b"$3\r\nfoo\r\n", b":7\r\n", b"*4\r\n:1\r\n:2\r\n:3\r\n:4\r\n"]
)
async def test_a_reply_of_another_form_fails_no_request(
    proxy: StaleProxy, base_url: str, reply: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """It counts as a failure of Redis, and the log says what to look for. Redis is used again with the next command."""
    async with broker_of(proxy.url, base_url) as broker:
        for name in NAMES:
            proxy.answer = reply
            assert (await broker.token(name)).value
            proxy.answer = None
            assert await broker.session_id(f"key of {name}")
        assert broker.status().shared == "up"
    assert not [message for message in caplog.messages if "raised" in message]
    assert any("a reply is damaged or not that of its command" in message for message in caplog.messages)
