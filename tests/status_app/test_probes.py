"""The probes of an orchestrator: open to all, without a word about the broker, and never 503 because of Redis."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

import pytest

from tests.asgi_client import Source, call
from tests.status_app.serving import AT, serve_status
from tokenmw import ConfigurationError, Limits, Status, TokenBroker, TokenUnavailable
from tokenmw.providers import StaticToken
from tokenmw.status_app import StatusApp

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.servers import RedisServer

QUICK = Limits(backoff_seconds=0.05, probe_seconds=0.05, max_backoff_seconds=0.1)


def nobody(_connection: object) -> bool:
    """Refuse everyone."""
    return False


async def until_ready(client: Any, *, seconds: float = 5.0) -> None:
    """Wait until `/readyz` is 200."""
    async with asyncio.timeout(seconds):
        while (await client.get(f"{AT}/readyz")).status_code != 200:  # noqa: ASYNC110  the change is on the server
            await asyncio.sleep(0.02)


async def test_a_late_event_loop_is_not_alive() -> None:
    """`/livez` is 503 while the event loop is late by more than `max_lag`, and 200 again afterwards."""
    async with TokenBroker({}) as broker:
        app = StatusApp(broker, allow_all=True, max_lag=0.1)
        asyncio.get_running_loop().call_later(0.005, time.sleep, 0.2)
        late = await call(app, path="/livez")
        assert (late.status, late.body) == (503, b"not ok")
        assert (await call(app, path="/livez")).status == 200


async def test_a_process_is_ready_once_it_had_its_tokens() -> None:
    """`/readyz` asks for missing tokens without waiting, is 200 once they came, and stays so when a provider fails."""
    source = Source(life=1.0)
    source.error = TokenUnavailable("canary.example:443 refuses connections")
    broker = TokenBroker({"crm": StaticToken(source), "tenants": lambda _: StaticToken("t")}, limits=QUICK)
    async with serve_status(broker, allow=nobody) as client:
        first = await client.get(f"{AT}/readyz")
        assert (first.status_code, first.text) == (503, "not ok")
        source.error = None
        await until_ready(client)
        source.error = TokenUnavailable("canary.example:443 refuses connections")
        await broker.invalidate_provider("crm")
        with pytest.raises(TokenUnavailable):
            await broker.token("crm")
        assert (await client.get(f"{AT}/readyz")).text == "ok"


async def test_probes_of_a_failing_provider_obey_its_backoff() -> None:
    """A hundred probes are one token request."""
    source = Source()
    source.error = TokenUnavailable("busy", retry_after=60)
    async with TokenBroker({"crm": StaticToken(source)}) as broker:
        app = StatusApp(broker, allow_all=True)
        for _ in range(100):
            assert (await call(app, path="/readyz")).status == 503
            await asyncio.sleep(0)
    assert source.calls == 1


async def test_only_named_tokens_count() -> None:
    """`ready=[…]` names the tokens that this process needs."""
    source = Source()
    source.error = TokenUnavailable("busy")
    async with TokenBroker({"crm": StaticToken("t"), "busy": StaticToken(source)}) as broker:
        await broker.token("crm")
        assert (await call(StatusApp(broker, allow_all=True, ready=["crm"]), path="/readyz")).status == 200
        assert (await call(StatusApp(broker, allow_all=True), path="/readyz")).status == 503
        for wrong in (["other"], "crm", lambda: True):
            with pytest.raises(ConfigurationError, match="ready"):
                StatusApp(broker, allow_all=True, ready=wrong)


async def raises(_status: Status) -> bool:
    """Raise instead of an answer."""
    raise LookupError


POLICIES: list[tuple[Callable[[Status], object], int]] = [
    (lambda status: status.shared == "off", 200),
    (lambda _: False, 503),
    (lambda _: (True,), 503),
    (raises, 503),
]


@pytest.mark.parametrize(("policy", "code"), POLICIES)
async def test_a_policy_decides_alone(policy: Any, code: int) -> None:
    """It gets the status; if it does not decide, the process is not ready."""
    async with TokenBroker({"crm": StaticToken("t")}) as broker:
        assert (await call(StatusApp(broker, allow_all=True, ready=policy), path="/readyz")).status == code


async def test_redis_does_not_end_readiness(private_redis: RedisServer) -> None:
    """With Redis killed, and never there, `/readyz` and `/livez` are 200."""
    broker = TokenBroker({"crm": StaticToken("t")}, redis=private_redis.url, secret_key="a-secret-of-some-length")
    async with serve_status(broker, allow_all=True) as client:
        private_redis.kill()
        await until_ready(client)
        assert (await client.get(f"{AT}/livez")).status_code == 200


async def test_a_closed_broker_is_not_ready() -> None:
    """Before it is opened, and after it was closed."""
    broker = TokenBroker({})
    app = StatusApp(broker, allow_all=True)
    assert (await call(app, path="/readyz")).status == 503
    async with broker:
        assert (await call(app, path="/readyz")).status == 200
    assert (await call(app, path="/readyz")).status == 503
