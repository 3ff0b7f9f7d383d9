"""Other libraries at their best: a hit in local memory, in processor time. The extra `bench` installs them."""

from __future__ import annotations

import importlib
import importlib.util
import json
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import httpx

__all__ = ["caches", "token_clients"]

Hits = Callable[[int], Awaitable[float]]


@asynccontextmanager
async def caches() -> AsyncGenerator[tuple[dict[str, Hits], tuple[str, ...]]]:
    """Yield functions that measure memory hits of caches in microseconds, and notes on missing ones."""
    async with AsyncExitStack() as stack:
        found, notes = _installed({"cashews": _cashews, "aiocache": _aiocache, "dogpile.cache": _dogpile})
        yield {f"{name} memory hit": await make(stack) for name, make in found.items()}, notes


@asynccontextmanager
async def token_clients() -> AsyncGenerator[tuple[dict[str, Hits], tuple[str, ...]]]:
    """Yield functions that measure OAuth clients with a valid token in microseconds, and notes on missing ones."""
    async with AsyncExitStack() as stack:
        found, notes = _installed({"authlib": _authlib, "httpx_auth": _httpx_auth, "msal": _msal})
        yield {f"{name} valid token": await make(stack) for name, make in found.items()}, notes


Make = Callable[[AsyncExitStack], Awaitable[Hits]]


def _installed(makers: dict[str, Make]) -> tuple[dict[str, Make], tuple[str, ...]]:
    found = {name: make for name, make in makers.items() if importlib.util.find_spec(name.partition(".")[0])}
    notes = (f"{name}: not installed; install .[bench]" for name in makers if name not in found)
    return found, tuple(notes)


def _of(hit: Callable[[], Awaitable[Any]]) -> Hits:
    async def hits(count: int) -> float:
        began = time.thread_time()
        for _ in range(count):
            assert await hit()
        return (time.thread_time() - began) / count * 1e6

    return hits


def _of_sync(hit: Callable[[], Any]) -> Hits:
    async def hits(count: int) -> float:
        began = time.thread_time()
        for _ in range(count):
            assert hit()
        return (time.thread_time() - began) / count * 1e6

    return hits


async def _cashews(stack: AsyncExitStack) -> Hits:
    cache = importlib.import_module("cashews").Cache()
    cache.setup("mem://")
    stack.push_async_callback(cache.close)
    await cache.set("key", "value", expire=3600)
    return _of(lambda: cache.get("key"))


async def _aiocache(stack: AsyncExitStack) -> Hits:
    cache = importlib.import_module("aiocache").SimpleMemoryCache()
    stack.push_async_callback(cache.close)
    await cache.set("key", "value", ttl=3600)
    stack.push_async_callback(cache.delete, "key")
    return _of(lambda: cache.get("key"))


async def _dogpile(_stack: AsyncExitStack) -> Hits:
    region = importlib.import_module("dogpile.cache").make_region()
    region.configure("dogpile.cache.memory", expiration_time=3600)
    region.set("key", "value")
    return _of_sync(lambda: region.get("key"))


async def _authlib(stack: AsyncExitStack) -> Hits:
    token = {"access_token": "t", "token_type": "Bearer", "expires_at": time.time() + 3600}
    client = importlib.import_module("authlib.integrations.httpx_client").AsyncOAuth2Client(
        "id", "secret", token_endpoint="https://idp.example/token", grant_type="client_credentials", token=token
    )
    await stack.enter_async_context(client)

    async def hit() -> Any:
        await client.ensure_active_token(client.token)  # before each request, as its client does
        return client.token["access_token"]

    return _of(hit)


async def _httpx_auth(_stack: AsyncExitStack) -> Hits:
    library = importlib.import_module("httpx_auth")
    auth = library.OAuth2ClientCredentials("https://idp.example/token", client_id="id", client_secret="secret")
    library.OAuth2.token_cache._add_access_token(auth.state, "t", 3600)
    request = httpx.Request("GET", "https://api.example")

    def hit() -> Any:
        flow = auth.auth_flow(request)
        return next(flow).headers["authorization"]

    return _of_sync(hit)


class _Answers:
    """The identity provider of `msal`, which sends it one token request."""

    def get(self, _url: str, **_options: Any) -> Any:
        names = ("authorization_endpoint", "token_endpoint", "issuer")
        return _Answer({name: f"https://login.example/t/{name}" for name in names})

    def post(self, _url: str, **_options: Any) -> Any:
        return _Answer({"access_token": "t", "token_type": "Bearer", "expires_in": 3600})

    def close(self) -> None:
        pass


class _Answer:
    status_code = 200

    def __init__(self, body: dict[str, Any]) -> None:
        self.text = json.dumps(body)
        self.headers: dict[str, str] = {}


async def _msal(_stack: AsyncExitStack) -> Hits:
    app = importlib.import_module("msal").ConfidentialClientApplication(
        "id",
        client_credential="secret",
        authority="https://login.example/t",
        http_client=_Answers(),
        validate_authority=False,
        instance_discovery=False,
    )
    app.acquire_token_for_client(["api/.default"])

    def hit() -> Any:
        answer = app.acquire_token_for_client(["api/.default"])
        assert answer["token_source"] == "cache"
        return answer["access_token"]

    return _of_sync(hit)
