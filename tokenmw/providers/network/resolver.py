"""Host names to addresses, in threads of its own, so that names that do not resolve delay only themselves.

`getaddrinfo` blocks its thread for 5 to 30 s when a name's servers do not answer, and nothing can stop it. An event
loop runs it in its default executor, of six threads on a machine with two processors: six such names, and no other name
is resolved. Here each lookup has a thread of its own, and their number is bounded by what is known of the host:

- hosts that were resolved last time: 8 threads;
- hosts that were never looked up, and hosts that were resolved once and failed since: 16;
- hosts that were never resolved and kept a thread busy for half a second: 4;
- any lookups of the first two sorts that have run for half a second, so that others can begin: 64.

A name has at most one lookup at a time. Addresses are not kept: `getaddrinfo` does not say how long they are valid, and
connections are kept open.
"""

from __future__ import annotations

import asyncio
import enum
import socket
import threading
import time
from contextlib import suppress
from typing import Final

from tokenmw.caches import LRUCache

__all__ = ["MAX_THREADS", "Resolver"]

_MAX_HOSTS: Final = 4096  # whose last lookup is remembered
_SLOW: Final = 0.5  # seconds; a lookup takes some milliseconds, or some seconds


class _Share(enum.Enum):
    """The sorts of lookups; the value is the number of threads for each."""

    RESOLVED = 8
    UNKNOWN = 16
    FAILED = 4
    SLOW = 64


MAX_THREADS: Final = sum(share.value for share in _Share)


class _Lookup:
    """One lookup. `result` is the addresses or the error: an exception that nobody awaits would be logged."""

    __slots__ = ("host", "known", "result", "share", "waiters")

    def __init__(self, host: str, known: _Share, result: asyncio.Future[tuple[str, ...] | OSError]) -> None:
        self.host = host
        self.known = self.share = known
        self.result = result
        self.waiters = 0


class Resolver:
    """Resolves host names for one event loop."""

    __slots__ = ("_history", "_lookups", "_loop", "_threads", "_waiting")

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._history: LRUCache[str, _Share] = LRUCache(_MAX_HOSTS)
        self._lookups: dict[str, _Lookup] = {}
        self._waiting: dict[_Share, dict[str, _Lookup]] = {share: {} for share in _Share}  # for a thread, in order
        self._threads = dict.fromkeys(_Share, 0)

    async def resolve(self, host: str) -> tuple[str, ...]:
        """Return a host's addresses in the system's order, each once.

        Raises:
            OSError: The host has none, or no thread could be started. Mostly a `socket.gaierror`.
        """
        lookup = self._lookups.get(host)
        if lookup is None:
            known = self._history.get(host, _Share.UNKNOWN)
            lookup = self._lookups[host] = _Lookup(host, known, self._loop.create_future())
            self._waiting[known][host] = lookup
            self._start(known)
        lookup.waiters += 1
        try:
            result = await asyncio.shield(lookup.result)
        finally:
            lookup.waiters -= 1
            if lookup.waiters == 0 and self._waiting[lookup.known].pop(host, None) is not None:
                del self._lookups[host]
        if isinstance(result, OSError):
            raise _again(result)  # each waiter its own: raising adds a traceback
        return result

    def _start(self, share: _Share) -> None:
        waiting = self._waiting[share]
        while waiting and self._threads[share] < share.value:
            lookup = waiting.pop(next(iter(waiting)))
            self._threads[share] += 1
            # A daemon: `getaddrinfo` cannot be stopped, and must not delay the end of the program.
            thread = threading.Thread(target=self._run, args=(lookup,), name="tokenmw name lookup", daemon=True)
            try:
                thread.start()
            except RuntimeError as error:  # there can be no more threads, or the interpreter is ending
                self._loop.call_soon(self._finish, lookup, OSError(str(error)), 0.0)
            else:
                if share is not _Share.FAILED:
                    self._loop.call_later(_SLOW, self._set_aside, lookup)

    def _set_aside(self, lookup: _Lookup) -> None:
        if lookup.result.done():
            return
        if self._threads[_Share.SLOW] == _Share.SLOW.value:
            self._loop.call_later(_SLOW, self._set_aside, lookup)  # until one of those has ended
            return
        share, lookup.share = lookup.share, _Share.SLOW
        self._threads[_Share.SLOW] += 1
        self._threads[share] -= 1
        self._start(share)

    def _run(self, lookup: _Lookup) -> None:
        began = time.monotonic()
        result: tuple[str, ...] | OSError
        try:
            found = socket.getaddrinfo(lookup.host, None, type=socket.SOCK_STREAM)
            addresses = tuple(dict.fromkeys(str(address[0]) for *_, address in found))
            result = addresses or socket.gaierror(socket.EAI_NONAME, "no address")
        except OSError as error:
            result = _again(error)  # without the traceback
        except UnicodeError:  # a label that is empty or too long
            result = socket.gaierror(socket.EAI_NONAME, "not a host name")
        except BaseException:  # noqa: BLE001  else the lookup would never end, nor any other one of this name
            result = socket.gaierror(socket.EAI_FAIL, "the lookup raised")
        with suppress(RuntimeError):  # the event loop is closed, and nobody waits
            self._loop.call_soon_threadsafe(self._finish, lookup, result, time.monotonic() - began)

    def _finish(self, lookup: _Lookup, result: tuple[str, ...] | OSError, seconds: float) -> None:
        self._threads[lookup.share] -= 1
        del self._lookups[lookup.host]
        if not isinstance(result, OSError):
            self._history[lookup.host] = _Share.RESOLVED
        elif lookup.known is _Share.RESOLVED:
            self._history[lookup.host] = _Share.UNKNOWN
        elif seconds >= _SLOW and lookup.host not in self._history:
            self._history[lookup.host] = _Share.FAILED
        lookup.result.set_result(result)
        self._start(lookup.share)


def _again(error: OSError) -> OSError:
    """Return an equal error without a traceback, whatever the constructor of its class takes."""
    kind = socket.gaierror if isinstance(error, socket.gaierror) else OSError
    return kind(*error.args[:2])  # Python chooses the subclass by the number
