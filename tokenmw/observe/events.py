"""Events: frozen facts that observers receive. None of them contains a secret.

`provider` is always a provider's name. `credential` is an opaque name of the credential, the same in all processes that
have the same `name_key`; it is "" where the provider's name says which one it is. An event with a `count` stands for
that many equal ones: frequent events are counted, and published about once a second.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

__all__ = [
    "CallerRefused",
    "CommitRefused",
    "ConnectionChanged",
    "Event",
    "FailureAdopted",
    "LeaseChanged",
    "Observer",
    "RefreshEnded",
    "RefreshStarted",
    "SessionReset",
    "SessionResolved",
    "SessionsMade",
    "SessionsReplaced",
    "SharedStateChanged",
    "TokenAdopted",
    "TokenFetched",
    "TokenInvalidated",
    "TokenServed",
    "TokenWaiting",
    "Uploaded",
    "ValueUnreadable",
]


@dataclass(frozen=True, slots=True)
class Event:
    """Base of all events."""


@dataclass(frozen=True, slots=True)
class TokenServed(Event):
    """A token was returned to the program, or the error that there is none.

    Attributes:
        provider: The provider's name.
        result: `hit` (from the local cache), `waited` (after a refresh), `unavailable` (`TokenUnavailable` was raised)
            or `rejected` (`CredentialRejected` or `SubjectRefused` was).
        count: How many times.
        seconds: How long the caller waited; None if it did not.
    """

    provider: str
    result: Literal["hit", "waited", "unavailable", "rejected"]
    count: int = 1
    seconds: float | None = None


@dataclass(frozen=True, slots=True)
class TokenWaiting(Event):
    """A caller begins to wait for a refresh. Published in the caller's task.

    Attributes:
        provider: The provider's name.
        refresh: The number of the refresh.
    """

    provider: str
    refresh: int


@dataclass(frozen=True, slots=True)
class RefreshStarted(Event):
    """A refresh of a token begins. Published in the task in which it runs.

    Attributes:
        provider: The provider's name.
        refresh: A number that no other refresh of this process has.
        credential: The opaque name of the credential.
    """

    provider: str
    refresh: int
    credential: str = ""


@dataclass(frozen=True, slots=True)
class RefreshEnded(Event):
    """A refresh of a token is over. Published in the task in which it ran.

    Attributes:
        provider: The provider's name.
        refresh: The number that it started with.
        outcome: `renewed` (there is another token), `failed`, `unchanged` or `cancelled` (the broker is closing).
        seconds: The duration, including what was waited for another process.
        error: The reason of a failure, as in `FailureAdopted.reason`; else "".
        credential: The opaque name of the credential.
    """

    provider: str
    refresh: int
    outcome: Literal["renewed", "failed", "unchanged", "cancelled"]
    seconds: float
    error: str = ""
    credential: str = ""


@dataclass(frozen=True, slots=True)
class TokenFetched(Event):
    """A provider was asked for a token.

    Attributes:
        provider: The provider's name.
        outcome: `granted`, `repeated` (the same token again), `rejected` (the credential) or `unavailable`.
        seconds: The duration of the request.
        error: The reason of a failure, as in `FailureAdopted.reason`; "" for a token.
        credential: The opaque name of the credential.
    """

    provider: str
    outcome: Literal["granted", "repeated", "rejected", "unavailable"]
    seconds: float
    error: str = ""
    credential: str = ""


@dataclass(frozen=True, slots=True)
class TokenAdopted(Event):
    """A token that another process fetched was taken from Redis.

    Attributes:
        provider: The provider's name.
        credential: The opaque name of the credential.
    """

    provider: str
    credential: str = ""


@dataclass(frozen=True, slots=True)
class FailureAdopted(Event):
    """A failure that another process has noted in Redis was taken over: requests are refused here, too.

    Attributes:
        provider: The provider's name.
        reason: `rejected` (the credential), `subject_refused` (a caller's own token), `retry_after` (the provider named
            a time), `provider` (it answered that it is busy or broken) or `unanswered` (there was no usable answer: the
            network, TLS, a malformed answer, or the program's own code).
        credential: The opaque name of the credential.
        writer: The host and process that noted it; "" if it does not say.
    """

    provider: str
    reason: str
    credential: str = ""
    writer: str = ""


@dataclass(frozen=True, slots=True)
class TokenInvalidated(Event):
    """This process dropped a token as invalid: it, or another process, invalidated the token.

    Attributes:
        provider: The provider's name.
        cause: `api` (an API rejected it), `operator` (`invalidate_provider`) or `instance` (another process did).
        credential: The opaque name of the credential.
    """

    provider: str
    cause: Literal["api", "operator", "instance"] = "api"
    credential: str = ""


@dataclass(frozen=True, slots=True)
class LeaseChanged(Event):
    """This process got the lease to fetch a token, or another one has it.

    Attributes:
        provider: The provider's name.
        change: `won`, `busy` (another process holds it) or `taken_over` (the one that held it did not finish in time).
        credential: The opaque name of the credential.
    """

    provider: str
    change: Literal["won", "busy", "taken_over"]
    credential: str = ""


@dataclass(frozen=True, slots=True)
class CommitRefused(Event):
    """Redis did not store a token that this process had fetched.

    Attributes:
        provider: The provider's name.
        reason: `lease` (it expired, and another process holds it), `invalidated`, `newer` (a newer token is stored) or
            `clock` (the version does not agree with the server's clock).
        credential: The opaque name of the credential.
    """

    provider: str
    reason: Literal["lease", "invalidated", "newer", "clock"]
    credential: str = ""


@dataclass(frozen=True, slots=True)
class Uploaded(Event):
    """What was made without Redis is stored there now.

    Attributes:
        kind: `token`, `tombstone` (an invalidation) or `session`.
        count: How many.
    """

    kind: Literal["token", "tombstone", "session"]
    count: int = 1


@dataclass(frozen=True, slots=True)
class SessionResolved(Event):
    """A session id was returned.

    Attributes:
        source: `local` (from the local cache), `redis`, `derived` (from the API key, without Redis) or `random` (there
            is no API key, or nothing to derive an id with).
        count: How many times.
    """

    source: Literal["local", "redis", "derived", "random"]
    count: int = 1


@dataclass(frozen=True, slots=True)
class SessionsMade(Event):
    """Sessions of API keys that no instance knew were stored in Redis.

    Attributes:
        count: How many.
    """

    count: int = 1


@dataclass(frozen=True, slots=True)
class SessionsReplaced(Event):
    """Session ids of this process were replaced by those that Redis has.

    Attributes:
        count: How many.
    """

    count: int = 1


@dataclass(frozen=True, slots=True)
class SessionReset(Event):
    """`reset_session` gave an API key another session id."""


@dataclass(frozen=True, slots=True)
class CallerRefused(Event):
    """A request was refused before it had a caller and a session id.

    Attributes:
        reason: `missing` (no API key), `unusable` (what it sent is none), `refused` (`authenticate` refuses the key),
            `unchecked` (`authenticate` did not decide) or `no_session` (`session_policy="required"`).
        count: How many requests.
    """

    reason: Literal["missing", "unusable", "refused", "unchecked", "no_session"]
    count: int = 1


@dataclass(frozen=True, slots=True)
class SharedStateChanged(Event):
    """Redis became unavailable, or recovered.

    Attributes:
        up: Whether Redis is in use from now on.
        error: The reason in one word, such as `timeout`; "" after a recovery.
    """

    up: bool
    error: str = ""


@dataclass(frozen=True, slots=True)
class ValueUnreadable(Event):
    """A value in Redis could not be used.

    Attributes:
        kind: `token` or `session`.
        why: `unknown-key` (sealed with a key that this process does not have), `expired` (a token whose lifetime is
            over) or `damaged`.
    """

    kind: str
    why: str


@dataclass(frozen=True, slots=True)
class ConnectionChanged(Event):
    """A user's connection changed its state. It does not say whose.

    Attributes:
        provider: The app's name in `Connections`.
        state: `ok` (connected, or refreshed after failures), `failing` (the last refresh failed, and it is tried
            again), `reconnect` (the user has to connect again) or `disconnected`.
        reason: Why, such as `unavailable` or `invalid_grant`; "" for `ok` and `disconnected`.
    """

    provider: str
    state: Literal["ok", "failing", "reconnect", "disconnected"]
    reason: str = ""


class Observer(Protocol):
    """Any callable that takes an event. It runs on the event loop, so it must not block."""

    def __call__(self, event: Event, /) -> None:
        """Handle an event."""
        ...
