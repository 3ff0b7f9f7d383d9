"""The provider of the state machine, which checks when and by which instance it is asked."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from tests.tokens.providers import Endpoint, ScriptedProvider
from tokenmw.errors import CredentialRejected, TokenUnavailable
from tokenmw.providers.http import TokenHTTP
from tokenmw.testing import ManualClock
from tokenmw.values import Grant

LIFETIME = 7200.0


class Failed(NamedTuple):
    """A failure of one instance: when, the failures in a row, the mode, and for how long a valid token was served."""

    at: float
    in_a_row: int
    mode: str
    served_for: float

    def wait(self, served: bool) -> float:  # noqa: FBT001
        """Return the seconds for which the instance must not ask again, with a valid token or without one."""
        if self.mode == "rejects":
            return 0.75 * min(900.0, 30 * 2.0 ** (self.in_a_row - 1))
        growing = 0.75 * min(300.0, 2.0 ** (self.in_a_row - 1))
        unserved = 30.0 if self.mode == "429" else min(growing, 3.0)
        if not served:
            return unserved
        return max(unserved, min(growing, self.served_for - 5.0) if self.served_for > 0 else growing)


class Issuer(Endpoint):
    """The endpoint of one credential. It records requests that should not have been sent.

    Attributes:
        expiries: When each token expires, by the true clock.
        granted_at: When a token was last granted, if no event since then justifies another request.
        era: How many such events there were.
        asking: How many instances with Redis are asking, in this era.
        askers: The instances that have asked in this era.
        lossy: Whether Redis has been unavailable or has lost data.
        failures: For each instance its last failure.
        faults: Descriptions of wrong requests. An assertion here would only be another failure of the provider.
    """

    def __init__(
        self,
        clock: ManualClock,
        secret: str,
        *,
        shares: Callable[[int], bool],
        served_for: Callable[[Issuer, int], float],
    ) -> None:
        super().__init__(clock, lifetime=LIFETIME)
        self.shares = shares
        self.served_for = served_for
        self.secret = secret
        self.mode = "ok"
        self.expiries: dict[str, float] = {}
        self.granted_at: float | None = None
        self.era = 0
        self.asking = 0
        self.askers: set[int] = set()
        self.lossy = False
        self.failures: dict[int, Failed] = {}
        self.faults: list[str] = []

    def excuse(self, *, lossy: bool) -> None:
        """Allow another request, even beside one in progress: an event has justified it."""
        self.granted_at = None
        self.era += 1
        self.asking = 0
        self.askers = set()
        self.lossy = self.lossy or lossy

    async def ask(self, instance: int) -> Grant:
        now = self.clock.monotonic()
        failed = self.failures.get(instance)
        if failed is not None and now - failed.at < failed.wait(self.served_for(self, instance) > 0) - 1e-6:
            self.faults.append(f"asked {now - failed.at} s after {failed}")
        # An instance without Redis asks alone, and its requests do not count against the others.
        era = self.era if self.shares(instance) else None
        if era is not None:
            # After Redis was unavailable or lost writes, there may be versions made with a wrong clock: each instance
            # may ask once more.
            excused = self.lossy and instance not in self.askers
            if self.granted_at is not None and now - self.granted_at < 0.75 * LIFETIME - 20 and not excused:
                self.faults.append(f"asked again {now - self.granted_at} s after a token was granted")
            self.askers.add(instance)
            if self.asking:
                self.faults.append("asked while another instance was asking")
            self.asking += 1
        try:
            await self.misbehave(instance, now, 0 if failed is None else failed.in_a_row)
        finally:
            if era == self.era:
                self.asking -= 1
        self.failures.clear()  # instances that adopt this token start their count again
        value = f"{self.secret}-{len(self.issued)}"
        self.issued.append(value)
        self.expiries[value] = self.clock.monotonic() + LIFETIME
        if era == self.era:
            self.granted_at = self.clock.monotonic()
        return Grant(value, expires_in=LIFETIME)

    async def misbehave(self, instance: int, now: float, count: int) -> None:
        if self.mode not in {"ok", "slow"}:
            self.failures[instance] = Failed(now, count + 1, self.mode, self.served_for(self, instance))
        match self.mode:
            case "rejects":
                raise CredentialRejected("wrong secret", code="invalid_client")
            case "429":
                raise TokenUnavailable("busy", retry_after=30.0, said=True)
            case "garbage":
                raise ValueError("garbage")
            case "hangs":
                await self.clock.sleep(1e9)
            case "slow":
                await self.clock.sleep(2.0)


class Credential(ScriptedProvider):
    """The credential as one instance has it."""

    __slots__ = ("instance", "issuer")
    kind = "issuer"

    def __init__(self, issuer: Issuer, instance: int) -> None:
        super().__init__(issuer, secret=issuer.secret)
        self.issuer = issuer
        self.instance = instance

    def identity(self) -> tuple[object, ...]:
        return super().identity()  # the same token on each instance

    async def fetch(self, http: TokenHTTP) -> Grant:
        self.issuer.calls.append(self.issuer.clock.monotonic())
        return await self.issuer.ask(self.instance)
