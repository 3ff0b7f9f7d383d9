"""Values written by somebody who can write to Redis, but does not know the secret, on Redis 7 and on Valkey 9.

No value that this package could not have written prevents a fetch, makes each process fetch alone, or is transferred
whole however long it is. The next token overwrites it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.redis.scripted import KEYS, LEASE, NOTE, TOKEN, TOMB, TTL, Scripts, value
from tests.servers import RedisServer, find_server, wheel_server

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

YEARS = 10 * 365 * 86_400_000
"""Ten years in milliseconds."""
HOUR, DAY = 3_600_000, 86_400_000
SERVERS: list[Path] = sorted({one for one in (find_server(), wheel_server()) if one is not None})
MEGABYTE = 1 << 20


@pytest.fixture(scope="module", params=SERVERS, ids=lambda path: path.name)
def any_server(request: pytest.FixtureRequest) -> Iterator[RedisServer]:
    """Each kind of server that this machine has."""
    with RedisServer(executable=request.param) as server:
        yield server


@pytest.fixture
def scripts(any_server: RedisServer) -> Iterator[Scripts]:
    """The scripts on a server without keys."""
    any_server.command("FLUSHALL")
    with any_server.connect() as connection:
        yield Scripts(connection)


def now(scripts: Scripts) -> int:
    """Return the server's time as a version."""
    return scripts.now()


def ahead(scripts: Scripts, days: float) -> int:
    """Return a version that is some days ahead of the server's clock."""
    return now(scripts) + int(days * DAY * 1_000)


def share_a_token(scripts: Scripts) -> None:
    """Assert that one process fetches, and that another one finds its token."""
    version = scripts.lease("a1")
    assert scripts.acquire("b2")[0] == "held"
    assert scripts.commit("a1", version) == "stored"
    assert scripts.acquire("b2")[:2] == ("token", value(version))
    assert scripts.read()[0] == value(version)


@pytest.mark.parametrize("ms", [61_000, DAY, YEARS])
def test_lease_that_lasts_longer_than_a_lease_is_taken_over(scripts: Scripts, ms: int) -> None:
    """It made each attempt wait for 12 s, and no token was fetched."""
    scripts.command("SET", LEASE, "f0:5", "PX", ms)
    share_a_token(scripts)


def test_longer_lease_of_an_instance_with_other_options_is_not_taken_over(scripts: Scripts) -> None:
    """While `lease_seconds` was lowered in a rolling deployment, two processes fetched."""
    version = scripts.acquire("a1", ms=30_000)[1]
    kind, _, left = scripts.acquire("b2", ms=6_000)
    assert kind == "held"
    assert 29_000 < left <= 30_000
    assert scripts.commit("a1", version) == "stored"


def test_lease_longer_than_a_minute_is_kept_by_callers_with_such_leases(scripts: Scripts) -> None:
    """The bound is the caller's own lease, if that is longer than a minute."""
    assert scripts.acquire("a1", ms=90_000)[0] == "lease"
    assert scripts.acquire("b2", ms=120_000)[0] == "held"
    assert scripts.acquire("c3", ms=6_000)[0] == "lease"


def test_lease_of_another_process_is_not_taken_over(scripts: Scripts) -> None:
    """It has as much time left as a lease can have."""
    assert scripts.acquire("a1", ms=6_000)[0] == "lease"
    assert scripts.acquire("b2", ms=6_000)[0] == "held"


@pytest.mark.parametrize("ms", [HOUR + 1_000, YEARS])
def test_note_that_lasts_longer_than_an_hour_counts_as_absent(scripts: Scripts, ms: int) -> None:
    """It made every process refuse for ten years."""
    scripts.command("SET", NOTE, value(1, b"x" * 60), "PX", ms)
    share_a_token(scripts)
    assert scripts.command("EXISTS", NOTE) == 0


def test_note_of_an_hour_counts(scripts: Scripts) -> None:
    """A provider may ask for a pause of an hour."""
    scripts.release("a1", scripts.lease("a1"), note=b"refused", ms=HOUR)
    kind, note, left = scripts.acquire("b2")
    assert (kind, note) == ("note", b"refused")
    assert 0 < left <= HOUR


@pytest.mark.parametrize("kind", ["a little", "2^52 - 1"])
def test_tombstone_more_than_a_day_ahead_is_ignored_and_overwritten(scripts: Scripts, kind: str) -> None:
    """With it each process fetched for itself, for as long as it existed."""
    planted = 2**52 - 1 if kind == "2^52 - 1" else ahead(scripts, 1.01)
    scripts.command("SET", TOMB, planted, "PX", YEARS)
    assert scripts.read() == (None, 0)
    share_a_token(scripts)
    # It would count as soon as the clock has caught up with it.
    assert scripts.command("EXISTS", TOMB) == 0
    scripts.command("SET", TOMB, planted, "PX", YEARS)
    kind, version = scripts.write_tombstone(None)
    assert version <= now(scripts)
    assert scripts.command("GET", TOMB) == str(version).encode()
    assert scripts.command("PTTL", TOMB) <= TTL


