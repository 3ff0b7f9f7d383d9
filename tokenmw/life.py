"""A broker's life: opened by the first who enters, closed by the last who leaves, once in each event loop.

Closing takes a moment: what waits for Redis is sent, flights come to their ends. Who comes in that moment waits for
nothing of it. The broker opens anew, and for a while two runtimes are in one loop: one that works, one that closes. So
a close ends what its own runtime has, and nothing else. The parts that last from one runtime to the next are started
by each, and each start returns what ends only what has begun with it.

Nor is a close cut short by what cancels the one that leaves, else its connections would stay. It is a task of its own,
and who leaves waits for it, so that nothing is left behind an `async with broker:`.

- A cancel scope of anyio cancels each await inside of it, the first one of leaving as well as the next. So the waiting
  is shielded from it. It is not long: closing has its bounds.
- A cancellation of asyncio comes once, and leaving begins when it has come. Another one that comes then wants the task
  to end, and it ends; the close goes on without it.
- An event loop that ends meanwhile cancels the close, too. Then nothing more is sent, but all is closed.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import anyio

from tokenmw.errors import ConfigurationError
from tokenmw.observe.throttle import LOGGER
from tokenmw.redaction import without_locals

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

    __slots__ = ("_closing", "_entered", "_parts", "_warned", "runtime")

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._entered = 0
        self._warned = False
        self._closing: set[asyncio.Task[None]] = set()  # an event loop does not keep its tasks alive
        self.runtime: Runtime | None = None

    @without_locals
    async def enter(self) -> None:
        """Open if this is the first."""
        runtime = self._open()
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
            closing = asyncio.get_running_loop().create_task(runtime.close(), name="tokenmw closing")
            self._closing.add(closing)
            closing.add_done_callback(self._closing.discard)
            with anyio.CancelScope(shield=True):
                await asyncio.wait([closing])
            closing.result()

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
        self._entered = 0  # who entered what was abandoned never leaves it
        return runtime
