"""Mistakes of a first use: each is an error when the object is made, and its text names the option and the fix."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy
from sqlalchemy.ext.asyncio import async_sessionmaker

from tests.connections.memory_store import MemoryStore
from tokenmw import TokenBroker
from tokenmw.connections import ConnectApp, Connections, OAuthApp, RedisStore, SQLStore, known_apps
from tokenmw.errors import ConfigurationError
from tokenmw.providers import ClientCredentials

if TYPE_CHECKING:
    from collections.abc import Callable

CLIENT: dict[str, Any] = {"client_id": "crm", "client_secret": "a-secret"}
ISSUER: dict[str, Any] = {"issuer": "https://idp.example", **CLIENT}
SEALS = "k7Qm-secret-of-the-sealer-91"


def connections(apps: Any = None, **options: Any) -> Connections:
    """Make the configuration with one thing changed."""
    given: dict[str, Any] = {"store": MemoryStore(), "subject": lambda _connection: "ada", **options}
    return Connections({"crm": OAuthApp(**ISSUER)} if apps is None else apps, **given)


def connect(broker: Any = None, **options: Any) -> ConnectApp:
    """Make the application with one thing changed."""
    given: dict[str, Any] = {"allow": lambda _connection: True, **options}
    if broker is None:
        broker = TokenBroker({}, connections=connections(), secret_key=SEALS)
    return ConnectApp(broker, **given)


def provider() -> ClientCredentials:
    """Make a provider of the program's own tokens."""
    return ClientCredentials(token_url="https://idp.example/token", **CLIENT)


