"""What each token script guarantees, against a real server."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from tests.redis.scripted import KEYS, LEASE, NOTE, TOKEN, TOMB, TTL, Scripts, value

if TYPE_CHECKING:
    from collections.abc import Callable

FUTURE = int(time.time() * 1_000_000) + 3_600_000_000
"""A version from a server whose clock was an hour ahead."""


def until(condition: Callable[[], bool]) -> None:
    """Wait until a condition holds; only for TTLs, which pass on the server."""
    deadline = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def test_one_of_two_owners_gets_the_lease(scripts: Scripts) -> None:
    """The other one learns that it is held, and for how long at most."""
    scripts.lease("a1")
    kind, _value, left = scripts.acquire("b2")
    assert kind == "held"
    assert 0 < left <= 6_000


def test_acquire_is_idempotent_for_its_owner(scripts: Scripts) -> None:
    """After a lost reply the owner gets the same version, and the lease does not exist longer for it."""
    version = scripts.lease("a1")
    scripts.command("PEXPIRE", LEASE, 3_000)
    assert scripts.acquire("a1") == ("lease", version, 0)
    assert scripts.command("PTTL", LEASE) <= 3_000


def test_version_of_a_lease_is_the_servers_time(scripts: Scripts) -> None:
    """Versions are microseconds since 1970, so they increase even after all data were lost."""
    seconds, micros = scripts.command("TIME")
    assert 0 <= scripts.lease("a1") - (int(seconds) * 1_000_000 + int(micros)) < 5_000_000


def test_committed_token_is_found_by_others(scripts: Scripts) -> None:
    """Commit stores the token, releases the lease and deletes the note."""
    version = scripts.lease("a1")
    scripts.command("SET", NOTE, "refused", "PX", 5_000)
    assert scripts.commit("a1", version) == "stored"
    kind, found, left = scripts.acquire("b2")
    assert (kind, found) == ("token", value(version))
    assert 0 < left <= TTL
    assert scripts.command("EXISTS", LEASE, NOTE) == 0


def test_commit_is_idempotent(scripts: Scripts) -> None:
    """A commit that is repeated after a lost reply returns the same, and does not extend the TTL of the token."""
    version = scripts.lease("a1")
    scripts.commit("a1", version)
    scripts.command("PEXPIRE", TOKEN, 1_000)
    assert scripts.commit("a1", version) == "stored"
    assert scripts.command("PTTL", TOKEN) <= 1_000


def test_known_token_is_not_returned_again(scripts: Scripts) -> None:
    """A caller that has it gets the lease, with a version above it."""
    version = scripts.lease("a1")
    scripts.commit("a1", version)
    assert scripts.lease("b2", known=version) > version


def test_lease_is_above_a_version_that_only_the_caller_knows(scripts: Scripts) -> None:
    """After FLUSHALL the server knows no version; the one that the caller passes counts."""
    assert scripts.lease("a1", known=FUTURE) == FUTURE + 1


@pytest.mark.parametrize("kind", ["token", "tombstone"])
def test_lease_is_above_the_stored_version_after_the_clock_was_set_back(scripts: Scripts, kind: str) -> None:
    """Versions increase even if the server's clock is behind them."""
    if kind == "token":
        scripts.command("SET", TOKEN, value(FUTURE), "PX", TTL)
    else:
        scripts.command("SET", TOMB, FUTURE, "PX", TTL)
    version = scripts.lease("a1", known=FUTURE if kind == "token" else 0)
    assert version == FUTURE + 1
    assert scripts.commit("a1", version) == "stored"
    assert scripts.read()[0] == value(version)


def test_expired_lease_is_free(scripts: Scripts) -> None:
    """A process that died makes others wait no longer than its lease."""
    assert scripts.acquire("a1", ms=1)[0] == "lease"
    until(lambda: scripts.acquire("b2")[0] == "lease")


def test_commit_after_the_lease_was_lost_is_refused(scripts: Scripts) -> None:
    """A process that was paused for longer than its lease does not overwrite the token of the next holder."""
    first = scripts.lease("a1")
    scripts.command("DEL", LEASE)
    second = scripts.lease("b2")
    assert scripts.commit("a1", first) == "held"
    assert scripts.read()[0] is None
    assert scripts.commit("b2", second) == "stored"
    assert scripts.commit("a1", first) == "newer"
    assert scripts.read()[0] == value(second)


def test_without_any_lease_only_a_newer_token_is_stored(scripts: Scripts) -> None:
    """Tokens that were fetched without Redis are uploaded like this."""
    assert scripts.commit("a1", 50) == "stored"
    assert scripts.commit("b2", 40) == "newer"
    assert scripts.commit("c3", 60) == "stored"
    assert scripts.read()[0] == value(60)


def test_first_of_two_tokens_with_the_same_version_stays(scripts: Scripts) -> None:
    """Two processes that asked in the same microsecond come to agree."""
    assert scripts.commit("a1", 50, value(50, b"first")) == "stored"
    assert scripts.commit("b2", 50, value(50, b"second")) == "newer"
    assert scripts.read()[0] == value(50, b"first")


