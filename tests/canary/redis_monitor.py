"""All that can be seen at a Redis: what it is told, what it holds, and what it writes down."""

from __future__ import annotations

import re
import threading
from typing import TYPE_CHECKING, Any, Final

from tests.canary.credentials import REDIS_PASSWORD
from tests.resp import RespConnection

if TYPE_CHECKING:
    from tests.servers import RedisServer

__all__ = ["RedisTap"]

_WORD: Final = re.compile(rb'"((?:[^"\\]|\\.)*)"')


class RedisTap:
    """Listens to a server, and keeps all it sees.

    Attributes:
        commands: What MONITOR showed, line by line.
        names: The names of the keys, at each look.
        values: The DUMP of each of them, in the same order.
        notes: SLOWLOG, CLIENT LIST and what the server says of itself.
    """

    def __init__(self, server: RedisServer) -> None:
        self._server = server
        self._monitors: list[tuple[RespConnection, threading.Thread]] = []
        self.commands: list[bytes] = []
        self.values: list[bytes] = []
        self.names: list[bytes] = []
        self.notes: list[bytes] = []

    def listen(self) -> None:
        """Begin to hear each command; again after each start of the server."""
        with self._server.connect() as admin:
            # Compressed, a value could not be searched; and each command is to be in the log of slow ones.
            for option in ("rdbcompression no", "slowlog-log-slower-than 0", "slowlog-max-len 100000"):
                admin.call("CONFIG", "SET", *option.split())
        monitor = RespConnection(("127.0.0.1", self._server.port), within=120.0)
        monitor.call("AUTH", REDIS_PASSWORD)
        monitor.call("MONITOR")
        thread = threading.Thread(target=self._hear, args=(monitor,), daemon=True)
        thread.start()
        self._monitors.append((monitor, thread))

    def look(self) -> None:
        """See what the server holds now, and what it has written down."""
        with self._server.connect() as admin:
            for name in admin.call("KEYS", "*"):
                self.names.append(name)
                self.values.append(admin.call("DUMP", name) or b"")
            for command in ("SLOWLOG GET 100000", "CLIENT LIST", "INFO everything", "LATENCY DOCTOR", "ACL LOG"):
                self.notes += _texts(admin.call(*command.split()))

    def close(self) -> None:
        """Hear the last commands, and stop listening."""
        with self._server.connect() as admin:
            admin.call("ECHO", _LAST)
        for monitor, thread in self._monitors:
            thread.join(10)
            monitor.close()
        self.notes.append(self._server.log.encode())

    def dumps(self) -> list[bytes]:
        """Return each value behind its name, as the name stands in a command."""
        return [b'"%b" %b' % pair for pair in zip(self.names, self.values, strict=True)]

    def keys(self) -> list[bytes]:
        """Return each key that a command named, whether it was ever written or not."""
        found: list[bytes] = []
        for line in self.commands:
            words = _WORD.findall(line.partition(b"] ")[2])
            if len(words) > 1:
                name = words[0].upper()
                found += words[3 : 3 + int(words[2])] if name in (b"EVAL", b"EVALSHA") else words[1:2]
        return found

    def _hear(self, monitor: RespConnection) -> None:
        while True:
            try:
                line = str(monitor._read()).encode()
            except OSError:
                return  # the server was killed
            if _LAST in line:
                return
            self.commands.append(line)


_LAST: Final = b"the last word"


def _texts(reply: Any) -> list[bytes]:
    if isinstance(reply, list):
        return [text for part in reply for text in _texts(part)]  # pyright: ignore[reportUnknownVariableType]
    return [reply if isinstance(reply, bytes) else str(reply).encode()]
