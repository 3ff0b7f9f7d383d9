"""Hints of other processes in one event loop: the tasks that listen, and that check what was announced."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from tokenmw.redaction import Unpicklable
from tokenmw.redis.hints import HintListener
from tokenmw.sessions.hints import SessionHints
from tokenmw.tokens.hints import TokenHints

if TYPE_CHECKING:
    from tokenmw.redis.connection import RedisConnection
    from tokenmw.runtime.data import BrokerData
    from tokenmw.runtime.fleet import Fleet
    from tokenmw.runtime.settings import Settings
    from tokenmw.sessions.sync import SessionSync
    from tokenmw.tokens.manager import TokenManager
    from tokenmw.tokens.sync import TokenSync

__all__ = ["Hints"]


class Hints(Unpicklable):
    """Listens from when it is made until it is closed.

    Attributes:
        listener: Listens to what other processes announce.
    """

    __slots__ = ("_sessions", "_tasks", "_tokens", "listener")

    def __init__(
        self,
        settings: Settings,
        data: BrokerData,
        *,
        redis: RedisConnection,
        tokens: TokenManager,
        token_sync: TokenSync,
        session_sync: SessionSync,
        fleet: Fleet,
    ) -> None:
        def usable() -> bool:
            return redis.usable

        limits, log = settings.limits, settings.log
        self._tokens = TokenHints(
            cache=data.tokens,
            manager=tokens,
            sync=token_sync,
            usable=usable,
            on_invalidated=fleet.soon,
            limits=limits,
            log=log,
        )
        self._sessions = SessionHints(cache=data.sessions, sync=session_sync, log=log)
        self.listener = HintListener(
            redis.client,
            names=settings.names,
            limits=limits,
            log=log,
            usable=usable,
            on_hint=self._add,
            on_listening=self._tokens.add_all,
        )
        loop = asyncio.get_running_loop()
        self._tasks = [
            loop.create_task(part.run(), name="tokenmw hints") for part in (self._tokens, self._sessions, self.listener)
        ]

    async def close(self) -> None:
        """Stop listening; waits for no server."""
        for task in self._tasks:
            task.cancel()
        await asyncio.wait(self._tasks)

    def _add(self, key: bytes) -> None:
        (self._tokens if key.endswith(b":token") else self._sessions).add(key)