def test_tombstone_half_a_day_ahead_counts(scripts: Scripts) -> None:
    """An instance, or the server before a failover, may have a clock that is wrong by hours."""
    version = ahead(scripts, 0.5)
    scripts.command("SET", TOMB, version, "PX", TTL)
    assert scripts.read() == (None, version)
    assert scripts.lease("a1") == version + 1


def test_tombstone_without_end_gets_one(scripts: Scripts) -> None:
    """The next tombstone takes the longer one of two TTLs, but no longer one than a token can have."""
    scripts.command("SET", TOMB, now(scripts), "PX", YEARS)
    scripts.write_tombstone(now(scripts))
    assert scripts.command("PTTL", TOMB) <= 30 * DAY


@pytest.mark.parametrize(("days", "ms"), [(1.01, TTL), (365.0, YEARS), (0.0, 30 * DAY + 1_000), (0.0, YEARS)])
def test_token_of_an_impossible_version_or_ttl_counts_as_absent(scripts: Scripts, days: float, ms: int) -> None:
    """Sealed with an unknown secret, it would be left alone, and each process would fetch for itself."""
    scripts.command("SET", TOKEN, value(ahead(scripts, days)), "PX", ms)
    assert scripts.read() == (None, 0)
    share_a_token(scripts)


def test_lease_of_an_impossible_version_counts_as_absent(scripts: Scripts) -> None:
    """Its holder could not store a token."""
    scripts.command("SET", LEASE, f"f0:{ahead(scripts, 1.01)}", "PX", 5_000)
    share_a_token(scripts)
    scripts.command("DEL", *KEYS)
    scripts.command("SET", LEASE, f"f0:{ahead(scripts, 1.01)}", "PX", 5_000)
    assert scripts.write_tombstone(None)[1] <= now(scripts)


@pytest.mark.parametrize("key", KEYS)
def test_huge_value_is_not_transferred(scripts: Scripts, any_server: RedisServer, key: bytes) -> None:
    """It counts as absent, and the next token replaces it."""
    head = str(now(scripts)).encode() if key == TOMB else value(now(scripts))
    scripts.command("SET", key, head, "PX", 5_000)
    scripts.command("SETRANGE", key, 20 * MEGABYTE, "x")
    any_server.command("CONFIG", "RESETSTAT")
    assert scripts.read() == (None, 0)
    share_a_token(scripts)
    stats = any_server.command("INFO", "stats").split(b"total_net_output_bytes:")[1]
    assert int(stats.split(b"\r")[0]) < MEGABYTE
    assert scripts.command("STRLEN", key) < MEGABYTE


@pytest.mark.parametrize("planted", [b"", b"not a marker", b"\xff\x00", b"a" * 65, b"a" * MEGABYTE])
def test_marker_that_is_none_is_replaced(scripts: Scripts, planted: bytes) -> None:
    """Otherwise each process would read it whole every five seconds."""
    scripts.command("SET", "marker", planted)
    marker, made, _time, _silent = scripts.run("marker", (b"marker", b"silent"), "0123456789abcdef", 1)
    assert marker.startswith(b"0123456789abcdef")
    assert made == 1
    assert scripts.command("GET", "marker") == b"0123456789abcdef"
    assert scripts.run("marker", (b"marker", b"silent"), "fedcba9876543210", 1)[:2] == [marker, 0]


def test_scripts_work_where_an_acl_does_not_allow_getrange(scripts: Scripts, any_server: RedisServer) -> None:
    """The ACL of a deployment may have been made for a version that did not need it."""
    any_server.command("ACL", "SETUSER", "lean", "on", ">lean", "~*", "+@all", "-getrange")
    with any_server.connect() as connection:
        connection.call("AUTH", "lean", "lean")
        share_a_token(Scripts(connection))
        scripts.command("DEL", *KEYS)
        scripts.command("LPUSH", TOKEN, "a")
        share_a_token(Scripts(connection))


def test_version_that_does_not_fit_the_time_to_live_is_not_stored(scripts: Scripts) -> None:
    """Readers compute from the version when the token's lifetime is over."""
    stale = now(scripts) - 3_600_000_000

    def commit(age_ms: int) -> bytes:
        kind: bytes = scripts.run("commit", KEYS, "a1", stale, value(stale), TTL, age_ms)[0]
        return kind

    assert commit(0) == b"clock"
    assert commit(HOUR - 120_000) == b"clock"
    assert scripts.command("EXISTS", TOKEN) == 0
    assert commit(HOUR) == b"stored"
