"""Events of a broker, of the servers of Redis, and the samples of a broker's state."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from tokenmw.observe.events import Event

__all__ = ["BrokerClosed", "BrokerOpened", "OperatorActed", "RedisCommandFinished", "RedisStateChanged", "StateSampled"]


@dataclass(frozen=True, slots=True)
class BrokerOpened(Event):
    """A broker was opened in an event loop.

    Attributes:
        broker: A number that no other broker of this process has.
        providers: The names of its providers.
        shared: Whether it has a Redis.
        version: The version of this package.
    """

    broker: int
    providers: tuple[str, ...]
    shared: bool
    version: str


@dataclass(frozen=True, slots=True)
class BrokerClosed(Event):
    """A broker was closed.

    Attributes:
        broker: The number that it was opened with.
    """

    broker: int


@dataclass(frozen=True, slots=True)
class RedisStateChanged(Event):
    """The circuit breaker of one server of Redis has opened or closed.

    Attributes:
        node: The server's address.
        up: Whether it is in use from now on.
        error: The reason in one word, such as `timeout`; "" after a recovery.
    """

    node: str
    up: bool
    error: str = ""


@dataclass(frozen=True, slots=True)
class RedisCommandFinished(Event):
    """A command was sent to Redis, or a batch of them, and was answered or has failed.

    Attributes:
        operation: What it was for, such as `acquire`.
        seconds: From waiting for a connection to the reply.
        error: The reason in one word, such as `timeout`; "" for an answer.
    """

    operation: str
    seconds: float
    error: str = ""


@dataclass(frozen=True, slots=True)
class OperatorActed(Event):
    """An operator has acted on the status page.

    Attributes:
        action: `retry`, `invalidate` or `reset-session`.
        provider: The provider's name; "" for a session.
    """

    action: str
    provider: str = ""


@dataclass(frozen=True, slots=True)
class StateSampled(Event):
    """The state of a broker, about once a second.

    Attributes:
        broker: The number that it was opened with.
        expiries: When the token of each named credential expires, in seconds since 1970; 0 without a token.
        attempts: When each of them is next fetched: refreshed, or tried again after a failure; 0 if nothing is due.
        failing: The number of credentials without a success since their last failure, by provider's name and reason.
        nodes: Whether each server of Redis is in use, by its address.
        connections: Redis commands that are `in_use` of a connection, or `waiting` for one.
        unshared: What has yet to be stored in Redis: `token`, `tombstone`, `session`.
        lag: Seconds by which the event loop ran the sample late.
    """

    broker: int
    expiries: Mapping[str, float] = field(default_factory=dict[str, float])
    attempts: Mapping[str, float] = field(default_factory=dict[str, float])
    failing: Mapping[str, Mapping[str, int]] = field(default_factory=dict[str, Mapping[str, int]])
    nodes: Mapping[str, bool] = field(default_factory=dict[str, bool])
    connections: Mapping[str, int] = field(default_factory=dict[str, int])
    unshared: Mapping[str, int] = field(default_factory=dict[str, int])
    lag: float = 0.0
