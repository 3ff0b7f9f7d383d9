"""The configuration of connections: the apps, the store, and whose connections a request uses."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, cast
from urllib.parse import quote

from starlette.requests import HTTPConnection

from tokenmw.connections.store import ConnectionStore
from tokenmw.connections.user_token import ConnectionApp, UserToken
from tokenmw.errors import NOT_SIGNED_IN, ConfigurationError, ReconnectRequired
from tokenmw.options import checked_callback, checked_instance
from tokenmw.providers.base import Provider
from tokenmw.providers.http_client import check_client
from tokenmw.redaction import FrozenValue, without_locals

if TYPE_CHECKING:
    from tokenmw.providers.http_client import AsyncHTTPClient
    from tokenmw.providers.network.options import HTTPOptions
    from tokenmw.redis.sealing import Sealer

__all__ = ["Connections", "Subject", "checked_connections", "checked_subject"]

Subject = Callable[[HTTPConnection], str | Awaitable[str | None] | None]

_MAX_NAME: Final = 100  # characters, as of a provider
_MAX_SUBJECT: Final = 500  # characters
_STORE_METHODS: Final = ("load", "save", "delete", "scan", "aclose")


class Connections(FrozenValue):
    """The accounts that users connect, as `TokenBroker(connections=…)`.

        connections = Connections(
            {"google": OAuthApp(issuer="https://accounts.google.com", client_id="…", client_secret="…")},
            store=SQLStore("sqlite+aiosqlite:///connections.db", create=True),
            subject=lambda connection: connection.session.get("user"),
        )

    Each app's name is one of the broker's names: `tokens.resolve("google")` is the token of the request's user.

    Args:
        apps: Names to apps, such as `OAuthApp`. A name stays with its app: stored connections are found by it.
        store: Where connections are kept: an `SQLStore`, a `RedisStore`, or any `ConnectionStore`.
        subject: `(connection) -> str | None`, sync or async: the user of a request, as the program knows it for ever;
            None if no user is signed in.
        connect_path: The path or URL below which `ConnectApp` is mounted. Errors have it, with the app's name. Default:
            `/connect`.

    Raises:
        ConfigurationError: An option cannot work.
    """

    __slots__ = ("apps", "connect_path", "store", "subject")

    apps: Mapping[str, ConnectionApp]
    connect_path: str
    store: ConnectionStore
    subject: Subject

    @without_locals
    def __init__(
        self,
        apps: Mapping[str, ConnectionApp],
        *,
        store: ConnectionStore,
        subject: Subject,
        connect_path: str = "/connect",
    ) -> None:
        checked_callback(subject, option="Connections(subject=…)", takes="(connection) -> str | None")
        put = object.__setattr__
        put(self, "apps", _checked_apps(apps))
        put(self, "store", _checked_store(store))
        put(self, "subject", subject)
        put(self, "connect_path", _checked_path(connect_path))

    def provider(self, name: str, subject: str) -> UserToken:
        """Return the provider of one user's token at an app."""
        return UserToken(self.apps[name], app_name=name, subject=subject, connect_url=self.connect_url(name))

    def connect_url(self, name: str) -> str:
        """Return where a user connects an app."""
        return f"{self.connect_path}/{quote(name, safe='')}"

    def of_requests(self, providers: Mapping[str, Any]) -> dict[str, Callable[[HTTPConnection], Any]]:
        """Return a callable `(connection) -> UserToken` for each app.

        Raises:
            ConfigurationError: A name is one of `providers`, too.
        """
        both = sorted(self.apps.keys() & providers.keys())
        if both:
            raise ConfigurationError(
                f"providers and connections both have {both[0]!r}: each name of a broker is one credential."
            )
        return {name: _OfRequest(self, name) for name in self.apps}

    def __repr__(self) -> str:
        return f"<Connections to {', '.join(getattr(self, 'apps', ()))}>"


class _OfRequest:
    """Returns the provider of a request's user."""

    __slots__ = ("_connections", "_name", "outside")

    def __init__(self, connections: Connections, name: str) -> None:
        self._connections = connections
        self._name = name
        self.outside = f", or broker.connections.token({name!r}, …) outside of a request"

    def __call__(self, connection: HTTPConnection) -> Provider | Awaitable[Provider]:
        subject = self._connections.subject(connection)
        return self._later(subject) if inspect.isawaitable(subject) else self._provider(subject)

    async def _later(self, subject: Awaitable[str | None]) -> Provider:
        return self._provider(await subject)

    def _provider(self, subject: str | None) -> Provider:
        if subject is None:
            raise ReconnectRequired(
                f"{self._name}: no user is signed in",
                provider=self._name,
                connect_url=self._connections.connect_url(self._name),
                reason=NOT_SIGNED_IN,
            )
        return self._connections.provider(self._name, checked_subject(subject, option="Connections(subject=…)"))


