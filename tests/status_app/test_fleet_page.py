"""The page and the JSON show all instances of a fleet, and the last hour of this process."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

import pytest

from tests.asgi_client import Source
from tests.status_app.fleets import write_heartbeats
from tests.status_app.serving import AT, everyone, serve_status
from tests.status_app.shown import SECRET, broker_of, fill
from tests.status_app.test_status_json import status_until
from tokenmw import Limits, TokenBroker, TokenUnavailable
from tokenmw.providers import StaticToken
from tokenmw.status_app.fleet_page import instances_summary
from tokenmw.status_app.html import counted, duration, outages_strip

if TYPE_CHECKING:
    from tests.servers import RedisServer


def keep_heartbeats(server: RedisServer) -> None:
    """Let all heartbeats begin their 15 s again, as if they were written now: a busy machine is slow."""
    with server.connect() as connection:
        for key in connection.call("KEYS", "*beat*"):
            connection.call("PEXPIRE", key, 15_000)


def test_a_count_of_one_has_a_singular() -> None:
    """No page shows `1 tokens`."""
    assert [counted(number, "token") for number in (0, 1, 2)] == ["0 tokens", "1 token", "2 tokens"]


async def test_a_fleet_of_200_is_shown_by_each_instance(redis_server: RedisServer) -> None:
    """All in the JSON, twenty on the page, those that disagree first; in less than 100 KB and 0.2 s."""
    broker = broker_of(redis=redis_server.url, limits=Limits(command_seconds=2.0))
    async with serve_status(broker, allow_all=True) as client:
        await fill(broker, tenants=0, sessions=10)
        await write_heartbeats(broker, 200, wrong=3)
        await status_until(client, lambda status: len(status["instances"]) == 201)
        durations: list[float] = []
        for _ in range(3):
            await asyncio.sleep(2.1)  # so that the fleet is read again
            keep_heartbeats(redis_server)
            began = time.thread_time()  # of server and client, without other programs
            await client.get(f"{AT}/status.json")
            durations.append(time.thread_time() - began)
        answered = await client.get(f"{AT}/status.json")
        page = (await client.get(f"{AT}/")).text
    instances = answered.json()["instances"]
    assert len(answered.content) < 100_000
    assert min(durations) < 0.2, durations
    assert [one["own"] for one in instances] == [True] + [False] * 200
    assert sum(one["differs"] == ["version"] for one in instances) == 3
    assert "3 of 201 instances disagree with the others." in page
    assert "<h2>Instances: 201</h2>" in page
    assert page.count("another version") == 3
    assert "And 181 more." in page
    assert len(page) < 60_000
    assert SECRET not in answered.text + page


@pytest.mark.campaign
async def test_the_largest_page_is_small_and_quick(redis_server: RedisServer) -> None:
    """With 500 tenants, 10 000 sessions, 200 instances and 50 events: less than 60 KB and 200 ms."""
    limits = Limits(new_sessions=20_000, command_seconds=2.0)
    broker = broker_of(redis=redis_server.url, limits=limits)
    async with serve_status(broker, allow_all=True, allow_actions=everyone) as client:
        await fill(broker, tenants=500, sessions=10_000)
        durations: list[float] = []
        await write_heartbeats(broker, 200, wrong=10)
        for _ in range(3):
            await asyncio.sleep(2.1)
            keep_heartbeats(redis_server)
            began = time.thread_time()  # of server and client, without other programs
            await client.get(f"{AT}/")
            durations.append(time.thread_time() - began)
        page = await client.get(f"{AT}/")
        status = (await client.get(f"{AT}/status.json")).json()
    assert len(status["instances"]) == 201
    assert len(status["events"]) == 50
    assert len(page.content) < 60_000
    assert min(durations) < 0.2, durations
    assert SECRET not in page.text + str(status)


async def test_a_slow_redis_does_not_make_the_page_slow(private_redis: RedisServer) -> None:
    """While it hangs, the fleet of before is shown, and the page takes 0.1 s longer."""
    broker = broker_of(redis=private_redis.url)
    async with serve_status(broker, allow_all=True) as client:
        await status_until(client, lambda status: len(status["instances"]) == 1)
        private_redis.freeze()
        try:
            await asyncio.sleep(2.1)
            began = time.perf_counter()
            assert "<h2>Instances: " in (await client.get(f"{AT}/")).text
            assert time.perf_counter() - began < 1.0
        finally:
            private_redis.thaw()


async def test_what_has_happened_is_shown(private_redis: RedisServer) -> None:
    """Token requests and their duration, commands and their failures, an outage as a strip, and actions as events."""
    source = Source()
    broker = TokenBroker({"crm": StaticToken(source, credential_id="crm")}, redis=private_redis.url, secret_key=SECRET)
    async with serve_status(broker, allow_all=True, allow_actions=everyone) as client:
        await broker.token("crm")
        same = {"sec-fetch-site": "same-origin"}
        await client.post(f"{AT}/invalidate", data={"provider": "crm"}, headers=same)
        private_redis.kill()
        for number in range(4):
            await broker.session_id(f"key-{number}")
        down = await status_until(client, lambda status: status["redis"]["state"] == "down")
        private_redis.restart()
        status = await status_until(client, lambda status: status["redis"]["state"] == "up")
        page = (await client.get(f"{AT}/")).text
    (crm,) = status["providers"]
    assert crm["fetches_last_hour"] >= 1
    assert 0 <= crm["fetch_p95"] < 5
    ((began, ended),) = down["redis"]["nodes"][0]["outages"]
    assert ended is None
    ((still, ended),) = status["redis"]["nodes"][0]["outages"]
    assert began == still < ended <= time.time()
    commands = status["redis"]["commands"]
    assert commands["last_hour"] > 5
    assert 0 < commands["p50"] <= commands["p95"] < 5
    assert sum(commands["errors_last_hour"].values()) >= 3
    shown = [(one["subject"], one["text"]) for one in status["events"]]
    node = f"127.0.0.1:{private_redis.port}"
    assert (node, "recovered") in shown
    assert ("crm", "an operator requested invalidate") in shown
    assert ("crm", "token fetched") in shown
    assert "1 outage, " in page
    assert '<rect class="out"' in page
    assert "95 % within" in page


async def test_waiting_callers_are_counted() -> None:
    """By provider, while a token request takes its time."""
    allowed = asyncio.Event()

    async def slow() -> str:
        await allowed.wait()
        return "t"

    def chosen(_connection: object) -> StaticToken:
        return StaticToken(slow, credential_id="tenant")

    broker = TokenBroker({"crm": StaticToken(slow, credential_id="crm"), "tenants": chosen})
    async with serve_status(broker, allow_all=True) as client:
        waiting = [asyncio.ensure_future(broker.token("crm")) for _ in range(7)]
        status = await status_until(client, lambda status: status["providers"][0]["waiting"] == 7)
        assert status["providers"][1]["waiting"] == 0
        allowed.set()
        await asyncio.gather(*waiting)
        await status_until(client, lambda status: status["providers"][0]["waiting"] == 0)


async def test_events_have_no_secret_and_no_tenant() -> None:
    """Tenants have their opaque names; errors have a reason, and not the text of a provider."""

    async def rejected() -> str:
        raise TokenUnavailable(f"{SECRET}.example does not answer")

    broker = TokenBroker({"crm": StaticToken(rejected, credential_id=SECRET)}, secret_key=SECRET)
    async with serve_status(broker, allow_all=True) as client:
        with pytest.raises(TokenUnavailable):
            await broker.token("crm")
        events = (await client.get(f"{AT}/status.json")).json()["events"]
    assert [("crm", "token request failed (unanswered)", "bad")] == [
        (one["subject"], one["text"], one["level"]) for one in events
    ]
    assert SECRET not in str(events)


INSTANCE: dict[str, Any] = {"stale": False, "differs": []}


@pytest.mark.parametrize(
    ("instances", "expected"),
    [
        ([], []),
        ([INSTANCE], []),
        ([INSTANCE, {**INSTANCE, "stale": True}], ["1 of 2 instances is stale"]),
        (
            [INSTANCE, *[{"stale": True, "differs": ["redis"]}] * 2],
            ["2 of 3 instances are stale", "2 of 3 instances disagree with the others"],
        ),
    ],
)
def test_the_summary_counts_instances(instances: list[dict[str, Any]], expected: list[str]) -> None:
    """Those that are stale, and those that disagree."""
    assert expected == instances_summary(instances)


def test_durations_and_the_strip_of_an_hour_are_readable() -> None:
    """A short outage is wide enough to be seen, and one from before the hour begins at its left end."""
    assert ["0.4 ms", "42 ms", "1.5 s"] == [duration(seconds) for seconds in (0.0004, 0.042, 1.5)]
    assert outages_strip([], 10_000.0).startswith("no outage<svg class")
    strip = outages_strip([[1000.0, 6500.0], [9990.0, None]], 10_000.0)
    assert strip.startswith("2 outages, 110 s<svg class")
    assert '<rect class="out" x="0" width="100"' in strip
    assert '<rect class="out" x="3555" width="45"' in strip
