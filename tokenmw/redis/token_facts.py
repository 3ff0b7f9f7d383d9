"""Reads what Redis has of a token, for an operator: nothing is written, and nothing is sealed again or deleted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from tokenmw.redaction import Unpicklable, not_encoded
from tokenmw.redis.connection import UNAVAILABLE
from tokenmw.redis.errors import RedisUnavailable
from tokenmw.redis.sealing import Unreadable
from tokenmw.redis.token_store import TokenRecord

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tokenmw.redis.connection import Command, RedisConnection
    from tokenmw.redis.sealing import Sealer
    from tokenmw.redis.token_store import TokenKeys

__all__ = ["TokenFacts", "read_facts"]

_LONGEST: Final = 1 << 20  # bytes, as in the scripts
_HEADER: Final = 13
_PER_TOKEN: Final = 8  # commands


@not_encoded
@dataclass(frozen=True, slots=True, repr=False)
class TokenFacts(Unpicklable):
    """What Redis has of one token. Durations are seconds; None: there is none, or it never expires.

    Attributes:
        version: The fencing version of the stored token; 0 if there is none.
        record: The token; None if there is none, or if it does not open.
        unreadable: Why a stored token does not open, as of `Unreadable`; else "".
        current_seal: Whether the stored token is sealed as this configuration seals it.
        left: Until the token expires.
        lease_left: Until the lease of the process that fetches the next token expires.
        note: The failure note of a process that got no token; None if there is none, or if it does not open.
        note_left: Until the note expires.
        tombstone: The highest version that is invalid; 0 if there is none.
        tombstone_left: Until the tombstone expires.
    """

    version: int
    record: TokenRecord | None
    unreadable: str
    current_seal: bool
    left: float | None
    lease_left: float | None
    note: bytes | None
    note_left: float | None
    tombstone: int
    tombstone_left: float | None


async def read_facts(
    connection: RedisConnection, sealer: Sealer, keys: Sequence[TokenKeys]
) -> list[TokenFacts | RedisUnavailable]:
    """Return what Redis has of some tokens, in one batch for each server; an error for each that has no reply.

    Raises:
        RedisUnavailable: No server can be asked.
    """
    commands: list[Command] = []
    for one in keys:
        commands += [("GETRANGE", one.token, 0, _LONGEST), ("PTTL", one.token)]
        commands += [("GETRANGE", one.lease, 0, _HEADER), ("PTTL", one.lease)]
        commands += [("GETRANGE", one.note, 0, _LONGEST), ("PTTL", one.note)]
        commands += [("GETRANGE", one.tombstone, 0, _HEADER * 2), ("PTTL", one.tombstone)]
    replies = await connection.pipeline(commands, background=True) if commands else []
    rows = [replies[first : first + _PER_TOKEN] for first in range(0, len(replies), _PER_TOKEN)]
    return [
        RedisUnavailable("response") if UNAVAILABLE in row else _facts(sealer, one, row)
        for one, row in zip(keys, rows, strict=True)
    ]


def _facts(sealer: Sealer, keys: TokenKeys, row: Sequence[Any]) -> TokenFacts:
    token, left, lease, lease_left, note, note_left, tombstone, tombstone_left = row
    record, version, unreadable = None, 0, ""
    if token:  # b"" if there is no key, None if it has another type
        version = int.from_bytes(token[1:9])
        try:
            record = TokenRecord.decode(sealer.open(token, key=keys.token)[1])
        except Unreadable as error:
            unreadable = error.reason
    return TokenFacts(
        version=version,
        record=record,
        unreadable=unreadable,
        current_seal=not token or sealer.is_current(token),
        left=_seconds(left),
        lease_left=_seconds(lease_left) if lease else None,
        note=_opened(sealer, keys, note),
        note_left=_seconds(note_left) if note else None,
        tombstone=int(tombstone) if tombstone and tombstone.isdigit() else 0,
        tombstone_left=_seconds(tombstone_left) if tombstone else None,
    )


def _opened(sealer: Sealer, keys: TokenKeys, note: bytes | None) -> bytes | None:
    try:
        return sealer.open(note, key=keys.note)[1] if note else None
    except Unreadable:
        return None


def _seconds(milliseconds: Any) -> float | None:
    return milliseconds / 1000 if isinstance(milliseconds, int) and milliseconds >= 0 else None
