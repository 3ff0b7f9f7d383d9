"""The parts of a broker that belong to one event loop, built whole and closed in dependency order."""

from __future__ import annotations

import asyncio
import os
from contextlib import AsyncExitStack, suppress
from functools import partial
from typing import TYPE_CHECKING, Final

import anyio

from tokenmw.callers.authenticate import Authenticator
from tokenmw.connections.parts import ConnectionParts, OpenConnections
from tokenmw.errors import ConfigurationError
from tokenmw.housekeeping import Housekeeping, Recovery, RedisJobs
from tokenmw.observe.version import __version__
from tokenmw.providers.http import TokenHTTP
from tokenmw.providers.http_client import default_client
from tokenmw.providers.network.options import HTTPOptions
from tokenmw.redaction import Unpicklable
from tokenmw.redis.connection import RedisConnection
from tokenmw.redis.errors import RedisUnavailable
from tokenmw.redis.kept_pairs import KeptPairs
from tokenmw.redis.session_store import RedisSessionStore
from tokenmw.redis.token_store import RedisTokenStore
from tokenmw.redis.used_flows import UsedFlows
from tokenmw.runtime.fleet import Fleet
from tokenmw.runtime.hints import Hints
from tokenmw.runtime.sampling import Sampler
from tokenmw.runtime.settings import REDIS_TTL
from tokenmw.sessions.first_sight import FirstSights
from tokenmw.sessions.observed import ObservedSessionManager, session_manager
from tokenmw.sessions.sync import SessionSync
from tokenmw.tokens.observed import ObservedTokenManager, token_manager
from tokenmw.tokens.refresh import Refresher
from tokenmw.tokens.sync import TokenSync

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tokenmw.runtime.data import BrokerData
    from tokenmw.runtime.settings import Settings
    from tokenmw.tokens.store import TokenStore

__all__ = ["Runtime", "usable_here"]

_ASYNCIO_ONLY: Final = (
    "tokenmw runs on asyncio only, because its Redis client does: start this program with asyncio, not with trio."
)
_OTHER_LOOP: Final = (
    "This TokenBroker is open in another running event loop: make one broker for each loop. In a sync handler, write "
    'anyio.from_thread.run(tokens.resolve, "crm") or anyio.from_thread.run(broker.token, "crm"), not asyncio.run(…).'
)
_NO_CONNECTIONS: Final = "This TokenBroker has no connections of users: give it connections=Connections(…)."
_CLOSE_DEADLINES: Final = 3  # closing sends the queued touches for at most this many command deadlines