def test_release_deletes_only_the_same_lease(scripts: Scripts) -> None:
    """Another owner's lease, a later one of the same owner and no lease are left as they are."""
    version = scripts.lease("a1")
    assert not scripts.release("b2", version, note=b"no")
    assert not scripts.release("a1", version + 1, note=b"no")
    assert scripts.command("EXISTS", NOTE) == 0
    assert scripts.release("a1", version)
    assert not scripts.release("a1", version, note=b"no")
    assert scripts.acquire("b2")[0] == "lease"


def test_note_prevents_leases_until_it_expires(scripts: Scripts) -> None:
    """Other processes get what the provider answered the holder of the lease."""
    version = scripts.lease("a1")
    assert scripts.release("a1", version, note=b"refused", ms=1_000)
    kind, note, left = scripts.acquire("b2")
    assert (kind, note) == ("note", b"refused")
    assert 0 < left <= 1_000
    scripts.command("PEXPIRE", NOTE, 1)
    until(lambda: scripts.acquire("b2")[0] == "lease")


def test_version_under_a_tombstone_is_not_stored(scripts: Scripts) -> None:
    """Neither it nor an older version can be committed; a later one can."""
    assert scripts.commit("a1", 50) == "stored"
    assert scripts.write_tombstone(50) == ("tombstone", 50)
    assert scripts.write_tombstone(50) == ("tombstone", 50)
    assert scripts.read() == (None, 50)
    assert [scripts.commit("a1", version) for version in (50, 49, 51)] == ["tombstone", "tombstone", "stored"]
    assert scripts.read() == (value(51), 50)


def test_version_that_became_invalid_during_the_fetch_is_not_stored(scripts: Scripts) -> None:
    """The holder learns it, and its lease is free for the next attempt."""
    version = scripts.lease("a1")
    scripts.write_tombstone(version)
    assert scripts.commit("a1", version) == "tombstone"
    assert scripts.lease("a1") > version


def test_newer_token_is_not_affected_by_a_tombstone_for_an_older_one(scripts: Scripts) -> None:
    """A late report about the token before is harmless; the newer token is returned."""
    scripts.commit("a1", 60)
    assert scripts.write_tombstone(50) == ("newer", 0)
    assert scripts.read() == (value(60), 0)


def test_any_token_becomes_invalid_and_the_note_is_deleted(scripts: Scripts) -> None:
    """So does a token whose version is ahead of the server's clock, and one that only the caller knows."""
    scripts.command("SET", TOKEN, value(FUTURE), "PX", TTL)
    scripts.command("SET", NOTE, "refused", "PX", TTL)
    assert scripts.write_tombstone(None, ms=1) == ("tombstone", FUTURE)
    assert 1 < scripts.command("PTTL", TOMB) <= TTL
    assert scripts.command("EXISTS", TOKEN, NOTE) == 0
    assert scripts.write_tombstone(None, known=FUTURE + 9) == ("tombstone", FUTURE + 9)


def test_token_that_is_being_fetched_becomes_invalid_too(scripts: Scripts) -> None:
    """A lease may be ahead of the server's clock; its commit is refused, and its holder fetches again."""
    assert scripts.lease("a1", known=FUTURE) == FUTURE + 1
    assert scripts.write_tombstone(None) == ("tombstone", FUTURE + 1)
    assert scripts.commit("a1", FUTURE + 1) == "tombstone"
    assert scripts.lease("b2", known=FUTURE + 9) == FUTURE + 10
    assert scripts.write_tombstone(40) == ("tombstone", FUTURE + 1)  # with a named version, later ones stay valid


def test_tombstones_keep_the_higher_version_and_the_longer_ttl(scripts: Scripts) -> None:
    """A token under the older tombstone may still be uploaded."""
    scripts.write_tombstone(60, ms=TTL)
    assert scripts.write_tombstone(50, ms=1) == ("tombstone", 60)
    assert scripts.command("PTTL", TOMB) > TTL / 2
    assert scripts.write_tombstone(70, ms=1) == ("tombstone", 70)
    assert scripts.command("PTTL", TOMB) > TTL / 2


def test_replace_changes_only_the_value_that_was_read(scripts: Scripts) -> None:
    """Any other value stays, and is returned."""
    run = scripts.run
    scripts.command("SET", TOKEN, "seen")
    assert run("replace", KEYS[:1], "other", "new", 1_000) == b"seen"
    assert run("replace", KEYS[:1], "seen", "new", 1_000) == b"new"
    assert run("replace", KEYS[:1], "seen", "", 1) == b"new"
    assert run("replace", KEYS[:1], "new", "", 1) == b""
    assert scripts.command("EXISTS", TOKEN) == 0


def test_session_keeps_its_first_id_and_restarts_its_ttl(scripts: Scripts) -> None:
    """One script gets or creates, and its reply tells which, also if the stored id is equal to the candidate."""
    assert scripts.run("session", (b"s",), "first", 1_000) == 0
    assert scripts.run("session", (b"s",), "first", 1_000) == b"first"
    assert scripts.run("session", (b"s",), "second", 9_000) == b"first"
    assert scripts.command("PTTL", b"s") > 1_000


def test_probe_leaves_no_key(scripts: Scripts) -> None:
    """It returns the version, and which commands are refused."""
    version, refused = scripts.run("probe", (b"p",))
    assert int(version.partition(b".")[0]) >= 6
    assert refused == b""
    assert scripts.command("KEYS", "*") == []
