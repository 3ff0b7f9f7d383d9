"""Records all that a Redis server receives and stores, and what it reports about its clients."""

from __future__ import annotations

import re
import threading
from typing import TYPE_CHECKING, Any, Final

from tests.canary.credentials import REDIS_PASSWORD
from tests.resp import RespConnection

if TYPE_CHECKING:
    from tests.servers import RedisServer

__all__ = ["RedisMonitor"]

_WORD: Final = re.compile(rb'"((?:[^"\\]|\\.)*)"')


class RedisMonitor:
    """Monitors a server and keeps all that it records.

    Attributes:
        commands: The lines of MONITOR.
        names: The names of the keys, at each call of `record_contents`.
        values: The DUMP of each of these keys, in the same order.
        reports: SLOWLOG, CLIENT LIST, INFO and the server's log.
    """

    def __init__(self, server: RedisServer) -> None:
        self._server = server
        self._monitors: list[tuple[RespConnection, threading.Thread]] = []
        self.commands: list[bytes] = []
        self.values: list[bytes] = []
        self.names: list[bytes] = []
        self.reports: list[bytes] = []

    def start(self) -> None:
        """Start recording commands. Call it again after each start of the server."""
        with self._server.connect() as admin:
            # A compressed value could not be searched. With 0, SLOWLOG has every command.
            for option in ("rdbcompression no", "slowlog-log-slower-than 0", "slowlog-max-len 100000"):
                admin.call("CONFIG", "SET", *option.split())
        monitor = RespConnection(("127.0.0.1", self._server.port), within=120.0)
        monitor.call("AUTH", REDIS_PASSWORD)
        monitor.call("MONITOR")
        thread = threading.Thread(target=self._record_commands, args=(monitor,), daemon=True)
        thread.start()
        self._monitors.append((monitor, thread))

    def record_contents(self) -> None:
        """Record the keys and values of the server, and its reports."""
        with self._server.connect() as admin:
            for name in admin.call("KEYS", "*"):
                self.names.append(name)
                self.values.append(admin.call("DUMP", name) or b"")
            for command in ("SLOWLOG GET 100000", "CLIENT LIST", "INFO everything", "LATENCY DOCTOR", "ACL LOG"):
                self.reports += _texts(admin.call(*command.split()))

    def close(self) -> None:
        """Record the last commands and stop."""
        with self._server.connect() as admin:
            admin.call("ECHO", _LAST)
        for monitor, thread in self._monitors:
            thread.join(10)
            monitor.close()
        self.reports.append(self._server.log.encode())

    def dumps(self) -> list[bytes]:
        """Return each value after its name, which is in quotes like the names in `commands`."""
        return [b'"%b" %b' % pair for pair in zip(self.names, self.values, strict=True)]

    def keys(self) -> list[bytes]:
        """Return the keys of all commands, also of keys that were never written."""
        found: list[bytes] = []
        for line in self.commands:
            words = _WORD.findall(line.partition(b"] ")[2])
            if len(words) > 1:
                name = words[0].upper()
                found += words[3 : 3 + int(words[2])] if name in (b"EVAL", b"EVALSHA") else words[1:2]
        return found

    def _record_commands(self, monitor: RespConnection) -> None:
        while True:
            try:
                line = str(monitor._read()).encode()
            except OSError:
                return  # the server was killed
            if _LAST in line:
                return
            self.commands.append(line)


_LAST: Final = b"the last command"


def _texts(reply: Any) -> list[bytes]:
    if isinstance(reply, list):
        return [text for part in reply for text in _texts(part)]  # pyright: ignore[reportUnknownVariableType]
    return [reply if isinstance(reply, bytes) else str(reply).encode()]
