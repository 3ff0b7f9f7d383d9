"""The tests that every `ConnectionStore` must pass: run them on yours with pytest.

    class TestMyStore(ConnectionStoreSuite):
        @pytest.fixture
        def make_store(self, tmp_path):
            return lambda: MyStore(tmp_path / "connections")     # each call: another store over the same data

        @pytest.fixture
        def process_store(self, tmp_path):                       # optional: a picklable function and its arguments
            return MyStore, (tmp_path / "connections",)

Each test is a function without `async`, which runs event loops of its own. The keys are random, so that the data need
not be empty.
"""

from __future__ import annotations

import asyncio
import os
import secrets
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import pytest

from tokenmw.connections.store import ConnectionKey, ConnectionStore
from tokenmw.testing.connection_store_processes import run_processes

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

__all__ = ["ConnectionStoreSuite"]

_MakeStore: TypeAlias = "Callable[[], ConnectionStore]"
_LARGEST: Final = 65_536  # bytes
_SECONDS: Final = 60.0
_PROCESSES: Final = 4


def _check(condition: object, text: str) -> None:
    if not condition:
        raise AssertionError(text)


def _key(app: str = "app", subject: str | None = None) -> ConnectionKey:
    subject = f"user-{secrets.token_hex(6)}" if subject is None else subject
    return ConnectionKey(app, subject, secrets.token_urlsafe(24))


async def _stored(store: ConnectionStore, key: ConnectionKey) -> tuple[int, bytes] | None:
    found = await store.load(key)
    return None if found is None else (found.version, found.value)


def _run(test: Callable[..., Coroutine[Any, Any, None]], make_store: _MakeStore, count: int = 1) -> None:
    async def main() -> None:
        stores = [make_store() for _ in range(count)]
        try:
            async with asyncio.timeout(_SECONDS):
                await test(*stores)
        finally:
            for store in stores:
                await store.aclose()

    asyncio.run(main())


