"""The task that searches the sessions which another process has announced as reset."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest

from tokenmw.observe.throttle import ThrottledLog
from tokenmw.sessions import hints
from tokenmw.sessions.hints import SessionHints
from tokenmw.testing import ManualClock

if TYPE_CHECKING:
    from collections.abc import Sequence


class LosingSync:
    """Reads sessions with a client that loses a cancellation, as asyncio.wait_for could on Python 3.11."""

    def __init__(self) -> None:
        self.began = asyncio.Event()

    def key(self, key: bytes, _session: object) -> bytes:
        return key

    async def read_again(self, _keys: Sequence[bytes]) -> None:
        self.began.set()
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(60)


async def test_a_cancellation_that_a_client_loses_ends_the_task_without_a_pause(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """After a search of many sessions the pause takes seconds, for which closing the broker waited."""
    monkeypatch.setattr(hints, "_LEAST_PAUSE", 60.0)
    cache: Any = {b"key": object()}
    sync: Any = LosingSync()
    one = SessionHints(cache=cache, sync=sync, log=ThrottledLog(ManualClock()))
    task = asyncio.create_task(one.run())
    one.add(b"key")
    await asyncio.wait_for(sync.began.wait(), 5)
    task.cancel()
    await asyncio.wait([task], timeout=1)
    assert task.done()
