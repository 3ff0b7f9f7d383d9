"""What each token script promises, against a real server."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from tests.redis.scripted import KEYS, LEASE, LIFE, NOTE, TOKEN, TOMB, Scripts, value

if TYPE_CHECKING:
    from collections.abc import Callable

FUTURE = int(time.time() * 1_000_000) + 3_600_000_000
"""A version that a server gave whose clock was an hour ahead."""


def until(condition: Callable[[], bool]) -> None:
    """Wait until something is so; only for times to live, which are the server's."""
    deadline = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def test_one_of_two_owners_gets_the_lease(scripts: Scripts) -> None:
    """The second one is told that it is held, and for how long at most."""
    scripts.lease("a1")
    kind, _value, left = scripts.acquire("b2")
    assert kind == "held"
    assert 0 < left <= 6_000


def test_the_owner_that_asks_again_gets_the_same_lease(scripts: Scripts) -> None:
    """A lost reply of acquire costs nothing: same version, and the lease does not live longer for it."""
    version = scripts.lease("a1")
    scripts.command("PEXPIRE", LEASE, 3_000)
    assert scripts.acquire("a1") == ("lease", version, 0)
    assert scripts.command("PTTL", LEASE) <= 3_000


def test_a_lease_version_is_the_servers_time(scripts: Scripts) -> None:
    """Versions are microseconds since 1970, so they rise even after all data is lost."""
    seconds, micros = scripts.command("TIME")
    assert 0 <= scripts.lease("a1") - (int(seconds) * 1_000_000 + int(micros)) < 5_000_000


def test_a_committed_token_is_found_by_the_others(scripts: Scripts) -> None:
    """Commit stores, frees the lease and removes the note."""
    version = scripts.lease("a1")
    scripts.command("SET", NOTE, "refused", "PX", 5_000)
    assert scripts.commit("a1", version) == "stored"
    kind, found, left = scripts.acquire("b2")
    assert (kind, found) == ("token", value(version))
    assert 0 < left <= LIFE
    assert scripts.command("EXISTS", LEASE, NOTE) == 0


def test_a_repeated_commit_says_stored_again(scripts: Scripts) -> None:
    """A lost reply of commit is answered as the first was, and the token's time does not start again."""
    version = scripts.lease("a1")
    scripts.commit("a1", version)
    scripts.command("PEXPIRE", TOKEN, 1_000)
    assert scripts.commit("a1", version) == "stored"
    assert scripts.command("PTTL", TOKEN) <= 1_000


def test_who_knows_the_token_gets_the_lease_above_it(scripts: Scripts) -> None:
    """A token that the caller has already is no answer; the next version is above it."""
    version = scripts.lease("a1")
    scripts.commit("a1", version)
    assert scripts.lease("b2", known=version) > version


def test_a_lease_is_above_what_only_the_caller_knows(scripts: Scripts) -> None:
    """After a FLUSHALL the server knows of no version; the one that the caller names counts."""
    assert scripts.lease("a1", known=FUTURE) == FUTURE + 1


@pytest.mark.parametrize("kind", ["token", "tombstone"])
def test_a_lease_is_above_what_is_stored_though_the_clock_went_back(scripts: Scripts, kind: str) -> None:
    """Versions rise even if the server's clock is behind what it said before."""
    if kind == "token":
        scripts.command("SET", TOKEN, value(FUTURE), "PX", LIFE)
    else:
        scripts.command("SET", TOMB, FUTURE, "PX", LIFE)
    version = scripts.lease("a1", known=FUTURE if kind == "token" else 0)
    assert version == FUTURE + 1
    assert scripts.commit("a1", version) == "stored"
    assert scripts.read()[0] == value(version)


def test_a_lapsed_lease_is_free(scripts: Scripts) -> None:
    """A process that died keeps nobody waiting longer than its lease."""
    assert scripts.acquire("a1", ms=1)[0] == "lease"
    until(lambda: scripts.acquire("b2")[0] == "lease")


def test_a_holder_whose_lease_another_has_is_refused(scripts: Scripts) -> None:
    """Who was paused past its lease does not overwrite while the next one asks."""
    first = scripts.lease("a1")
    scripts.command("DEL", LEASE)
    second = scripts.lease("b2")
    assert scripts.commit("a1", first) == "held"
    assert scripts.read()[0] is None
    assert scripts.commit("b2", second) == "stored"
    assert scripts.commit("a1", first) == "newer"
    assert scripts.read()[0] == value(second)


def test_without_any_lease_only_a_newer_token_is_stored(scripts: Scripts) -> None:
    """What was fetched while Redis was away is offered so."""
    assert scripts.commit("a1", 50) == "stored"
    assert scripts.commit("b2", 40) == "newer"
    assert scripts.commit("c3", 60) == "stored"
    assert scripts.read()[0] == value(60)


def test_at_equal_versions_the_first_one_stays(scripts: Scripts) -> None:
    """Two processes that asked in one microsecond come to agree."""
    assert scripts.commit("a1", 50, value(50, b"first")) == "stored"
    assert scripts.commit("b2", 50, value(50, b"second")) == "newer"
    assert scripts.read()[0] == value(50, b"first")


