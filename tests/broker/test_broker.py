"""A wrong option raises when the broker is made: the text has the option and the fix, and never a secret."""

from __future__ import annotations

import datetime as dt
import functools
import math
import os
import re
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis
import redis.asyncio
from pydantic import SecretStr

from tests.asgi_client import answering, session_of
from tokenmw import APIKeySource, ConfigurationError, Grant, Limits, TokenBroker, TokenMiddleware
from tokenmw.clock import SYSTEM_CLOCK
from tokenmw.providers import Provider, StaticToken

SECRET = "s3cret-s3cret-s3cret"
STATIC = StaticToken(SECRET)


class Exclusive(Provider):
    """A provider whose new token invalidates the one before."""

    __slots__ = ()
    kind = "exclusive"
    exclusive = True

    def identity(self) -> tuple[object, ...]:
        """Return no parts: all such providers are equal."""
        return ()

    async def fetch(self, http: object) -> Grant:
        """Return a token; no test here fetches one."""
        return Grant("t", expires_in=60)


def _of_one(_given: object) -> None:
    pass


# Option, wrong value, part of the error text.
WRONG: list[tuple[str, Any, str]] = [
    ("providers", None, "providers must be a dict"),
    ("providers", "crm", "providers must be a dict"),
    ("providers", [("crm", STATIC)], "providers must be a dict"),
    ("providers", STATIC, "providers must be a dict"),
    ("providers", {5: STATIC}, "providers: 5 is not a name"),
    ("providers", {"": STATIC}, "providers: '' is not a name: give the provider one, such as 'crm'"),
    ("providers", {"crm\nforged: line": STATIC}, r"providers: 'crm\nforged: line' is not a name: it has a control"),
    ("providers", {"crm\u2028": STATIC}, "is not a name: it has a control character"),
    ("providers", {"x" * 101: STATIC}, "is not a name: it has a control character, or more than 100 characters"),
    ("providers", {"crm": StaticToken}, "providers['crm'] is a class, not a provider: make an object"),
    ("providers", {"crm": SECRET}, "providers['crm'] must be a Provider or a callable"),
    ("providers", {"crm": SecretStr(SECRET)}, "providers['crm'] must be a Provider or a callable"),
    ("providers", {"crm": Exclusive()}, "Give redis=…, or single_process=True"),
    ("redis", 5, "redis must be a URL"),
    ("redis", "localhost:6379", "redis: the URL must begin with one of redis://"),
    ("redis", f"http://u:{SECRET}@host", "redis: the URL must begin with one of redis://"),
    ("redis", f"redis://:{SECRET}@host/zero", "redis: the URL's path must be a database number"),
    ("redis", f"redis://:{SECRET}@host:99999/0", "redis: the URL is malformed"),
    ("redis", f"redis://:{SECRET}@host:/0", "redis: the URL has a colon without a port"),
    ("redis", f"redis+cluster://:{SECRET}@host:0", "redis: the URL has a colon without a port"),
    ("redis", f"redis://:{SECRET}@a:1,b:2/0", "redis: the URL has several hosts: write redis+cluster://"),
    ("redis", f"redis+cluster://:{SECRET}@a:1,,b:2", "redis: the URL has a comma without a host"),
    ("redis", f"redis+cluster://:{SECRET}@a:1,:2", "redis: the URL has a comma without a host"),
    ("redis", f"redis://:a,b/{SECRET}@a:1", 'redis: the URL has an "@" behind its host'),
    ("redis", f"redis+cluster://:a,b/{SECRET}@a:1", 'redis: the URL has an "@" behind its host'),
    ("redis", f"redis+cluster://:{SECRET}@a:1,b:x", "redis: the URL is malformed"),
    ("redis", f"redis+cluster://:{SECRET}@a:1,b:", "redis: the URL has a colon without a port"),
    ("redis", redis.Redis(), "create it with redis.asyncio"),
    ("redis", redis.asyncio.Redis(decode_responses=True), "decode_responses=True, but values are bytes"),
    ("secret_key", f"{SECRET}\udcff", "secret_key holds bytes that are not UTF-8"),
    ("secret_key", "short", "secret_key must be a str of at least 16 characters"),
    ("secret_key", SECRET.encode(), "secret_key must be a str"),
    ("secret_key", [], "secret_key is an empty list"),
    ("secret_key", [SECRET, 5], "secret_key must be a str, not int"),
    ("secret_key", [SECRET, SECRET], "secret_key has one secret twice"),
    ("secret_key", SecretStr(SECRET), "secret_key was given a SecretStr"),
    ("secret_key", [SecretStr(SECRET)], "pass its .get_secret_value()"),
    ("secret_key", f"{SECRET}\n", "secret_key holds a control character"),
    ("name_key", 5, "name_key must be a str"),
    ("name_key", "", "name_key is empty"),
    ("name_key", "123456789012345", "name_key must be a str of at least 16 characters"),
    ("name_key", f"{SECRET}\udcff", "name_key holds bytes that are not UTF-8"),
    ("name_key", SecretStr(SECRET), "name_key was given a SecretStr"),
    ("seal", True, "seal=True needs a secret_key"),
    ("seal", "yes", "seal must be True or False"),
    ("namespace", "", "namespace must be 1 to 64 letters"),
    ("namespace", "a{b}", "namespace must be 1 to 64 letters"),
    ("namespace", None, "namespace must be 1 to 64 letters"),
    ("session_ttl", 0, "session_ttl must be between 1 s and a year"),
    ("session_ttl", math.nan, "session_ttl must be between 1 s and a year"),
    ("session_ttl", "3600", "session_ttl must be between 1 s and a year, in seconds, not the text '3600'"),
    ("session_ttl", True, "session_ttl must be between 1 s and a year"),
    ("session_ttl", dt.timedelta(hours=1), "pass its .total_seconds()"),
    ("session_policy", "strict", "session_policy must be one of 'available', 'required'"),
    ("session_policy", "required", 'session_policy="required" needs redis=…'),
    ("session_ids", "fresh", "session_ids must be one of 'derived', 'random'"),
    ("api_key", "x-api-key", "such as APIKeySource(headers="),
    ("api_key", None, "such as APIKeySource(headers="),
    ("missing_key", "deny", "missing_key must be one of 'random', 'reject'"),
    ("authenticate", "directory", "authenticate must be a callable (connection, key)"),
    ("http", httpx.Client(), "http must be an httpx.AsyncClient, httpx2.AsyncClient or HTTPOptions"),
    ("http", httpx.AsyncClient, "http was given the class AsyncClient: pass an instance of it"),
    ("limits", {"tokens": 5}, "limits must be a Limits, such as Limits(tokens=100), not dict"),
    ("observers", print, "observers must be a list of observers, not builtin_function_or_method"),
    ("observers", [5], "observers[0] must be a callable (event) -> None"),
    ("observers", [lambda: None], "observers[0] must be a callable (event) -> None: this one takes ()"),
    ("authenticate", dict, "authenticate was given the class dict, which does not take (connection, key): pass a func"),
    ("authenticate", int, "authenticate was given the class int, which does not take (connection, key): pass a func"),
    ("authenticate", functools.partial(dict), "authenticate was given the class dict"),
    ("authenticate", {"k": "alice"}.get, "the method get of a dict, which would return every key that is not in it"),
    ("authenticate", {"k": "alice"}.pop, "the method pop of a dict, which would return every key that is not in it"),
    ("authenticate", os.environ.get, "the method get of a _Environ"),
    ("redis", "", "redis: the URL is empty: is the variable or file set that it is read from?"),
    (
        "redis",
        " redis://localhost",
        "redis: the URL has a blank before or after it, perhaps from the file it is read from",
    ),
    ("redis", "redis://localhost ", "redis: the URL has a blank before or after it"),
    ("redis", "redis://localhost\n", "redis: the URL holds a control character, perhaps a newline from the file"),
    (
        "secret_key",
        " 7f3a9c0d1e2b4f5a6789",
        "secret_key has a blank before or after it, perhaps from the file it is re",
    ),
    ("secret_key", ["7f3a9c0d1e2b4f5a6789", "7f3a9c0d1e2b4f5a6780 "], "secret_key has a blank before or after it"),
    (
        "name_key",
        "7f3a9c0d1e2b4f5a6789\u00a0",
        "name_key has a blank before or after it, perhaps from the file it is r",
    ),
    ("observers", [Counter], "observers[0] is a class: pass an instance of it"),
    ("authenticate", _of_one, "authenticate must be a callable (connection, key) -> object | None: this one"),
    ("providers", {"crm": lambda: None}, "providers['crm'] must be a callable (connection) -> Provider: this one"),
    ("single_process", "no", "single_process must be True or False"),
    ("clock", None, "clock must have monotonic(), time() and sleep()"),
    ("clock", type(SYSTEM_CLOCK), "clock must have monotonic(), time() and sleep()"),
]


