"""Each store does what a dictionary with versions does, whatever is called in which order."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, ClassVar

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from tests.servers import RedisServer
from tokenmw.connections import ConnectionKey, ConnectionStore, RedisStore, SQLStore

NUMBERS = st.integers(0, 4)
VALUES = st.binary(min_size=1, max_size=300)
VERSIONS = st.integers(0, 4)


class StoreMachine(RuleBasedStateMachine):
    """Two stores over the same data, beside a dictionary."""

    make_store: ClassVar[Any]

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.stores: list[ConnectionStore] = [type(self).make_store() for _ in range(2)]
        run = secrets.token_hex(8)
        self.keys = [ConnectionKey(f"{run}-app", f"{run}-{number}", f"{run}-{number}") for number in range(5)]
        self.model: dict[ConnectionKey, tuple[int, bytes]] = {}

    def run(self, call: Coroutine[Any, Any, Any]) -> Any:
        """Wait for a call."""
        return self.runner.run(call)

    @rule(number=NUMBERS, value=VALUES, off=st.sampled_from([0, 0, 0, -1, 1, 2]), by=st.integers(0, 1))
    def save(self, number: int, value: bytes, off: int, by: int) -> None:
        key = self.keys[number]
        version = self.model.get(key, (0, b""))[0]
        expected = max(0, version + off)
        done = self.run(self.stores[by].save(key, value, expected=expected))
        assert done is (expected == version)
        if done:
            self.model[key] = (version + 1, value)

    @rule(number=NUMBERS, off=st.sampled_from([0, 0, -1, 1]), by=st.integers(0, 1))
    def delete(self, number: int, off: int, by: int) -> None:
        key = self.keys[number]
        version = self.model.get(key, (0, b""))[0]
        expected = max(0, version + off)
        done = self.run(self.stores[by].delete(key, expected=expected))
        assert done is (key in self.model and expected == version)
        if done:
            del self.model[key]

    @rule(number=NUMBERS, by=st.integers(0, 1))
    def load(self, number: int, by: int) -> None:
        found = self.run(self.stores[by].load(self.keys[number]))
        assert self.model.get(self.keys[number]) == (None if found is None else (found.version, found.value))

    @rule(limit=st.integers(1, 6), by=st.integers(0, 1))
    def scan(self, limit: int, by: int) -> None:
        found: dict[ConnectionKey, tuple[int, bytes]] = {}
        after: ConnectionKey | None = None
        while page := self.run(self.stores[by].scan(after=after, limit=limit)):
            for key, stored in page:
                assert key not in found
                found[key] = (stored.version, stored.value)
            after = page[-1][0]
        assert self.model == {key: one for key, one in found.items() if key in self.keys}

    @rule(by=st.integers(0, 1))
    def close(self, by: int) -> None:
        self.run(self.stores[by].aclose())

    @invariant()
    def versions_count_from_one(self) -> None:
        assert all(version >= 1 for version, _ in self.model.values())

    def teardown(self) -> None:
        for key, (version, _) in self.model.items():
            self.run(self.stores[0].delete(key, expected=version))
        for store in self.stores:
            self.run(store.aclose())
        self.runner.close()


@pytest.mark.parametrize("kind", ["sqlite", "postgresql", "redis"])
def test_a_store_does_what_a_dictionary_does(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """Every reply is that of the dictionary, by whichever of two stores it is asked for."""
    make: Callable[[], ConnectionStore]
    if kind == "redis":
        redis: RedisServer = request.getfixturevalue("redis_server")
        make = lambda: RedisStore(redis.url)  # noqa: E731  three of a kind
    else:
        url = f"sqlite+aiosqlite:///{tmp_path}/connections.db"
        url = url if kind == "sqlite" else request.getfixturevalue("postgres").url
        make = lambda: SQLStore(url, create=True)  # noqa: E731  three of a kind
    machine = type("Machine", (StoreMachine,), {"make_store": staticmethod(make)})
    run_state_machine_as_test(machine, settings=settings(max_examples=12, stateful_step_count=25, deadline=None))