def test_a_release_frees_only_the_own_lease(scripts: Scripts) -> None:
    """Neither another's lease, nor a later one of the same owner, nor twice."""
    version = scripts.lease("a1")
    assert not scripts.release("b2", version, note=b"no")
    assert not scripts.release("a1", version + 1, note=b"no")
    assert scripts.command("EXISTS", NOTE) == 0
    assert scripts.release("a1", version)
    assert not scripts.release("a1", version, note=b"no")
    assert scripts.acquire("b2")[0] == "lease"


def test_a_note_keeps_the_others_from_asking_until_it_lapses(scripts: Scripts) -> None:
    """What the provider said to the lease holder is told to everybody else."""
    version = scripts.lease("a1")
    assert scripts.release("a1", version, note=b"refused", ms=1_000)
    kind, note, left = scripts.acquire("b2")
    assert (kind, note) == ("note", b"refused")
    assert 0 < left <= 1_000
    scripts.command("PEXPIRE", NOTE, 1)
    until(lambda: scripts.acquire("b2")[0] == "lease")


def test_a_buried_version_does_not_come_back(scripts: Scripts) -> None:
    """Neither by its own commit, nor by an older one; a later one does."""
    assert scripts.commit("a1", 50) == "stored"
    assert scripts.bury(50) == ("buried", 50)
    assert scripts.bury(50) == ("buried", 50)
    assert scripts.read() == (None, 50)
    assert [scripts.commit("a1", version) for version in (50, 49, 51)] == ["dead", "dead", "stored"]
    assert scripts.read() == (value(51), 50)


def test_a_version_buried_during_the_fetch_is_not_stored(scripts: Scripts) -> None:
    """The holder is told, and its lease is free for the next attempt."""
    version = scripts.lease("a1")
    scripts.bury(version)
    assert scripts.commit("a1", version) == "dead"
    assert scripts.lease("a1") > version


def test_a_newer_token_survives_the_burial_of_an_older_one(scripts: Scripts) -> None:
    """A late report about the token before harms nothing; the newer one is told."""
    scripts.commit("a1", 60)
    assert scripts.bury(50) == ("newer", 0)
    assert scripts.read() == (value(60), 0)


def test_whatever_is_there_is_buried_with_the_note(scripts: Scripts) -> None:
    """Also a token whose version is ahead of the server's clock, and one that only the caller knows."""
    scripts.command("SET", TOKEN, value(FUTURE), "PX", LIFE)
    scripts.command("SET", NOTE, "refused", "PX", LIFE)
    assert scripts.bury(None, ms=1) == ("buried", FUTURE)
    assert 1 < scripts.command("PTTL", TOMB) <= LIFE
    assert scripts.command("EXISTS", TOKEN, NOTE) == 0
    assert scripts.bury(None, known=FUTURE + 9) == ("buried", FUTURE + 9)


def test_whatever_is_asked_for_is_buried_too(scripts: Scripts) -> None:
    """A lease may be ahead of the server's clock; what is committed under it is dead, and its holder asks anew."""
    assert scripts.lease("a1", known=FUTURE) == FUTURE + 1
    assert scripts.bury(None) == ("buried", FUTURE + 1)
    assert scripts.commit("a1", FUTURE + 1) == "dead"
    assert scripts.lease("b2", known=FUTURE + 9) == FUTURE + 10
    assert scripts.bury(40) == ("buried", FUTURE + 1)  # a version that is named takes no other along


def test_a_tombstone_neither_sinks_nor_lapses_early(scripts: Scripts) -> None:
    """Of two tombstones the higher version and the longer life stay: the older token may still be offered."""
    scripts.bury(60, ms=LIFE)
    assert scripts.bury(50, ms=1) == ("buried", 60)
    assert scripts.command("PTTL", TOMB) > LIFE / 2
    assert scripts.bury(70, ms=1) == ("buried", 70)
    assert scripts.command("PTTL", TOMB) > LIFE / 2


def test_a_replaced_value_is_the_one_that_was_seen(scripts: Scripts) -> None:
    """Compare and set, compare and delete; another value stays and is returned."""
    run = scripts.run
    scripts.command("SET", TOKEN, "seen")
    assert run("replace", KEYS[:1], "other", "new", 1_000) == b"seen"
    assert run("replace", KEYS[:1], "seen", "new", 1_000) == b"new"
    assert run("replace", KEYS[:1], "seen", "", 1) == b"new"
    assert run("replace", KEYS[:1], "new", "", 1) == b""
    assert scripts.command("EXISTS", TOKEN) == 0


def test_a_session_keeps_its_first_id_and_its_time_starts_again(scripts: Scripts) -> None:
    """Get or create in one step."""
    assert scripts.run("session", (b"s",), "first", 1_000) == b"first"
    assert scripts.run("session", (b"s",), "second", 9_000) == b"first"
    assert scripts.command("PTTL", b"s") > 1_000


def test_a_probe_leaves_nothing_for_long(scripts: Scripts) -> None:
    """It writes, and what it wrote ends by itself."""
    assert scripts.run("probe", (b"p",)) == 1
    assert 0 < scripts.command("PTTL", b"p") <= 1_000