def checked_subject(subject: object, *, option: str) -> str:
    """Return a subject.

    Raises:
        ConfigurationError: It is no text, empty, too long, or not printable. The text does not show it.
    """
    if not isinstance(subject, str):
        raise ConfigurationError(
            f"{option} must be a str, or None if no user is signed in: not {type(subject).__name__}."
        )
    if not subject or len(subject) > _MAX_SUBJECT or not subject.isprintable():
        raise ConfigurationError(
            f"{option} must have 1 to {_MAX_SUBJECT} printable characters; if no user is signed in, return None."
        )
    if subject == "None" or subject.isspace():
        # All requests without a user would share a connection.
        raise ConfigurationError(
            f"{option} is {subject!r}, perhaps the text of a missing value: if no user is signed in, return None."
        )
    return subject


def checked_connections(
    connections: object, *, sealer: Sealer, http: AsyncHTTPClient | HTTPOptions | None
) -> Connections | None:
    """Return the broker's option `connections`.

    Raises:
        ConfigurationError: It is something else, refresh tokens would be stored unsealed, or an app needs the broker's
            own HTTP client.
    """
    if connections is None:
        return None
    given = checked_instance(connections, Connections, option="connections", example="Connections({…}, store=…)")
    if not sealer.sealing:
        raise ConfigurationError(
            "connections needs a secret_key, and not seal=False: refresh tokens of users are never stored unsealed."
        )
    for name in given.apps:
        check_client(given.provider(name, "anyone"), http=http, option=f"connections[{name!r}]")
    return given


def _checked_apps(apps: object) -> Mapping[str, ConnectionApp]:
    example = 'a dict of names to apps, such as {"google": OAuthApp(…)}'
    if not isinstance(apps, Mapping):
        raise ConfigurationError(f"Connections takes {example}, not {type(apps).__name__}.")
    if not apps:
        raise ConfigurationError(f"Connections is empty: give it {example}.")
    given = dict(cast("Mapping[object, object]", apps))
    for name, app in given.items():
        if not isinstance(name, str) or not _is_name(name):
            raise ConfigurationError(
                f"Connections: each name is text of 1 to {_MAX_NAME} printable characters without a slash, not "
                f"{name!r:.120}."
            )
        if isinstance(app, type) or not isinstance(app, ConnectionApp):
            raise ConfigurationError(f"Connections: {name!r} must be an OAuthApp, not {_kind_of(app)}")
    return MappingProxyType(cast("dict[str, ConnectionApp]", given))


def _is_name(name: str) -> bool:
    # Browsers remove "." and ".." from paths.
    return 0 < len(name) <= _MAX_NAME and name.isprintable() and "/" not in name and name not in (".", "..")


def _kind_of(given: object) -> str:
    """Return what was given in place of an object, and the fix if it is plain, as the end of a sentence."""
    if isinstance(given, type):
        return f"the class {given.__name__}: make an object of it, {given.__name__}(…)."
    if isinstance(given, Provider):
        return f"{type(given).__name__}, whose tokens are the program's own: give it to TokenBroker({{…}})."
    return f"{type(given).__name__}{': call it, and give what it returns' * callable(given)}."


def _checked_store(store: object) -> ConnectionStore:
    if isinstance(store, type) or not isinstance(store, ConnectionStore):
        missing = next((name for name in _STORE_METHODS if not callable(getattr(store, name, None))), "")
        kind = _kind_of(store)
        if isinstance(store, str):
            kind = 'str: write SQLStore("…"), or RedisStore("…").'
        elif missing and store is not None and not callable(store):
            kind = f"{type(store).__name__}, which has no {missing}."
        raise ConfigurationError(f"Connections(store=…) must be a ConnectionStore, such as SQLStore(…), not {kind}")
    return store


def _checked_path(path: object) -> str:
    if (
        not isinstance(path, str)
        or not path.startswith(("/", "https://", "http://"))
        or path.startswith("//")
        or not path.isprintable()
        or set(path) & set("?# ")
    ):
        raise ConfigurationError(
            "Connections(connect_path=…) must be a path or URL without a query, such as '/connect'."
        )
    return path.rstrip("/")
