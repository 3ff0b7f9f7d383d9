"""The walks: what each does, and which part of it is counted.

What is counted is defined once, for all walks, in `tests/walks/recording.py`:

- `files`: every file of the package in which any code runs, also a constructor, a property, a decorator's wrapper or
  a callback. Not counted are `tokenmw/testing` and `tokenmw/demo`, code that runs at import or when the broker is
  made (before the walk begins), and tasks that were started before the walk, such as housekeeping.
- `awaited`: those of the files in which a coroutine runs. These pass the request on; the others are called by them.
- `moves`: calls from one file of the package into another, also through a library in between. Resuming a coroutine
  is no call.

Redis is a real server on loopback; the provider and the API are the test server, in this process. Values are sealed.

| walk | begins | ends |
|---|---|---|
| `warm` | a request whose session id and injected token are known here | its response |
| `cold_token` | a request without a session, for an injected token that no process has | its response |
| `cold` | the same with a new API key as well | its response |
| `rejected` | a request with the auth object whose token the API has revoked | the response to the second attempt |
| `failure` | redis-py gives up the third command after Redis was killed | the line "unavailable" is logged |
| `failure_request` | the request with the first such command, for a new API key | its response, with a derived id |
| `opening` | redis-py gives up the third such command | observers are notified that Redis is down |
| `recovery` | Redis is running again | the line "recovered" is logged, and the re-upload is arranged |
| `outage` | `failure`, `opening` and `recovery` together: from a failure to its log line, and back | |
| `reupload` | the re-upload is arranged | token and sessions are in Redis again; housekeeping counts |
| `healed` | `outage` and `reupload` together: from a failure until everything is shared again | |
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any

import httpx

from tests.asgi_client import answering, call
from tests.brokers import runtime_of
from tests.servers import RedisServer
from tests.walks.recording import Recorder, Walk
from tokenmw import Limits, TokenBroker, TokenMiddleware
from tokenmw.observe import Event, SharedStateChanged
from tokenmw.providers import ClientCredentials
from tokenmw.testing import ManualClock, ProviderServer

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from starlette.types import Scope

__all__ = ["walks"]

TOKEN_URL = "https://idp.example/oauth2/token"
# The profile hook makes everything slower, and no command may time out because of it.
LIMITS = Limits(command_seconds=5.0, connect_seconds=10.0)


async def walks() -> dict[str, Walk]:
    """Do all walks, and return what was counted of each."""
    return {**await _requests(), **await _rejected(), **await _outage()}


class World:
    """One broker with a real Redis, a provider and an API. Its clock is manual, so housekeeping does not run."""

    def __init__(self, redis: RedisServer, http: httpx.AsyncClient, server: ProviderServer) -> None:
        self.redis = redis
        self.http = http
        self.server = server
        self.clock = ManualClock()
        crm = ClientCredentials(token_url=TOKEN_URL, client_id="crm", client_secret="a client's secret")
        self.broker = TokenBroker(
            {"crm": crm},
            redis=redis.url,
            secret_key="a secret of some length",
            http=http,
            limits=LIMITS,
            clock=self.clock,
        )

        app = answering(_show)
        self._with_session = TokenMiddleware(app, broker=self.broker, inject=["crm"])
        self._without_session = TokenMiddleware(app, broker=self.broker, inject=["crm"], sessions=False)

    async def request(self, key: bytes, *, sessions: bool = True) -> Any:
        """Send a request through the middleware, and return what its handler saw: session id and token."""
        app = self._with_session if sessions else self._without_session
        return (await call(app, headers=[(b"x-api-key", key)], state={})).json


async def _show(scope: Scope) -> Any:
    return [scope["state"].get("session_id"), scope["state"]["tokens"]["crm"].value]


@asynccontextmanager
async def _world() -> AsyncGenerator[World]:
    async with AsyncExitStack() as stack:
        server = ProviderServer()
        http = await stack.enter_async_context(httpx.AsyncClient(transport=server.transport()))
        world = World(stack.enter_context(RedisServer()), http, server)
        await stack.enter_async_context(world.broker)
        yield world


async def _requests() -> dict[str, Walk]:
    found: dict[str, Walk] = {}
    for name, sessions in (("cold_token", False), ("cold", True)):
        async with _world() as world:
            recorder = Recorder()
            with recorder.recording():
                cold = await world.request(b"key-1", sessions=sessions)
            assert 1 == world.server.calls["oauth2"]
            found[name] = recorder.walk()
            recorder = Recorder()
            with recorder.recording():
                warm = await world.request(b"key-1", sessions=sessions)
            assert cold == warm
            found["warm"] = recorder.walk()
    return found


async def _rejected() -> dict[str, Walk]:
    async with _world() as world:
        token = await world.broker.token("crm")
        auth, recorder = world.broker.auth("crm"), Recorder()
        world.server.revoke(token)
        world.clock.advance(10)  # a younger token is not given up
        with recorder.recording():
            response = await world.http.get("https://idp.example/api/contacts", auth=auth)
        assert (200, 401, 2) == (response.status_code, response.history[0].status_code, world.server.calls["oauth2"])
        return {"rejected": recorder.walk()}


async def _outage() -> dict[str, Walk]:
    async with _world() as world:
        recorder = Recorder()
        await world.request(b"key-1")
        world.redis.kill()
        with recorder.recording():
            down = _on_state_change(world, recorder, up=False)
            # The third failure is that of the third request, or of a connection in the background before.
            with _log_lines(recorder) as failures:
                await world.request(b"key-2")
                answered = recorder.position
                await world.request(b"key-3")
                await world.request(b"key-4")
            (failed, logged) = failures[0]
            (opening, opened) = await asyncio.wait_for(down, 10)
            world.redis.restart()
            back = _on_state_change(world, recorder, up=True)
            restarted = recorder.position
            with _log_lines(recorder) as recoveries:
                await _let_pass(world, back.done)
            assert recoveries
            _, recovered = back.result()
            await _let_pass(world, lambda: _is_uploaded(world.redis))
            uploaded = recorder.position
    assert 1 == world.server.calls["oauth2"]
    parts = ((failed, logged), (opening, opened), (restarted, recovered))
    outage = [one for start, end in parts for one in recorder.calls[start:end] if one.in_new_task]
    reupload = recorder.calls[recovered:uploaded]
    return {
        "failure": recorder.walk(failed, logged),
        "failure_request": recorder.walk(0, answered),
        "opening": recorder.walk(opening, opened),
        "recovery": recorder.walk(restarted, recovered),
        "outage": Walk.of(outage),
        "reupload": Walk.of(reupload),
        "healed": Walk.of([*outage, *reupload]),
    }


@contextmanager
def _log_lines(recorder: Recorder) -> Generator[list[tuple[int, int]]]:
    """Give the positions of each log line about Redis: where redis-py returned last before it, and the line's own."""
    lines: list[tuple[int, int]] = []

    class Marks(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if getattr(record, "tokenmw.kind", "") == "redis":
                lines.append((recorder.left_redis_py, recorder.position))

    handler, logger = Marks(), logging.getLogger("tokenmw")
    logger.addHandler(handler)
    try:
        yield lines
    finally:
        logger.removeHandler(handler)


def _on_state_change(world: World, recorder: Recorder, *, up: bool) -> asyncio.Future[tuple[int, int]]:
    """Return a future for two positions: where redis-py returned before the change, and where the change was done."""
    loop = asyncio.get_running_loop()
    marked: asyncio.Future[tuple[int, int]] = loop.create_future()

    def done(left: int) -> None:
        marked.set_result((left, recorder.position))

    def mark(event: Event) -> None:
        if isinstance(event, SharedStateChanged) and event.up == up:
            # The other consequences of a recovery run in the same step of the event loop.
            loop.call_soon(done, recorder.left_redis_py) if up else done(recorder.left_redis_py)

    connection = runtime_of(world.broker).redis
    assert connection is not None
    # Not an observer of the broker's: with one, the walks would pass what counts for metrics.
    connection._observe = mark
    return marked


async def _let_pass(world: World, until: Callable[[], bool], *, seconds: float = 30.0) -> None:
    for _ in range(int(seconds * 4)):
        world.clock.advance(0.25)
        await asyncio.sleep(0.02)  # real time for the sockets
        if until():
            return
    raise AssertionError(f"The condition is not true after {seconds:g} s")


def _is_uploaded(redis: RedisServer) -> bool:
    # Housekeeping takes up to ten seconds; the keys of the four requests are all sent in its first rounds.
    kinds = [key.rpartition(b":")[2] for key in redis.command("KEYS", "*")]
    return {1, 4} == {kinds.count(b"token"), kinds.count(b"session")}
