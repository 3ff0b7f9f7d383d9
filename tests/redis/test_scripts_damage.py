"""The scripts find keys that were evicted, flushed, or written by others."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import pytest

from tests.redis.scripted import KEYS, LEASE, NOTE, TOKEN, TOMB, TTL, Scripts, value
from tests.resp import RedisServerError
from tests.servers import RedisServer

if TYPE_CHECKING:
    from collections.abc import Callable

GARBAGE = {
    "empty": b"",
    "short": b"\x01",
    "text": b"not one of ours",
    "another format": b"\x02" + value(50)[1:],
    "huge version": value(2**64 - 1),
    "version out of range": value(2**53 - 1),
    "huge number": b"9" * 400,
    "infinity": b"inf",
    "not a number": b"nan",
    "hexadecimal": b"0x7fffffffffffffff",
    "number out of range": b"9007199254740991",
    "negative": b"-1",
    "lease out of range": b"a1:9007199254740991",
}
# A token is fetched, invalidated and fetched again: a loss between any two steps must not prevent the next one.
STEPS = ("acquire", "commit", "tombstone", "acquire", "commit")


def check_all_steps_work(scripts: Scripts) -> None:
    """Assert that a token can be fetched, committed, found, invalidated and fetched again."""
    for _ in range(2):
        version = scripts.lease("z9")
        assert scripts.commit("z9", version) == "stored"
        assert scripts.acquire("y8")[:2] == ("token", value(version))
        assert scripts.write_tombstone(version) == ("tombstone", version)
        assert scripts.read() == (None, version)


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("kind", ["LPUSH", "SADD", "HSET"])
def test_key_of_another_type_counts_as_absent(scripts: Scripts, key: bytes, kind: str) -> None:
    """No process is refused, and the key is overwritten in time."""
    words: tuple[str | bytes, ...] = (kind, key, "a", "b") if kind == "HSET" else (kind, key, "a")
    scripts.command(*words)
    assert scripts.read() == (None, 0)
    check_all_steps_work(scripts)


@pytest.mark.parametrize("key", [TOKEN, LEASE, TOMB])
@pytest.mark.parametrize("garbage", GARBAGE)
@pytest.mark.parametrize("forever", [False, True])
def test_garbage_counts_as_absent(scripts: Scripts, key: bytes, garbage: str, forever: bool) -> None:  # noqa: FBT001
    """It blocks no process, wins no comparison, and leads to no version that cannot be stored."""
    lasting: tuple[str | int, ...] = () if forever else ("PX", TTL)
    scripts.command("SET", key, GARBAGE[garbage], *lasting)
    assert scripts.write_tombstone(None)[1] < 2**52
    scripts.command("DEL", TOMB)
    scripts.command("SET", key, GARBAGE[garbage], *lasting)
    assert scripts.lease("a1") < 2**52
    scripts.command("DEL", LEASE)
    check_all_steps_work(scripts)


@pytest.mark.parametrize("script", ["acquire", "commit", "tombstone", "release", "read"])
def test_key_without_a_ttl_counts_as_absent(scripts: Scripts, script: str) -> None:
    """A token, lease or note that was made persistent would otherwise exist for ever."""
    version = scripts.lease("a1")
    scripts.command("SET", LEASE, f"a1:{version}")
    scripts.command("SET", TOKEN, value(version))
    scripts.command("SET", NOTE, "refused")
    match script:
        case "commit":
            assert scripts.commit("b2", 40) == "stored"
        case "tombstone":
            assert scripts.write_tombstone(40) == ("tombstone", 40)
        case "release":
            assert not scripts.release("a1", version)
        case "read":
            assert scripts.read() == (None, 0)
    scripts.command("DEL", TOKEN)
    check_all_steps_work(scripts)


def test_tombstone_without_a_ttl_counts(scripts: Scripts) -> None:
    """An invalid token does not become valid because the tombstone was made persistent."""
    scripts.write_tombstone(50)
    scripts.command("PERSIST", TOMB)
    assert scripts.commit("a1", 50) == "tombstone"
    assert scripts.lease("a1") > 50


def test_token_beside_its_tombstone_is_not_found(scripts: Scripts) -> None:
    """A restored backup may contain both; the tombstone counts."""
    scripts.command("SET", TOKEN, value(50), "PX", TTL)
    scripts.command("SET", TOMB, 50, "PX", TTL)
    assert scripts.read() == (None, 50)
    assert scripts.acquire("a1")[0] == "lease"
    assert scripts.write_tombstone(40) == ("tombstone", 50)


@pytest.mark.parametrize("loss", [*KEYS, b"FLUSHALL"])
@pytest.mark.parametrize("at", range(len(STEPS) + 1))
def test_loss_between_two_steps_prevents_no_later_step(scripts: Scripts, loss: bytes, at: int) -> None:
    """Whichever key is evicted at any time, later commits succeed, and an invalid version stays invalid."""
    version = invalid = known = 0
    for number, step in enumerate((*STEPS, "last")):
        if number == at:
            scripts.command(*([loss] if loss == b"FLUSHALL" else ["DEL", loss]))
        match step:
            case "acquire":
                kind, found, _left = scripts.acquire("a1", known=known)
                assert kind in {"lease", "token"}
                version = found if kind == "lease" else int.from_bytes(found[1:9])
                assert version > invalid
            case "commit":
                assert scripts.commit("a1", version) == "stored"
            case "tombstone":
                assert scripts.write_tombstone(version) == ("tombstone", version)
                invalid = known = version
        known = max(known, invalid)
        if scripts.command("EXISTS", TOMB):
            assert scripts.commit("c3", invalid) == "tombstone"
    scripts.command("DEL", *KEYS)
    check_all_steps_work(scripts)


@pytest.mark.parametrize(("first", "second"), list(itertools.permutations(["commit", "tombstone", "release"], 2)))
def test_every_step_may_be_repeated_in_any_order(scripts: Scripts, first: str, second: str) -> None:
    """A step that is repeated after a lost reply changes nothing."""
    version = scripts.lease("a1")
    steps: dict[str, Callable[[], object]] = {
        "commit": lambda: scripts.commit("a1", version),
        "tombstone": lambda: scripts.write_tombstone(version),
        "release": lambda: scripts.release("a1", version),
    }
    steps[first]()
    steps[second]()
    state = [scripts.command("GET", key) for key in KEYS]
    answer = steps[second]()
    assert [scripts.command("GET", key) for key in KEYS] == state
    assert answer == steps[second]()


def test_missing_permission_is_an_error(private_redis: RedisServer) -> None:
    """A refused GET is no key of another type: nothing counts as absent, and nothing is deleted."""
    private_redis.command("SET", TOKEN, value(50), "PX", TTL)
    private_redis.command("ACL", "SETUSER", "half", "on", ">half", "~*", "+@all", "-get", "-getrange")
    with private_redis.connect() as connection:
        connection.call("AUTH", "half", "half")
        with pytest.raises(RedisServerError, match=r"(?i)permission|can't run|NOPERM"):
            Scripts(connection).acquire("a1")
    assert private_redis.command("GET", TOKEN) == value(50)


def test_losers_do_not_extend_a_lease(scripts: Scripts) -> None:
    """However many processes ask for it, the lease expires when it would have."""
    scripts.lease("a1")
    scripts.command("PEXPIRE", LEASE, 2_000)
    for owner in ("b2", "c3", "d4"):
        assert scripts.acquire(owner)[0] == "held"
    assert scripts.command("PTTL", LEASE) <= 2_000
