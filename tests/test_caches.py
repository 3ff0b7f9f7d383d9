"""The local caches are bounded, forget in the right order, and show nothing of what they hold."""

from __future__ import annotations

import pytest

from tokenmw.caches import LRUCache, SecondChanceCache, TTLCache
from tokenmw.testing import ManualClock

SECRET = b"sk-live-1"


class Copy:
    """An entry with times of its own."""

    def __init__(self, clock: ManualClock) -> None:
        self.used = clock.monotonic()
        self.placed = 0.0


def second_chance(maxsize: int = 3, idle: float = 100.0) -> tuple[SecondChanceCache[bytes, Copy], ManualClock]:
    """Make one that is full, with the entries 0, 1, 2 and so on."""
    clock = ManualClock()
    cache: SecondChanceCache[bytes, Copy] = SecondChanceCache(maxsize, idle, timer=clock.monotonic)
    for number in range(maxsize):
        cache[b"%d" % number] = Copy(clock)
    return cache, clock


def use(cache: SecondChanceCache[bytes, Copy], clock: ManualClock, *keys: bytes) -> None:
    """Use entries, as a request does."""
    for key in keys:
        found = cache.get(key)
        assert found is not None
        found.used = clock.monotonic()


def lasting(maxsize: int = 3, ttl: float = 10.0) -> tuple[TTLCache[bytes, int], ManualClock]:
    """Make a cache on a clock of its own."""
    clock = ManualClock()
    return TTLCache(maxsize, ttl, timer=clock.monotonic), clock


def test_the_entry_used_longest_ago_makes_room() -> None:
    """Both caches are bounded, and a read counts as use."""
    cache: LRUCache[bytes, int] = LRUCache(3)
    timed, _ = lasting()
    for one in (cache, timed):
        for number in range(3):
            one[b"%d" % number] = number
        assert one[b"0"] == 0
        one[b"3"] = 3
        assert {b"0", b"2", b"3"} == set(one)


def test_many_times_the_bound_stays_within_the_bound() -> None:
    """Whatever callers send, there are never more entries than the bound."""
    timed, clock = lasting(100, 1_000.0)
    for number in range(300):
        timed[b"%d" % number] = number
        clock.advance(1.0)
        assert len(timed) <= 100


def test_an_entry_lasts_its_time_from_when_it_was_set() -> None:
    """Reading does not make it last longer, setting it again does."""
    cache, clock = lasting()
    cache[b"read"] = cache[b"set"] = 1
    clock.advance(9.9)
    assert cache[b"read"] == 1
    cache[b"set"] = 2
    clock.advance(0.2)
    assert b"read" not in cache
    with pytest.raises(KeyError):
        cache[b"read"]
    assert cache[b"set"] == 2


def test_what_has_ended_is_gone_after_expire() -> None:
    """Reads leave ended entries where they are; housekeeping takes them out of memory."""
    cache, clock = lasting()
    cache[SECRET] = 1
    clock.advance(10.1)
    assert SECRET not in cache
    assert list(cache.expire() or ()) == [(SECRET, 1)]
    assert len(cache) == 0


def test_names_are_of_one_moment_and_no_use() -> None:
    """Looking at all keys meets none that ends meanwhile, and leaves the order of use as it is."""
    clock = ManualClock()

    def runs() -> float:
        clock.advance(0.5)  # as real time does, between any two looks at it
        return clock.monotonic()

    cache: TTLCache[bytes, int] = TTLCache(3, 10.0, timer=runs)
    for number in range(3):
        cache[b"%d" % number] = number
    assert cache[b"0"] == 0
    clock.advance(7.0)
    assert sorted(cache.names()) == [b"0", b"1", b"2"]
    still: TTLCache[bytes, int] = TTLCache(3, 10.0, timer=ManualClock().monotonic)
    for number in range(3):
        still[b"%d" % number] = number
    assert still[b"0"] == 0
    assert len(still.names()) == 3
    still[b"3"] = 3
    assert {b"0", b"2", b"3"} == set(still)


def test_looking_at_all_entries_is_no_use() -> None:
    """Housekeeping looks at each one every second; what makes room is still what requests used longest ago."""
    cache: LRUCache[bytes, int] = LRUCache(3)
    for number in range(3):
        cache[b"%d" % number] = number
    assert cache[b"0"] == 0
    assert [(b"0", 0), (b"1", 1), (b"2", 2)] == sorted(cache.entries())
    cache[b"3"] = 3
    assert {b"0", b"2", b"3"} == set(cache)


def test_an_entry_in_use_gets_another_chance() -> None:
    """However many come only once, what is used in between stays; of the others the oldest makes room."""
    cache, clock = second_chance()
    for number in range(3, 30):
        clock.advance(2.0)
        use(cache, clock, b"0")
        cache[b"%d" % number] = Copy(clock)
        assert {b"0", b"%d" % (number - 1), b"%d" % number} == set(cache.names())
        assert 3 == len(cache)


def test_many_uses_at_first_sight_are_one() -> None:
    """A key that is seen in a burst and never again is the first to go."""
    cache, clock = second_chance()
    clock.advance(0.5)
    use(cache, clock, b"0")
    clock.advance(5.0)
    use(cache, clock, b"1")
    cache[b"3"] = Copy(clock)
    assert {b"1", b"2", b"3"} == set(cache.names())


def test_making_room_looks_at_so_many_entries_and_no_more() -> None:
    """If all are in use, one of them goes; a request does not go through a million."""
    cache, clock = second_chance(100)
    clock.advance(2.0)
    use(cache, clock, *cache.names())
    cache[b"100"] = Copy(clock)
    assert 100 == len(cache)
    placed = [found.placed for found in map(cache.get, cache.names()) if found is not None]
    assert 17 == placed.count(clock.monotonic())


def test_an_entry_set_again_is_the_newest() -> None:
    """A reset session is one that has just been seen, and takes no more room."""
    cache, clock = second_chance()
    cache[b"0"] = again = Copy(clock)
    assert again is cache.get(b"0")
    cache[b"3"] = Copy(clock)
    assert {b"0", b"2", b"3"} == set(cache.names())


def test_idle_entries_are_gone_after_expire_and_those_in_use_stay() -> None:
    """Whenever they were first seen; one that has been idle gets no second chance either."""
    cache, clock = second_chance()
    clock.advance(60.0)
    use(cache, clock, b"1")
    clock.advance(60.0)
    cache[b"3"] = Copy(clock)
    assert [b"1", b"2", b"3"] == sorted(cache.names())
    cache.expire()
    assert [b"1", b"3"] == sorted(cache.names())
    clock.advance(60.0)
    cache.expire()
    assert [b"1", b"3"] == sorted(cache.names())  # it was in use when it was looked at
    clock.advance(60.0)
    cache.expire()
    assert 0 == len(cache)


def test_no_entry_shows_in_a_repr() -> None:
    """Keys are API keys and credentials; a repr ends up in tracebacks and logs."""
    cache, _ = lasting()
    recent: LRUCache[bytes, int] = LRUCache(3)
    for one in (cache, recent):
        one[SECRET] = 1
        assert "<1 of 3 entries>" == repr(one) == str(one)
    chance: SecondChanceCache[bytes, Copy] = SecondChanceCache(3, 10.0, timer=ManualClock().monotonic)
    chance[SECRET] = Copy(ManualClock())
    assert "<1 of 3 entries>" == repr(chance) == str(chance)