WRONG: dict[str, tuple[Callable[[], object], str]] = {
    "allow_private is text": (lambda: OAuthApp(**{**ISSUER, "allow_private": "no"}), "allow_private=….*True or False"),
    "a scope of a platform in params": (
        lambda: known_apps.slack(**CLIENT, scope="a", params={"user_scope": "b"}),
        "params=….*user_scope.*leave it out",
    ),
    "params of a known app as a list": (
        lambda: known_apps.google(**{**CLIENT, "params": [("prompt", "none")]}),
        r"google\(params=….*dict.*not list",
    ),
    "a tenant as a URL": (
        lambda: known_apps.microsoft(**CLIENT, tenant="https://login.microsoftonline.com/x", scope="offline_access"),
        r'microsoft\(tenant=….*such as "organizations"',
    ),
    "a host as a URL": (
        lambda: known_apps.salesforce(**CLIENT, host="https://x.my.salesforce.com", scope="refresh_token"),
        r'salesforce\(host=….*without https://.*such as "example\.my\.salesforce\.com"',
    ),
    "no apps": (lambda: connections({}), "is empty"),
    "a provider in place of an app": (
        lambda: connections({"crm": provider()}),
        r"'crm' must be an OAuthApp, not ClientCredentials.*TokenBroker\(\{…\}\)",
    ),
    "a class in place of an app": (lambda: connections({"crm": OAuthApp}), r"'crm'.*the class OAuthApp.*OAuthApp\(…\)"),
    "a function in place of an app": (lambda: connections({"crm": known_apps.google}), r"'crm'.*call it"),
    "an app in place of a provider": (
        lambda: TokenBroker({"crm": OAuthApp(**ISSUER)}, secret_key=SEALS),  # type: ignore[dict-item]
        r"providers\['crm'\].*connections=Connections\(",
    ),
    "a name with a slash": (lambda: connections({"a/b": OAuthApp(**ISSUER)}), "without a slash, not 'a/b'"),
    "a store's class": (lambda: connections(store=SQLStore), r"store=….*the class SQLStore.*SQLStore\(…\)"),
    "a URL in place of a store": (
        lambda: connections(store="sqlite+aiosqlite:///c.db"),
        r'store=….*not str.*SQLStore\("…"\)',
    ),
    "a path with two slashes": (lambda: connections(connect_path="//evil.example/x"), "connect_path=…"),
    "a path with a query": (lambda: connections(connect_path="/connect?x=1"), "connect_path=….*without a query"),
    "a broker without connections": (
        lambda: connect(TokenBroker({"crm": provider()})),
        r"no connections of users.*connections=Connections\(…\)",
    ),
    "connections in place of a broker": (lambda: connect(connections()), "takes a TokenBroker.*not Connections"),
    "the broker's connections": (
        lambda: connect(TokenBroker({}, connections=connections(), secret_key=SEALS).connections),
        "takes a TokenBroker.*not UserConnections",
    ),
    "scopes without apps": (
        lambda: connect(scopes={"calendar": "https://c"}),
        r"scopes=….*no app 'calendar'.*\{\"crm\": \{\"NAME\": \"SCOPE\"\}\}",
    ),
    "an empty scope": (lambda: connect(scopes={"crm": {"calendar": ""}}), r"scopes=….*\['calendar'\] is empty"),
    "a public_url without a scheme": (
        lambda: connect(public_url="app.example/connect"),
        r'public_url=….*such as "https://app\.example/connect"',
    ),
    "a public_url over http": (lambda: connect(public_url="http://app.example/connect"), r"public_url=….*https://"),
    "a public_url that is no text": (lambda: connect(public_url=7), "public_url=….*must be a str.*not int"),
    "an empty public_url": (lambda: connect(public_url=""), "public_url=…. is empty"),
    "the redirect URI as public_url": (
        lambda: connect(public_url="https://app.example/connect/crm/callback"),
        "public_url=….*leave out /crm/callback",
    ),
    "two paths": (
        lambda: connect(public_url="https://app.example/accounts"),
        r"path /accounts.*Connections\(connect_path=…\).*/connect.*public_url",
    ),
    "a database's file": (lambda: SQLStore("connections.db"), r"sqlite\+aiosqlite:///connections\.db"),
    "a Path": (lambda: SQLStore(Path("connections.db")), r"not PosixPath.*sqlite\+aiosqlite:///"),  # type: ignore[arg-type]
    "no database": (lambda: SQLStore(None), "not NoneType.*variable set"),  # type: ignore[arg-type]
    "a sync engine": (
        lambda: SQLStore(sqlalchemy.create_engine("sqlite:///x.db")),  # type: ignore[arg-type]
        "not Engine.*create_async_engine",
    ),
    "a sessionmaker": (lambda: SQLStore(async_sessionmaker()), "not async_sessionmaker.*engine"),  # type: ignore[arg-type]
    "create as text": (
        lambda: SQLStore("sqlite+aiosqlite:///c.db", create="yes"),  # type: ignore[arg-type]
        "create=….*True or False",
    ),
    "a URL of Redis in SQLStore": (lambda: SQLStore("redis://h"), r"RedisStore\("),
    "two slashes of SQLite": (lambda: SQLStore("sqlite+aiosqlite://connections.db"), "three slashes"),
    "no Redis": (lambda: RedisStore(None), "RedisStore.*NoneType"),  # type: ignore[arg-type]
    "an address of Redis": (lambda: RedisStore("localhost:6379"), "RedisStore.*redis://"),
    "allow that is no bool": (lambda: connect(allow=True), r"allow=….*\(connection\) -> bool"),
}


@pytest.mark.parametrize("mistake", WRONG)
def test_the_text_names_the_option_and_the_fix(mistake: str) -> None:
    """No secret is in it."""
    make, text = WRONG[mistake]
    with pytest.raises(ConfigurationError) as refused:
        make()
    assert re.search(text, str(refused.value)), str(refused.value)
    assert "a-secret" not in str(refused.value)


def test_one_path_may_have_many_hosts() -> None:
    """The paths are compared, and of a `connect_path` that is a URL, all of it."""
    connect(public_url="https://eu.app.example/connect/")
    url = "https://app.example/x/connect"
    of_path, of_url = (
        TokenBroker({}, connections=connections(connect_path=path), secret_key=SEALS) for path in ("/x/connect", url)
    )
    connect(of_path, public_url=url)
    connect(of_url, public_url=url)
    with pytest.raises(ConfigurationError, match="connect_path"):
        connect(of_url, public_url="https://other.example/x/connect")