@pytest.mark.parametrize(("option", "value", "text"), WRONG)
def test_a_wrong_option_of_the_broker_is_named_with_the_fix(option: str, value: Any, text: str) -> None:
    """The error is raised at construction, is a `ConfigurationError` and a `ValueError`, and its text has no secret."""
    options: dict[str, Any] = {"providers": {}, option: value}
    with pytest.raises(ConfigurationError, match=re.escape(text)) as caught:
        TokenBroker(**options)
    assert isinstance(caught.value, ValueError)
    assert SECRET not in str(caught.value)


def test_an_exclusive_provider_that_is_not_shared_needs_single_process() -> None:
    """It gets no lease in Redis, so `redis` alone is not enough."""

    class Private(Exclusive):
        __slots__ = ()
        shareable = False

    with pytest.raises(ConfigurationError, match=r"Give it credential_id=…, or single_process=True"):
        TokenBroker({"crm": Private()}, redis="redis://localhost", seal=False)
    TokenBroker({"crm": Private()}, redis="redis://localhost", seal=False, single_process=True)


MIDDLEWARE: list[tuple[str, Any, str]] = [
    ("on_error", _of_one, "on_error=…) must be a callable (connection, error) -> Response: this one takes"),
    ("inject", lambda: ["crm"], "inject=…) must be a callable (connection) -> names: this one takes ()"),
    ("broker", None, "broker=…) must be a TokenBroker, not NoneType"),
    ("broker", TokenBroker, "broker=…) must be a TokenBroker, not type"),
    ("inject", "crm", "inject=…) takes a list of provider names, not a lone string: ['crm']"),
    ("inject", None, "inject=…) takes a list of provider names, not NoneType"),
    ("inject", ["feishu"], "inject=…): there is no provider 'feishu'. The broker has: crm, wecom"),
    ("inject", [STATIC], "inject=…): there is no provider <StaticToken>"),
    ("sessions", "no", "sessions=…) must be True or False"),
    ("on_error", 5, "on_error=…) must be a callable (connection, error) -> Response"),
    ("api_key", "x-api-key", "api_key=…) must be an APIKeySource, such as"),
    ("missing_key", "deny", "missing_key=…) must be one of 'random', 'reject'"),
]


