"""Bytecode instructions and calls of warm operations, beside the recorded numbers.

On a busy machine a difference of a tenth disappears in the noise of times; these counts have no noise.
`tests/test_steps.py` fails if they grow. After an intended change: `python -m tests.benchmarks steps --record`, once
with each Python version.
"""

from __future__ import annotations

import asyncio
import gc
import importlib
import json
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import count as numbers
from itertools import repeat
from pathlib import Path
from typing import Any

import httpx
from starlette.requests import HTTPConnection

from tests.benchmarks.asgi import HEADERS, application, scope_of
from tests.benchmarks.rows import Figure, Plan, Row
from tests.benchmarks.tracing import Count, count
from tests.servers import RedisServer
from tokenmw import TokenBroker, TokenMiddleware, provider_token, request_tokens, session_id
from tokenmw.providers import StaticToken

importlib.import_module("httpx2")  # the counts of an auth object depend on whether anything has imported it

__all__ = ["ALLOWED_GROWTH", "PYTHON", "RECORD", "counts", "record", "recorded"]

RECORD = Path(__file__).with_suffix(".json")
PYTHON = "{}.{}".format(*sys.version_info)
ALLOWED_GROWTH = 1.1  # times the recorded number

Operations = dict[str, Callable[[], object]]


class StillClock:
    """A clock that stands still, made of C functions like the real one, so counts do not depend on the time."""

    monotonic = staticmethod(repeat(1_000.0).__next__)
    time = staticmethod(repeat(1_000_000.0).__next__)
    sleep = staticmethod(asyncio.sleep)


def at_once(awaitable: Awaitable[Any]) -> Any:
    """Run an awaitable that does not wait, and return its result; raise AssertionError if it waits."""
    running = awaitable.__await__()
    try:
        next(running)
    except StopIteration as end:
        return end.value
    raise AssertionError("The warm path waited for something.")


@asynccontextmanager
async def operations() -> AsyncGenerator[Operations]:
    """Yield the operations by name, after each has run once."""
    async with AsyncExitStack() as stack:
        server = stack.enter_context(RedisServer())
        providers, clock = {"crm": StaticToken("t")}, StillClock()
        sealed: dict[str, Any] = {"redis": server.url, "secret_key": "a secret for this run"}
        every: list[dict[str, Any]] = [{}, sealed, {**sealed, "observers": [_observe]}]
        brokers = [await stack.enter_async_context(TokenBroker(providers, clock=clock, **one)) for one in every]
        apps = [TokenMiddleware(application, broker=broker, inject=["crm"]) for broker in brokers]
        for app in apps:
            await app(scope_of(HEADERS), _receive, _send)
        scope = scope_of(HEADERS)
        at_once(apps[0](scope, _receive, _send))
        connection, tokens, auth = HTTPConnection(scope), scope["state"]["tokens"], brokers[0].auth("crm")
        token_of_crm, keys = provider_token("crm"), numbers()

        def signed() -> None:
            flow = auth.async_auth_flow(request)
            assert at_once(anext(flow)).headers["authorization"]
            assert at_once(anext_of(flow, answer)) is None

        request = httpx.Request("GET", "https://api.example/contacts")
        answer = httpx.Response(200, request=request)
        yield {
            "request: session id and a token": lambda: at_once(apps[0](scope_of(HEADERS), _receive, _send)),
            "the same, with Redis": lambda: at_once(apps[1](scope_of(HEADERS), _receive, _send)),
            "the same, with an observer": lambda: at_once(apps[2](scope_of(HEADERS), _receive, _send)),
            "tokens[name]": lambda: tokens["crm"],
            "tokens.resolve": lambda: at_once(tokens.resolve("crm")),
            "broker.token": lambda: at_once(brokers[0].token("crm")),
            "Depends: session_id": lambda: at_once(session_id(connection)),
            "Depends: request_tokens": lambda: at_once(request_tokens(connection)),
            "Depends: provider_token": lambda: at_once(token_of_crm(connection)),
            "broker.auth on a request": signed,
            "first sight, without Redis": lambda: at_once(brokers[0].session_id(b"sk-%d" % next(keys))),
        }


async def anext_of(flow: AsyncGenerator[Any, Any], answer: httpx.Response) -> object:
    """Send an auth flow the answer to its request; return its next request, or None."""
    try:
        return await flow.asend(answer)
    except StopAsyncIteration:
        return None


async def counts() -> dict[str, Count]:
    """Return the counts of each operation."""
    async with operations() as found:
        gc.disable()  # a collection may run finalizers of other tests
        try:
            for operation in found.values():
                operation()
                operation()
            return {name: count(operation) for name, operation in found.items()}
        finally:
            gc.enable()


def recorded() -> dict[str, Count] | None:
    """Return the recorded counts of this Python version, or None."""
    found: dict[str, dict[str, Count]] = json.loads(RECORD.read_text())
    return found.get(PYTHON)


def record(found: dict[str, Count]) -> None:
    """Record the counts of this Python version."""
    every: dict[str, dict[str, Count]] = json.loads(RECORD.read_text()) if RECORD.exists() else {}
    every[PYTHON] = found
    RECORD.write_text(json.dumps(every, indent=1, sort_keys=True) + "\n")


async def run(_plan: Plan) -> list[Row]:
    """Count, and compare with the record."""
    before = recorded() or {}
    return [
        Row(
            f"{name}, {kind}",
            "",
            Figure((number,)),
            {f"recorded for Python {PYTHON}": Figure((before[name][kind],))} if name in before else {},
            goal="at most a tenth above the record",
            met=number <= ALLOWED_GROWTH * before[name][kind] if name in before else None,
        )
        for name, kinds in (await counts()).items()
        for kind, number in kinds.items()
    ]


async def _receive() -> dict[str, Any]:
    return {"type": "http.request"}


async def _send(_message: object) -> None:
    pass


def _observe(_event: object) -> None:
    pass
