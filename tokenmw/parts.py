"""The parts of a broker: those that last, and how those of one event loop are put together from them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anyio

from tokenmw.callers.authenticate import Authenticate, Authenticator
from tokenmw.errors import ConfigurationError
from tokenmw.housekeeping import Healing, Housekeeping
from tokenmw.limits import Limits
from tokenmw.observe.events import Observers, ValueUnreadable
from tokenmw.observe.throttle import LOGGER, ThrottledLog
from tokenmw.options import (
    checked_callback,
    checked_choice,
    checked_clock,
    checked_flag,
    checked_name_key,
    checked_namespace,
    checked_secrets,
    checked_session_ttl,
)
from tokenmw.providers.http import TokenHTTP, checked_client, default_client
from tokenmw.redaction import HiddenStr
from tokenmw.redis.client import checked_redis
from tokenmw.redis.connection import RedisConnection
from tokenmw.redis.epoch import EpochMarkers
from tokenmw.redis.keys import KeyNames
from tokenmw.redis.sealing import Sealer
from tokenmw.redis.session_store import RedisSessionStore
from tokenmw.redis.token_store import RedisTokenStore, TokenKeys
from tokenmw.runtime import Runtime
from tokenmw.sessions.derive import DerivedIds
from tokenmw.sessions.manager import SessionManager, SessionPolicy
from tokenmw.sessions.sync import SessionReupload, SessionTouches
from tokenmw.tokens.cache import RejectedTokens, TokenCache
from tokenmw.tokens.manager import TokenManager
from tokenmw.tokens.nested import NestedTokens
from tokenmw.tokens.refresh import Refresher, Renewal
from tokenmw.tokens.sync import TokenSync

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Sequence

    from tokenmw.clock import Clock
    from tokenmw.observe.events import Observer
    from tokenmw.providers.base import Provider

__all__ = ["Parts"]

_PLAIN_VALUES = (
    "Tokens in Redis are readable by whoever reads Redis, and names can be tried out: no secret_key was given. "
    "TokenBroker(secret_key=…) with the extra tokenmw[crypto] seals them."
)
_RANDOM_IDS = (
    "While Redis is away, new callers get a session id of their own in each process: no secret_key or name_key was "
    "given to derive one that all agree on."
)
_RENAMED = (
    "secret_key is a list and there is no name_key: names in Redis, and ids made while it is away, hang on the last of "
    "the list. When that changes, tokens are fetched anew and callers get new session ids. "
    "Mend: name_key= the secret that was used first."
)
_CLOSING = 3  # deadlines of a command that closing takes to send what waits


class Parts:
    """What a broker is made of. Everything that can be wrong with the options is said here, at construction."""

    def __init__(
        self,
        *,
        redis: Any,
        secret_key: str | Sequence[str] | None,
        name_key: str | None,
        seal: bool | None,
        namespace: str,
        session_ttl: float,
        session_policy: SessionPolicy,
        authenticate: Authenticate | None,
        http: Any,
        limits: Limits,
        observers: Iterable[Observer],
        single_process: bool,
        clock: Clock,
    ) -> None:
        if not isinstance(limits, Limits):
            raise ConfigurationError("limits must be a Limits(…), such as Limits(tokens=100).")
        secrets = checked_secrets(secret_key)
        self._renames = name_key is None and len(secrets) > 1
        name_key = checked_name_key(name_key, secrets=secrets)
        checked_flag(seal, option="seal", optional=True)
        checked_flag(single_process, option="single_process")
        checked_choice(session_policy, option="session_policy", choices=("available", "required"))
        if session_policy == "required" and redis is None:
            raise ConfigurationError('session_policy="required" needs redis=…: ids of one process are not shared.')
        if authenticate is not None:
            checked_callback(authenticate, option="authenticate", takes="(connection, key) -> object | None")
        if http is not None:
            checked_client(http)
        self.limits = limits
        self.clock = checked_clock(clock)
        self.single_process = single_process
        self._http = http
        self._redis = None if redis is None else checked_redis(redis)
        if isinstance(self._redis, str):
            self._redis = HiddenStr(self._redis)  # the password is in it
        self._ttl = checked_session_ttl(session_ttl)
        self._names = KeyNames(checked_namespace(namespace), name_key=name_key)
        self.seals = Sealer(secrets, seal=seal)
        self.log = ThrottledLog(clock)
        self.observe = Observers(observers, log=self.log)
        self.unreadable = 0
        self._markers = EpochMarkers()
        self._warned = False
        self.rejected = RejectedTokens(limits=limits, clock=clock)
        self.tokens = TokenManager(limits=limits, clock=clock)
        self.entries = TokenCache(limits=limits, clock=clock, keys_of=self._keys_of, flying=self.tokens.entry_of)
        self._derivation = DerivedIds(name_key)
        self.sessions = SessionManager(
            ttl=self._ttl, policy=session_policy, derivation=self._derivation, limits=limits, clock=clock
        )
        self.callers = (
            None if authenticate is None else Authenticator(authenticate, limits=limits, clock=clock, log=self.log)
        )
        self.coherence = TokenSync(
            manager=self.tokens, rejected=self.rejected, limits=limits, clock=clock, observe=self.observe
        )

    @property
    def shares(self) -> bool:
        """Whether Redis is configured."""
        return self._redis is not None

    def _keys_of(self, provider: Provider) -> TokenKeys | None:
        if self._redis is None or not provider.shareable:
            return None
        return TokenKeys.of(self._names, self._names.digest("token", provider.credential))

    def open(self) -> Runtime:
        """Put together what lives in the running event loop, and start it. Nothing is awaited, so nothing can hang."""
        # httpx has anyio load its side for asyncio at the first request: 20 ms, in which the loop would stand still.
        anyio.get_cancelled_exc_class()
        nested = NestedTokens(self.tokens, entries=self.entries, coherence=self.coherence)
        http = TokenHTTP(self._http or default_client(), limits=self.limits, clock=self.clock, nested=nested)
        connection = store = touches = None
        healing: Healing | None = None
        closers: list[Callable[[], Awaitable[None]]] = []
        if self._redis is not None:

            def recovered() -> None:
                if healing is not None:
                    healing.begin()

            connection = RedisConnection(
                self._redis,
                names=self._names,
                limits=self.limits,
                clock=self.clock,
                log=self.log,
                observe=self.observe,
                on_recovered=recovered,
            )
            store = RedisTokenStore(connection, sealer=self.seals, on_unreadable=self._unreadable)
            sessions = RedisSessionStore(
                connection,
                names=self._names,
                sealer=self.seals,
                ttl=1.1 * self._ttl,
                on_unreadable=self._unreadable,
            )
            touches = SessionTouches(sessions, limit=self.limits.touches, clock=self.clock)
            healing = Healing(
                connection,
                markers=self._markers,
                coherence=self.coherence,
                entries=self.entries,
                offers=SessionReupload(self.sessions, touches, clock=self.clock),
                clock=self.clock,
            )
            closers += [self.sessions.start(sessions, touches), connection.close]
        if self.callers is not None:
            closers.append(self.callers.start())
        if self._http is None:
            closers.append(http.aclose)
        asking = Refresher(
            http=http,
            store=store,
            rejected=self.rejected,
            limits=self.limits,
            clock=self.clock,
            log=self.log,
            observe=self.observe,
        )
        renewal = Renewal(asking, store=store, limits=self.limits, single_process=self.single_process)
        # While there is a connection to give leases back with.
        closers.insert(0, self.tokens.start(renewal, look=asking.look))
        self.coherence.start(asking, store=store)
        housekeeping = Housekeeping(
            shared=connection,
            touches=touches,
            healing=healing,
            coherence=self.coherence,
            entries=self.entries,
            purge=self._purge,
            clock=self.clock,
            log=self.log,
        )
        return Runtime(
            shared=connection,
            touches=touches,
            healing=healing,
            housekeeping=housekeeping,
            closers=tuple(closers),
            closing_seconds=_CLOSING * self.limits.command_seconds,
        )

    def warn_once(self) -> None:
        """Tell the operator, at the first start, what the options given cost."""
        if self._warned:
            return
        self._warned = True
        if self._renames:
            LOGGER.warning(_RENAMED)
        if self._redis is None:
            return
        if not self.seals.sealing:
            LOGGER.warning(_PLAIN_VALUES)
        if not self._derivation.agrees:
            LOGGER.warning(_RANDOM_IDS)

    def _purge(self) -> None:
        self.rejected.purge()
        self.sessions.purge()
        self.entries.purge(keep=self.tokens.flying)
        if self.callers is not None:
            self.callers.purge()

    def _unreadable(self, kind: str, why: str) -> None:
        self.unreadable += 1
        self.observe(ValueUnreadable(kind, why))
        self.log.problem(f"unreadable-{kind}", "A %s in Redis cannot be used (%s).", kind, why)
