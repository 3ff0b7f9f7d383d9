"""The device flow: the user types a code, and the program waits."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from tests.connections.memory_users import MemoryUsers
from tokenmw.connections.app import OAuthApp
from tokenmw.connections.device import DeviceFlow, begin_device
from tokenmw.connections.flow_problem import FlowProblem
from tokenmw.errors import ConfigurationError, TokenUnavailable
from tokenmw.testing import Fault, ManualClock, ProviderServer

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

SECRET = "s3cret-of-crm"


class World:
    """A program without a browser, and the server."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.server = ProviderServer(clients={"crm": SECRET}, clock=self.clock)
        self.client = httpx.AsyncClient(transport=self.server.transport())
        app = OAuthApp(issuer="https://idp.example", client_id="crm", client_secret=SECRET, scope="read")
        self.users = MemoryUsers({"crm": app}, self.client, clock=self.clock)

    async def begin(self) -> DeviceFlow:
        """Begin a flow."""
        return await begin_device(self.users, "crm", "user-17")

    async def pass_time(self, waiting: asyncio.Task[Any], seconds: float) -> None:
        """Let time pass in steps of a second, as long as the flow waits."""
        for _ in range(round(seconds)):
            for _ in range(30):
                await asyncio.sleep(0)
            if waiting.done():
                return
            self.clock.advance(1.0)
        for _ in range(50):
            await asyncio.sleep(0)

    @property
    def polls(self) -> list[float]:
        """When the program has polled."""
        return [post.at for post in self.server.users.posts]


@pytest.fixture
async def world() -> AsyncGenerator[World]:
    """A program and a server on one clock."""
    made = World()
    async with made.client:
        yield made


async def test_the_user_types_the_code(world: World) -> None:
    """The program polls at the server's interval until the user has consented, and stores the pair."""
    flow = await world.begin()
    assert flow.user_code in flow.verification_uri_complete
    assert flow.verification_uri.startswith("https://idp.example/")
    waiting = asyncio.create_task(flow.done())
    await world.pass_time(waiting, 12)
    assert not waiting.done()
    world.server.users.approve_device(flow.user_code, "ada")
    await world.pass_time(waiting, 6)
    await waiting
    assert [5.0, 5.0] == [after - before for before, after in zip(world.polls, world.polls[1:], strict=False)]
    pair = world.users.pairs["crm", "user-17"]
    assert "ada" == world.server.users.family_of(pair.refresh_token or "").user


async def test_the_user_denies(world: World) -> None:
    """The wait ends with the reason."""
    flow = await world.begin()
    world.server.users.deny_device(flow.user_code)
    waiting = asyncio.create_task(flow.done())
    await world.pass_time(waiting, 6)
    with pytest.raises(FlowProblem) as ended:
        await waiting
    assert "denied" == ended.value.kind
    assert not world.users.pairs


async def test_the_code_expires(world: World) -> None:
    """The program stops by its own clock, before the server refuses."""
    world.server.users.device_life = 20.0
    flow = await world.begin()
    waiting = asyncio.create_task(flow.done())
    await world.pass_time(waiting, 30)
    with pytest.raises(FlowProblem) as ended:
        await waiting
    assert "expired" == ended.value.kind
    assert len(world.polls) <= 4


async def test_a_server_that_asks_for_longer_intervals(world: World) -> None:
    """Each `slow_down` adds five seconds (RFC 8628 §3.5)."""
    flow = await world.begin()
    slow = Fault(status=400, body={"error": "slow_down"})
    world.server.oauth2.script.then(slow, slow)
    waiting = asyncio.create_task(flow.done())
    await world.pass_time(waiting, 29)
    world.server.users.approve_device(flow.user_code, "ada")
    await world.pass_time(waiting, 20)
    await waiting
    assert 3 == world.server.calls["oauth2"]


async def test_a_server_that_is_busy_is_asked_less(world: World) -> None:
    """The flow goes on, because the user may consent meanwhile."""
    flow = await world.begin()
    world.server.oauth2.script.then(Fault(status=503), Fault(close=True))
    world.server.users.approve_device(flow.user_code, "ada")
    waiting = asyncio.create_task(flow.done())
    await world.pass_time(waiting, 36)
    await waiting
    assert 3 == world.server.calls["oauth2"]


@pytest.mark.parametrize(
    "fields",
    [
        {"device_code": ""},
        {"user_code": 7},
        {"verification_uri": "javascript:alert(1)"},
        {"verification_uri": None},
        {"user_code": "a\nb"},
        {"expires_in": -1},
    ],
)
async def test_answers_that_cannot_be_used(world: World, fields: Any) -> None:
    """A server that answers nonsense counts as unavailable."""
    world.server.device.script.then(Fault(fields=fields))
    with pytest.raises(FlowProblem) as ended:
        await world.begin()
    assert "unavailable" == ended.value.kind


async def test_answers_that_leave_fields_out(world: World) -> None:
    """Without an interval it is five seconds; Google's old name of the URL is read."""
    without = ["interval", "verification_uri", "verification_uri_complete"]
    world.server.device.script.then(Fault(fields={"verification_url": "https://idp.example/d"}, without=without))
    flow = await world.begin()
    assert ("https://idp.example/d", "") == (flow.verification_uri, flow.verification_uri_complete)


async def test_what_cannot_begin(world: World) -> None:
    """A refused client, and a server without the endpoint."""
    world.server.device.script.then(Fault(status=401, body={"error": "invalid_client"}))
    with pytest.raises(FlowProblem) as ended:
        await world.begin()
    assert "refused" == ended.value.kind
    urls: Any = {"authorize_url": "https://idp.example/a", "token_url": "https://idp.example/t"}
    app = OAuthApp(**urls, client_id="crm", client_secret=SECRET)
    users = MemoryUsers({"crm": app}, world.client, clock=world.clock)
    with pytest.raises(FlowProblem, match="device_url"):
        await begin_device(users, "crm", "user-17")
    with pytest.raises(ConfigurationError, match="scope"):
        await begin_device(users, "crm", "user-17", scope=["read"])  # type: ignore[arg-type]


async def test_a_cancelled_wait_stops_polling(world: World) -> None:
    """The program may give up at any time."""
    flow = await world.begin()
    waiting = asyncio.create_task(flow.done())
    await world.pass_time(waiting, 6)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    polls = len(world.polls)
    world.clock.advance(60.0)
    await asyncio.sleep(0)
    assert polls == len(world.polls)


async def test_a_store_that_cannot_take_the_connection(world: World) -> None:
    """The code is spent, so polling again could only fail with a misleading error."""
    flow = await world.begin()
    world.server.users.approve_device(flow.user_code, "ada")
    world.users.store_fails = True
    waiting = asyncio.create_task(flow.done())
    await world.pass_time(waiting, 30)
    with pytest.raises(TokenUnavailable, match="read-only"):
        await waiting
    assert 1 == len(world.polls)


async def test_a_server_with_a_tiny_interval_is_not_flooded(world: World) -> None:
    """RFC 8628 counts whole seconds."""
    world.server.device.script.then(Fault(fields={"interval": 0.001}))
    flow = await world.begin()
    assert 1.0 == flow._codes.interval


async def test_two_tasks_may_wait_for_one_flow(world: World) -> None:
    """The code is spent once, and a later wait returns at once."""
    flow = await world.begin()
    world.server.users.approve_device(flow.user_code, "ada")
    both = asyncio.gather(flow.done(), flow.done())
    await world.pass_time(asyncio.ensure_future(both), 12)
    await both
    await flow.done()
    assert 1 == len(world.polls)
