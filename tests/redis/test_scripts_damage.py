"""The scripts meet keys that were evicted, flushed, or not written by us."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import pytest

from tests.redis.scripted import KEYS, LEASE, LIFE, NOTE, TOKEN, TOMB, Scripts, value
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
# Two rounds of a token's life: what happens between any two steps must not end it.
STEPS = ("acquire", "commit", "bury", "acquire", "commit")


def can_go_on(scripts: Scripts) -> None:
    """Claim that a token can be fetched, committed, found, invalidated and fetched again."""
    for _ in range(2):
        version = scripts.lease("z9")
        assert scripts.commit("z9", version) == "stored"
        assert scripts.acquire("y8")[:2] == ("token", value(version))
        assert scripts.bury(version) == ("buried", version)
        assert scripts.read() == (None, version)


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("kind", ["LPUSH", "SADD", "HSET"])
def test_a_key_of_another_type_is_as_good_as_none(scripts: Scripts, key: bytes, kind: str) -> None:
    """Nobody is refused, and what is there is overwritten in time."""
    words: tuple[str | bytes, ...] = (kind, key, "a", "b") if kind == "HSET" else (kind, key, "a")
    scripts.command(*words)
    assert scripts.read() == (None, 0)
    can_go_on(scripts)


@pytest.mark.parametrize("key", [TOKEN, LEASE, TOMB])
@pytest.mark.parametrize("garbage", GARBAGE)
@pytest.mark.parametrize("forever", [False, True])
def test_garbage_is_as_good_as_none(scripts: Scripts, key: bytes, garbage: str, forever: bool) -> None:  # noqa: FBT001
    """It blocks nobody, wins no comparison, and makes no number that cannot be stored."""
    lasting: tuple[str | int, ...] = () if forever else ("PX", LIFE)
    scripts.command("SET", key, GARBAGE[garbage], *lasting)
    assert scripts.bury(None)[1] < 2**52
    scripts.command("DEL", TOMB)
    scripts.command("SET", key, GARBAGE[garbage], *lasting)
    assert scripts.lease("a1") < 2**52
    scripts.command("DEL", LEASE)
    can_go_on(scripts)


@pytest.mark.parametrize("script", ["acquire", "commit", "bury", "release", "read"])
def test_keys_without_a_time_to_live_block_nobody(scripts: Scripts, script: str) -> None:
    """A token, lease or note that was made persistent counts as absent: it would be there for ever."""
    version = scripts.lease("a1")
    scripts.command("SET", LEASE, f"a1:{version}")
    scripts.command("SET", TOKEN, value(version))
    scripts.command("SET", NOTE, "refused")
    match script:
        case "commit":
            assert scripts.commit("b2", 40) == "stored"
        case "bury":
            assert scripts.bury(40) == ("buried", 40)
        case "release":
            assert not scripts.release("a1", version)
        case "read":
            assert scripts.read() == (None, 0)
    scripts.command("DEL", TOKEN)
    can_go_on(scripts)


def test_a_tombstone_without_a_time_to_live_still_holds(scripts: Scripts) -> None:
    """What was declared invalid does not come back because somebody made the tombstone persistent."""
    scripts.bury(50)
    scripts.command("PERSIST", TOMB)
    assert scripts.commit("a1", 50) == "dead"
    assert scripts.lease("a1") > 50


def test_a_token_that_is_dead_is_not_found(scripts: Scripts) -> None:
    """A replica's reordering or a restored backup may show both; the tombstone counts."""
    scripts.command("SET", TOKEN, value(50), "PX", LIFE)
    scripts.command("SET", TOMB, 50, "PX", LIFE)
    assert scripts.read() == (None, 50)
    assert scripts.acquire("a1")[0] == "lease"
    assert scripts.bury(40) == ("buried", 50)


@pytest.mark.parametrize("loss", [*KEYS, b"FLUSHALL"])
@pytest.mark.parametrize("at", range(len(STEPS) + 1))
def test_a_loss_between_two_steps_ends_nothing(scripts: Scripts, loss: bytes, at: int) -> None:
    """Whichever key is evicted at whatever moment: later commits are possible, and a buried version stays away."""
    version = buried = known = 0
    for number, step in enumerate((*STEPS, "end")):
        if number == at:
            scripts.command(*([loss] if loss == b"FLUSHALL" else ["DEL", loss]))
        match step:
            case "acquire":
                kind, found, _left = scripts.acquire("a1", known=known)
                assert kind in {"lease", "token"}
                version = found if kind == "lease" else int.from_bytes(found[1:9])
                assert version > buried
            case "commit":
                assert scripts.commit("a1", version) == "stored"
            case "bury":
                assert scripts.bury(version) == ("buried", version)
                buried = known = version
        known = max(known, buried)
        if scripts.command("EXISTS", TOMB):
            assert scripts.commit("c3", buried) == "dead"
    scripts.command("DEL", *KEYS)
    can_go_on(scripts)


@pytest.mark.parametrize(("first", "second"), list(itertools.permutations(["commit", "bury", "release"], 2)))
def test_every_step_may_be_repeated_in_any_order(scripts: Scripts, first: str, second: str) -> None:
    """A reply that was lost, and a call that comes twice, change nothing more."""
    version = scripts.lease("a1")
    steps: dict[str, Callable[[], object]] = {
        "commit": lambda: scripts.commit("a1", version),
        "bury": lambda: scripts.bury(version),
        "release": lambda: scripts.release("a1", version),
    }
    steps[first]()
    steps[second]()
    state = [scripts.command("GET", key) for key in KEYS]
    answer = steps[second]()
    assert [scripts.command("GET", key) for key in KEYS] == state
    assert answer == steps[second]()


def test_a_permission_that_is_missing_is_told(private_redis: RedisServer) -> None:
    """A GET that is refused is no key of another type: nothing is taken for absent, nothing is deleted."""
    private_redis.command("SET", TOKEN, value(50), "PX", LIFE)
    private_redis.command("ACL", "SETUSER", "half", "on", ">half", "~*", "+@all", "-get")
    with private_redis.connect() as connection:
        connection.call("AUTH", "half", "half")
        with pytest.raises(RedisServerError, match=r"(?i)permission|can't run|NOPERM"):
            Scripts(connection).acquire("a1")
    assert private_redis.command("GET", TOKEN) == value(50)


def test_the_time_of_a_lease_is_not_made_longer_by_losers(scripts: Scripts) -> None:
    """However many look, the lease ends when it would have."""
    scripts.lease("a1")
    scripts.command("PEXPIRE", LEASE, 2_000)
    for owner in ("b2", "c3", "d4"):
        assert scripts.acquire(owner)[0] == "held"
    assert scripts.command("PTTL", LEASE) <= 2_000
