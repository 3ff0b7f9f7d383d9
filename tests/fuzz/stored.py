"""Values in Redis: damaged, copied to another key, sealed with another secret, or written by another program."""

from __future__ import annotations

import json
import math
from typing import Any

from tests.fuzz.oracles import Target, check_lifetime, check_request_error, require
from tokenmw.redis.sealing import Sealer, Unreadable
from tokenmw.redis.token_store import TokenRecord
from tokenmw.tokens.failures import Failure
from tokenmw.values import Grant

__all__ = ["RINGS", "TARGETS", "check_record"]

_OLD, _NEW, _FOREIGN = "old-secret-0123456789", "new-secret-0123456789", "foreign-secret-0123456789"
RINGS = (Sealer([_OLD]), Sealer([_NEW, _OLD]), Sealer([]), Sealer([_FOREIGN]))
_KEYS = (b"tokenmw:v1:{d}:token", b"tokenmw:v1:{e}:token", b"other:v1:{d}:session")
_BODY = b'["t-1","Bearer",7200.0,60.0,{}]'


def _envelope(data: bytes) -> None:
    """Seal a body, damage the value, and open it with every sealer and key.

    The first byte of the input selects sealer and key. The following bytes, up to a line break, are pairs of a position
    and a change. The rest is the body, or after "=" the whole value.
    """
    plan, _, body = data.partition(b"\n")
    choice = plan[0] if plan else 0
    ring, key, version = RINGS[choice % 4], _KEYS[choice // 4 % 3], choice * 1_000_003
    sealed = ring.seal(body, key=key, version=version)
    value = bytearray(sealed)
    for position, change in zip(plan[1::2], plan[2::2], strict=False):
        if change == 0xFF:
            del value[position:]
        elif value:
            value[position % len(value)] ^= change
    damaged = body[1:] if body.startswith(b"=") else bytes(value)
    for opener in RINGS:
        for place in _KEYS:
            try:
                opened = opener.open(damaged, key=place)
            except Unreadable as error:
                require(error.reason in ("unknown-key", "damaged"), "an unknown reason")
                require(
                    error.reason == "damaged"
                    or damaged[9:13] != ring.seal(b"", key=key, version=0)[9:13]
                    or not _has(opener, ring),
                    "a known secret that is reported as unknown",
                )
                continue
            if opener.sealing:
                require((damaged, place) == (sealed, key), "a value that was not sealed for this key")
                require(opened == (version, body), "another body than the sealed one")
            else:
                require(opened == (int.from_bytes(damaged[1:9]), damaged[13:]), "another body than the plain one")
            require(opened[0] < 2**52, "a version that scripts cannot compare")


def _has(opener: Sealer, ring: Sealer) -> bool:
    return opener is ring or (opener, ring) == (RINGS[1], RINGS[0])


def check_record(record: TokenRecord) -> None:
    """Require a record that can be returned, and that does not change when it is encoded and decoded."""
    grant = Grant(record.value, expires_in=record.lifetime, token_type=record.token_type, extra=record.extra)
    check_lifetime(record.lifetime)
    require(grant.value == record.value, "a token that cannot be granted")
    require(record.no_refresh_until is None or math.isfinite(record.no_refresh_until), "a deadline that is not finite")
    require(TokenRecord.decode(record.encode()) == record, "a record that changes when it is encoded")
    require(record.value not in repr(record) or len(record.value) < 12, "a repr with the token")


def _record(data: bytes) -> None:
    try:
        record = TokenRecord.decode(data)
    except Unreadable as error:
        require(error.reason == "damaged" and error.__cause__ is None, "an unreadable record for another reason")
    else:
        check_record(record)


def _note(data: bytes) -> None:
    """Read the failure note of another process; any note gives an error that can be shown."""
    failure = Failure.from_note(data, left=30.0, before=None, now=1_000.0)
    require(type(failure.permanent) is bool and type(failure.count) is int and failure.count >= 1, "an invalid failure")
    require(failure.retry_at == 1_030.0 and failure.shareable, "a failure that does not expire with its note")
    check_request_error(failure.to_error("crm", now=1_000.0))
    again = Failure.from_note(failure.failure_note(), left=30.0, before=None, now=1_000.0)
    fields = [(one.permanent, one.detail, one.code, one.count) for one in (failure, again)]
    require(fields[0] == fields[1], "a note that changes when it is encoded")


_ROWS: tuple[Any, ...] = (
    ["t-1", "Bearer", 7200, None, {}],
    ["t-1", "Bearer", 7200.5, 60, {"instance_url": "https://eu.example"}],
    ["t-1", "Bearer", 7200, 10**400, {}],
    ["t\r\nx: y", "Bearer", 7200, "soon", []],
    {"a": 1, "b": 2, "c": 3, "d": 4, "e": 5},
    ["t", "B", 1e400, float("nan"), {"a": {"b": [1, None, True]}}],
)
_NOTES: tuple[Any, ...] = (
    [True, "the token endpoint refuses (invalid_client, HTTP 401)", "invalid_client", 2],
    [False, "busy\r\nforged: line", "c", 1],
    [0, "x" * 5_000, "y" * 5_000, -1],
    [True, "a", "b", float("inf")],
    [True, {"a": 1}, ["b"], "3"],
    [True, "", "", 10**400],
)
TARGETS = (
    Target(
        "envelope",
        _envelope,
        (b"\0\n" + _BODY, b"\x01\x09\x01\n", b"\x02\0\xff\nbody", b"\0\n=\x01" + bytes(20)),
        (b"\n=",),
    ),
    Target(
        "record",
        _record,
        tuple(json.dumps(row).encode() for row in _ROWS),
        (b"NaN", b"1e400", b"\\r\\n", b"null", b"{", b"["),
    ),
    Target(
        "note", _note, tuple(json.dumps(note).encode() for note in _NOTES), (b"Infinity", b"\\n", b"true", b"[", b'"')
    ),
)
