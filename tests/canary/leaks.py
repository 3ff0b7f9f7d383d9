"""Leaks made on purpose, one for each way out, to see that the search finds what it looks for."""

from __future__ import annotations

import asyncio
import logging
import sys
import warnings
from typing import TYPE_CHECKING, Any, Final

import redis.asyncio as redis
from prometheus_client import Counter

from tests.canary.canaries import canary
from tokenmw import TokenUnavailable
from tokenmw.observe import TokenAdopted

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

    from tests.canary.program import Program

__all__ = ["PLANTS", "plant", "planted"]

PLANTS: Final = {
    "log line": "stderr",
    "log argument": "stderr",
    "log field": "stderr",
    "logged error": "stderr",
    "warning": "stderr",
    "loop handle": "stderr",
    "lost task": "stderr",
    "access log": "stderr",
    "standard error": "stderr",
    "error text": "stdout",
    "error note": "stdout",
    "error cause": "stdout",
    "error context": "stdout",
    "error field": "stdout",
    "frame variable": "stdout",
    "event": "stdout",
    "metric label": "stdout",
    "attribute": "stdout",
    "object": "stdout",
    "standard output": "stdout",
    "response header": "responses",
    "response body": "responses",
    "close reason": "responses",
    "Redis key": "redis names",
    "Redis value": "redis values",
    "Redis command": "redis commands",
    "absent Redis key": "redis keys",
    "Redis client name": "redis notes",
    "slow Redis command": "redis notes",
}
"""Each way out, and the output in which its canary must be found."""

for _place in PLANTS:
    canary(f"planted, {_place}")


def _leak(place: str) -> str:
    return canary(f"planted, {place}")


async def plant(program: Program) -> None:
    """Leak in every way but those of responses."""
    log = logging.getLogger("httpcore.connection")
    log.debug("A line with %s in it.", _leak("log line"))
    log.debug("An argument that is not shown: %.0s", _Shown(_leak("log argument")))
    log.debug("A field.", extra={"field": _leak("log field")})
    try:
        raise ValueError(_leak("logged error"))
    except ValueError:
        log.exception("An error.")
    warnings.warn(_leak("warning"), stacklevel=1)
    asyncio.get_running_loop().call_soon(_pass, _leak("loop handle"))
    task = asyncio.create_task(_fail(_leak("lost task")))
    await asyncio.wait([task])
    del task
    sys.stderr.write(_leak("standard error") + "\n")
    program.say(*_errors())
    program.say(TokenAdopted(_leak("event")), _Shown(_leak("attribute")), [_leak("object")])
    Counter("planted", "Planted.", ("label",), registry=program.registry).labels(_leak("metric label")).inc()
    sys.stdout.write(_leak("standard output") + "\n")
    await _at_redis(program)


async def _at_redis(program: Program) -> None:
    client: Any = redis.Redis.from_url(program.redis, client_name=_leak("Redis client name"))
    await client.set(_leak("Redis key"), "value")
    await client.set("key", _leak("Redis value"))
    await client.get(_leak("absent Redis key"))
    await client.echo(_leak("Redis command"))
    await client.publish("channel", _leak("slow Redis command"))
    program.keep(client)


def _errors() -> list[Exception]:
    noted, held = TokenUnavailable("noted"), TokenUnavailable("held")
    noted.add_note(_leak("error note"))
    held.headers = {"x": _leak("error field")}
    return [TokenUnavailable(_leak("error text")), noted, held, _caused(), _hidden(), _in_a_frame()]


def _caused() -> Exception:
    try:
        raise TokenUnavailable("an effect") from ValueError(_leak("error cause"))
    except TokenUnavailable as error:
        return error


def _hidden() -> Exception:
    try:
        try:
            raise ValueError(_leak("error context"))
        except ValueError:
            raise TokenUnavailable("another one") from None
    except TokenUnavailable as error:
        return error


def _in_a_frame() -> Exception:
    # As a module of the package would do it: frames of tests are passed over.
    source = "def ask(secret):\n    raise TokenUnavailable('asked in vain')\n"
    module: dict[str, Any] = {"TokenUnavailable": TokenUnavailable}
    exec(compile(source, "/site-packages/tokenmw/providers/leaking.py", "exec"), module)
    try:
        module["ask"](_leak("frame variable"))
    except TokenUnavailable as error:
        return error
    raise AssertionError


async def planted(scope: Scope, receive: Receive, send: Send) -> None:
    """Leak into an answer."""
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.close", "code": 1011, "reason": _leak("close reason")})
        return
    headers = [(b"x-header", _leak("response header").encode()), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": _leak("response body").encode()})


class _Shown:
    def __init__(self, text: str) -> None:
        self.text = text

    def __repr__(self) -> str:
        return f"<{self.text}>"


def _pass(_given: object) -> None: ...


async def _fail(text: str) -> None:
    raise ValueError(text)
