"""Any events in any order, over several instances, one provider and one Redis, on a manual clock.

The state machine drives real managers over the model of Redis that `test_store_contract` compares with the scripts.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from tests.tokens.instance import Instance, SkewedClock, settle
from tests.tokens.issuer import Credential, Issuer
from tests.tokens.memory_store import MemoryRedis, MemoryStore
from tokenmw.clock import Instant
from tokenmw.errors import RequestError
from tokenmw.limits import Limits
from tokenmw.testing import ManualClock
from tokenmw.values import Token

INSTANCES = 3
SECRETS = ("one", "two")
instances = st.integers(0, INSTANCES - 1)
secrets = st.sampled_from(SECRETS)


class TokenMachine(RuleBasedStateMachine):
    """Tokens of three instances under requests, failures, crashes, clock changes and outages."""

    def __init__(self) -> None:
        super().__init__()
        logging.getLogger("tokenmw").setLevel(logging.CRITICAL)  # thousands of lines about deliberate failures
        self.loop = asyncio.new_event_loop()
        self.reports: list[dict[str, Any]] = []
        self.loop.set_exception_handler(lambda _loop, context: self.reports.append(context))
        self.clock = ManualClock()
        self.redis = MemoryRedis(self.clock)
        self.issuers = {
            secret: Issuer(self.clock, secret, shares=self.shares, served_for=self.served_for) for secret in SECRETS
        }
        self.members = [self.start(number) for number in range(INSTANCES)]
        self.versions: dict[tuple[int, str], int] = {}
        self.tokens: list[tuple[int, Token]] = []

    def shares(self, number: int) -> bool:
        store: Any = self.members[number].store
        return self.redis.up and not store.cut

    def served_for(self, issuer: Issuer, number: int) -> float:
        instance = self.members[number]
        return instance.entry(Credential(issuer, number)).served_for(Instant(instance.clock))

    def start(self, number: int) -> Instance:
        clock = SkewedClock(self.clock, wall=(0.0, 300.0, -300.0)[number])
        instance = Instance(clock, store=MemoryStore(self.redis), limits=Limits(tokens=8, rejected=8, flights=4))
        self.loop.run_until_complete(instance.__aenter__())
        return instance

    def excuse(self, *, lossy: bool = False) -> None:
        """Allow each issuer another request: an event has justified it."""
        for issuer in self.issuers.values():
            issuer.excuse(lossy=lossy)

    async def request(self, number: int, secret: str) -> Token | RequestError:
        instance = self.members[number]
        task = asyncio.ensure_future(instance.manager.get(instance.entry(Credential(self.issuers[secret], number))))
        for _ in range(150):
            await settle(5)
            if task.done():
                break
            await self.clock.elapse(0.1)
        assert task.done(), "a request waited longer than 15 s"
        try:
            return await task
        except RequestError as error:
            return error

    @rule(number=instances, secret=secrets)
    def get(self, number: int, secret: str) -> None:
        started = self.clock.monotonic()
        result = self.loop.run_until_complete(self.request(number, secret))
        assert self.clock.monotonic() - started < 13, "a request waited too long"
        if isinstance(result, Token):
            assert result.value.startswith(f"{secret}-"), "another credential's token"
            assert self.clock.monotonic() < self.issuers[secret].expiries[result.value], "an expired token"
            assert result.value not in self.members[number].rejected
            self.tokens = [*self.tokens[-20:], (number, result)]

    @rule(rounds=st.integers(2, 12), seconds=st.sampled_from([0.2, 1.0, 10.0, 60.0, 600.0]))
    def traffic(self, rounds: int, seconds: float) -> None:
        """Request both tokens on all instances, again and again."""
        for _ in range(rounds):
            for secret in SECRETS:
                for number in range(INSTANCES):
                    self.get(number, secret)
            self.advance(seconds)

    @rule(seconds=st.sampled_from([0.3, 1.0, 10.0, 31.0, 300.0, 1800.0, 3600.0, 7200.0]))
    def advance(self, seconds: float) -> None:
        self.loop.run_until_complete(self.clock.elapse(seconds))

    @rule(secret=secrets, mode=st.sampled_from(["ok", "ok", "slow", "rejects", "429", "garbage", "hangs"]))
    def provider(self, secret: str, mode: str) -> None:
        self.issuers[secret].mode = mode

    @rule(data=st.data())
    def report(self, data: st.DataObject) -> None:
        """Report a token that some request still has as rejected by an API."""
        if self.tokens:
            number, token = data.draw(st.sampled_from(self.tokens))
            self.excuse()
            self.loop.run_until_complete(self.members[number].sync.invalidate(token))

    @rule(number=instances)
    def crash(self, number: int) -> None:
        """Kill a process in the middle of its work, and start another one in its place."""
        crashed = self.members[number]
        crashed.store.cut = True  # type: ignore[union-attr]
        self.loop.run_until_complete(crashed.stop())
        self.excuse()
        for issuer in self.issuers.values():
            issuer.failures.pop(number, None)
        self.versions = {key: version for key, version in self.versions.items() if key[0] != number}
        self.tokens = [(owner, token) for owner, token in self.tokens if owner != number]
        self.members[number] = self.start(number)

    @rule(number=instances, seconds=st.sampled_from([-7200.0, -60.0, 60.0, 7200.0]))
    def clock_steps(self, number: int, seconds: float) -> None:
        """Set the wall clock of one machine."""
        clock: Any = self.members[number].clock
        clock.wall += seconds
        self.excuse()

    @rule(up=st.booleans())
    def redis_goes_down_or_up(self, up: bool) -> None:  # noqa: FBT001  drawn by hypothesis
        if self.redis.up != up:
            self.excuse(lossy=True)
        self.redis.up = up
        self.housekeep_all()

    @rule(number=instances, cut=st.booleans())
    def one_instance_is_cut_off(self, number: int, cut: bool) -> None:  # noqa: FBT001  drawn by hypothesis
        self.excuse(lossy=True)
        self.members[number].store.cut = cut  # type: ignore[union-attr]
        self.housekeep_all()

    def housekeep_all(self) -> None:
        """Do one round of housekeeping on each instance: those that reach Redis again upload what is unshared."""
        for number in range(INSTANCES):
            self.housekeeping(number)

    @rule()
    def flushall(self) -> None:
        self.excuse(lossy=True)
        for issuer in self.issuers.values():
            # A failure that an instance knows from a note ends with the note, also if it has failed itself before.
            issuer.failures.clear()
        self.redis.flush()

    @rule(number=instances)
    def housekeeping(self, number: int) -> None:
        self.loop.run_until_complete(self.members[number].housekeep())

    @invariant()
    def versions_do_not_go_back(self) -> None:
        for number, instance in enumerate(self.members):
            for entry in instance.entries:
                assert isinstance(entry.provider, Credential)
                if entry.current is not None:
                    key = (number, entry.provider.secret)
                    assert self.versions.get(key, 0) <= entry.current.version
                    self.versions[key] = entry.current.version

    @invariant()
    def no_expired_token_is_returned(self) -> None:
        for instance in self.members:
            for entry in instance.entries:
                token = instance.manager.fresh(entry)
                assert isinstance(entry.provider, Credential)
                if token is not None:
                    assert self.clock.monotonic() < entry.provider.issuer.expiries[token.value]
        self.loop.run_until_complete(settle(5))

    @invariant()
    def the_provider_is_asked_as_rarely_as_promised(self) -> None:
        assert [] == [fault for issuer in self.issuers.values() for fault in issuer.faults]

    @invariant()
    def memory_is_bounded(self) -> None:
        for instance in self.members:
            assert len(instance.entries) <= 8
            assert len(instance.rejected) <= 8

    @invariant()
    def nothing_is_reported_by_the_loop(self) -> None:
        assert [] == self.reports

    def teardown(self) -> None:
        for instance in self.members:
            self.loop.run_until_complete(instance.stop())
        self.loop.run_until_complete(settle())
        assert set() == asyncio.all_tasks(self.loop)
        self.loop.close()
        logging.getLogger("tokenmw").setLevel(logging.NOTSET)


TestTokenMachine = TokenMachine.TestCase
TestTokenMachine.settings = settings(
    max_examples=200,
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
)
