"""What a server holds after a fault, looked at with a client of the tests' own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.resp import RedisServerError

if TYPE_CHECKING:
    from tests.resp import RespConnection
    from tests.servers import RedisServer

__all__ = ["all_told", "sessions", "tokens"]


def sessions(server: RedisServer) -> int:
    """Count the sessions that the server holds, of the right type and length."""
    with server.connect() as connection:
        keys = connection.call("KEYS", "tokenmw:*:session")
        return sum(connection.call("TYPE", key) == "string" and connection.call("STRLEN", key) >= 16 for key in keys)


def tokens(server: RedisServer, known: dict[str, dict[str, Any]]) -> dict[str, tuple[int, int]]:
    """Return the version of each token that the server holds, and of its tombstone; 0 for what is not there.

    `known` is where they are, by provider, as a worker tells it.
    """
    with server.connect() as connection:
        return {name: (_version(connection, one["key"]), _tombstone(connection, one)) for name, one in known.items()}


def all_told(held: dict[str, tuple[int, int]], dropper: dict[str, Any], other: dict[str, Any], *, down: bool) -> bool:
    """Return whether the server holds the tokens that two workers have, and the invalidation that one of them made.

    Where Redis was not down, the other one may serve what was declared invalid until it looks again.
    """
    kept, (dropped, tombstone) = held["kept"][0], held["dropped"]
    has: list[tuple[int, int]] = [(one["kept"]["version"], one["dropped"]["version"]) for one in (dropper, other)]
    if kept != max(version for version, _ in has) or (down and has[0] != has[1]):
        return False
    dead: int = dropper["dropped"]["dead"]
    # A newer token that is there already says as much as a tombstone does; in an outage the tombstone comes first.
    return 0 < dead < dropped == has[0][1] and (dead <= tombstone < dropped or (not down and tombstone == 0))


def _version(connection: RespConnection, key: str) -> int:
    try:
        value: bytes | None = connection.call("GET", key)
    except RedisServerError:  # of another type
        return 0
    # One byte of format, then eight of the version.
    return int.from_bytes(value[1:9]) if value and value[:1] == b"\x01" and connection.call("PTTL", key) > 0 else 0


def _tombstone(connection: RespConnection, known: dict[str, Any]) -> int:
    try:
        value: bytes | None = connection.call("GET", known["tombstone"])
    except RedisServerError:
        return 0
    return int(value) if value and value.isdigit() and connection.call("PTTL", known["tombstone"]) > 0 else 0
