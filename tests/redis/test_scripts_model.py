"""A state machine: random steps of three processes, checked against a small model of what the scripts promise."""

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

    The model: the token's and the tombstone's versions, who holds the lease, whether a note stands, and what each
    process was promised. A process may always come late with what it was promised.
    """

    server: Scripts

    @initialize()
    def begin(self) -> None:
        """Start with nothing."""
        self.server.command("FLUSHALL")
        self.token: int | None = None
        self.body = b""
        self.dead = 0
        self.lease: tuple[str, int] | None = None
        self.note = False
        self.promised: dict[str, int] = {}
        self.given: set[int] = set()
        self.lost = False

    @rule(owner=OWNERS, knows=st.booleans())
    def acquire(self, owner: str, *, knows: bool) -> None:
        known = max(self.dead, self.token or 0) if knows else 0
        kind, found, _left = self.server.acquire(owner, known=known)
        if self.token is not None and self.token > known and self.token > self.dead:
            assert (kind, found) == ("token", value(self.token, self.body))
        elif self.lease is not None and self.lease[0] == owner:
            assert (kind, found) == ("lease", self.lease[1])
        elif self.lease is not None:
            assert kind == "held"
        elif self.note:
            assert kind == "note"
        else:
            assert kind == "lease"
            assert found > max(self.token or 0, self.dead, known)
            assert found not in self.given or self.lost
            self.given.add(found)
            self.lease, self.promised[owner] = (owner, found), found

    @rule(owner=OWNERS, offset=st.integers(-2, 2), body=st.sampled_from([b"x", b"y"]))
    def commit(self, owner: str, offset: int, body: bytes) -> None:
        version = max(1, self.promised.get(owner, 1_000) + offset)
        answer = self.server.commit(owner, version, value(version, body))
        mine = self.lease == (owner, version)
        held = self.lease is not None and not mine
        if mine:
            self.lease = None
        if version <= self.dead:
            assert answer == "dead"
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
        version = self.promised.get(owner, 1_000)
        mine = self.lease == (owner, version)
        assert self.server.release(owner, version, note=b"no" if note else b"", ms=60_000) == mine
        if mine:
            self.lease, self.note = None, self.note or note

    @rule(owner=OWNERS, offset=st.integers(-1, 1))
    def bury(self, owner: str, offset: int) -> None:
        version = max(1, (self.token or self.promised.get(owner, 1_000)) + offset)
        answer = self.server.bury(version)
        if self.token is not None and self.token > max(version, self.dead):
            assert answer == ("newer", self.dead)
        else:
            self.token, self.dead = None, max(version, self.dead)
            assert answer == ("buried", self.dead)

    @rule()
    def bury_whatever(self) -> None:
        kind, dead = self.server.bury(None, known=self.token or 0)
        assert kind == "buried"
        assert dead >= max(self.token or 0, self.dead)
        self.token, self.dead, self.note = None, dead, False

    @rule(key=st.sampled_from([TOKEN, LEASE, NOTE, TOMB, b""]))
    def lose(self, key: bytes) -> None:
        self.server.command(*(["DEL", key] if key else ["FLUSHALL"]))
        self.lost = True
        self.token = None if key in {TOKEN, b""} else self.token
        self.lease = None if key in {LEASE, b""} else self.lease
        self.note = self.note and key not in {NOTE, b""}
        self.dead = 0 if key in {TOMB, b""} else self.dead

    @invariant()
    def reading_shows_the_model(self) -> None:
        expected = None if self.token is None else value(self.token, self.body)
        assert self.server.read() == (expected, self.dead)

    @invariant()
    def every_key_ends_by_itself(self) -> None:
        for key in KEYS:
            assert self.server.command("PTTL", key) != -1


def test_random_steps_keep_the_promises(redis_server: RedisServer) -> None:
    """Whatever order steps, late comers and losses come in: the scripts and the model agree after each."""
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
