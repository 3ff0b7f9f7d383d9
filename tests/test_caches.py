"""The local caches are bounded, evict in the right order, and never show their entries."""

from __future__ import annotations

import pytest

from tokenmw.caches import LRUCache, SecondChanceCache, TTLCache
from tokenmw.testing import ManualClock

SECRET = b"sk-live-1"


class Entry:
    """An entry of a `SecondChanceCache`."""

    def __init__(self, clock: ManualClock) -> None:
        self.used = clock.monotonic()
        self.placed = 0.0


def second_chance(maxsize: int = 3, idle: float = 100.0) -> tuple[SecondChanceCache[bytes, Entry], ManualClock]:
    """Make a full cache, with the keys 0, 1, 2 and so on."""
    clock = ManualClock()
    cache: SecondChanceCache[bytes, Entry] = SecondChanceCache(maxsize, idle, timer=clock.monotonic)
    for number in range(maxsize):
        cache[b"%d" % number] = Entry(clock)
    return cache, clock


def use(cache: SecondChanceCache[bytes, Entry], clock: ManualClock, *keys: bytes) -> None:
    """Use entries, as a request does."""
    for key in keys:
        found = cache.get(key)
        assert found is not None
        found.used = clock.monotonic()


def timed_cache(maxsize: int = 3, ttl: float = 10.0) -> tuple[TTLCache[bytes, int], ManualClock]:
    """Make a cache and the clock it uses."""
    clock = ManualClock()
    return TTLCache(maxsize, ttl, timer=clock.monotonic), clock


def test_the_least_recently_used_entry_is_evicted() -> None:
    """In both caches a read counts as use."""
    cache: LRUCache[bytes, int] = LRUCache(3)
    timed, _ = timed_cache()
    for one in (cache, timed):
        for number in range(3):
            one[b"%d" % number] = number
        assert one[b"0"] == 0
        one[b"3"] = 3
        assert {b"0", b"2", b"3"} == set(one)


def test_a_cache_never_has_more_entries_than_its_bound() -> None:
    """Three times as many entries as the bound are set, and the bound holds after each of them."""
    timed, clock = timed_cache(100, 1_000.0)
    for number in range(300):
        timed[b"%d" % number] = number
        clock.advance(1.0)
        assert len(timed) <= 100


def test_an_entry_expires_its_ttl_after_it_was_set() -> None:
    """Reading an entry does not extend its time; setting it again does."""
    cache, clock = timed_cache()
    cache[b"read"] = cache[b"set"] = 1
    clock.advance(9.9)
    assert cache[b"read"] == 1
    cache[b"set"] = 2
    clock.advance(0.2)
    assert b"read" not in cache
    with pytest.raises(KeyError):
        cache[b"read"]
    assert cache[b"set"] == 2


def test_expire_deletes_expired_entries() -> None:
    """Reads leave expired entries in memory; `expire` deletes and returns them."""
    cache, clock = timed_cache()
    cache[SECRET] = 1
    clock.advance(10.1)
    assert SECRET not in cache
    assert list(cache.expire() or ()) == [(SECRET, 1)]
    assert len(cache) == 0


def test_entries_does_not_count_as_use() -> None:
    """Housekeeping reads all entries every second; requests still decide which one is evicted."""
    cache: LRUCache[bytes, int] = LRUCache(3)
    for number in range(3):
        cache[b"%d" % number] = number
    assert cache[b"0"] == 0
    assert [(b"0", 0), (b"1", 1), (b"2", 2)] == sorted(cache.entries())
    cache[b"3"] = 3
    assert {b"0", b"2", b"3"} == set(cache)


def test_an_entry_in_use_gets_a_second_chance() -> None:
    """An entry that is used stays, however many entries are used only once; of those, the oldest is evicted."""
    cache, clock = second_chance()
    for number in range(3, 30):
        clock.advance(2.0)
        use(cache, clock, b"0")
        cache[b"%d" % number] = Entry(clock)
        assert {b"0", b"%d" % (number - 1), b"%d" % number} == set(cache)
        assert 3 == len(cache)


