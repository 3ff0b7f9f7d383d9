"""The snapshot that `broker.status()` returns: frozen, without secrets."""

from __future__ import annotations

from collections.abc import Mapping  # noqa: TC003  pydantic reads the annotations, where a route returns a status
from dataclasses import dataclass, field
from typing import Literal

__all__ = ["InstanceStatus", "ProviderStatus", "ServerStatus", "Status"]


@dataclass(frozen=True, slots=True)
class ProviderStatus:
    """One named provider.

    Attributes:
        state: `fresh`, `aging` (a refresh of the token is due), `failing` (there is no valid token, and the last
            attempt failed), `cold` (there is no valid token, and no failure: no request has needed one), or
            `per request` (each request has its own credentials). A provider with `SubjectToken()` is `failing` while
            no caller gets a token: the server refuses this service's client, or is unavailable.
        expires_in: Seconds until its token expires; None if there is none.
        failure: Why the last attempt failed, without secrets; "" after a success.
        retry_in: Seconds until the next attempt after a failure; None without one.
    """

    state: Literal["fresh", "aging", "failing", "cold", "per request"]
    expires_in: float | None = None
    failure: str = ""
    retry_in: float | None = None


@dataclass(frozen=True, slots=True)
class ServerStatus:
    """One server of Redis: the only one, or a primary of a cluster.

    Attributes:
        state: `unknown`, `up`, `down` or `unsupported`, as in `Status.shared`.
        since: When that state began, in seconds since 1970 (UTC).
        error: The reason of its last failure; "" if there was none since its last outage.
        error_at: When that was, in seconds since 1970 (UTC); None without one.
    """

    state: Literal["unknown", "up", "down", "unsupported"]
    since: float
    error: str = ""
    error_at: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceStatus:
    """One instance of the fleet: a broker of one process, by its last heartbeat.

    Attributes:
        instance: A random name of 13 characters, another one after each start.
        own: Whether it is the broker that was asked.
        host: The name of its host; "" if the heartbeat is sealed with a secret that this process does not have.
        pid: Its process.
        version: Its version of this package.
        started_at: When it was opened, in seconds since 1970 (UTC), by its own clock.
        shared: The state of Redis as it sees it, as in `Status.shared`.
        shared_seconds: For how many seconds it has seen that state.
        tokens: Tokens in its local cache.
        sessions: Session ids in its local cache.
        unshared: What it has yet to store in Redis.
        failing: Credentials for which its last attempt failed.
        age: Seconds since its heartbeat; it writes one every 5 s, and Redis has it for 15 s.
        stale: Whether its heartbeat is older than 8 s: it has stopped, hangs, or does not reach Redis.
        differs: In what it differs from the others: `version` (of this package), `redis` (the state that it sees),
            `tokens` (an older one, for longer than the check takes) or `secret_key` (its heartbeat does not open).
        old_tokens: The providers, by the names of the broker that was asked, of which it has an older token.
    """

    instance: str
    own: bool
    host: str
    pid: int
    version: str
    started_at: float
    shared: str
    shared_seconds: float
    tokens: int
    sessions: int
    unshared: int
    failing: int
    age: float
    stale: bool
    differs: tuple[str, ...] = ()
    old_tokens: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Status:
    """The state of a broker in this process.

    Attributes:
        shared: `unknown` (Redis has not answered yet), `up`, `down` (Redis, or a server of a cluster, is unavailable),
            `unsupported` (the server is too old, or does not run scripts; the log says what it lacks), or `off` (no
            Redis is configured, or the broker is not open).
        shared_since: When that state began, in seconds since 1970 (UTC); None if `off`.
        shared_error: The reason of the last Redis failure, such as `timeout`; "" if there was none since the last
            outage.
        providers: The named providers.
        tokens: Tokens in the local cache.
        sessions: Session ids in the local cache.
        unshared_tokens: Tokens that have yet to be uploaded to Redis.
        unshared_invalidations: Invalidations that have yet to be written to Redis.
        unshared_sessions: Session ids that have yet to be uploaded to Redis.
        touches: Session touches that have yet to be sent to Redis.
        unreadable: How many values in Redis could not be used, since the broker was made.
        sealed: Whether values are sealed before they are stored in Redis.
        shared_error_at: When that failure happened, in seconds since 1970 (UTC); None if `shared_error` is "".
        servers: The servers of Redis by their addresses: one, or the primaries of a cluster that have been used. Empty
            if `shared` is `off`.
        instances: The fleet as `await broker.fleet()` has read it last, which the status page does; empty before.
    """

    shared: Literal["unknown", "up", "down", "unsupported", "off"]
    shared_since: float | None
    shared_error: str
    providers: Mapping[str, ProviderStatus]
    tokens: int
    sessions: int
    unshared_tokens: int
    unshared_invalidations: int
    unshared_sessions: int
    touches: int
    unreadable: int
    sealed: bool
    shared_error_at: float | None = None
    servers: Mapping[str, ServerStatus] = field(default_factory=dict[str, ServerStatus])
    instances: tuple[InstanceStatus, ...] = ()

    @property
    def unshared(self) -> int:
        """How many tokens, invalidations and session ids have yet to reach Redis."""
        return self.unshared_tokens + self.unshared_invalidations + self.unshared_sessions