class ConnectionStoreSuite:
    """Checks a store. Subclass it, and define the fixture `make_store`."""

    @pytest.fixture
    def make_store(self) -> _MakeStore:
        """Return a function that makes a store; all of them have the same data."""
        raise NotImplementedError("Define a fixture make_store that returns a function without arguments.")

    @pytest.fixture
    def process_store(self) -> tuple[Callable[..., ConnectionStore], tuple[Any, ...]] | None:
        """Return what makes the store in another process; without it, the tests of processes are skipped."""
        return None

    def test_versions_are_compared(self, make_store: _MakeStore) -> None:
        """A value is stored only over the version that the caller has seen, and counts up from 1."""

        async def test(store: ConnectionStore) -> None:
            _check(isinstance(store, ConnectionStore), "The store lacks a method of ConnectionStore.")
            key = _key()
            _check(await store.load(key) is None, "There must be nothing before the first save.")
            _check(await store.save(key, b"x", expected=3) is False, "Nothing can replace a version that is not there.")
            _check(await store.load(key) is None, "A refused save must store nothing.")
            _check(await store.save(key, b"one", expected=0) is True, "The first save has expected=0.")
            _check(await store.save(key, b"x", expected=0) is False, "expected=0 must refuse when there is a value.")
            _check(await _stored(store, key) == (1, b"one"), "The first version is 1.")
            for expected in range(1, 6):
                for wrong in {expected - 1, expected + 1, 0}:
                    refused = await store.save(key, b"x", expected=wrong)
                    _check(refused is False, f"Version {wrong} is not the present one, {expected}.")
                value = b"value %d" % expected
                _check(await store.save(key, value, expected=expected) is True, "The present version must be replaced.")
                _check(await _stored(store, key) == (expected + 1, value), "A save must count up by one.")

        _run(test, make_store)

    def test_a_delete_compares_versions(self, make_store: _MakeStore) -> None:
        """A value is deleted only if its version is the one that the caller has seen; then versions begin again."""

        async def test(store: ConnectionStore) -> None:
            key = _key()
            _check(await store.delete(key, expected=1) is False, "There is nothing to delete.")
            await store.save(key, b"one", expected=0)
            await store.save(key, b"two", expected=1)
            for wrong in (0, 1, 3):
                _check(await store.delete(key, expected=wrong) is False, f"Version {wrong} is not the present one, 2.")
            _check(await _stored(store, key) == (2, b"two"), "A refused delete must delete nothing.")
            _check(await store.delete(key, expected=2) is True, "The present version must be deleted.")
            _check(await store.load(key) is None, "It is deleted.")
            _check(await store.save(key, b"x", expected=2) is False, "A deleted version cannot be replaced.")
            _check(await store.save(key, b"new", expected=0) is True, "It can be created again.")
            _check(await _stored(store, key) == (1, b"new"), "After a delete, versions begin with 1 again.")

        _run(test, make_store)

    def test_keys_are_apart(self, make_store: _MakeStore) -> None:
        """App and subject are compared exactly: letter case, spaces, accents and where one ends."""

        async def test(store: ConnectionStore) -> None:
            tag = secrets.token_hex(4)
            pairs = [("app", f"{tag}user"), ("App", f"{tag}user"), ("app", f"{tag}User"), ("app", f"{tag}user ")]
            pairs += [("app2", f"{tag}user"), ("app", f"2{tag}user"), ("app", f"{tag}\u00e9"), ("app", f"{tag}e\u0301")]
            pairs += [("app", f"{tag}%"), ("app", f"{tag}_"), ("app", f"{tag}'\"\\;--"), ("app", f"{tag}\U0001f511")]
            keys = [_key(app, subject) for app, subject in pairs]
            for number, key in enumerate(keys):
                _check(await store.save(key, b"%d" % number, expected=0) is True, f"{key[:2]!r} is another connection.")
            for number, key in enumerate(keys):
                _check(await _stored(store, key) == (1, b"%d" % number), f"{key[:2]!r} has the value of another one.")

        _run(test, make_store)

    def test_values_are_kept_as_they_are(self, make_store: _MakeStore) -> None:
        """Every byte and 64 KiB are kept."""

        async def test(store: ConnectionStore) -> None:
            for value in (bytes(range(256)), b"\0" * 20, b"\xff\xfe" * 9, secrets.token_bytes(_LARGEST)):
                key = _key()
                await store.save(key, b"before", expected=0)
                await store.save(key, value, expected=1)
                _check(await _stored(store, key) == (2, value), f"A value of {len(value)} bytes was changed.")

        _run(test, make_store)

    def test_every_store_reads_the_latest_value(self, make_store: _MakeStore) -> None:
        """When `save` has returned True, another store reads that value, and no earlier one."""

        async def test(first: ConnectionStore, second: ConnectionStore) -> None:
            key = _key()
            for version in range(40):
                writer, reader = (first, second) if version % 2 else (second, first)
                value = b"%d" % version
                saved = await writer.save(key, value, expected=version)
                _check(saved is True, "The writer has not seen the latest version.")
                _check(await _stored(reader, key) == (version + 1, value), "An earlier value was read.")
            _check(await first.delete(key, expected=40) is True, "The deleting store has not seen the latest version.")
            _check(await second.load(key) is None, "A deleted value was read.")

        _run(test, make_store, 2)

    def test_one_of_many_tasks_wins(self, make_store: _MakeStore) -> None:
        """Of many saves at the same time over one version, one is done."""

        async def test(*stores: ConnectionStore) -> None:
            key = _key()
            for version in range(15):
                values = [b"%d of %d" % (number, version) for number in range(12)]
                saves = [
                    store.save(key, value, expected=version) for store, value in zip(stores * 4, values, strict=True)
                ]
                done = await asyncio.gather(*saves)
                _check(sum(done) == 1, f"{sum(done)} of {len(done)} saves over one version were done.")
                winner = values[done.index(True)]
                _check(await _stored(stores[0], key) == (version + 1, winner), "The stored value is not the winner's.")
            deleted = await asyncio.gather(*(store.delete(key, expected=15) for store in stores))
            _check(sum(deleted) == 1, "One delete of one version is done.")

        _run(test, make_store, 3)

    def test_a_cancelled_call_leaves_the_store_usable(self, make_store: _MakeStore) -> None:
        """Calls that are cancelled at any time hold neither a lock nor a connection, and store all or nothing."""

        async def test(store: ConnectionStore, other: ConnectionStore) -> None:
            key = _key()
            await store.save(key, b"0", expected=0)
            for turn in range(80):
                version, value = await _stored(other, key) or (0, b"")
                _check(value == b"%d" % (version - 1), "A value and its version do not belong together.")
                call: Any = store.save(key, b"%d" % version, expected=version) if turn % 2 else store.load(key)
                task = asyncio.ensure_future(call)
                if turn % 4 < 2:
                    for _ in range(turn // 4):
                        await asyncio.sleep(0)
                else:
                    await asyncio.sleep(turn / 20_000)
                task.cancel()
                await asyncio.wait([task])
            for _ in range(20):  # what was given up may still hold a lock for a moment
                version = (await _stored(store, key) or (0, b""))[0]
                if await store.save(key, b"%d" % version, expected=version):
                    return
            raise AssertionError("After cancelled calls, no save is done any more.")

        _run(test, make_store, 2)

    def test_a_scan_finds_every_connection_once(self, make_store: _MakeStore) -> None:
        """Pages of a scan have each connection once, in the same order each time, with its key and value."""

        async def test(store: ConnectionStore) -> None:
            keys = {_key(f"app{number % 3}"): b"%d" % number for number in range(25)}
            for key, value in keys.items():
                await store.save(key, b"before", expected=0)
                await store.save(key, value, expected=1)
            orders: list[list[ConnectionKey]] = []
            for limit in (7, 1000):
                order: list[ConnectionKey] = []
                while page := await store.scan(after=order[-1] if order else None, limit=limit):
                    _check(len(page) <= limit, "A page is longer than its limit.")
                    order += [key for key, _ in page]
                    for key, found in page:
                        if key in keys:
                            _check((found.version, found.value) == (2, keys[key]), "A scanned value is another one.")
                    _check(len(order) == len(set(order)), "A scan has returned a connection twice.")
                orders.append([key for key in order if key in keys])
            _check(set(orders[0]) == set(keys), "A scan has left out connections, or changed their keys.")
            _check(orders[0] == orders[1], "The order of a scan depends on its pages.")
            middle = orders[0][12]
            await store.delete(middle, expected=2)
            rest: list[ConnectionKey] = []
            while page := await store.scan(after=rest[-1] if rest else middle, limit=5):
                rest += [key for key, _ in page]
            _check([key for key in rest if key in keys] == orders[0][13:], "A scan does not go on after a deleted key.")

        _run(test, make_store)

    def test_a_store_is_used_again_in_another_event_loop(self, make_store: _MakeStore) -> None:
        """After `aclose`, the store works again, in the same event loop and in a later one."""
        store, key = make_store(), _key()

        async def use(version: int) -> None:
            async with asyncio.timeout(_SECONDS):
                for number in range(version, version + 2):
                    saves = [store.save(key, b"x", expected=number), *(store.load(key) for _ in range(8))]
                    done: list[Any] = await asyncio.gather(*saves)
                    _check(done[0] is True, "The version of the last event loop is not there.")
                    await store.aclose()
                    await store.aclose()

        for version in (0, 2, 4):
            asyncio.run(use(version))

    def test_a_stored_value_outlives_a_killed_process(self, make_store: _MakeStore, process_store: Any) -> None:
        """When `save` has returned True, the value is there although the process is killed at that moment."""
        key = self._in_processes(process_store, "killed", processes=1, saves=1)

        async def test(store: ConnectionStore) -> None:
            _check(await _stored(store, key) == (1, b"0 0"), "What a killed process has stored is not there.")

        _run(test, make_store)

    def test_one_of_many_processes_wins(self, make_store: _MakeStore, process_store: Any) -> None:
        """Of saves in several processes over one version, one is done: each that was done has a version of its own."""
        saves = 25
        key = self._in_processes(process_store, "finished", processes=_PROCESSES, saves=saves)

        async def test(store: ConnectionStore) -> None:
            version = (await _stored(store, key) or (0, b""))[0]
            _check(version == _PROCESSES * saves, f"Of {_PROCESSES * saves} saves that were done, {version} counted.")

        _run(test, make_store)

    def _in_processes(self, process_store: Any, end: str, *, processes: int, saves: int) -> ConnectionKey:
        if process_store is None:
            pytest.skip("There is no fixture process_store.")
        key = _key()
        codes = run_processes(process_store, key, processes=processes, saves=saves, end=end, seconds=_SECONDS)
        _check(set(codes) == {-9 if end == "killed" and os.name == "posix" else 0}, f"Exit codes of processes: {codes}")
        return key
