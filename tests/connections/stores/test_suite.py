"""The suite of connection stores accepts a correct store, and notices each fault of a broken one."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import pytest

from tests.connections.stores import broken_stores
from tests.connections.stores.broken_stores import MemoryStore, Row
from tokenmw.testing.connection_store_suite import ConnectionStoreSuite

# Store -> a test of the suite that must fail with it.
NOTICED_BY: dict[str, str] = {
    "LastWriteWins": "test_versions_are_compared",
    "ChecksThenWrites": "test_one_of_many_tasks_wins",
    "StaleReads": "test_every_store_reads_the_latest_value",
    "IgnoresVersionOnDelete": "test_a_delete_compares_versions",
    "CreatesOverExisting": "test_versions_are_compared",
    "IgnoresLetterCase": "test_keys_are_apart",
    "CutsValues": "test_values_are_kept_as_they_are",
    "ForgetsPages": "test_a_scan_finds_every_connection_once",
    "LosesItsLock": "test_a_cancelled_call_leaves_the_store_usable",
    "BelongsToOneLoop": "test_a_store_is_used_again_in_another_event_loop",
}


def over_one_dictionary(kind: type[MemoryStore]) -> Callable[[], MemoryStore]:
    """Return a function that makes stores over one dictionary."""
    rows: dict[tuple[str, str], Row] = {}
    return lambda: kind(rows)


class TestMemoryStore(ConnectionStoreSuite):
    """A correct store passes."""

    @pytest.fixture
    def make_store(self) -> Callable[[], MemoryStore]:
        """Return a function that makes a store."""
        return over_one_dictionary(MemoryStore)


def test_every_broken_store_is_listed() -> None:
    """Each store with a fault has a test that must notice it."""
    kinds = {
        name for name, kind in vars(broken_stores).items() if inspect.isclass(kind) and kind.__bases__ == (MemoryStore,)
    }
    assert kinds == set(NOTICED_BY)


@pytest.mark.parametrize("name", NOTICED_BY)
def test_a_fault_is_noticed(name: str) -> None:
    """The suite's test fails with the broken store."""
    test: Any = getattr(ConnectionStoreSuite(), NOTICED_BY[name])
    with pytest.raises((AssertionError, RuntimeError, ValueError)):
        test(make_store=over_one_dictionary(getattr(broken_stores, name)))


def test_a_suite_without_a_store_says_what_to_define() -> None:
    """Without the fixture, the error names it."""
    fixture: Any = ConnectionStoreSuite.make_store
    function = getattr(fixture, "__wrapped__", None) or fixture._get_wrapped_function()
    with pytest.raises(NotImplementedError, match="Define a fixture make_store"):
        function(ConnectionStoreSuite())
