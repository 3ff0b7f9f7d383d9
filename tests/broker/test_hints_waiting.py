"""Hints that wait for a check keep nothing else in memory."""

from __future__ import annotations

import gc
import weakref
from typing import TYPE_CHECKING

import pytest

from tests.broker.hints import SECRET
from tests.brokers import runtime_of
from tokenmw import Limits, TokenBroker
from tokenmw.providers import StaticToken
from tokenmw.tokens.hints import TokenHints

if TYPE_CHECKING:
    from tests.servers import RedisServer
    from tokenmw.tokens.entry import TokenEntry


def _take_none(_: TokenHints) -> list[TokenEntry]:
    return []


async def test_what_waits_for_a_check_keeps_no_evicted_entry(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After hints of fifty tokens, of which the cache keeps five, no other entry is in memory."""
    entries: weakref.WeakSet[TokenEntry] = weakref.WeakSet()
    monkeypatch.setattr(TokenHints, "_take", _take_none)
    async with TokenBroker({}, redis=redis_server.url, secret_key=SECRET, limits=Limits(tokens=5)) as broker:
        hints = runtime_of(broker)._hints
        assert hints is not None

        async def use_and_hint(number: int) -> None:
            provider = StaticToken(lambda: "t", credential_id=f"c{number}")
            await broker.token(provider)
            entry = broker._credentials.entry(provider)
            assert entry.keys is not None
            hints._tokens.add(entry.keys.token)
            entries.add(entry)

        for number in range(50):
            await use_and_hint(number)
        gc.collect()
        assert 5 == len(entries)
