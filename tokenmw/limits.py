"""`Limits`: every bound of the package."""

from __future__ import annotations

from dataclasses import dataclass, fields

from tokenmw.errors import ConfigurationError
from tokenmw.options import positive_number

__all__ = ["Limits"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The bounds of one broker, each for one process.

    Attributes:
        tokens: Token entries in memory, one for each credential, not counting those of named providers. With more than
            10 000 credentials in use, the least recently used token is evicted, and fetched or read from Redis again.
        subject_tokens: Token entries in memory of providers whose token is made from the caller's own, such as
            `TokenExchange`, one for each caller's token. With more than 10 000 callers, the least recently used is
            evicted, and read from Redis again. Named providers and tenants are not affected.
        sessions: Session ids in memory. With more than 100 000 API keys in use, one that was evicted costs one round
            trip to Redis at its next request. An id takes 300 to 400 bytes however long its API key is, so a full cache
            takes about 40 MB.
        flights: Token fetches in progress at the same time, and as many again of tokens that are made from callers'
            own; not counting the fetches that those need themselves, such as that of an app's token. A request that
            needs a further fetch gets `TokenUnavailable` (503).
        rejected: Token values remembered because an API rejected them, so that they are never read from Redis again.
            Beyond 1 000 the oldest one is forgotten, and could be used again until it expires.
        refused_keys: API keys remembered for 5 s because `authenticate` refused them. If more than 10 000 keys are
            refused in 5 s, `authenticate` is called again for some of them.
        authentications: Calls of `authenticate` in progress at the same time. A request that needs a further one gets
            `SessionUnavailable` (503).
        touches: Sessions that wait to be touched in Redis; those that Redis has not had may fill half of it. A further
            touch is dropped, and that session is touched a quarter of `session_ttl` later.
        fetch_seconds: Seconds for one request to a token endpoint; less than `lease_seconds`. A provider that takes
            longer than 5 s counts as failed.
        lease_seconds: Seconds for which one process has the exclusive right to fetch a token; less than
            `wait_seconds`. If that process dies meanwhile, another one fetches when the lease expires: after 5.3 s,
            which is `fetch_seconds` and 0.3 s, or after the whole 6 s if each new token of the provider invalidates the
            one before.
        wait_seconds: Seconds for which a request waits for a token or for `authenticate`. After 12 s it gets
            `TokenUnavailable` or `SessionUnavailable` (503).
        inject_seconds: Seconds for which a request, or the start of the application, waits for the tokens that the
            middleware injects, counted from when their fetch began. After 3 s the handler runs without the token, and
            gets `TokenUnavailable` if it uses it.
        probe_seconds: Seconds between two requests to a failing provider while there is no valid token, so that
            requests are refused. Only one instance of the fleet sends each of them, 3 to 5 s after the last one. So
            requests are served again within 5 s of the provider's recovery, and a provider that still fails gets 0.25
            requests a second. A `Retry-After` is obeyed instead, and a rejected credential has a backoff of its own.
        backoff_seconds: Seconds after a provider's first failure until it is asked again; the backoff doubles with each
            failure in a row, and is up to a quarter shorter. After a rejected credential it is 30 times as long.
            Default: 1 s.
        max_backoff_seconds: The longest backoff, while a valid token is served. With 300 s, the recovery of a provider
            may be noticed five minutes late, but before the token expires. After a rejected credential it is three
            times as long. No backoff is longer than an hour.
        command_seconds: Seconds for one Redis command, from waiting for a connection to the reply. A Redis that takes
            longer than 150 ms counts as unavailable. Time for which this process's event loop was blocked does not
            count, up to the same time again. If a connection is made for the command in that time, it starts again.
        background_seconds: Seconds for one batch of Redis commands for which no request waits: touches, uploads after a
            loss of data, and comparisons of tokens. Batches are small enough to take 50 ms, so one that takes longer
            than 5 s was sent to a Redis that hangs. With fewer, a slow Redis would get again what it still executes.
        connect_seconds: Seconds for making one connection to Redis, which no `command_seconds` cuts short. No request
            waits for these 3 s, only for its command; the start of the application does, if Redis does not answer.
        connections: Connections to Redis, in a cluster to each server. Each process opens 3 before its first request,
            beside one for hints, so a server must allow 4 for each process. Commands for which none is free wait within
            `command_seconds`, and the next one that is free sends them together.
        commands: Redis commands in progress or waiting for a connection at the same time. A further one is not sent,
            and its request is served as while Redis is unavailable.
        check_seconds: Seconds between two comparisons of a token in use with Redis, beside those that a hint causes.
            Where hints are off, an instance may use a token for up to 30 s after another one has invalidated it. While
            it hears the hints of all others, ten times as many: an evicted token is stored again after up to 300 s.
        exchange_seconds: Seconds for the request that spends a user's refresh token; less than `claim_seconds`. It is
            longer than `fetch_seconds`, because an answer that comes late has a new refresh token. No request waits for
            all of these 20 s, but closing the broker does, and for `store_seconds` more.
        claim_seconds: Seconds for which one process has the exclusive right to refresh a user's connection. If that
            process dies meanwhile, another one takes over after 30 s and a few more, in which the process stores what
            it has if it lives after all, and not while the last access token is valid.
        store_seconds: Seconds for one call of the store of connections. A store that takes longer than 3 s counts as
            unavailable.
        connections_remembered: Connections for which this process remembers the pair that it has refreshed last. If the
            store goes back to an older state, that pair is stored again. 1 000 take about 3 MB.
        answer_bytes: Bytes of a token endpoint's response. One longer than 64 KiB counts as a failure of the provider.
        first_sights: API keys that are looked up in Redis at the same time, because this process does not know them.
            If more than 10 000 wait, the request of a further one is served as while Redis is unavailable, and its id
            is compared with Redis a second later. A lookup takes 2 KB with the task of its request.
        new_sessions: New sessions a second that are written to Redis, after a burst of ten times as many. A thousand
            processes with 100 write 22 MB a second to Redis and to its replicas. A further API key without an id in
            Redis gets the one that it would get while Redis is unavailable: the same in all processes if there is a
            secret, so without one give a higher bound. An id that Redis has is always read.
        new_sessions_per_ttl: New sessions that are written to Redis within 1.3 times `session_ttl`, for which it keeps
            one that is never used again: half of them at any time, the other half as time passes. A flood of new keys
            leaves 100 000 for each process there, about 25 MB. What is served beyond it is as for `new_sessions`.
    """

    tokens: int = 10_000
    subject_tokens: int = 10_000
    sessions: int = 100_000
    flights: int = 1_000
    rejected: int = 1_000
    refused_keys: int = 10_000
    authentications: int = 1_000
    touches: int = 100_000
    fetch_seconds: float = 5.0
    lease_seconds: float = 6.0
    wait_seconds: float = 12.0
    inject_seconds: float = 3.0
    probe_seconds: float = 4.0
    backoff_seconds: float = 1.0
    max_backoff_seconds: float = 300.0
    command_seconds: float = 0.15
    background_seconds: float = 5.0
    connect_seconds: float = 3.0
    connections: int = 3
    commands: int = 1_000
    check_seconds: float = 30.0
    exchange_seconds: float = 20.0
    claim_seconds: float = 30.0
    store_seconds: float = 3.0
    connections_remembered: int = 1_000
    answer_bytes: int = 64 << 10
    first_sights: int = 10_000
    new_sessions: int = 100
    new_sessions_per_ttl: int = 100_000

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            positive_number(value, option=f"Limits({field.name}=…)")
            if field.type == "int" and not isinstance(value, int):
                raise ConfigurationError(f"Limits({field.name}=…) must be a whole number.")
        if not self.fetch_seconds < self.lease_seconds < self.wait_seconds:
            raise ConfigurationError(
                "Limits: fetch_seconds < lease_seconds < wait_seconds must hold, else a second process fetches while "
                "the first one is still allowed to, or requests stop waiting before the token arrives."
            )
        if not self.exchange_seconds < self.claim_seconds:
            raise ConfigurationError(
                "Limits: exchange_seconds < claim_seconds must hold, else a second process may send a user's refresh "
                "token while the first one still does."
            )
