"""The broker: the one object that a program makes. It owns the data, and opens a runtime for each event loop.

The first task that enters opens it, the last one that leaves closes it. If it is entered again while a runtime is
closing, a second runtime opens beside the first; each closes only what it has built.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Literal, Self

from tokenmw.callers.answers import checked_authenticate
from tokenmw.callers.api_key import APIKeySource
from tokenmw.callers.labels import CredentialLabels
from tokenmw.clock import SYSTEM_CLOCK, Clock, Instant
from tokenmw.connections.user_connections import UserConnections, checked_connections
from tokenmw.credentials import Credentials
from tokenmw.errors import ConfigurationError
from tokenmw.limits import Limits
from tokenmw.observe.observers import Observers
from tokenmw.observe.throttle import ThrottledLog, warn
from tokenmw.options import (
    checked_api_key,
    checked_choice,
    checked_clock,
    checked_flag,
    checked_instance,
    checked_lifespan,
    checked_name_key,
    checked_namespace,
    checked_secrets,
    checked_session_ttl,
)
from tokenmw.outgoing import TokenAuth, token_auth
from tokenmw.providers.http_client import checked_http
from tokenmw.redaction import HiddenStr, Unpicklable, without_locals
from tokenmw.redis.client import checked_redis
from tokenmw.redis.keys import KeyNames
from tokenmw.redis.sealing import Sealer
from tokenmw.runtime.closing import close_in_task
from tokenmw.runtime.data import BrokerData
from tokenmw.runtime.runtime import Runtime, usable_here
from tokenmw.runtime.settings import Settings
from tokenmw.runtime.snapshot import snapshot
from tokenmw.sessions.derive import SessionIds
from tokenmw.startup.lifespan import STATE_KEY, opened_for
from tokenmw.tokens.entry import TokenEntry
from tokenmw.values import Grant, Token

if TYPE_CHECKING:
    from collections.abc import Awaitable, Iterable, Mapping, Sequence
    from contextlib import AbstractAsyncContextManager, AbstractContextManager

    from starlette.types import StatefulLifespan, StatelessLifespan

    from tokenmw.callers.authenticate import Authenticate
    from tokenmw.callers.labels import Label
    from tokenmw.connections.connections import Connections
    from tokenmw.credentials import ProviderOfRequest
    from tokenmw.observe.events import Observer
    from tokenmw.providers.base import Provider
    from tokenmw.providers.http_client import AsyncHTTPClient, HTTPOptions
    from tokenmw.redis.client import RedisOption
    from tokenmw.sessions.derive import NewSessionIDs
    from tokenmw.sessions.manager import SessionPolicy
    from tokenmw.status import InstanceStatus, Status

__all__ = ["STATE_KEY", "MissingKey", "TokenBroker"]

MissingKey = Literal["random", "reject"]

_OPENED_ITSELF: Final = (
    "The broker was used while it was not open, so it opened itself, and nothing will close it. Use `async with "
    "broker:`, lifespan=broker.lifespan, or TokenMiddleware under a server that sends lifespan events."
)


class TokenBroker(Unpicklable):
    """Provides provider tokens and session ids to one program, shared with its other workers through Redis.

        broker = TokenBroker({"crm": ClientCredentials(...)}, redis="redis://localhost:6379/0", secret_key="...")

    Use it as `async with broker:`, as an application's `lifespan=broker.lifespan`, or through `TokenMiddleware`, which
    does the same. All methods raise `ConfigurationError` for an argument that cannot work, such as an unknown name.

    Args:
        providers: Names to providers, or to callables `(connection) -> Provider`, sync or async, for credentials that
            depend on the request. The names appear in logs, metrics and error texts: at most 100 characters, no control
            characters. Two names with equal credentials share one token.
        redis: A URL (`redis://`, `rediss://`, `unix://`, `redis+cluster://`, `rediss+cluster://`; the last two need
            redis-py 8.0.1) with special characters of the password as `%XX`, or a client of `redis.asyncio`, which is
            never closed here and keeps its own connection pool and retries. None: nothing is shared. Each process
            fetches its own tokens, and session ids agree only if there is a `name_key` to derive them from.
        secret_key: Encrypts the values in Redis and hides the names there; at least 16 characters. A list during a
            rotation: the first one encrypts, all of them decrypt. None: anyone who reads Redis can read tokens. Without
            a `name_key` too, API keys can be guessed from names, and while Redis is unavailable a new caller gets a
            different session id in each process. Warnings at start-up say so.
        name_key: Hides names in Redis and derives session ids; at least 16 characters. Changing it renames all keys, so
            tokens are fetched again and every session id changes: keep it when `secret_key` rotates. None: the last
            `secret_key` is used.
        seal: False: `secret_key` only hides names. Anyone who reads Redis can read tokens, and anyone who writes to it
            can plant tokens and session ids. True: values are encrypted, and a missing `secret_key` is an error. None:
            values are encrypted if there is a `secret_key`.
        namespace: The first part of every Redis key. Programs with the same namespace, Redis and `name_key` share
            tokens and session ids; in any other namespace a caller has another id.
        session_ttl: Seconds, from 1 to a year, after which the session of an idle API key ends; an hour by default.
        session_policy: While Redis is unavailable, `"available"` serves a caller that this instance does not know with
            a derived session id; `"required"` raises `SessionUnavailable` (503).
        session_ids: `"derived"` gives a new API key the id that each instance derives from it and `name_key`, so that
            the key has one id while Redis is unavailable. A key that comes back after `session_ttl` has its former id
            again. `"random"` gives it a new id; but while Redis is unavailable, instances that do not know a key derive
            another id than those that do. Without a `name_key` to derive from, all ids are random.
        api_key: Where the API key of a request is found. By default three headers are read, no query parameter and no
            cookie.
        missing_key: `"random"` serves a request without an API key, with a session id for that request alone;
            `"reject"` answers 401.
        authenticate: `(connection, key) -> object | None`, sync or async: returns the caller, which
            `request.state.caller` then holds. A falsy answer, or `raise APIKeyRefused("…")`, refuses the key with 401.
            A request without a key is still served, with a caller of None, unless `missing_key="reject"`. None: no key
            is checked, any text is a caller.
        http: An `httpx.AsyncClient` or `httpx2.AsyncClient` for token requests, which is never closed here; None or an
            `HTTPOptions`: a client of our own. None ignores the environment's variables for proxies and certificates.
        limits: The bounds of memory, time and concurrency.
        observers: Callables that get each event, for metrics. Without any, only failures are reported, in the log.
        single_process: True promises that no other process uses these credentials. False: a provider whose new token
            invalidates the one before needs `redis`.
        clock: The source of time; tests give a `ManualClock`.
        hints: True: processes announce to each other what they have changed, on a channel of Redis, so that all stop
            using an invalidated token within about 0.1 s. It takes one more connection for each process. False: they
            notice it when they compare their tokens with Redis, within `Limits(check_seconds=…)`, 30 s.
        connections: The accounts that users connect; each app's name is one of the broker's. It needs a `secret_key`.
        label: `(connection) -> str`: what operators read on the status page beside the opaque name of a credential that
            depends on the request, such as a tenant's name. It is called when the credential fails. None: no name.

    Attributes:
        connections: What a program does with users' connections outside of their requests.

    Raises:
        ConfigurationError: An option cannot work; the text names the option and the fix.
    """

    # Without a __dict__, in which a JSON encoder that is given a broker would find its secrets.
    __slots__ = (
        "__weakref__",
        "_api_key",
        "_closing",
        "_credentials",
        "_data",
        "_entered",
        "_missing_key",
        "_runtime",
        "_settings",
        "_warned_of_costs",
        "_warned_of_opening",
        "connections",
    )

    @without_locals
    def __init__(
        self,
        providers: Mapping[str, Provider | ProviderOfRequest],
        *,
        redis: str | RedisOption | None = None,
        secret_key: str | Sequence[str] | None = None,
        name_key: str | None = None,
        seal: bool | None = None,
        namespace: str = "tokenmw",
        session_ttl: float = 3600.0,
        session_policy: SessionPolicy = "available",
        session_ids: NewSessionIDs = "derived",
        api_key: APIKeySource = APIKeySource(),  # noqa: B008  frozen
        missing_key: MissingKey = "random",
        authenticate: Authenticate | None = None,
        http: AsyncHTTPClient | HTTPOptions | None = None,
        limits: Limits = Limits(),  # noqa: B008  frozen
        observers: Iterable[Observer] = (),
        single_process: bool = False,
        clock: Clock = SYSTEM_CLOCK,
        hints: bool = True,
        connections: Connections | None = None,
        label: Label | None = None,
    ) -> None:
        checked_choice(missing_key, option="missing_key", choices=("random", "reject"))
        checked_choice(session_policy, option="session_policy", choices=("available", "required"))
        checked_choice(session_ids, option="session_ids", choices=("derived", "random"))
        checked_flag(seal, option="seal", optional=True)
        checked_flag(single_process, option="single_process")
        checked_flag(hints, option="hints")
        if session_policy == "required" and redis is None:
            raise ConfigurationError('session_policy="required" needs redis=…: ids of one process are not shared.')
        if authenticate is not None:
            checked_authenticate(authenticate)
        secrets = checked_secrets(secret_key)
        checked_key = checked_name_key(name_key, secrets=secrets)
        log = ThrottledLog(checked_clock(clock))
        client = None if redis is None else checked_redis(redis)
        names = KeyNames(checked_namespace(namespace), name_key=checked_key)
        self._api_key = checked_instance(
            api_key, APIKeySource, option="api_key", example='APIKeySource(headers=["x-api-key"])'
        )
        self._missing_key: MissingKey = missing_key
        sealer = Sealer(secrets, seal=seal)
        self._settings = Settings(
            redis=HiddenStr(client) if isinstance(client, str) else client,  # a URL holds the password
            names=names,
            sealer=sealer,
            session_ttl=checked_session_ttl(session_ttl),
            session_policy=session_policy,
            session_ids=SessionIds(checked_key, namespace=None if redis is None else names.namespace, new=session_ids),
            authenticate=authenticate,
            http=checked_http(http),
            limits=checked_instance(limits, Limits, option="limits", example="Limits(tokens=100)"),
            single_process=single_process,
            hints=hints,
            clock=clock,
            log=log,
            observe=Observers(observers, log=log, clock=clock),
            names_follow_secrets=name_key is None and len(secrets) > 1,
            connections=checked_connections(connections, sealer=sealer, http=http),
            labels=None if label is None else CredentialLabels(label, log=log),
        )
        self._data = BrokerData(self._settings)
        self.connections = UserConnections(connections, opened=lambda: self._open().connections)
        self._credentials = Credentials(
            self.connections.beside(providers),
            cache=self._data.tokens,
            has_leases=redis is not None,
            single_process=single_process,
            http=http,
        )
        self._warned_of_costs = False
        self._warned_of_opening = False
        self._entered = 0
        self._closing: set[asyncio.Task[None]] = set()
        self._runtime: Runtime | None = None

    async def token(self, provider: str | Provider) -> Token:
        """Return a valid token, by the provider's name or by its value.

        Raises:
            TokenUnavailable: There is none now.
            CredentialRejected: The provider rejects the credential.
            ConfigurationError: The name is unknown, or its credentials depend on the request.
        """
        entry, runtime = self._credentials.entry(provider), self._runtime
        token = self._while_closed(entry) if runtime is None else runtime.tokens.fresh(entry)
        if token is None:
            token = await self._open().tokens.get(entry)
        return token._under(provider if isinstance(provider, str) else provider.kind)

    @without_locals
    async def invalidate(self, token: Token) -> bool:
        """Drop a token that an API rejected, here and on all instances, if it is still the current one.

        Return whether it was dropped. Reports about an older token or one younger than 5 s are ignored, and after
        a token was dropped, reports are ignored for a growing backoff. So it may be called for every rejected request.
        """
        checked_instance(token, Token, option="invalidate(token)", example="broker.token(…) returned")
        return await self._open().token_sync.invalidate(token)

    @without_locals
    async def hand_in(self, provider: str | Provider, grant: Grant) -> None:
        """Replace a provider's token on all instances with one that the provider has sent, such as an `app_ticket`."""
        checked_instance(grant, Grant, option="hand_in(grant)", example="Grant(token, expires_in=3600)")
        runtime, entry = self._open(), self._credentials.entry(provider)
        if await runtime.token_sync.hand_in(entry, grant):
            runtime.tokens.refresh_soon(entry)

    @without_locals
    async def invalidate_provider(self, provider: str | Provider) -> None:
        """Drop the token that a provider has, here and on all instances; the next request fetches a new one."""
        await self._open().token_sync.invalidate_current(self._credentials.entry(provider))

    def auth(self, provider: str | Provider) -> TokenAuth:
        """Return an auth object for httpx and httpx2 clients: it places the token, and replaces a rejected one once."""
        self._credentials.entry(provider)
        find, withheld = partial(self._credentials.find_for_auth, provider), self._data.withheld.of(provider)
        return token_auth(find, get_token=self._token_of, invalidate=self.invalidate, withheld=withheld)

    @without_locals
    async def session_id(self, api_key: str | bytes) -> str:
        """Return the session id of an API key, the same on all instances until it is idle for `session_ttl`.

        Raises:
            SessionUnavailable: `session_policy="required"`, and Redis is unavailable.
        """
        return await self._open().sessions.get(checked_api_key(api_key))

    @without_locals
    async def reset_session(self, api_key: str | bytes) -> str:
        """Give an API key a new session id, and return it. Other instances take it over within a second.

        A key that comes back after `session_ttl` has the id of its last reset, for at least a year; with
        `session_ids="random"` it has a new one. While Redis is unavailable, an instance that does not know the key
        gives it the id from before all resets.

        Raises `SessionUnavailable` under `session_policy="required"` while Redis is unavailable; the id stays the same.
        """
        return await self._open().sessions.reset(checked_api_key(api_key))

    @without_locals
    async def __aenter__(self) -> Self:
        """Open the broker in the running event loop; further entries are only counted."""
        runtime = self._open_runtime()
        self._entered += 1
        if self._entered == 1:
            # Before the first request, so that its token and session id are shared.
            try:
                await runtime.connect()
            except BaseException:  # a task that is cancelled while entering never leaves
                await self.__aexit__()
                raise
        return self

    @without_locals
    async def __aexit__(self, *_exc: object) -> None:
        """Close the broker when every entry has been left."""
        self._entered -= 1
        if self._entered <= 0 and self._runtime is not None:
            runtime, self._runtime = self._runtime, None
            await close_in_task(runtime, self._closing)

    def lifespan(self, app: Any) -> AbstractAsyncContextManager[dict[str, Any]]:
        """Open and close with an application: `Starlette(lifespan=broker.lifespan)`."""
        return self._lifespan(app)

    def lifespan_with(self, lifespan: StatelessLifespan[Any] | StatefulLifespan[Any]) -> StatefulLifespan[Any]:
        """Return a lifespan around another one: `FastAPI(lifespan=broker.lifespan_with(mine))`; its state is kept."""
        checked_lifespan(lifespan)
        return partial(self._lifespan, lifespan=lifespan)

    def _lifespan(self, app: Any, **own: Any) -> AbstractAsyncContextManager[dict[str, Any]]:
        names = self._credentials
        return opened_for(app, self, names=names.names, other_names=names.names_of_all_brokers, **own)

    def status(self) -> Status:
        """Return a snapshot of the broker, without secrets and without I/O."""
        return snapshot(self._settings, self._data, self._runtime, self._credentials)

    async def fleet(self) -> tuple[InstanceStatus, ...]:
        """Return all instances that share this Redis and namespace, by their last heartbeats, this one first.

        While Redis is unavailable, it is this one alone; without Redis there is none.
        """
        fleet = self._open().fleet
        return () if fleet is None else await fleet.read()

    @without_locals
    def override(self, providers: Mapping[str, Provider | ProviderOfRequest]) -> AbstractContextManager[None]:
        """Replace the providers of some names within a `with` block, in all threads and tasks; for tests.

        with broker.override({"crm": StaticToken("test")}): ...
        """
        return self._credentials.override(providers)

    def _token_of(self, entry: TokenEntry) -> Token | Awaitable[Token]:
        """Return a valid token of an entry from the local cache; if it has none, a coroutine that waits for one."""
        runtime = self._runtime
        token = self._while_closed(entry) if runtime is None else runtime.tokens.fresh(entry)
        return self._open().tokens.get(entry) if token is None else token

    def _while_closed(self, entry: TokenEntry) -> Token | None:
        """Return a valid token of an entry without opening the broker, so that shutdown does not open it again."""
        current = entry.current
        return current.token if current is not None and current.usable(Instant(self._settings.clock)) else None

    def _session_while_closed(self, api_key: bytes) -> str | None:
        """Return a closed broker's cached session id of an API key, without opening it; else None."""
        return self._data.sessions.use(api_key) if self._runtime is None else None

    async def _warm_up(self, names: Iterable[str]) -> None:
        """Get tokens before the first request, for `Limits(inject_seconds=…)` at most; failures are kept."""
        get = self._open().tokens.get_for_injection
        entries = [found for found in map(self._credentials.find, names) if isinstance(found, TokenEntry)]
        await asyncio.gather(*map(get, entries), return_exceptions=True)

    def _open(self) -> Runtime:
        """Return the runtime of the running event loop; a broker that was not opened opens itself and warns once."""
        before = self._runtime
        runtime = self._open_runtime()
        if runtime is not before and not self._warned_of_opening:
            self._warned_of_opening = True
            warn("opened-itself", _OPENED_ITSELF)
        return runtime

    def _open_runtime(self) -> Runtime:
        runtime = usable_here(self._runtime)
        if runtime is not None:
            return runtime
        if not self._warned_of_costs:
            self._warned_of_costs = True
            self._settings.log_costs(self._data.missing_keys or {self._missing_key})
        self._runtime = runtime = Runtime(self._settings, self._data, self._credentials.names)
        self._entered = 0  # tasks that entered the abandoned runtime never leave it
        return runtime

    def __repr__(self) -> str:
        names = getattr(getattr(self, "_credentials", None), "names", ())
        return f"<TokenBroker of {', '.join(names) or 'no providers'}>"
