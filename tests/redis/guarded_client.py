"""A guard with a client of its own, and records of what the guard reports."""

from __future__ import annotations

from typing import Any

from tokenmw.clock import SYSTEM_CLOCK, Clock
from tokenmw.limits import Limits
from tokenmw.observe.throttle import ThrottledLog
from tokenmw.redis.client import open_client
from tokenmw.redis.errors import classify
from tokenmw.redis.guard import CommandLimiter, Guard

__all__ = ["GuardedClient"]


class GuardedClient:
    """Runs commands through a guard, and records what it reports.

    Attributes:
        failures: The reasons of failures that count or are logged.
        answers_again: How often failures were logged that had not opened the circuit.
        unavailable: The reasons for which the circuit was opened.
        recovered: How often a probe has closed it.
    """

    def __init__(self, given: Any, *, clock: Clock = SYSTEM_CLOCK, **limits: Any) -> None:
        self.limits = Limits(**limits)
        self.client: Any = open_client(given, limits=self.limits)[0]
        self.failures: list[str] = []
        self.answers_again = 0
        self.unavailable: list[str] = []
        self.recovered = 0
        self.limiter = CommandLimiter(self.limits)
        self.guard = _Guard(
            self.failures,
            self.client,
            key=b"test:v1:{probe}:probe",
            limits=self.limits,
            limiter=self.limiter,
            clock=clock,
            log=_Log(self),
            listener=self,
        )

    async def call(self, *words: Any) -> Any:
        """Run one command."""
        return await self.guard.run(lambda: self.client.execute_command(*words))

    def server_unavailable(self, reason: str, *, server: str) -> None:
        """Record that the circuit was opened."""
        self.unavailable.append(reason)

    def server_recovered(self) -> None:
        """Record that it was closed."""
        self.recovered += 1


class _Guard(Guard):
    def __init__(self, failures: list[str], client: Any, **options: Any) -> None:
        super().__init__(client, **options)
        self._reasons = failures

    def failed(self, error: BaseException, *, began: float, trips: bool = False) -> None:
        self._reasons.append(classify(error))
        super().failed(error, began=began, trips=trips)


class _Log(ThrottledLog):
    def __init__(self, owner: GuardedClient) -> None:
        super().__init__(SYSTEM_CLOCK)
        self._owner = owner

    def problem(self, kind: str, text: str, *args: object, **fields: str) -> None:
        self._owner.answers_again += kind == "redis-failed"
        super().problem(kind, text, *args, **fields)
