"""A broker's life: opened by the first who enters, closed by the last who leaves, once in each event loop.

Closing takes a moment: what waits for Redis is sent, flights come to their ends. Who comes in that moment waits for
nothing of it. The broker opens anew, and for a while two runtimes are in one loop: one that works, one that closes. So
a close ends what its own runtime has, and nothing else. The parts that last from one runtime to the next are started
by each, and each start returns what ends only what has begun with it.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from tokenmw.errors import ConfigurationError
from tokenmw.frames import without_locals
from tokenmw.observe.throttle import LOGGER

if TYPE_CHECKING:
    from tokenmw.parts import Parts
    from tokenmw.runtime import Runtime

__all__ = ["Life"]

_OPENS_ITSELF = (
    "The broker was used before it was opened, and opens itself; nobody will close it. Mend: `async with broker:`, "
    "lifespan=broker.lifespan, or TokenMiddleware under a server that sends lifespan events."
)
_ASYNCIO_ONLY = (
    "tokenmw runs on asyncio only, because its Redis client does: start this program with asyncio, not with trio."
)


class Life:
    """Counts who has entered, and holds what lives in the event loop meanwhile.

    What was left over from a loop that has ended, or from before a fork, is abandoned: its sockets belong to the
    other one, and closing them here would end them there.
    """

    __slots__ = ("_entered", "_parts", "_warned", "runtime")

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._entered = 0
        self._warned = False
        self.runtime: Runtime | None = None

    @without_locals
    async def enter(self) -> None:
        """Open if this is the first."""
        before = self.runtime
        runtime = self._open()
        if runtime is not before:
            self._entered = 0
        self._entered += 1
        if self._entered == 1:
            # Now, so that the first requests are shared.
            try:
                await runtime.connect()
            except BaseException:  # who is cancelled while entering will never leave
                await self.leave()
                raise

    @without_locals
    async def leave(self) -> None:
        """Close if this is the last."""
        self._entered -= 1
        if self._entered <= 0 and self.runtime is not None:
            runtime, self.runtime = self.runtime, None
            await runtime.close()

    def ensure(self) -> None:
        """Open if nobody has; then nobody closes it, which is said once."""
        before = self.runtime
        if self._open() is not before and not self._warned:
            self._warned = True
            LOGGER.warning(_OPENS_ITSELF)

    def _open(self) -> Runtime:
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            raise ConfigurationError(_ASYNCIO_ONLY) from None
        runtime = self.runtime
        if runtime is not None and runtime.here:
            return runtime
        if runtime is not None and runtime.elsewhere:
            raise ConfigurationError("This TokenBroker is open in another running event loop: make one for each loop.")
        self._parts.warn_once()
        self.runtime = runtime = self._parts.open()
        return runtime
