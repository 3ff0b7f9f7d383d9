"""Runs commands through valkey-glide, with the methods of redis-py that this package calls.

The adapter opens a client of its own from the configuration that a program has passed, and not through the program's
client: that one belongs to the event loop it was created in, its commands would wait behind the program's, and a
connection without a peer, which Glide keeps for as long as TCP does, could not be replaced. All commands share one
connection.
"""

from __future__ import annotations

import asyncio
from importlib import import_module
from typing import TYPE_CHECKING, Any

from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoScriptError

from tokenmw.redaction import Unpicklable
from tokenmw.redis.glide.errors import redis_error
from tokenmw.redis.glide.given import private_configuration
from tokenmw.redis.glide.subscriber import open_subscriber, server_address
from tokenmw.redis.scripts import DIGESTS, SOURCES

if TYPE_CHECKING:
    from collections.abc import Sequence

    import redis.asyncio as redis

    from tokenmw.limits import Limits

__all__ = ["GlideAdapter"]

_Argument = bytes | str | int


class GlideAdapter(Unpicklable):
    """A client of valkey-glide in one event loop. It connects with its first command.

    Each batch may take as long in Glide as the slowest command of this package may; the caller's deadline is shorter,
    and what Glide still does for a command that was given up, as connecting, serves the next one.

    Args:
        configuration: A `glide.GlideClientConfiguration`.
        limits: `connect_seconds` and `background_seconds` bound what Glide does.
    """

    __slots__ = (
        "_client",
        "_closed",
        "_given",
        "_glide",
        "_limits",
        "_opening",
        "_options",
        "_private",
        "_scripts_loaded",
    )

    def __init__(self, configuration: Any, *, limits: Limits) -> None:
        self._glide: Any = import_module("glide")
        self._given = configuration
        self._limits = limits
        self._private = private_configuration(configuration, limits=limits)
        longest = max(limits.connect_seconds, limits.background_seconds, limits.command_seconds)
        self._options = self._glide.BatchOptions(timeout=int(longest * 1000))
        self._client: Any = None
        self._closed = self._scripts_loaded = False
        self._opening = asyncio.Lock()

    @property
    def address(self) -> str:
        """The server's address for the log, or those of a primary and its replicas."""
        return server_address(self._given)

    @property
    def plain(self) -> bool:
        """Whether commands cross a network without TLS, if the server is on another machine."""
        return not self._given.use_tls

    def subscriber(self) -> redis.Redis:
        """Return a redis-py client of the same server, for what it publishes.

        Raises:
            Unsuitable: The configuration has something that redis-py cannot do.
        """
        return open_subscriber(self._given, limits=self._limits)

    async def send(self, commands: Sequence[Sequence[_Argument]]) -> list[Any]:
        """Send commands in one round trip. Return their replies, errors among them. Raises errors of redis-py."""
        try:
            client = await self._open()
            if not self._scripts_loaded:
                await self._load_scripts(client)
            replies = await self._exec(client, commands)
        except Exception as error:
            found = redis_error(error)
            if found is error:
                raise
        else:
            if any(isinstance(reply, NoScriptError) for reply in replies):
                self._scripts_loaded = False  # the server was started again, and Glide has connected to it again
            return replies
        raise found

    async def execute_command(self, *arguments: _Argument) -> Any:
        """Run one command; its name may have two words."""
        name, *rest = arguments
        (reply,) = await self.send([(*str(name).split(), *rest)])
        if isinstance(reply, Exception):
            raise reply
        return reply

    async def evalsha(self, digest: str, count: int, *keys_and_args: _Argument) -> Any:
        """Run a script by its digest; `count` keys come first."""
        return await self.execute_command("EVALSHA", digest, count, *keys_and_args)

    async def renew(self) -> None:
        """Close the connection, if there is one. The next command makes another one. Waits for no server."""
        client, self._client = self._client, None
        self._scripts_loaded = False
        if client is not None:
            await client.close()

    async def aclose(self) -> None:
        """Close the connection for good. Waits for no server."""
        self._closed = True
        await self.renew()

    async def _exec(self, client: Any, commands: Sequence[Sequence[_Argument]]) -> list[Any]:
        batch = self._glide.Batch(is_atomic=False)
        for command in commands:
            batch.custom_command([str(one) if isinstance(one, int) else one for one in command])
        return [_reply(each) for each in await client.exec(batch, raise_on_error=False, options=self._options)]

    async def _load_scripts(self, client: Any) -> None:
        """Load the scripts that the server does not know, all together.

        A batch in which it knew some of them only would not be run in its order.
        """
        (known,) = await self._exec(client, [("SCRIPT", "EXISTS", *DIGESTS.values())])
        if not isinstance(known, Exception):  # an ACL may forbid SCRIPT
            unknown = [SOURCES[name] for name, there in zip(DIGESTS, known, strict=True) if not there]
            if unknown:
                await self._exec(client, [("SCRIPT", "LOAD", text) for text in unknown])
        self._scripts_loaded = True

    async def _open(self) -> Any:
        if self._client is None:
            async with self._opening:  # credentials of the program's own are fetched while a client is created
                if self._client is None:
                    self._check_open()
                    client = await self._glide.GlideClient.create(self._private)
                    self._client = client
                    if self._closed:
                        await self.renew()
                        self._check_open()
        return self._client

    def _check_open(self) -> None:
        if self._closed:
            raise RedisConnectionError("The client was closed.")


def _reply(reply: Any) -> Any:
    match reply:
        case [*replies]:
            return [_reply(each) for each in replies]
        case _:
            pass
    return redis_error(reply) if isinstance(reply, Exception) else reply
