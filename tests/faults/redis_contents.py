"""What a server holds after a fault, read with the small client of the tests."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.resp import RedisServerError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.resp import RespConnection
    from tests.servers import RedisServer

__all__ = ["count_sessions", "is_consistent", "token_versions"]


def count_sessions(server: RedisServer) -> int:
    """Count the session keys of the server whose values have the right type and length."""
    with server.connect() as connection:
        keys = connection.call("KEYS", "tokenmw:*:session")
        return sum(connection.call("TYPE", key) == "string" and connection.call("STRLEN", key) >= 16 for key in keys)


def token_versions(server: RedisServer, tokens: dict[str, dict[str, Any]]) -> dict[str, tuple[int, int]]:
    """Return the versions of the token and of the tombstone of each provider; 0 if there is none.

    `tokens` has the keys of both, by provider, as a worker reports them.
    """
    with server.connect() as connection:
        return {
            name: (_token(connection, token["key"]), _tombstone(connection, token["tombstone"]))
            for name, token in tokens.items()
        }


def is_consistent(
    stored: dict[str, tuple[int, int]],
    dropper: dict[str, Any],
    others: Sequence[dict[str, Any]],
    *,
    down: Sequence[bool],
) -> bool:
    """Return whether the server holds the tokens of all workers, and the invalidation that one of them made.

    `down` says for which of `others` Redis was unavailable. Another one may serve the invalidated token until its next
    comparison; if the invalidation was made while Redis was unavailable, it has the new token, or none until a request
    needs it.
    """
    kept, (dropped, tombstone) = stored["kept"][0], stored["dropped"]
    versions: list[tuple[int, int]] = [
        (worker["kept"]["version"], worker["dropped"]["version"]) for worker in (dropper, *others)
    ]
    if kept != max(version for version, _ in versions):
        return False
    any_down = any(down)
    for version, was_down in zip(versions[1:], down, strict=True):
        if any_down and version != versions[0] and (was_down or version != (kept, 0)):
            return False
    invalid: int = dropper["dropped"]["invalid"]
    # A newer token needs no tombstone. After an outage, the tombstone is written first.
    return 0 < invalid < dropped == versions[0][1] and (
        invalid <= tombstone < dropped or (not any_down and tombstone == 0)
    )


def _token(connection: RespConnection, key: str) -> int:
    try:
        value: bytes | None = connection.call("GET", key)
    except RedisServerError:  # a value of another type
        return 0
    # The header has one byte for the format, then eight for the version.
    return int.from_bytes(value[1:9]) if value and value[:1] == b"\x01" and connection.call("PTTL", key) > 0 else 0


def _tombstone(connection: RespConnection, key: str) -> int:
    try:
        value: bytes | None = connection.call("GET", key)
    except RedisServerError:
        return 0
    return int(value) if value and value.isdigit() and connection.call("PTTL", key) > 0 else 0
