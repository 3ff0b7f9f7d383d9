"""Every bound of the package in one place."""

from __future__ import annotations

from dataclasses import dataclass, fields

from tokenmw.errors import ConfigurationError
from tokenmw.options import positive_number

__all__ = ["Limits"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The bounds of one broker. Durations are seconds, sizes bytes, the rest counts.

    Attributes:
        tokens: Token keys (provider and credential) held in this process. Beyond it the one used longest ago goes.
        sessions: Session ids held in this process.
        flights: Token fetches under way at once; a further one is refused with :class:`TokenUnavailable`. What a fetch
            itself needs, such as its app's token, is not counted.
        rejected: Token values remembered as rejected, so that they are never adopted again.
        refused_keys: API keys remembered as refused by `authenticate`.
        authentications: Calls of `authenticate` under way at once.
        touches: Session touches waiting to be sent.
        fetch_seconds: Bound of one request to a token endpoint. Must be less than `lease_seconds`.
        lease_seconds: How long one process may hold the right to fetch a token. Must be less than `wait_seconds`.
        wait_seconds: How long a request waits for a token at most.
        inject_seconds: How long a request or the start-up waits for tokens that the middleware injects, counted
            from when the fetch began. After that the handler runs, and the token's use raises.
        command_seconds: Bound of one Redis command, from pool to reply, in which the event loop runs.
        connect_seconds: Bound of making one Redis connection; it is never cut short by `command_seconds`.
        connections: Redis connections of this process.
        commands: Redis commands under way or waiting at once; a further one counts as "Redis is busy".
        check_seconds: How often a local token in use is compared with Redis.
        answer_bytes: Size of a token endpoint's answer.
        new_sessions: New shared sessions in a second, in the long run and per process; beyond it ids stay local.
    """

    tokens: int = 10_000
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
    command_seconds: float = 0.15
    connect_seconds: float = 3.0
    connections: int = 32
    commands: int = 1_000
    check_seconds: float = 30.0
    answer_bytes: int = 1 << 20
    new_sessions: int = 500

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            positive_number(value, option=f"Limits({field.name}=…)")
            if field.type == "int" and not isinstance(value, int):
                raise ConfigurationError(f"Limits({field.name}=…) must be a whole number.")
        if not self.fetch_seconds < self.lease_seconds < self.wait_seconds:
            raise ConfigurationError(
                "Limits: fetch_seconds < lease_seconds < wait_seconds must hold, else a second process fetches "
                "while the first one still may, or requests give up before the token is there."
            )
