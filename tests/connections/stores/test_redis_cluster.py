"""`RedisStore` in a cluster: it passes the suite of stores, and a moved slot or a lost primary costs no connection."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from tests.faults.test_failover import Cluster
from tests.redis.clusters import needs_cluster_urls
from tests.servers import RedisServer
from tokenmw.connections import ConnectionKey, RedisStore, StoreUnavailable
from tokenmw.testing.connection_store_suite import ConnectionStoreSuite

pytestmark = needs_cluster_urls


@pytest.fixture(scope="module")
def one_node() -> Iterator[str]:
    """The URL of a cluster of one node that has all slots, and persists."""
    with RedisServer("--cluster-enabled", "yes", "--appendonly", "yes") as server:
        server.command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
        deadline = time.monotonic() + 10
        while b"cluster_state:ok" not in server.command("CLUSTER", "INFO"):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        yield f"redis+cluster://127.0.0.1:{server.port}"


def open_store(url: str) -> RedisStore:
    """Make a store."""
    return RedisStore(url)


class TestOneNode(ConnectionStoreSuite):
    """The suite, through the client of a cluster."""

    @pytest.fixture
    def make_store(self, one_node: str) -> Callable[[], RedisStore]:
        """Return a function that makes a store."""
        return lambda: open_store(one_node)

    @pytest.fixture
    def process_store(self, one_node: str) -> Any:
        """Return what makes a store in another process."""
        return open_store, (one_node,)


async def test_more_calls_at_once_than_connections(one_node: str) -> None:
    """They wait for one another, as with a single server."""
    store = RedisStore(one_node)
    keys = [ConnectionKey("crm", f"crowd-{number}", f"crowd-{number:026}") for number in range(200)]
    assert all(await asyncio.gather(*(store.save(key, b"x", expected=0) for key in keys)))
    assert all(await asyncio.gather(*(store.load(key) for key in keys)))
    await store.aclose()


class Writer:
    """Writes one connection again and again, and knows what was confirmed.

    Attributes:
        confirmed: The version of the last write that was confirmed.
        refused: How many calls failed.
        paused: Whether it writes nothing for now.
    """

    def __init__(self, store: RedisStore, number: int) -> None:
        self._store = store
        self.key = ConnectionKey("crm", f"user-{number}", f"{number:032}")
        self.confirmed = 0
        self.refused = 0
        self.paused = False

    async def write(self, seconds: float) -> None:
        """Write for some seconds: no confirmed version is lost, and no version is confirmed twice."""
        ends = time.monotonic() + seconds
        while time.monotonic() < ends:
            if self.paused:
                await asyncio.sleep(0.01)
                continue
            try:
                found = await self._store.load(self.key)
                version = 0 if found is None else found.version
                assert version >= self.confirmed
                assert found is None or found.value == b"%d" % version
                assert await self._store.save(self.key, b"%d" % (version + 1), expected=version)
                self.confirmed = version + 1
            except StoreUnavailable:
                self.refused += 1
            await asyncio.sleep(0.01)


@pytest.mark.campaign
async def test_a_slot_is_moved_and_a_primary_is_lost() -> None:
    """All rows are in one slot: its move fails a few calls, and a replica that takes over has what it was sent."""
    with ExitStack() as stack:
        cluster = Cluster(stack)
        await cluster.meet()
        slot: int = cluster.nodes[0].command("CLUSTER", "KEYSLOT", "{connections}")
        owner: int = slot * 3 // 16384
        source, target = cluster.nodes[owner], cluster.nodes[(owner + 1) % 3]
        store = RedisStore(cluster.url)
        writers = [Writer(store, number) for number in range(5)]
        writing = asyncio.gather(*(writer.write(25.0) for writer in writers))
        await asyncio.sleep(2)
        await asyncio.to_thread(cluster.move, slot, source, target)
        await asyncio.sleep(4)
        moved = [writer.confirmed for writer in writers]
        assert all(moved)
        for writer in writers:  # a failover may lose what the replica has not got yet: that is named
            writer.paused = True
        await asyncio.sleep(0.5)
        target.kill()
        for writer in writers:
            writer.paused = False
        await asyncio.sleep(8)
        moved = [writer.confirmed for writer in writers]  # while there was no primary, and from the replica
        await writing
        assert all(writer.confirmed > before for writer, before in zip(writers, moved, strict=True))
        listed = await store.scan(after=None, limit=100)
        assert {writer.key for writer in writers} == {key for key, _ in listed}
        await store.aclose()
