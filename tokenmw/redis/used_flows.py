"""Remembers in Redis which flows of users were completed, so that another process refuses a repeated redirect.

A copy of the redirect and of the cookie that comes with it would send the code a second time, and a server that is
strict then revokes what the first one got (RFC 6749 §4.1.2).
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Final

from tokenmw.redaction import Unpicklable

if TYPE_CHECKING:
    from tokenmw.redis.connection import RedisConnection
    from tokenmw.redis.keys import KeyNames

__all__ = ["UsedFlows"]

_LASTS: Final = 660_000  # ms: as long as a cookie opens, with the seconds by which clocks may differ


class UsedFlows(Unpicklable):
    """The flows that were completed, for eleven minutes. Redis has a digest of each `state`.

    Args:
        connection: The connection.
        names: The names of keys.
    """

    __slots__ = ("_connection", "_names")

    def __init__(self, connection: RedisConnection, *, names: KeyNames) -> None:
        self._connection = connection
        self._names = names

    async def use(self, state: str) -> bool:
        """Note that a flow is completed. Return False if it was before.

        Raises:
            RedisUnavailable: It is not known, and may have been noted.
        """
        key = self._names.key(self._names.digest("flow", (state,)), "flow")
        # A name for this use, so that a command that is repeated after a lost reply finds its own.
        use = secrets.token_bytes(16)
        found: bytes = await self._connection.run("replace", (key,), (b"", use, _LASTS))
        return found == use

    def __repr__(self) -> str:
        return "<UsedFlows>"
