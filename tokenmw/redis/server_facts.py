"""Reads what a server says about itself, and checks that it allows what a broker sends. For `tokenmw check`."""

from __future__ import annotations

import asyncio
import secrets
import ssl
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, cast

import redis.asyncio as redis
from redis.asyncio.connection import SSLConnection, UnixDomainSocketConnection

from tokenmw.redis.advice import advice, check_probe
from tokenmw.redis.client import address_of
from tokenmw.redis.errors import classify
from tokenmw.redis.glide.adapter import GlideAdapter
from tokenmw.redis.script_check import ScriptCheck
from tokenmw.redis.scripts import SOURCES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tokenmw.redis.client import AnyClient
    from tokenmw.redis.keys import KeyNames

__all__ = ["ServerFacts", "ServerProblem", "TLSFacts", "read_servers"]

_THIS_MACHINE: Final = ("localhost", "127.", "::1", "[::1]")


class ServerProblem(Exception):
    """Raised when a server cannot be used. The text has its address, the reason and the fix, and no secret."""


@dataclass(frozen=True, slots=True)
class TLSFacts:
    """The TLS of a connection.

    Attributes:
        version: Its version, such as `TLSv1.3`.
        certificate: The server's certificate, in DER; None if there is none.
        verified: Whether the certificate is checked.
    """

    version: str
    certificate: bytes | None
    verified: bool


@dataclass(frozen=True, slots=True)
class ServerFacts:
    """One server that works.

    Attributes:
        address: Host and port, or the socket's path.
        round_trip: Seconds that one PING took.
        info: What INFO has returned.
        plain: Whether commands cross a network without TLS.
        tls: The TLS of its connections; None without.
        scripts: How many scripts were tried.
        failed: Those that did not do what they do.
        by_text: Whether scripts are run by their text, because the server does not find them by their digests.
        replica: Whether it is a replica of a cluster, of which only hints are received.
    """

    address: str
    round_trip: float
    info: Mapping[str, Any]
    plain: bool
    tls: TLSFacts | None = None
    scripts: int = 0
    failed: list[str] = field(default_factory=list[str])
    by_text: bool = False
    replica: bool = False


async def read_servers(client: AnyClient, *, names: KeyNames, hints: bool, seconds: float) -> list[ServerFacts]:
    """Return the facts of the only server, or of each primary of a cluster, within `seconds`.

    Raises:
        ServerProblem: One cannot be used.
    """
    reached = False
    problem = ""
    try:
        async with asyncio.timeout(seconds):
            await cast("Any", client).execute_command("PING")
            reached = True
            await _check_rights(client, names=names, hints=hints)
            if isinstance(client, redis.RedisCluster):
                primaries = [await _facts(client, node, str(node.name), names) for node in client.get_primaries()]
                return [*primaries, *[await _replica(node) for node in client.get_replicas()]]
            return [await _facts(client, client, "", names)]
    except Exception as error:  # noqa: BLE001  a client of the program's own may raise anything
        reason = classify(error)
        fix = advice(error, reason, reached=reached)
        problem = f"{address_of(client)} cannot be used ({reason})" + (f": {fix}." if fix else ".")
    raise ServerProblem(problem)


async def _check_rights(client: Any, *, names: KeyNames, hints: bool) -> None:
    run: Any = client.execute_command
    key = names.key("probe", "probe")
    check_probe(await run("EVAL", SOURCES["probe"], 1, key))
    await run("GETRANGE", key, 0, 0)
    if not isinstance(client, redis.RedisCluster):
        await run("SCRIPT EXISTS", "0" * 40)
        if hints:
            # An empty text is no hint: every process ignores it.
            await run("PUBLISH", names.hints, b"")
            ours = client.subscriber() if isinstance(client, GlideAdapter) else None
            try:
                async with (ours or client).pubsub() as channel:
                    await cast("Any", channel).subscribe(names.hints)
                    await cast("Any", channel).get_message(timeout=1.0)
            finally:
                if ours is not None:
                    await ours.aclose()


async def _facts(client: AnyClient, server: Any, node: str, names: KeyNames) -> ServerFacts:
    loop = asyncio.get_running_loop()
    began = loop.time()
    await server.execute_command("PING")
    took = loop.time() - began
    address = address_of(client, node)
    check = ScriptCheck(server.execute_command, names, _tag(client, node, names))
    await check.run()
    return ServerFacts(
        address,
        took,
        _info(await server.execute_command("INFO")),
        _is_plain(client, address),
        tls=await _tls(client, server),
        scripts=len(SOURCES),
        failed=check.failed,
        by_text=check.by_text,
    )


async def _replica(node: Any) -> ServerFacts:
    info: dict[str, Any] = {}
    try:
        info = await node.execute_command("INFO")
    except (redis.RedisError, OSError):
        info = {}  # the primary has all that is needed
    return ServerFacts(str(node.name), 0.0, info, plain=False, replica=True)


def _tag(client: AnyClient, node: str, names: KeyNames) -> str:
    """Return a hash tag whose keys a server has."""
    number = 0
    while True:
        tag = f"probe-{secrets.token_hex(4)}-{number}"
        if not isinstance(client, redis.RedisCluster):
            return tag
        found = client.get_node_from_key(names.key(tag, "probe").decode())
        if found is not None and found.name == node:
            return tag
        number += 1


async def _tls(client: Any, server: Any) -> TLSFacts | None:
    """Return the TLS of a connection, which goes back to its pool; None without, and for a client of valkey-glide."""
    if isinstance(client, GlideAdapter):
        return None
    cluster = isinstance(client, redis.RedisCluster)
    connection: Any = server.acquire_connection() if cluster else await client.connection_pool.get_connection()
    try:
        await connection.connect()
        writer = getattr(connection, "_writer", None)
        tls = None if writer is None else writer.get_extra_info("ssl_object")
        if tls is None:
            return None
        verified = tls.context.verify_mode != ssl.CERT_NONE
        return TLSFacts(tls.version() or "", tls.getpeercert(binary_form=True), verified)
    finally:
        if cluster:
            server.release(connection)
        else:
            await client.connection_pool.release(connection)


def _info(reply: Any) -> Mapping[str, Any]:
    """Return what INFO has replied; redis-py has parsed it already."""
    if not isinstance(reply, bytes):
        return cast("Mapping[str, Any]", reply)
    rows = (row.partition(":") for row in reply.decode("utf-8", "replace").splitlines())
    return {name: int(value) if value.isdecimal() else value for name, colon, value in rows if colon}


def _is_plain(client: Any, address: str) -> bool:
    if address.startswith(_THIS_MACHINE):
        return False
    if isinstance(client, GlideAdapter):
        return client.plain
    if isinstance(client, redis.RedisCluster):
        kind: Any = client.connection_kwargs.get("connection_class", object)
    else:
        kind = client.connection_pool.connection_class
    return not issubclass(kind, (SSLConnection, UnixDomainSocketConnection))
