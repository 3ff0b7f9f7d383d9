"""Deliberate leaks, one for each place where a secret can leave the process, to check that the search finds them."""

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

__all__ = ["LEAKS", "leak_everywhere", "leak_in_response"]

LEAKS: Final = {
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
    "Redis client name": "redis reports",
    "slow Redis command": "redis reports",
}
"""Each place, and the output in which its canary must be found."""

for _place in LEAKS:
    canary(f"leaked, {_place}")


def _leak(place: str) -> str:
    return canary(f"leaked, {place}")


async def leak_everywhere(program: Program) -> None:
    """Leak a canary in every place but responses."""
    log = logging.getLogger("httpcore.connection")
    log.debug("A line with %s in it.", _leak("log line"))
    log.debug("An argument that is not shown: %.0s", _WithRepr(_leak("log argument")))
    log.debug("A field.", extra={"field": _leak("log field")})
    try:
        raise ValueError(_leak("logged error"))
    except ValueError:
        log.exception("An error.")
    warnings.warn(_leak("warning"), stacklevel=1)
    asyncio.get_running_loop().call_soon(_do_nothing, _leak("loop handle"))
    task = asyncio.create_task(_raise(_leak("lost task")))
    await asyncio.wait([task])
    del task
    sys.stderr.write(_leak("standard error") + "\n")
    program.write(*_errors())
    program.write(TokenAdopted(_leak("event")), _WithRepr(_leak("attribute")), [_leak("object")])
    Counter("leaked", "Leaked.", ("label",), registry=program.registry).labels(_leak("metric label")).inc()
    sys.stdout.write(_leak("standard output") + "\n")
    await _leak_in_redis(program)


async def _leak_in_redis(program: Program) -> None:
    client: Any = redis.Redis.from_url(program.redis, client_name=_leak("Redis client name"))
    await client.set(_leak("Redis key"), "value")
    await client.set("key", _leak("Redis value"))
    await client.get(_leak("absent Redis key"))
    await client.echo(_leak("Redis command"))
    await client.publish("channel", _leak("slow Redis command"))
    program.keep(client)


def _errors() -> list[Exception]:
    with_note, with_field = TokenUnavailable("with a note"), TokenUnavailable("with a field")
    with_note.add_note(_leak("error note"))
    with_field.headers = {"x": _leak("error field")}
    return [TokenUnavailable(_leak("error text")), with_note, with_field, _with_cause(), _with_context(), _with_local()]


def _with_cause() -> Exception:
    try:
        raise TokenUnavailable("with a cause") from ValueError(_leak("error cause"))
    except TokenUnavailable as error:
        return error


def _with_context() -> Exception:
    try:
        try:
            raise ValueError(_leak("error context"))
        except ValueError:
            raise TokenUnavailable("with a context") from None
    except TokenUnavailable as error:
        return error


def _with_local() -> Exception:
    # Compiled under a file name of the package, because frames of tests are not rendered.
    source = "def fetch(secret):\n    raise TokenUnavailable('failed')\n"
    module: dict[str, Any] = {"TokenUnavailable": TokenUnavailable}
    exec(compile(source, "/site-packages/tokenmw/providers/leaking.py", "exec"), module)
    try:
        module["fetch"](_leak("frame variable"))
    except TokenUnavailable as error:
        return error
    raise AssertionError


async def leak_in_response(scope: Scope, receive: Receive, send: Send) -> None:
    """Leak a canary in every part of a response."""
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.close", "code": 1011, "reason": _leak("close reason")})
        return
    headers = [(b"x-header", _leak("response header").encode()), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": _leak("response body").encode()})


class _WithRepr:
    def __init__(self, text: str) -> None:
        self.text = text

    def __repr__(self) -> str:
        return f"<{self.text}>"


def _do_nothing(_argument: object) -> None: ...


async def _raise(text: str) -> None:
    raise ValueError(text)