@pytest.mark.parametrize(("option", "value", "text"), MIDDLEWARE)
def test_a_wrong_option_of_the_middleware_is_named_with_the_fix(option: str, value: Any, text: str) -> None:
    """Names are compared with the broker's when the application is built, not in the first request."""
    broker = TokenBroker({"wecom": STATIC, "crm": STATIC})
    options: dict[str, Any] = {"broker": broker, option: value}
    with pytest.raises(ConfigurationError, match=re.escape(text)):
        TokenMiddleware(answering(session_of), **options)


async def test_a_token_is_requested_by_name_or_by_value() -> None:
    """Equal credentials have one token, by each of their names."""
    async with TokenBroker({"a": STATIC, "b": StaticToken(SECRET), "x": lambda _: STATIC}) as broker:
        assert SECRET == (await broker.token("a")).value == (await broker.token(STATIC)).value
        assert 1 == broker.status().tokens
        with pytest.raises(ConfigurationError, match=r"no provider 'c'.*a, b, x"):
            await broker.token("c")
        with pytest.raises(
            ConfigurationError, match=r"depend on the request: use request\.state\.tokens\.resolve\('x'\)"
        ):
            broker.auth("x")
        wrong: Any = {"client_secret": SECRET}
        with pytest.raises(ConfigurationError, match="no provider of type dict") as caught:
            await broker.token(wrong)
        assert SECRET not in str(caught.value)


@pytest.mark.parametrize("key", ["", b"", None, 5])
async def test_an_api_key_is_text_or_bytes(key: Any) -> None:
    """An empty one is refused: all callers without a key would share a session id."""
    async with TokenBroker({}) as broker:
        for ask in (broker.session_id, broker.reset_session):
            with pytest.raises(ConfigurationError, match="api_key must be text or bytes, and not empty"):
                await ask(key)


@pytest.mark.parametrize("value", [SECRET, None, STATIC])
async def test_only_a_token_is_invalidated(value: Any) -> None:
    """Anything else is refused: it would be ignored as "not the current token", each time."""
    async with TokenBroker({"a": STATIC}) as broker:
        with pytest.raises(ConfigurationError, match=r"invalidate\(token\) must be a Token, such as") as caught:
            await broker.invalidate(value)
        assert SECRET not in str(caught.value)


async def test_a_broker_shows_no_secrets() -> None:
    """It has no `__dict__`, its `repr` names the providers, and its status has no secrets."""
    async with TokenBroker({"crm": STATIC}, secret_key=SECRET, limits=Limits(), api_key=APIKeySource()) as broker:
        await broker.token("crm")
        with pytest.raises(TypeError):
            vars(broker)
        assert "<TokenBroker of crm>" == repr(broker)
        assert SECRET not in repr(broker.status())


def test_making_a_broker_opens_nothing() -> None:
    """It is made at import, before there is an event loop: it opens no socket and starts no thread."""
    threads = threading.enumerate()
    files = open_files()
    broker = TokenBroker({"crm": STATIC}, redis="redis://127.0.0.1:1/0", secret_key=SECRET)
    assert files == open_files()
    assert threads == threading.enumerate()
    assert "off" == broker.status().shared


def open_files() -> list[str]:
    """Return the open file descriptors of this process, where the system lists them."""
    return sorted(path.name for path in Path("/proc/self/fd").glob("*"))
