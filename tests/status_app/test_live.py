"""Server-sent events: live, bounded, and over when the broker closes."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import pytest

from tests.status_app.serving import AT, serve_status
from tests.status_app.shown import SECRET, broker_of, fill
from tokenmw import TokenBroker
from tokenmw.status_app import live


async def next_event(lines: Any) -> dict[str, Any]:
    """Return the data of the next event."""
    async for line in lines:
        if line.startswith("data: "):
            event: dict[str, Any] = json.loads(line.removeprefix("data: "))
            return event
    raise EOFError


async def test_a_change_arrives_within_two_seconds() -> None:
    """A listener gets the state as it begins, and its change."""
    broker = broker_of()
    async with serve_status(broker) as client, client.stream("GET", f"{AT}/events") as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
        assert stream.headers["cache-control"] == "no-store"
        lines = stream.aiter_lines()
        assert (await next_event(lines))["level"] == "good"
        await fill(broker, tenants=1, sessions=1)
        async with asyncio.timeout(2):
            while (event := await next_event(lines))["level"] != "bad":
                pass
    assert event["summary"].startswith("No token for billing, mail.")
    assert SECRET not in event["html"]


async def test_listeners_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """One more than the bound gets 503; a listener that has left makes room."""
    monkeypatch.setattr(live, "_MOST", 2)
    monkeypatch.setattr(live, "_EVERY", 0.02)
    async with serve_status(TokenBroker({})) as client:
        async with client.stream("GET", f"{AT}/events") as first, client.stream("GET", f"{AT}/events") as second:
            await next_event(first.aiter_lines())
            await next_event(second.aiter_lines())
            refused = await client.get(f"{AT}/events")
            assert (refused.status_code, refused.headers["retry-after"]) == (503, "10")
        async with asyncio.timeout(5):
            while True:
                async with client.stream("GET", f"{AT}/events") as again:
                    if again.status_code == 200:
                        return
                await asyncio.sleep(0.02)


async def test_a_listener_does_not_prevent_the_shutdown(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stream ends by itself, so that a server that waits for open responses shuts down."""
    monkeypatch.setattr(live, "_LONGEST", 0.5)
    monkeypatch.setattr(live, "_EVERY", 0.05)
    async with serve_status(TokenBroker({})) as client, client.stream("GET", f"{AT}/events") as stream:
        lines = stream.aiter_lines()
        await next_event(lines)
        began = time.monotonic()
        assert [line async for line in lines]
        assert time.monotonic() - began < 2


async def test_a_stream_ends_when_the_broker_closes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A broker that is closed while a listener is connected ends the stream."""
    monkeypatch.setattr(live, "_EVERY", 0.02)
    broker = TokenBroker({})
    async with serve_status(broker) as client, client.stream("GET", f"{AT}/events") as stream:
        lines = stream.aiter_lines()
        await next_event(lines)
        await broker.__aexit__()
        async with asyncio.timeout(1):
            assert [line async for line in lines]
        await broker.__aenter__()