@pytest.mark.parametrize("idle", [0.1, 100.0, 3_600.0])
@pytest.mark.parametrize("after", [0.000_001, 0.01, 0.5, 0.99])
def test_a_use_right_after_the_first_one_counts(idle: float, after: float) -> None:
    """An entry that is used again within its first second stays, and one that is not used again is evicted."""
    cache, clock = second_chance(idle=idle)
    clock.advance(min(after, idle / 2))
    use(cache, clock, b"0")
    cache[b"3"] = Entry(clock)
    assert {b"0", b"2", b"3"} == set(cache)


def test_entries_that_are_placed_together_share_their_times() -> None:
    """For a second they do: a number of its own would cost each of them 24 bytes, and twice that with `used`."""
    clock = ManualClock()
    cache: SecondChanceCache[bytes, Entry] = SecondChanceCache(1_000, 3_600.0, timer=clock.monotonic)
    for number in range(1_000):
        clock.advance(0.01)
        cache[b"%d" % number] = Entry(clock)
    assert len({id(entry.placed) for entry in cache.entries.values()}) <= 11
    assert all(entry.used is entry.placed for entry in cache.entries.values())
    assert all(0.0 <= cache[b"%d" % n].used - cache[b"0"].used <= n * 0.01 for n in range(1_000))


def test_an_eviction_examines_a_bounded_number_of_entries() -> None:
    """If all entries are in use, one is evicted after sixteen second chances: no request examines all of them."""
    cache, clock = second_chance(100)
    clock.advance(2.0)
    use(cache, clock, *cache)
    cache[b"100"] = Entry(clock)
    assert 100 == len(cache)
    placed = [found.placed for found in map(cache.get, cache) if found is not None]
    assert 17 == placed.count(clock.monotonic())


def test_an_entry_that_is_set_again_is_the_newest() -> None:
    """It replaces the old one and is placed behind all others."""
    cache, clock = second_chance()
    cache[b"0"] = again = Entry(clock)
    assert again is cache.get(b"0")
    cache[b"3"] = Entry(clock)
    assert {b"0", b"2", b"3"} == set(cache)


def test_expire_checks_a_bounded_number_of_entries() -> None:
    """After a flood, the event loop is not blocked for all idle entries together; later calls delete the others."""
    cache, clock = second_chance(25_000)
    clock.advance(101.0)
    left: list[int] = []
    for _ in range(3):
        cache.expire()
        left.append(len(cache))
    assert [15_000, 5_000, 0] == left


def test_expire_deletes_idle_entries_and_keeps_those_in_use() -> None:
    """The time of the last use decides, not the time at which an entry was placed."""
    cache, clock = second_chance()
    clock.advance(60.0)
    use(cache, clock, b"1")
    clock.advance(60.0)
    cache[b"3"] = Entry(clock)
    assert [b"1", b"2", b"3"] == sorted(cache)
    cache.expire()
    assert [b"1", b"3"] == sorted(cache)
    clock.advance(60.0)
    cache.expire()
    assert [b"1", b"3"] == sorted(cache)  # it was in use when `expire` checked it
    clock.advance(60.0)
    cache.expire()
    assert 0 == len(cache)


def test_no_entry_is_in_a_repr() -> None:
    """Keys are API keys and credentials, and a repr ends up in tracebacks and logs."""
    cache, _ = timed_cache()
    recent: LRUCache[bytes, int] = LRUCache(3)
    for one in (cache, recent):
        one[SECRET] = 1
        assert "<1 of 3 entries>" == repr(one) == str(one)
    chance: SecondChanceCache[bytes, Entry] = SecondChanceCache(3, 10.0, timer=ManualClock().monotonic)
    chance[SECRET] = Entry(ManualClock())
    assert "<1 of 3 entries>" == repr(chance) == str(chance)
