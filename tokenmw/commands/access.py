"""Opens what an operator's command needs of a broker: Redis and its tokens, without the tasks of an instance.

The process of a command is none of the fleet's: it writes no heartbeat, listens to no hints and uploads nothing. Its
commands have longer deadlines than those of requests, because an operator's machine may be far from Redis.
"""

from __future__ import annotations

import contextlib
import getpass
import socket
from dataclasses import replace
from typing import TYPE_CHECKING, Final, NamedTuple

from tokenmw.commands.running import CommandError, progress
from tokenmw.credentials import no_provider
from tokenmw.redaction import Unpicklable
from tokenmw.redis.client import close_client
from tokenmw.redis.connection import RedisConnection
from tokenmw.redis.errors import RedisUnavailable
from tokenmw.redis.server_facts import ServerProblem, read_servers
from tokenmw.redis.token_store import RedisTokenStore, TokenKeys
from tokenmw.tokens.entry import TokenEntry

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from tokenmw.broker import TokenBroker
    from tokenmw.runtime.settings import Settings

__all__ = ["Access", "Shared", "audit", "opened", "operator"]

_SECONDS: Final = 5.0  # for one command, and for connecting
_MAX_NAME: Final = 64  # characters


class Shared(NamedTuple):
    """A provider whose token is shared.

    Attributes:
        name: Its name in the broker.
        entry: What this process knows of its token.
        keys: The Redis keys of its token.
    """

    name: str
    entry: TokenEntry
    keys: TokenKeys


class Access(Unpicklable):
    """The Redis of a broker.

    Attributes:
        broker: The broker.
        redis: The connection.
        store: The tokens.
    """

    __slots__ = ("broker", "redis", "settings", "store")

    def __init__(self, broker: TokenBroker, redis: RedisConnection) -> None:
        self.broker = broker
        self.settings: Settings = broker._settings
        self.redis = redis
        self.store = RedisTokenStore(
            redis,
            sealer=self.settings.sealer,
            on_unreadable=lambda _kind, _reason: None,
            hints=self.settings.channel,
            background=True,
        )

    def provider(self, name: str) -> Shared:
        """Return a provider of the broker.

        Raises:
            CommandError: There is none of that name, or its token is not shared.
        """
        credentials = self.broker._credentials
        if name not in credentials.names:
            raise CommandError(f"There is {no_provider(name, credentials.names)}")
        entry = credentials.find(name)
        if not isinstance(entry, TokenEntry):
            raise CommandError(f"{name}: its credentials depend on the request, so that it has no one token.")
        if entry.keys is None:
            raise CommandError(
                f"{name}: its token is not shared, each process has its own. Give the provider a credential_id=…."
            )
        return Shared(name, entry, entry.keys)

    async def problem(self) -> str:
        """Return why Redis cannot be used, with the fix; "" if it can be used now."""
        try:
            await read_servers(self.redis.client, names=self.settings.names, hints=False, seconds=_SECONDS)
        except ServerProblem as problem:
            return str(problem)
        return ""


@contextlib.asynccontextmanager
async def opened(broker: TokenBroker, *, writes: bool = True) -> AsyncGenerator[Access]:
    """Connect to the Redis of a broker.

    Args:
        broker: The broker.
        writes: Whether the command writes: a server that takes no writes can be read.

    Raises:
        CommandError: The broker has none, or a command failed, because Redis cannot be used.
    """
    settings = broker._settings
    if settings.redis is None:
        raise CommandError("The broker has no redis=…: nothing is shared, and each process has its own tokens.")
    redis = RedisConnection(
        settings.redis,
        names=settings.names,
        limits=replace(
            settings.limits, command_seconds=_SECONDS, background_seconds=_SECONDS, connect_seconds=_SECONDS
        ),
        clock=settings.clock,
        log=settings.log,
        observe=settings.observe,
        on_recovered=lambda: None,
        echo=not settings.sealer.sealing,
    )
    access = Access(broker, redis)
    problem = ""
    try:
        async with progress(f"Connecting to {redis.address}"):
            if writes:
                await redis.open()
        yield access
    except RedisUnavailable as error:
        problem = await access.problem() or f"{redis.address} cannot be used ({error.reason})."
    finally:
        await redis.close()
        await close_client(redis.client)
    if problem:
        raise CommandError(f"Redis: {problem}")


def operator() -> str:
    """Return who runs this command, for the log: the user and the host."""
    try:
        user = getpass.getuser()
    except (OSError, KeyError):  # a process without a user's name, as in a container
        user = "?"
    name = f"{user}@{socket.gethostname()}"
    return "".join(letter for letter in name if letter.isprintable())[:_MAX_NAME]


def audit(access: Access, action: str, changed: str, *, provider: str = "") -> None:
    """Log what an operator has done, as the status page does."""
    access.settings.log.event(
        "action", "An operator at %s requested %s of %s", operator(), action, changed, provider=provider
    )
