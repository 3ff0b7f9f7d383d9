"""All parts of a broker in one event loop, built whole over data that outlives the loop.

`Settings` are the broker's checked options. `BrokerData` is what must survive from one event loop to the next. A
`Runtime` is built from both. Two may overlap, one closing and one open, and need no special rule: a runtime closes only
what it has built.
"""

from __future__ import annotations

import asyncio
import os
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import anyio

from tokenmw.callers.authenticate import Authenticator, RefusedKeys
from tokenmw.housekeeping import Housekeeping, Recovery, RedisJobs
from tokenmw.observe.events import ValueUnreadable
from tokenmw.observe.throttle import warn
from tokenmw.outgoing.hosts import WithheldTokens
from tokenmw.providers.http import TokenHTTP, default_client
from tokenmw.providers.network.options import HTTPOptions
from tokenmw.redaction import Unpicklable, not_encoded
from tokenmw.redis.connection import RedisConnection
from tokenmw.redis.epoch import EpochMarkers
from tokenmw.redis.errors import RedisUnavailable
from tokenmw.redis.session_store import RedisSessionStore
from tokenmw.redis.token_store import RedisTokenStore, TokenKeys
from tokenmw.sessions.cache import SessionCache
from tokenmw.sessions.first_sight import FirstSights
from tokenmw.sessions.manager import SessionManager
from tokenmw.sessions.rate_limit import NewSessions
from tokenmw.sessions.sync import SessionSync
from tokenmw.tokens.cache import RejectedTokens, TokenCache
from tokenmw.tokens.manager import TokenManager
from tokenmw.tokens.refresh import Refresher
from tokenmw.tokens.sync import TokenSync

if TYPE_CHECKING:
    from collections.abc import Collection

    from tokenmw.callers.authenticate import Authenticate
    from tokenmw.clock import Clock
    from tokenmw.limits import Limits
    from tokenmw.observe.events import Observers
    from tokenmw.observe.throttle import ThrottledLog
    from tokenmw.providers.base import Provider
    from tokenmw.providers.http import AsyncHTTPClient
    from tokenmw.redis.client import AnyClient
    from tokenmw.redis.keys import KeyNames
    from tokenmw.redis.sealing import Sealer
    from tokenmw.sessions.derive import SessionIds
    from tokenmw.sessions.manager import SessionPolicy
    from tokenmw.tokens.store import TokenStore

__all__ = ["BrokerData", "Runtime", "Settings"]

_REDIS_TTL: Final = 1.1  # of `session_ttl`: an instance whose touch is late still finds the session
_CLOSE_DEADLINES: Final = 3  # closing sends the queued touches for at most this many command deadlines

_NOT_SEALED: Final = (
    "Tokens in Redis are readable by anyone who reads Redis, and anyone who writes to Redis can plant tokens and "
    "session ids: values are not sealed. TokenBroker(secret_key=…) with the extra tokenmw[crypto], and without "
    "seal=False, seals them."
)
_UNREADABLE: Final = {
    "unknown-key": (
        "A %s in Redis cannot be used (unknown-key, %s): it is sealed with a secret that this instance does not have; "
        "give all instances the same secret_key=[…], with that secret in the list"
    ),
    "expired": (
        "A %s in Redis is not used (expired, %s): its lifetime is over; its TTL was extended, or an old value was "
        "written again"
    ),
    "damaged": (
        "A %s in Redis cannot be used (damaged, %s): it is deleted or replaced; find out what else writes below the "
        "namespace"
    ),
}
_RANDOM_IDS: Final = (
    "While Redis is unavailable, a new caller gets a different session id in each process: neither secret_key nor "
    "name_key was given to derive the id from. Give one of them."
)
_NAMES_WILL_CHANGE: Final = (
    "secret_key is a list without a name_key, so names in Redis and derived session ids depend on the last secret. "
    "When that one is removed, tokens are fetched again and callers get new session ids. Give name_key= the secret "
    "that was used first."
)
_SERVED_WITHOUT_KEY: Final = (
    'authenticate is given and missing_key is "random": a request without an API key is served, with a caller of None. '
    'missing_key="reject", of the broker or of TokenMiddleware, refuses it.'
)


