"""A provider that keeps watch over how often it is asked."""

from __future__ import annotations

import math
from collections.abc import Callable

from hypothesis import strategies as st

from tests.tokens.scripted import Scripted, Stage
from tokenmw.errors import CredentialRejected, TokenUnavailable
from tokenmw.providers.http import TokenHTTP
from tokenmw.testing import ManualClock
from tokenmw.values import Grant

INSTANCES = 3
SECRETS = ("one", "two")
LIFE = 7200.0
instances = st.integers(0, INSTANCES - 1)
secrets = st.sampled_from(SECRETS)


class Issuer(Stage):
    """The provider's side of one credential, and what it must never see.

    Attributes:
        ends: When each value ends, by the true clock.
        quiet_since: When a token was given out last, if nothing has happened since that excuses another fetch.
        era: How many such things have happened.
        asking: How many instances with Redis are asking, in this era.
        askers: Which have asked in this era.
        lossy: Whether Redis has been away or has lost anything.
        failures: For each instance, when it failed last and how often in a row.
        faults: What must not have happened. An assertion here would only be one more failure of the provider.
    """

    def __init__(self, clock: ManualClock, secret: str, *, shares: Callable[[int], bool]) -> None:
        super().__init__(clock, life=LIFE)
        self.shares = shares
        self.secret = secret
        self.mode = "ok"
        self.ends: dict[str, float] = {}
        self.quiet_since: float | None = None
        self.era = 0
        self.asking = 0
        self.askers: set[int] = set()
        self.lossy = False
        self.failures: dict[int, tuple[float, int]] = {}
        self.faults: list[str] = []

    def excuse(self, *, lossy: bool) -> None:
        """Something has happened after which another fetch is right, also beside one that is under way."""
        self.quiet_since = None
        self.era += 1
        self.asking = 0
        self.askers = set()
        self.lossy = self.lossy or lossy

    async def ask(self, instance: int) -> Grant:
        now = self.clock.monotonic()
        failed, count = self.failures.get(instance, (-math.inf, 0))
        if count and now - failed < 0.75 * min(300.0, 2.0 ** (count - 1)) - 1e-6:
            self.faults.append(f"asked {now - failed} s after failure {count}")
        # An instance without Redis asks for itself, and does not count for the others.
        era = self.era if self.shares(instance) else None
        if era is not None:
            # Where Redis was away or has lost writes, versions made with a wrong clock are about: once more for each.
            excused = self.lossy and instance not in self.askers
            if self.quiet_since is not None and now - self.quiet_since < 0.75 * LIFE - 20 and not excused:
                self.faults.append(f"asked again {now - self.quiet_since} s after a token was given out")
            self.askers.add(instance)
            if self.asking:
                self.faults.append("asked while another instance was asking")
            self.asking += 1
        try:
            await self.misbehave(instance, now, count)
        finally:
            if era == self.era:
                self.asking -= 1
        self.failures.clear()  # whoever adopts this token counts anew
        value = f"{self.secret}-{len(self.issued)}"
        self.issued.append(value)
        self.ends[value] = self.clock.monotonic() + LIFE
        if era == self.era:
            self.quiet_since = self.clock.monotonic()
        return Grant(value, expires_in=LIFE)

    async def misbehave(self, instance: int, now: float, count: int) -> None:
        if self.mode not in {"ok", "slow"}:
            self.failures[instance] = (now, count + 1)
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


class Credential(Scripted):
    """A credential in the hands of one instance."""

    __slots__ = ("instance", "issuer")
    kind = "issuer"

    def __init__(self, issuer: Issuer, instance: int) -> None:
        super().__init__(issuer, secret=issuer.secret)
        self.issuer = issuer
        self.instance = instance

    async def fetch(self, http: TokenHTTP) -> Grant:
        self.issuer.calls.append(self.issuer.clock.monotonic())
        return await self.issuer.ask(self.instance)
