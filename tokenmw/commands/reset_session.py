"""`tokenmw reset-session`: gives an API key another session id. Neither the key nor an id is shown.

The key is never needed as an argument: other users of the machine see the arguments of every process, and a shell keeps
them in its history.
"""

from __future__ import annotations

import getpass
import os
import sys
from typing import TYPE_CHECKING, Any, Final

from tokenmw.commands.access import Access, audit, opened
from tokenmw.commands.running import CommandError, Output, run_command
from tokenmw.errors import ConfigurationError
from tokenmw.observe.events import SessionReset
from tokenmw.options import checked_api_key
from tokenmw.redis.session_store import RedisSessionStore
from tokenmw.runtime.settings import REDIS_TTL

if TYPE_CHECKING:
    from tokenmw.broker import TokenBroker

__all__ = ["run_reset_session"]

_MAX_KEY: Final = 1 << 16  # characters that are read
_VISIBLE: Final = (
    "tokenmw reset-session: the API key was an argument, which other users of this machine can see and the shell has "
    "kept: pipe it to `reset-session … -` instead, and consider a new key."
)


def run_reset_session(target: str, key: str, *, variable: str | None, as_object: bool) -> int:
    """Reset the session of an API key, and return the exit code.

    Args:
        target: `module:broker`.
        key: The API key; `-` to read it from stdin, or from a prompt on a terminal.
        variable: The environment variable that has it instead.
        as_object: Whether the output is JSON.
    """

    async def command(broker: TokenBroker) -> Output:
        async with opened(broker) as access:
            await _reset(access, api_key)
            audit(access, "reset-session", "an API key")
            access.settings.observe(SessionReset())
        after = "within about a second" if access.settings.hints else "at their next touch of it"
        data: dict[str, Any] = {"reset": True, "hints": access.settings.hints}
        return Output(
            [f"The API key has another session id in Redis; instances that use it take it over {after}."], data
        )

    try:
        api_key = _checked(key, variable)
    except CommandError as error:
        print(f"tokenmw reset-session: {error}", file=sys.stderr)
        return 1
    return run_command("reset-session", target, command, as_object=as_object)


async def _reset(access: Access, api_key: bytes) -> None:
    settings = access.settings
    store = RedisSessionStore(
        access.redis,
        names=settings.names,
        sealer=settings.sealer,
        ttl=REDIS_TTL * settings.session_ttl,
        on_unreadable=lambda _kind, _reason: None,
        hints=settings.channel,
        after_reset=settings.session_ids.after_reset if settings.session_ids.recurring else None,
    )
    redis_key = store.key(api_key)
    session_id, kept = settings.session_ids.reset(redis_key)
    await store.put(redis_key, session_id, kept)


def _checked(key: str, variable: str | None) -> bytes:
    if variable is not None:
        found = os.environ.get(variable)
        if found is None:
            raise CommandError(f"There is no environment variable {variable}.")
    elif key != "-":
        print(_VISIBLE, file=sys.stderr)
        found = key
    elif sys.stdin.isatty():
        try:
            found = getpass.getpass("API key: ")
        except EOFError:
            print(file=sys.stderr)  # the prompt has no end of line
            raise CommandError("No API key was given.") from None
    else:
        found = sys.stdin.read(_MAX_KEY).removesuffix("\n").removesuffix("\r")
    try:
        return checked_api_key(found)
    except ConfigurationError:
        raise CommandError("The API key is empty, or is not text.") from None