@not_encoded
@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Settings(Unpicklable):
    """The checked options of a broker.

    Attributes:
        redis: A URL or a client; None without Redis.
        http: The program's own client for token requests, or the options of the one that each runtime makes.
        names_follow_secrets: Whether the names in Redis depend on a list of secrets, so that a rotation changes them.
    """

    redis: str | AnyClient | None
    names: KeyNames
    sealer: Sealer
    session_ttl: float
    session_policy: SessionPolicy
    session_ids: SessionIds
    authenticate: Authenticate | None
    http: AsyncHTTPClient | HTTPOptions | None
    limits: Limits
    single_process: bool
    clock: Clock
    log: ThrottledLog
    observe: Observers
    names_follow_secrets: bool

    def token_keys(self, provider: Provider) -> TokenKeys | None:
        """Return the Redis keys of a provider's token; None if it is not shared."""
        if self.redis is None or not provider.shareable:
            return None
        return TokenKeys.of(self.names, self.names.digest("token", provider.key_parts))

    def log_costs(self, missing_keys: Collection[str]) -> None:
        """Warn of what these options cost, and of callers that `missing_keys` let in beside `authenticate`."""
        if self.names_follow_secrets:
            warn("names-follow-secrets", _NAMES_WILL_CHANGE)
        if self.redis is not None and not self.sealer.sealing:
            warn("not-sealed", _NOT_SEALED)
        if self.redis is not None and not self.session_ids.derivable:
            warn("random-ids", _RANDOM_IDS)
        if self.authenticate is not None and "random" in missing_keys:
            warn("authenticate-without-reject", _SERVED_WITHOUT_KEY)


class BrokerData(Unpicklable):
    """The data of a broker: bounded, and the same from one event loop to the next.

    Attributes:
        missing_keys: The values of `missing_key` by which the broker's middlewares serve requests.
    """

    __slots__ = (
        "_settings",
        "epochs",
        "missing_keys",
        "new_sessions",
        "refused_keys",
        "rejected",
        "sessions",
        "tokens",
        "unreadable",
        "withheld",
    )

    def __init__(self, settings: Settings) -> None:
        limits, clock = settings.limits, settings.clock
        self._settings = settings
        self.tokens = TokenCache(limits=limits, clock=clock, keys_of=settings.token_keys)
        self.rejected = RejectedTokens(limits=limits, clock=clock)
        self.sessions = SessionCache(ttl=settings.session_ttl, limits=limits, clock=clock)
        self.new_sessions = NewSessions(limits, redis_ttl=_REDIS_TTL * settings.session_ttl, clock=clock)
        self.refused_keys = RefusedKeys(limits=limits, clock=clock)
        self.epochs = EpochMarkers()
        self.withheld = WithheldTokens()
        self.unreadable = 0
        self.missing_keys = set[str]()

    def purge(self) -> None:
        """Drop everything that has expired."""
        self.tokens.purge()
        self.rejected.purge()
        self.sessions.expire()
        self.refused_keys.expire()

    def note_unreadable(self, kind: str, reason: str, *, server: str) -> None:
        """Count and log a value in Redis that cannot be used."""
        self.unreadable += 1
        self._settings.observe(ValueUnreadable(kind, reason))
        log = self._settings.log
        log.problem(f"unreadable-{kind}", _UNREADABLE[reason], kind, server, reason=reason, server=server)


