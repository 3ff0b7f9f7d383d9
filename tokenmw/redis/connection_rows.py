"""The rows of users' connections in Redis: one hash each, and a sorted set of their digests, by which they are listed.

All keys have the hash tag `{connections}`: in a cluster, one server has them all, so that one script may compare a
version, write the row and write the index. The client is not that of the broker: a durable store waits longer, and is
used whether or not the broker's circuit is open.
"""

from __future__ import annotations

import asyncio
import re
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Final, Literal

import redis.asyncio as redis

from tokenmw.errors import ConfigurationError
from tokenmw.limits import Limits
from tokenmw.redaction import Unpicklable
from tokenmw.redis.client import (
    address_of,
    checked_redis,
    close_client,
    open_client,
    refresh_slots,
    renew_connection,
)
from tokenmw.redis.errors import RedisUnavailable, classify
from tokenmw.redis.keys import KeyNames
from tokenmw.redis.replies import send

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tokenmw.redis.client import AnyClient, RedisOption

__all__ = ["ConnectionRow", "ConnectionRows"]

ConnectionRow = tuple[str, str, str, int, bytes]  # digest, app, subject, version, value
_TAG: Final = "connections"
_INDEX: Final = "index"
_CALLS: Final = 8  # at the same time; further ones wait, because the pool of a cluster's client refuses them
_CONNECTIONS: Final = _CALLS + 2  # to each server: a cluster's client asks for the slots beside the calls
# Failures that another node of a cluster would not fix: the node with the slot has answered.
_OF_THE_NODE: Final = frozenset({"full", "permission", "auth", "replicas", "response", "busy"})
_FOLDER: Final = files("tokenmw.redis") / "lua" / "connections"
_SCRIPTS: Final = {name: (_FOLDER / f"{name}.lua").read_text() for name in ("save", "delete", "scan", "server")}
_AOF: Final = re.compile(r"^aof_enabled:(\d)", re.MULTILINE)
_POLICY: Final = re.compile(r"^maxmemory_policy:([a-z-]+)", re.MULTILINE)


class _InLoop(Unpicklable):
    """The client of one event loop, whether it is closed here, and what bounds its calls."""

    __slots__ = ("calls", "client", "ours", "refreshing")

    def __init__(self, client: AnyClient, *, ours: bool) -> None:
        self.client = client
        self.ours = ours
        self.calls = asyncio.Semaphore(_CALLS)
        self.refreshing = False

    async def refresh_slots(self) -> None:
        """Ask a cluster again which node has the slot, once at a time: the node that had it may be lost."""
        if not self.refreshing:
            self.refreshing = True
            try:
                await refresh_slots(self.client)
            finally:
                self.refreshing = False