class Runtime(Unpicklable):
    """The parts of a broker that belong to one event loop in one process.

    Attributes:
        tokens: Returns tokens to requests.
        token_sync: Invalidates tokens, and compares them with Redis.
        sessions: Returns session ids to requests.
        session_sync: Sends touches and uploads of sessions; None without Redis.
        authenticator: Calls `authenticate`; None if there is none.
        fleet: The heartbeats of all instances; None without Redis.
        redis: The connection to Redis; None without Redis.
    """

    __slots__ = (
        "_connections",
        "_hints",
        "_housekeeping",
        "_http",
        "_loop",
        "_names",
        "_pid",
        "_redis_jobs",
        "_sampler",
        "_sampling",
        "_settings",
        "authenticator",
        "fleet",
        "redis",
        "session_sync",
        "sessions",
        "token_sync",
        "tokens",
    )

    def __init__(self, settings: Settings, data: BrokerData, names: Sequence[str]) -> None:
        # Makes anyio load its asyncio backend now: httpx does so at its first request, which blocks the loop for 20 ms.
        anyio.get_cancelled_exc_class()
        self._settings, self._names = settings, names
        limits, clock, log, observe = settings.limits, settings.clock, settings.log, settings.observe
        self._loop, self._pid = asyncio.get_running_loop(), os.getpid()

        self.redis: RedisConnection | None = None
        self.session_sync: SessionSync | None = None
        first_sights: FirstSights | None = None
        token_store: TokenStore | None = None
        background_store: TokenStore | None = None
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
                echo=not settings.sealer.sealing,
                observe_commands=True,
            )

            def on_unreadable(kind: str, reason: str) -> None:
                data.note_unreadable(kind, reason, server=redis.address)

            make_store = partial(
                RedisTokenStore, redis, sealer=settings.sealer, on_unreadable=on_unreadable, hints=settings.channel
            )
            token_store, background_store = make_store(), make_store(background=True)
            session_store = RedisSessionStore(
                redis,
                names=settings.names,
                sealer=settings.sealer,
                ttl=REDIS_TTL * settings.session_ttl,
                on_unreadable=on_unreadable,
                hints=settings.channel,
                after_reset=settings.session_ids.after_reset if settings.session_ids.recurring else None,
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
        parts: ConnectionParts | None = None
        if settings.connections is not None:
            parts = ConnectionParts(
                settings.connections,
                data=data.connections,
                kept=None if self.redis is None else KeptPairs(self.redis, names=settings.names),
                used=None if self.redis is None else UsedFlows(self.redis, names=settings.names),
                names=settings.names,
                sealer=settings.sealer,
                rejected=data.rejected,
                limits=limits,
                clock=clock,
                log=log,
                observe=observe,
                writer=refresher.writer,
            )
            http = http.with_grants(parts.refresher)
        self.token_sync = TokenSync(
            refresher=refresher,
            rejected=data.rejected,
            limits=limits,
            clock=clock,
            observe=observe,
            background_store=background_store,
        )
        self.tokens = token_manager(
            observe,
            cache=data.tokens,
            refresher=refresher,
            sync=self.token_sync,
            http=http,
            limits=limits,
            clock=clock,
            log=log,
        )
        self._connections: OpenConnections | None = None
        if parts is not None:
            self._connections = OpenConnections(parts, cache=data.tokens, tokens=self.tokens, sync=self.token_sync)
        self.sessions = session_manager(
            observe,
            cache=data.sessions,
            sync=self.session_sync,
            first_sights=first_sights,
            ids=settings.session_ids,
            policy=settings.session_policy,
            clock=clock,
        )
        self._sampler = self._make_sampler(data)
        self.authenticator = (
            None
            if settings.authenticate is None
            else Authenticator(settings.authenticate, refused=data.refused_keys, limits=limits, clock=clock, log=log)
        )
        self._redis_jobs: RedisJobs | None = None
        self._hints: Hints | None = None
        self.fleet: Fleet | None = None
        if self.redis is not None and self.session_sync is not None:
            self.fleet = Fleet(settings, data, redis=self.redis, session_sync=self.session_sync)
            if settings.hints:
                self._hints = Hints(
                    settings,
                    data,
                    redis=self.redis,
                    tokens=self.tokens,
                    token_sync=self.token_sync,
                    session_sync=self.session_sync,
                    fleet=self.fleet,
                )
            self._redis_jobs = RedisJobs(
                self.redis,
                epochs=data.epochs,
                recovery=recovery,
                cache=data.tokens,
                tokens=self.tokens,
                token_sync=self.token_sync,
                session_sync=self.session_sync,
                clock=clock,
                listener=None if self._hints is None else self._hints.listener,
            )
        jobs = () if self._redis_jobs is None else self._redis_jobs.jobs
        if self._connections is not None:
            jobs = (*jobs, self._connections.offer_unsaved)
        housekeeping = Housekeeping(jobs, purge=data.purge, clock=clock, log=log)
        self._housekeeping = self._loop.create_task(housekeeping.run(), name="tokenmw housekeeping")
        self._sampling = (
            None if self._sampler is None else self._loop.create_task(self._sampler.run(), name="tokenmw sampling")
        )

    def _make_sampler(self, data: BrokerData) -> Sampler | None:
        if not (isinstance(self.tokens, ObservedTokenManager) and isinstance(self.sessions, ObservedSessionManager)):
            return None
        return Sampler(
            broker=data.number,
            providers=self._names,
            version=__version__,
            observe=self._settings.observe,
            cache=data.tokens,
            tokens=self.tokens,
            sessions=self.sessions,
            redis=self.redis,
            session_sync=self.session_sync,
            clock=self._settings.clock,
        )

    async def connect(self) -> None:
        """Connect to Redis and read its epoch markers, so that a later loss of data is noticed.

        An unavailable Redis is logged, and does not prevent the program from starting.
        """
        redis = self.redis
        if redis is not None and self._redis_jobs is not None and await redis.open():
            await self._redis_jobs.recover()
        shared, server = ("off", "") if redis is None else (redis.state, redis.address)
        self._settings.log_opened(providers=self._names, shared=shared, server=server)

    @property
    def connections(self) -> OpenConnections:
        """The connections of users.

        Raises:
            ConfigurationError: The broker has none.
        """
        if self._connections is None:
            raise ConfigurationError(_NO_CONNECTIONS)
        return self._connections

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
            if self._sampler is not None:
                stack.callback(self._sampler.close)  # last, so that what closing does is counted
            if self._http is not None:
                stack.push_async_callback(self._http.aclose)
            if self.authenticator is not None:
                stack.push_async_callback(self.authenticator.close)
            if self.redis is not None:
                stack.push_async_callback(self.redis.close)
            stack.push_async_callback(self.sessions.close)
            if self._connections is not None:
                stack.push_async_callback(self._connections.close)
            stack.push_async_callback(self.tokens.close)  # first, while leases can still be released
            if self._hints is not None:
                stack.push_async_callback(self._hints.close)
            background = [task for task in (self._housekeeping, self._sampling) if task is not None]
            for task in background:
                task.cancel()
            await asyncio.wait(background)
            await self._leave()

    async def _leave(self) -> None:
        """Send the queued touches, and delete the heartbeat."""
        if self.fleet is not None:
            await self.fleet.close()
        if self.session_sync is not None and self.redis is not None and self.redis.usable:
            with suppress(RedisUnavailable, TimeoutError):  # sessions lose a quarter of their TTL at most
                async with asyncio.timeout(_CLOSE_DEADLINES * self._settings.limits.command_seconds):
                    await self.session_sync.send_touches()
                    if self.fleet is not None:
                        await self.fleet.leave()


def usable_here(runtime: Runtime | None) -> Runtime | None:
    """Return a broker's runtime if it is the running event loop's; None if another one has to be built.

    A runtime of a loop that has ended, or from before a fork, is abandoned: its sockets are not this one's.

    Raises:
        ConfigurationError: No asyncio loop is running, or the runtime is in use in another one.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        raise ConfigurationError(_ASYNCIO_ONLY) from None
    if runtime is None or runtime.is_current:
        return runtime
    if runtime.is_running_elsewhere:
        raise ConfigurationError(_OTHER_LOOP)
    return None
