"""The broker: the one object that a program makes. It owns the data, and opens a runtime for each event loop.

Opened by the first one that enters, closed by the last one that leaves. Closing takes a moment. A broker that is
entered meanwhile opens a new runtime beside the one that closes; each runtime closes only what it has built.

Closing is not cut short by what cancels the leaving task, else its connections would stay open. It is a task of its
own, and the leaving task waits for it, so that nothing is left behind after `async with broker:`.

- An anyio cancel scope cancels every await inside it, so the wait is shielded from it. Closing has its own bounds.
- An asyncio cancellation is delivered once, and leaving begins after that. A further one ends the leaving task; closing
  goes on without it.
- An event loop that ends meanwhile cancels closing, too. Then nothing more is sent, but everything is closed.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final, Literal, Self

import anyio

from tokenmw.callers.api_key import APIKeySource
from tokenmw.clock import SYSTEM_CLOCK, Clock, Instant
from tokenmw.credentials import Credentials
from tokenmw.errors import ConfigurationError
from tokenmw.limits import Limits
from tokenmw.observe.events import Observers
from tokenmw.observe.throttle import LOGGER, ThrottledLog
from tokenmw.options import (
    checked_api_key,
    checked_callback,
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
from tokenmw.providers.http import checked_client
from tokenmw.redaction import HiddenStr, Unpicklable, without_locals
from tokenmw.redis.client import checked_redis
from tokenmw.redis.keys import KeyNames
from tokenmw.redis.sealing import Sealer
from tokenmw.runtime import BrokerData, Runtime, Settings
from tokenmw.sessions.derive import SessionIds
from tokenmw.status import Status
from tokenmw.tokens.entry import TokenEntry
from tokenmw.values import Grant, Token

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
    from contextlib import AbstractContextManager

    from starlette.types import StatefulLifespan, StatelessLifespan

    from tokenmw.callers.authenticate import Authenticate
    from tokenmw.credentials import ProviderOfRequest
    from tokenmw.observe.events import Observer
    from tokenmw.providers.base import Provider
    from tokenmw.providers.http import AsyncHTTPClient
    from tokenmw.redis.client import AnyClient
    from tokenmw.sessions.manager import SessionPolicy

__all__ = ["STATE_KEY", "MissingKey", "TokenBroker"]

MissingKey = Literal["random", "reject"]
STATE_KEY: Final = "tokenmw"  # where dependencies find the broker in a connection's state

_NOT_SEALED: Final = (
    "Tokens in Redis are readable by anyone who reads Redis: no secret_key was given. "
    "TokenBroker(secret_key=…) with the extra tokenmw[crypto] seals them."
)
_RANDOM_IDS: Final = (
    "While Redis is unavailable, new callers get a different session id in each process: no secret_key or name_key was "
    "given to derive one from. Give either."
)
_NAMES_WILL_CHANGE: Final = (
    "secret_key is a list without a name_key, so names in Redis and derived session ids depend on the last secret. "
    "When that one is removed, tokens are fetched again and callers get new session ids. Give name_key= the secret "
    "that was used first."
)
_OPENED_ITSELF: Final = (
    "The broker was used before it was opened, so it opened itself, and nothing will close it. Use `async with "
    "broker:`, lifespan=broker.lifespan, or TokenMiddleware under a server that sends lifespan events."
)
_ASYNCIO_ONLY: Final = (
    "tokenmw runs on asyncio only, because its Redis client does: start this program with asyncio, not with trio."
)


class TokenBroker(Unpicklable):
    """Provider tokens and session ids for one program, shared with its other workers through Redis.

        broker = TokenBroker({"crm": ClientCredentials(...)}, redis="redis://localhost:6379/0", secret_key="...")

    Use it as `async with broker:`, as an application's `lifespan=broker.lifespan`, or through `TokenMiddleware`, which
    does the same.

    Args:
        providers: Names to providers, or to callables `(connection) -> Provider`, sync or async, for credentials that
            depend on the request.
        redis: A URL (redis://, rediss://, unix://, redis+cluster://), or a client of `redis.asyncio`, which is never
            closed here. None: tokens and session ids are this process's own, and every process fetches for itself.
        secret_key: Seals what is stored in Redis, and hides names there; at least 16 characters. During a rotation a
            list: the first one seals, all of them open. None: anyone who reads Redis reads the tokens.
        name_key: Hides names in Redis and derives session ids; it must stay the same when `secret_key` rotates. None:
            the last `secret_key`; without that one, ids made while Redis is unavailable differ between processes.
        seal: False: values stay readable although there is a `secret_key`. None: they are sealed if there is one.
        namespace: The first part of every Redis key; programs that share credentials share it.
        session_ttl: Seconds after which an idle API key gets a new session id.
        session_policy: What happens while Redis is unavailable: `"available"`, an id is derived; `"required"`,
            `SessionUnavailable` is raised.
        api_key: Where the API key of a request is found.
        missing_key: What happens without a key: `"random"`, an id for this request alone; `"reject"`, 401.
        authenticate: `(connection, key) -> object | None`, sync or async: returns the caller; None or False refuses the
            key with 401. None: every key is accepted.
        http: An `httpx.AsyncClient` or `httpx2.AsyncClient` for token requests, which is never closed here. None: a
            client of our own, without proxies and certificates from environment variables.
        limits: All bounds.
        observers: Called with each event.
        single_process: True: no other process uses these credentials, so `exclusive` providers need no Redis.
        clock: The source of time, for tests.

    Raises:
        ConfigurationError: An option cannot work; the text names the option and the fix.
    """

    # With a __dict__, a JSON encoder that is given a broker would reach its secrets.
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
        "_warned_of_opening",
        "_warnings",
    )

    @without_locals
    def __init__(
        self,
        providers: Mapping[str, Provider | ProviderOfRequest],
        *,
        redis: str | AnyClient | None = None,
        secret_key: str | Sequence[str] | None = None,
        name_key: str | None = None,
        seal: bool | None = None,
        namespace: str = "tokenmw",
        session_ttl: float = 3600.0,
        session_policy: SessionPolicy = "available",
        api_key: APIKeySource = APIKeySource(),  # noqa: B008  frozen
        missing_key: MissingKey = "random",
        authenticate: Authenticate | None = None,
        http: AsyncHTTPClient | None = None,
        limits: Limits = Limits(),  # noqa: B008  frozen
        observers: Iterable[Observer] = (),
        single_process: bool = False,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        checked_choice(missing_key, option="missing_key", choices=("random", "reject"))
        checked_choice(session_policy, option="session_policy", choices=("available", "required"))
        checked_flag(seal, option="seal", optional=True)
        checked_flag(single_process, option="single_process")
        if session_policy == "required" and redis is None:
            raise ConfigurationError('session_policy="required" needs redis=…: ids of one process are not shared.')
        if authenticate is not None:
            checked_callback(authenticate, option="authenticate", takes="(connection, key) -> object | None")
        secrets = checked_secrets(secret_key)
        checked_key = checked_name_key(name_key, secrets=secrets)
        log = ThrottledLog(checked_clock(clock))
        client = None if redis is None else checked_redis(redis)
        self._api_key = checked_instance(
            api_key, APIKeySource, option="api_key", example='APIKeySource(headers=["x-api-key"])'
        )
        self._missing_key: MissingKey = missing_key
        self._settings = Settings(
            redis=HiddenStr(client) if isinstance(client, str) else client,  # a URL holds the password
            names=KeyNames(checked_namespace(namespace), name_key=checked_key),
            sealer=Sealer(secrets, seal=seal),
            session_ttl=checked_session_ttl(session_ttl),
            session_policy=session_policy,
            session_ids=SessionIds(checked_key),
            authenticate=authenticate,
            http=None if http is None else checked_client(http),
            limits=checked_instance(limits, Limits, option="limits", example="Limits(tokens=100)"),
            single_process=single_process,
            clock=clock,
            log=log,
            observe=Observers(observers, log=log),
        )
        self._data = BrokerData(self._settings)
        self._credentials = Credentials(
            providers, cache=self._data.tokens, has_leases=redis is not None, single_process=single_process
        )
        self._warnings = self._costs_of_options(names_will_change=name_key is None and len(secrets) > 1)
        self._warned_of_opening = False
        self._entered = 0
        self._closing: set[asyncio.Task[None]] = set()  # an event loop keeps no strong reference to its tasks
        self._runtime: Runtime | None = None

    async def token(self, provider: str | Provider) -> Token:
        """Return a valid token, by the provider's name or by its value.

        Raises:
            TokenUnavailable: There is none now.
            CredentialRejected: The provider rejects the credential.
            ConfigurationError: The name is unknown, or its credentials depend on the request.
        """
        entry, runtime = self._credentials.entry(provider), self._runtime
        token = None if runtime is None else runtime.tokens.fresh(entry)
        if token is None:
            token = await self._open().tokens.get(entry)
        return token._under(provider if isinstance(provider, str) else provider.kind)

    @without_locals
    async def invalidate(self, token: Token) -> bool:
        """Drop a token that an API rejected, here and on all instances, if it is still the current one.

        Return whether it was dropped. Reports about older tokens, one younger than 5 s, and repeated reports are
        ignored, so it may be called for every rejected request. Raises `ConfigurationError` for anything but a `Token`.
        """
        checked_instance(token, Token, option="invalidate(token)", example="broker.token(…) returned")
        return await self._open().token_sync.invalidate(token)

    @without_locals
    async def hand_in(self, provider: str | Provider, grant: Grant) -> None:
        """Give all instances a token that came without a request, such as Feishu's `app_ticket`, over an older one."""
        checked_instance(grant, Grant, option="hand_in(grant)", example="Grant(token, expires_in=3600)")
        await self._open().token_sync.hand_in(self._credentials.entry(provider), grant)

    @without_locals
    async def invalidate_provider(self, provider: str | Provider) -> None:
        """Drop whatever token a provider has, here and on all instances; the next request fetches a new one."""
        await self._open().token_sync.invalidate_current(self._credentials.entry(provider))

    def auth(self, provider: str | Provider) -> TokenAuth:
        """Return an auth object for an httpx or httpx2 client: it places the token and replaces a rejected one once."""
        self._credentials.entry(provider)

        async def find() -> tuple[Provider, TokenEntry]:
            entry = self._credentials.entry(provider)
            return self._credentials.provider(provider, entry), entry

        return token_auth(find, get_token=self._token_of, invalidate=self.invalidate)

    @without_locals
    async def session_id(self, api_key: str | bytes) -> str:
        """Return the session id of an API key, the same on all instances until it is idle for `session_ttl`.

        Raises:
            SessionUnavailable: `session_policy="required"`, and Redis is unavailable.
        """
        return await self._open().sessions.get(checked_api_key(api_key))

    @without_locals
    async def reset_session(self, api_key: str | bytes) -> str:
        """Give an API key a new session id, and return it. Other instances take it over within `session_ttl` / 20.

        Raises `SessionUnavailable` under `session_policy="required"` while Redis is unavailable; the id stays the same.
        """
        return await self._open().sessions.reset(checked_api_key(api_key))

    @without_locals
    async def __aenter__(self) -> Self:
        """Open the broker in the running event loop; entering again only counts."""
        runtime = self._open_runtime()
        self._entered += 1
        if self._entered == 1:
            # Before the first request, so that it is shared.
            try:
                await runtime.connect()
            except BaseException:  # a task that is cancelled while entering never leaves
                await self.__aexit__()
                raise
        return self

    @without_locals
    async def __aexit__(self, *_exc: object) -> None:
        """Close it when the last one leaves."""
        self._entered -= 1
        if self._entered <= 0 and self._runtime is not None:
            runtime, self._runtime = self._runtime, None
            closing = asyncio.get_running_loop().create_task(runtime.close(), name="tokenmw closing")
            self._closing.add(closing)
            closing.add_done_callback(self._closing.discard)
            with anyio.CancelScope(shield=True):
                await asyncio.wait([closing])
            closing.result()

    @asynccontextmanager
    async def lifespan(self, _app: Any) -> AsyncGenerator[dict[str, Any]]:
        """Open and close with an application: `Starlette(lifespan=broker.lifespan)`."""
        async with self:
            yield {STATE_KEY: self}

    def lifespan_with(self, lifespan: StatelessLifespan[Any] | StatefulLifespan[Any]) -> StatefulLifespan[Any]:
        """Return a lifespan around another one: `FastAPI(lifespan=broker.lifespan_with(mine))`; its state is kept."""
        checked_lifespan(lifespan)

        @asynccontextmanager
        async def both(app: Any) -> AsyncGenerator[dict[str, Any]]:
            async with self, lifespan(app) as state:
                yield {**(state or {}), STATE_KEY: self}

        return both

    def status(self) -> Status:
        """Return a snapshot of the broker: no secrets, no I/O."""
        data, runtime, now = self._data, self._runtime, Instant(self._settings.clock)
        redis, session_sync = (None, None) if runtime is None else (runtime.redis, runtime.session_sync)
        entries = list(data.tokens)
        return Status(
            shared="off" if redis is None else redis.state,
            shared_since=None if redis is None else redis.since,
            shared_error="" if redis is None else redis.error,
            providers=self._credentials.statuses(now),
            tokens=sum(entry.current is not None for entry in entries),
            sessions=len(data.sessions),
            unshared_tokens=sum(entry.token_unshared(now) for entry in entries),
            unshared_invalidations=sum(entry.tombstone_unshared(now) for entry in entries),
            unshared_sessions=0 if session_sync is None else session_sync.unshared,
            touches=0 if session_sync is None else session_sync.touches,
            unreadable=data.unreadable,
            sealed=self._settings.sealer.sealing,
        )

    @without_locals
    def override(self, providers: Mapping[str, Provider | ProviderOfRequest]) -> AbstractContextManager[None]:
        """Use other providers under known names for a while, in all threads and tasks; for tests.

        with broker.override({"crm": StaticToken("test")}): ...
        """
        return self._credentials.override(providers)

    async def _token_of(self, entry: TokenEntry) -> Token:
        """Return a valid token of an entry, from the local cache without waiting."""
        runtime = self._runtime
        token = None if runtime is None else runtime.tokens.fresh(entry)
        return token if token is not None else await self._open().tokens.get(entry)

    async def _warm_up(self, names: Iterable[str]) -> None:
        """Get tokens before the first request, for `Limits(inject_seconds=…)` at most; failures are kept."""
        get = self._open().tokens.get_for_injection
        entries = [found for found in map(self._credentials.find, names) if isinstance(found, TokenEntry)]
        await asyncio.gather(*map(get, entries), return_exceptions=True)

    def _open(self) -> Runtime:
        """Return the runtime of the running event loop; a broker that nobody has opened opens itself and warns once."""
        before = self._runtime
        runtime = self._open_runtime()
        if runtime is not before and not self._warned_of_opening:
            self._warned_of_opening = True
            LOGGER.warning(_OPENED_ITSELF)
        return runtime

    def _open_runtime(self) -> Runtime:
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            raise ConfigurationError(_ASYNCIO_ONLY) from None
        runtime = self._runtime
        if runtime is not None:
            if runtime.is_current:
                return runtime
            if runtime.is_running_elsewhere:
                raise ConfigurationError(
                    "This TokenBroker is open in another running event loop: make one broker for each loop."
                )
        # A runtime of a loop that has ended, or from before a fork, is abandoned: its sockets belong to the other one.
        while self._warnings:
            LOGGER.warning(self._warnings.pop(0))
        self._runtime = runtime = Runtime(self._settings, self._data)
        self._entered = 0  # tasks that entered the abandoned runtime never leave it
        return runtime

    def _costs_of_options(self, *, names_will_change: bool) -> list[str]:
        settings = self._settings
        shared = settings.redis is not None
        return [
            *([_NAMES_WILL_CHANGE] if names_will_change else []),
            *([_NOT_SEALED] if shared and not settings.sealer.sealing else []),
            *([_RANDOM_IDS] if shared and not settings.session_ids.derivable else []),
        ]

    def __repr__(self) -> str:
        names = getattr(getattr(self, "_credentials", None), "names", ())
        return f"<TokenBroker of {', '.join(names) or 'no providers'}>"