class ConnectionRows(Unpicklable):
    """Reads and writes rows. Each operation is one round trip, may take `seconds`, and may raise `RedisUnavailable`.

    Args:
        given: A URL, or a client of the program's, which is not closed.
        namespace: What precedes all keys.
        seconds: How long an operation may take.
        replicas: How many replicas must confirm a write.

    Raises:
        ConfigurationError: The URL or the client cannot work, or `replicas` with a cluster.
    """

    __slots__ = ("_clients", "_given", "_names", "_replicas", "_seconds")

    def __init__(self, given: object, *, namespace: str, seconds: float, replicas: int) -> None:
        problem, checked = "", None
        try:
            checked = checked_redis(given)
        except ConfigurationError as error:
            problem = str(error)
        if checked is None:
            raise ConfigurationError(f"RedisStore: {problem or 'redis is None.'}")
        if replicas and (isinstance(checked, redis.RedisCluster) or "+cluster:" in str(checked)[:20]):
            raise ConfigurationError("RedisStore: replicas needs a single server or a Sentinel, not a cluster.")
        # A function, because a URL has a password, and an object's attributes are shown by debuggers.
        self._given: Callable[[], str | RedisOption] = lambda: checked
        self._clients: dict[asyncio.AbstractEventLoop, _InLoop] = {}
        self._names = KeyNames(namespace, name_key=None)
        self._replicas = replicas
        self._seconds = seconds

    @property
    def address(self) -> str:
        """The address of the server, or of one of a cluster."""
        return address_of(self._in_this_loop().client)

    async def load(self, digest: str) -> tuple[int, bytes] | None:
        """Return version and value; None if there is no row."""
        reply = await self._read(("HMGET", self._key(digest), "version", "value"))
        match reply:
            case [None, _]:
                return None
            case [bytes() as version, bytes() as value] if version.isdigit():
                return int(version), value
        raise RedisUnavailable("response")

    async def save(self, digest: str, *, app: str, subject: str, value: bytes, expected: int) -> bool:
        """Store a value as version `expected + 1` if the present version is `expected`; 0: if there is none."""
        return await self._write("save", digest, str(expected), str(expected + 1), value, app, subject)

    async def delete(self, digest: str, *, expected: int) -> bool:
        """Delete a row if its version is `expected`. Return whether it was deleted."""
        return await self._write("delete", digest, str(expected))

    async def scan(self, *, after: str, limit: int) -> Sequence[ConnectionRow]:
        """Return up to `limit` rows in the order of their digests, those after a digest; "": from the first one."""
        rows: Any = await self._read(("EVAL", _SCRIPTS["scan"], 1, self._key(_INDEX), after, limit, self._key("")))
        return [(row[0].decode(), row[1].decode(), row[2].decode(), int(row[3]), row[4]) for row in rows]

    async def weaknesses(self) -> list[Literal["unknown", "not-persistent", "evicts"]]:
        """Return why this server is no durable store."""
        reply: Any = await self._run(("EVAL", _SCRIPTS["server"], 1, self._key(_INDEX)))
        persistence, memory = (part.decode("utf-8", "replace") for part in reply)
        aof, policy = _AOF.search(persistence), _POLICY.search(memory)
        if aof is None or policy is None:
            return ["unknown"]
        found: list[Literal["unknown", "not-persistent", "evicts"]] = []
        if aof[1] != "1":
            found.append("not-persistent")
        # The other policies evict keys that expire, and rows do not.
        if policy[1].startswith("allkeys-"):
            found.append("evicts")
        return found

    async def aclose(self) -> None:
        """Close the client of the running event loop, if it was made here."""
        made = self._clients.pop(asyncio.get_running_loop(), None)
        if made is not None and made.ours:
            await close_client(made.client)

    async def _write(self, script: str, digest: str, *arguments: str | bytes) -> bool:
        command = ("EVAL", _SCRIPTS[script], 2, self._key(digest), self._key(_INDEX), digest, *arguments)
        return bool(await self._run(command, forms=int, waits=self._replicas > 0))

    async def _read(self, command: Sequence[Any]) -> Any:
        try:
            return await self._run(command)
        except RedisUnavailable as error:
            if error.reason != "reset":
                raise
        return await self._run(command)  # the connection was one from before the server was started again

    async def _run(self, command: Sequence[Any], *, forms: type = list, waits: bool = False) -> Any:
        commands = [command]
        if waits:  # it concerns what its own connection has written before
            commands.append(("WAIT", self._replicas, int(self._seconds * 500)))
        made = self._in_this_loop()
        try:
            async with asyncio.timeout(self._seconds), made.calls:
                reply, *confirmed = await send(made.client, commands, echo=False)
        except Exception as error:  # noqa: BLE001  a client of the program's may raise anything
            reason = classify(error)
            if reason == "timeout":
                await renew_connection(made.client)
        else:
            failed = next((one for one in (reply, *confirmed) if isinstance(one, Exception)), None)
            if failed is not None:
                reason = classify(failed)
            elif confirmed and reply and confirmed[0] < self._replicas:
                reason = "replicas"
            elif isinstance(reply, forms):
                return reply
            else:
                reason = "response"
        if reason not in _OF_THE_NODE:
            await made.refresh_slots()
        raise RedisUnavailable(reason)

    def _in_this_loop(self) -> _InLoop:
        loop = asyncio.get_running_loop()
        if loop not in self._clients:
            for closed in [one for one in self._clients if one.is_closed()]:
                del self._clients[closed]
            client, ours = open_client(self._given(), limits=Limits(connections=_CONNECTIONS))
            self._clients[loop] = _InLoop(client, ours=ours)
        return self._clients[loop]

    def _key(self, digest: str) -> bytes:
        return self._names.key(_TAG, digest)