class Runtime(Unpicklable):
    """The parts of a broker that belong to one event loop in one process.

    Attributes:
        tokens: Returns tokens to requests.
        token_sync: Invalidates tokens, and compares them with Redis.
        sessions: Returns session ids to requests.
        session_sync: Sends touches and uploads of sessions; None without Redis.
        authenticator: Calls `authenticate`; None if there is none.
        redis: The connection to Redis; None without Redis.
    """

    __slots__ = (
        "_close_seconds",
        "_housekeeping",
        "_http",
        "_loop",
        "_pid",
        "_redis_jobs",
        "authenticator",
        "redis",
        "session_sync",
        "sessions",
        "token_sync",
        "tokens",
    )

    def __init__(self, settings: Settings, data: BrokerData) -> None:
        # Makes anyio load its asyncio backend now: httpx does so at its first request, which blocks the loop for 20 ms.
        anyio.get_cancelled_exc_class()
        limits, clock, log, observe = settings.limits, settings.clock, settings.log, settings.observe
        self._loop = asyncio.get_running_loop()
        self._pid = os.getpid()
        self._close_seconds = _CLOSE_DEADLINES * limits.command_seconds

        self.redis: RedisConnection | None = None
        self.session_sync: SessionSync | None = None
        first_sights: FirstSights | None = None
        token_store: TokenStore | None = None
        recovery = Recovery(clock)
        if settings.redis is not None:
            self.redis = redis = RedisConnection(
                settings.redis,
                names=settings.names,
                limits=limits,
                clock=clock,
                log=log,
                observe=observe,
                on_recovered=recovery.schedule,
            )

            def on_unreadable(kind: str, reason: str) -> None:
                data.note_unreadable(kind, reason, server=redis.address)

            token_store = RedisTokenStore(redis, sealer=settings.sealer, on_unreadable=on_unreadable)
            session_store = RedisSessionStore(
                redis,
                names=settings.names,
                sealer=settings.sealer,
                ttl=_REDIS_TTL * settings.session_ttl,
                on_unreadable=on_unreadable,
            )
            self.session_sync = SessionSync(
                session_store, cache=data.sessions, new_sessions=data.new_sessions, limits=limits, clock=clock
            )
            first_sights = FirstSights(
                cache=data.sessions,
                sync=self.session_sync,
                ids=settings.session_ids,
                new_sessions=data.new_sessions,
                policy=settings.session_policy,
                limits=limits,
                log=log,
            )

        given = settings.http
        client = default_client(given, limits=limits) if given is None or isinstance(given, HTTPOptions) else given
        http = TokenHTTP(client, limits=limits, clock=clock)
        self._http = None if client is given else http
        refresher = Refresher(
            store=token_store,
            rejected=data.rejected,
            limits=limits,
            clock=clock,
            log=log,
            observe=observe,
            single_process=settings.single_process,
        )
        self.token_sync = TokenSync(
            refresher=refresher, rejected=data.rejected, limits=limits, clock=clock, observe=observe
        )
        self.tokens = TokenManager(
            cache=data.tokens, refresher=refresher, sync=self.token_sync, http=http, limits=limits, clock=clock
        )
        self.sessions = SessionManager(
            cache=data.sessions,
            sync=self.session_sync,
            first_sights=first_sights,
            ids=settings.session_ids,
            policy=settings.session_policy,
            clock=clock,
        )
        self.authenticator: Authenticator | None = None
        if settings.authenticate is not None:
            self.authenticator = Authenticator(
                settings.authenticate, refused=data.refused_keys, limits=limits, clock=clock, log=log
            )
        self._redis_jobs: RedisJobs | None = None
        if self.redis is not None and self.session_sync is not None:
            self._redis_jobs = RedisJobs(
                self.redis,
                epochs=data.epochs,
                recovery=recovery,
                cache=data.tokens,
                tokens=self.tokens,
                token_sync=self.token_sync,
                session_sync=self.session_sync,
                clock=clock,
            )
        housekeeping = Housekeeping(
            () if self._redis_jobs is None else self._redis_jobs.jobs, purge=data.purge, clock=clock, log=log
        )
        self._housekeeping = self._loop.create_task(housekeeping.run(), name="tokenmw housekeeping")

    async def connect(self) -> None:
        """Connect to Redis and read its epoch markers, so that a later loss of data is noticed.

        An unavailable Redis is logged, and does not prevent the program from starting.
        """
        if self.redis is not None and self._redis_jobs is not None and await self.redis.open():
            await self._redis_jobs.recover()

    @property
    def is_current(self) -> bool:
        """Whether this is still the process and the event loop it was built in."""
        return self._pid == os.getpid() and self._loop is asyncio.get_running_loop()

    @property
    def is_running_elsewhere(self) -> bool:
        """Whether its event loop is running in another thread of this process."""
        return self._pid == os.getpid() and self._loop.is_running() and not self.is_current

    async def close(self) -> None:
        """Close everything in dependency order; a slow Redis does not delay shutdown."""
        # A part that raises does not prevent the others from closing, nor does a cancellation when the loop stops.
        async with AsyncExitStack() as stack:
            if self._http is not None:
                stack.push_async_callback(self._http.aclose)
            if self.authenticator is not None:
                stack.push_async_callback(self.authenticator.close)
            if self.redis is not None:
                stack.push_async_callback(self.redis.close)
            stack.push_async_callback(self.sessions.close)
            stack.push_async_callback(self.tokens.close)  # first, while leases can still be released
            self._housekeeping.cancel()
            await asyncio.wait([self._housekeeping])
            if self.session_sync is not None and self.redis is not None and self.redis.usable:
                with suppress(RedisUnavailable, TimeoutError):  # sessions lose a twentieth of their TTL at most
                    async with asyncio.timeout(self._close_seconds):
                        await self.session_sync.send_touches()
