"""Random steps of three processes, checked against a small model of what the scripts guarantee."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from tests.redis.scripted import KEYS, LEASE, NOTE, TOKEN, TOMB, Scripts, value

if TYPE_CHECKING:
    from tests.servers import RedisServer

OWNERS = st.sampled_from(["a1", "b2", "c3"])


class Tokens(RuleBasedStateMachine):
    """One credential's four keys.

    The model has the versions of the token and of the tombstone, the holder of the lease, whether there is a note, and
    the version that each process was given last. A process may commit or release that late.
    """

    server: Scripts

    @initialize()
    def begin(self) -> None:
        """Start with an empty server."""
        self.server.command("FLUSHALL")
        self.token: int | None = None
        self.body = b""
        self.tombstone = 0
        self.lease: tuple[str, int] | None = None
        self.note = False
        self.leased: dict[str, int] = {}
        self.versions: set[int] = set()
        self.lost = False

    @rule(owner=OWNERS, knows=st.booleans())
    def acquire(self, owner: str, *, knows: bool) -> None:
        known = max(self.tombstone, self.token or 0) if knows else 0
        kind, found, _left = self.server.acquire(owner, known=known)
        if self.token is not None and self.token > known and self.token > self.tombstone:
            assert (kind, found) == ("token", value(self.token, self.body))
        elif self.lease is not None and self.lease[0] == owner:
            assert (kind, found) == ("lease", self.lease[1])
        elif self.lease is not None:
            assert kind == "held"
        elif self.note:
            assert kind == "note"
        else:
            assert kind == "lease"
            assert found > max(self.token or 0, self.tombstone, known)
            assert found not in self.versions or self.lost
            self.versions.add(found)
            self.lease, self.leased[owner] = (owner, found), found

    @rule(owner=OWNERS, offset=st.integers(-2, 2), body=st.sampled_from([b"x", b"y"]))
    def commit(self, owner: str, offset: int, body: bytes) -> None:
        version = max(1, self.leased.get(owner, 1_000) + offset)
        answer = self.server.commit(owner, version, value(version, body))
        mine = self.lease == (owner, version)
        held = self.lease is not None and not mine
        if mine:
            self.lease = None
        if version <= self.tombstone:
            assert answer == "tombstone"
        elif (self.token, self.body) == (version, body):
            assert answer == "stored"
        elif self.token is not None and self.token >= version:
            assert answer == "newer"
        elif held:
            assert answer == "held"
        else:
            assert answer == "stored"
            self.token, self.body, self.note = version, body, False

    @rule(owner=OWNERS, note=st.booleans())
    def release(self, owner: str, *, note: bool) -> None:
        version = self.leased.get(owner, 1_000)
        mine = self.lease == (owner, version)
        assert self.server.release(owner, version, note=b"no" if note else b"", ms=60_000) == mine
        if mine:
            self.lease, self.note = None, self.note or note

    @rule(owner=OWNERS, offset=st.integers(-1, 1))
    def write_tombstone(self, owner: str, offset: int) -> None:
        version = max(1, (self.token or self.leased.get(owner, 1_000)) + offset)
        answer = self.server.write_tombstone(version)
        if self.token is not None and self.token > max(version, self.tombstone):
            assert answer == ("newer", self.tombstone)
        else:
            self.token, self.tombstone = None, max(version, self.tombstone)
            assert answer == ("tombstone", self.tombstone)

    @rule()
    def write_tombstone_for_any(self) -> None:
        kind, tombstone = self.server.write_tombstone(None, known=self.token or 0)
        assert kind == "tombstone"
        assert tombstone >= max(self.token or 0, self.tombstone)
        self.token, self.tombstone, self.note = None, tombstone, False

    @rule(key=st.sampled_from([TOKEN, LEASE, NOTE, TOMB, b""]))
    def lose(self, key: bytes) -> None:
        self.server.command(*(["DEL", key] if key else ["FLUSHALL"]))
        self.lost = True
        self.token = None if key in {TOKEN, b""} else self.token
        self.lease = None if key in {LEASE, b""} else self.lease
        self.note = self.note and key not in {NOTE, b""}
        self.tombstone = 0 if key in {TOMB, b""} else self.tombstone

    @invariant()
    def read_returns_the_model(self) -> None:
        expected = None if self.token is None else value(self.token, self.body)
        assert self.server.read() == (expected, self.tombstone)

    @invariant()
    def every_key_has_a_ttl(self) -> None:
        for key in KEYS:
            assert self.server.command("PTTL", key) != -1


def test_random_steps_agree_with_the_model(redis_server: RedisServer) -> None:
    """Scripts and model agree after each step, whatever the order of steps, late processes and losses of keys."""
    with redis_server.connect() as connection, contextlib.ExitStack() as stack:
        patch = pytest.MonkeyPatch()
        stack.callback(patch.undo)
        patch.setattr(Tokens, "server", Scripts(connection), raising=False)
        run_state_machine_as_test(
            Tokens,
            settings=settings(
                max_examples=100,
                stateful_step_count=30,
                deadline=None,
                suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
                database=None,
            ),
        )
