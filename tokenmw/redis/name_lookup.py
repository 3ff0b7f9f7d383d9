"""Host names of Redis to addresses, in threads of their own, so that a name that does not resolve delays only Redis.

`getaddrinfo` blocks its thread for 5 to 30 s when a name's servers do not answer, and nothing can stop it. An event
loop runs it in its default executor, of six threads on a machine with two processors. There the connection attempts to
one such host take all threads from the rest of the program, whose lookups of other hosts then fail. Here a host has at
most one lookup at a time, however many connections wait for it.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import threading
from contextlib import suppress
from typing import Final, TypeAlias

from tokenmw.redaction import Unpicklable

__all__ = ["NameLookups"]

_MAX_THREADS: Final = 16  # only the nodes of a cluster have several names

_Result: TypeAlias = tuple[str, ...] | OSError


class NameLookups(Unpicklable):
    """Looks up the host names of one client, in one event loop."""

    __slots__ = ("_running",)

    def __init__(self) -> None:
        self._running: dict[str, asyncio.Future[_Result]] = {}

    async def addresses(self, host: str, *, seconds: float | None) -> tuple[str, ...]:
        """Return a host's addresses in the system's order, each once.

        Raises:
            OSError: It has none, or they are not known within `seconds`. Mostly a `socket.gaierror`.
        """
        with suppress(ValueError):
            ipaddress.ip_address(host)
            return (host,)
        try:
            async with asyncio.timeout(seconds):
                result = await asyncio.shield(await self._lookup(host))
        except TimeoutError:
            raise socket.gaierror(socket.EAI_AGAIN, "the lookup of the host name takes too long") from None
        if isinstance(result, OSError):
            raise _again(result)  # each waiter its own: raising adds a traceback
        return result

    async def _lookup(self, host: str) -> asyncio.Future[_Result]:
        while host not in self._running and len(self._running) >= _MAX_THREADS:
            await asyncio.wait(self._running.values(), return_when=asyncio.FIRST_COMPLETED)
        if host not in self._running:
            loop = asyncio.get_running_loop()
            self._running[host] = loop.create_future()
            # A daemon: `getaddrinfo` cannot be stopped, and must not delay the end of the program.
            thread = threading.Thread(target=self._run, args=(host, loop), name="tokenmw Redis lookup", daemon=True)
            try:
                thread.start()
            except RuntimeError as error:  # there can be no more threads, or the interpreter is ending
                loop.call_soon(self._finish, host, OSError(str(error)))
        return self._running[host]

    def _run(self, host: str, loop: asyncio.AbstractEventLoop) -> None:
        result: _Result
        try:
            found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
            addresses = tuple(dict.fromkeys(str(address[0]) for *_, address in found))
            result = addresses or socket.gaierror(socket.EAI_NONAME, "no address")
        except OSError as error:
            result = _again(error)  # without the traceback
        except UnicodeError:  # a label that is empty or too long
            result = socket.gaierror(socket.EAI_NONAME, "not a host name")
        except BaseException:  # noqa: BLE001  else the lookup would never end, nor any other one of this name
            result = socket.gaierror(socket.EAI_FAIL, "the lookup raised")
        with suppress(RuntimeError):  # the event loop is closed, and nothing waits
            loop.call_soon_threadsafe(self._finish, host, result)

    def _finish(self, host: str, result: _Result) -> None:
        self._running.pop(host).set_result(result)


def _again(error: OSError) -> OSError:
    """Return an equal error without a traceback, whatever the constructor of its class takes."""
    kind = socket.gaierror if isinstance(error, socket.gaierror) else OSError
    return kind(*error.args[:2])  # Python chooses the subclass by the number
