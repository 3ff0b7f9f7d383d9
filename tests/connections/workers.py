"""Targets of child processes that use one user's connection."""

from __future__ import annotations

import asyncio
import os
import time
from typing import Any

from tests.connections.paused_store import PausedStore
from tests.connections.world import SECRET
from tests.processes import receive, send
from tokenmw import Limits, TokenBroker
from tokenmw.connections import Connections, ConnectionStore, OAuthApp, RedisStore, SQLStore
from tokenmw.errors import RequestError

__all__ = ["FAST", "ask", "broker_over", "fork_in_claim", "keep_asking", "pause_in_refresh", "store_of"]

FAST = {
    "fetch_seconds": 1.0,
    "lease_seconds": 1.4,
    "wait_seconds": 8.0,
    "exchange_seconds": 1.0,
    "claim_seconds": 2.0,
    "store_seconds": 1.0,
    "probe_seconds": 0.2,
    "backoff_seconds": 0.05,
}


def store_of(database: str) -> ConnectionStore:
    """Return the store that a URL names; that of Redis has the namespace of its keys after a "#"."""
    if database.startswith("redis:"):
        url, _, namespace = database.partition("#")
        return RedisStore(url, namespace=namespace)
    return SQLStore(database, create=True)


def broker_over(
    store: ConnectionStore, *, base_url: str, redis: str | None, limits: dict[str, Any] | None = None
) -> TokenBroker:
    """Make the broker that all processes have."""
    app = OAuthApp(
        authorize_url=f"{base_url}/oauth2/authorize",
        token_url=f"{base_url}/oauth2/token",
        client_id="crm",
        client_secret="the client's secret",
    )
    config = Connections({"crm": app}, store=store, subject=lambda _: "user-1")
    return TokenBroker({}, connections=config, secret_key=SECRET, redis=redis, limits=Limits(**(limits or {})))


async def ask(*, database: str, callers: int = 1, tries: int = 1, **options: Any) -> dict[str, Any]:
    """Ask for the token from many tasks when the test says so. Return the values, and the texts of errors."""
    async with broker_over(store_of(database), **options) as broker:
        send("ready")
        receive()
        values: set[str] = set()
        errors: set[str] = set()

        async def once() -> None:
            for remaining in reversed(range(tries)):
                try:
                    values.add((await broker.connections.token("crm", "user-1")).value)
                except RequestError as error:
                    if not remaining:
                        errors.add(str(error))
                    await asyncio.sleep(0.2)
                else:
                    return

        await asyncio.gather(*(once() for _ in range(callers)))
    return {"values": sorted(values), "errors": sorted(errors)}


async def keep_asking(*, database: str, seconds: float, **options: Any) -> dict[str, Any]:
    """Ask for the token every few milliseconds. Return how often it was returned, and the texts of errors."""
    served = 0
    errors: list[str] = []
    expired = 0
    async with broker_over(store_of(database), **options) as broker:
        send("ready")
        receive()
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            try:
                token = await broker.connections.token("crm", "user-1")
            except RequestError as error:
                errors.append(str(error))
            else:
                served += 1
                expired += time.time() >= token.expires_at
            await asyncio.sleep(0.01)
    return {"served": served, "errors": errors, "expired": expired}


async def pause_in_refresh(*, database: str, at: str, when: str, **options: Any) -> dict[str, Any]:
    """Refresh the connection, and stop at one point of it until the test sends something, as a process that hangs."""
    paused = False

    async def hook(name: str, moment: str) -> None:
        nonlocal paused
        if not paused and (name, moment) == (at, when):
            paused = True
            await asyncio.sleep(0.1)  # what runs at the same time goes on, such as a command to Redis
            send("paused")
            receive()

    async with broker_over(PausedStore(store_of(database), hook), **options) as broker:
        try:
            value = (await broker.connections.token("crm", "user-1")).value
        except RequestError as error:
            value = f"{type(error).__name__}: {error}"
    return {"value": value}


async def fork_in_claim(*, database: str, **options: Any) -> dict[str, Any]:
    """Refresh the connection, and fork when the claim is written: the child asks with the same broker, and exits."""
    forked = False

    async def hook(name: str, moment: str) -> None:
        nonlocal forked
        if not forked and (name, moment) == ("claim", "after"):
            forked = True
            child = os.fork()
            if not child:
                asyncio._set_running_loop(None)  # that of the parent
                try:
                    asyncio.run(ask_once())
                finally:
                    os._exit(0)
            os.waitpid(child, 0)  # noqa: ASYNC222  the parent is to stand still meanwhile

    async def ask_once() -> str:
        try:
            return (await broker.connections.token("crm", "user-1")).value
        except RequestError as error:
            return f"{type(error).__name__}: {error}"

    async with broker_over(PausedStore(store_of(database), hook), **options) as broker:
        value = await ask_once()
        for _ in range(25):
            if not value.startswith("TokenUnavailable"):
                break
            await asyncio.sleep(0.2)
            value = await ask_once()
    return {"value": value, "forked": forked}
