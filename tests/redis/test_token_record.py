"""The stored record of a token: read as it was written, and refused if no request could use it."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenmw.redis.sealing import Unreadable
from tokenmw.redis.token_store import TokenRecord
from tokenmw.values import MAX_LIFETIME

RECORD = TokenRecord("t-1", "Bearer", 7200.0, 60.0, {"instance_url": "https://eu.example"})


def anything(*values: Any) -> tuple[Any, ...]:
    """Return values whose types no signature has."""
    return values


GOOD: list[Any] = ["t-1", "Bearer", 7200, None, {}]


ROWS: list[Any] = [
    *([], {}, None, 7, GOOD[:4], [*GOOD, 1]),
    *([bad, *GOOD[1:]] for bad in anything("", None, 7, "a b", "a\r\nx: y", "é")),
    *([GOOD[0], bad, *GOOD[2:]] for bad in anything("", "Bearer x", None)),
    *([*GOOD[:2], bad, *GOOD[3:]] for bad in anything(0, -1, None, "7200", math.nan)),
    *([*GOOD[:3], bad, GOOD[4]] for bad in anything("soon", math.nan, math.inf, [], 10**400)),
    *([*GOOD[:4], bad] for bad in anything(None, [], "x", 7)),
]


@pytest.mark.parametrize("row", ROWS)
def test_record_that_no_request_could_use_is_damaged(row: object) -> None:
    """Empty values, values that would break a header, and invalid lifetimes are."""
    with pytest.raises(Unreadable, match="damaged"):
        TokenRecord.decode(json.dumps(row).encode())


@pytest.mark.parametrize("body", [b"", b"\xff", b"[" * 100_000])
def test_body_that_is_no_json_is_damaged(body: bytes) -> None:
    """Whatever the parser raises, the reason is the same."""
    with pytest.raises(Unreadable, match="damaged"):
        TokenRecord.decode(body)


def test_record_is_read_as_it_was_written() -> None:
    """Its repr shows no token, and the format does not change, because other releases read it."""
    assert TokenRecord.decode(RECORD.encode()) == RECORD
    assert RECORD.encode() == b'["t-1","Bearer",7200.0,60.0,{"instance_url":"https://eu.example"}]'
    assert "t-1" not in repr(RECORD)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda leaf: st.lists(leaf, max_size=3) | st.dictionaries(st.text(), leaf, max_size=3),
)
FINITE = st.floats(allow_nan=False, allow_infinity=False)
EXTRA = st.dictionaries(st.text(), st.none() | st.booleans() | st.integers() | FINITE | st.text(), max_size=4)


@given(
    st.text("".join(map(chr, range(0x21, 0x7F))), min_size=1, max_size=50),
    st.floats(1e-3, MAX_LIFETIME),
    st.none() | FINITE,
    EXTRA,
)
def test_every_record_is_read_as_it_was_written(
    value: str, lifetime: float, no_refresh_until: float | None, extra: dict[str, Any]
) -> None:
    """Other processes and other releases read the same."""
    record = TokenRecord(value, "Bearer", lifetime, no_refresh_until, extra)
    assert record == TokenRecord.decode(record.encode())


@given(JSON | st.lists(JSON, min_size=5, max_size=5) | st.tuples(st.text(), st.just("B"), FINITE, JSON, EXTRA))
def test_any_json_is_a_usable_record_or_damaged(row: Any) -> None:
    """No other exception is raised."""
    try:
        record = TokenRecord.decode(json.dumps(row).encode())
    except Unreadable:
        return
    assert 0 < record.lifetime <= MAX_LIFETIME
    assert record == TokenRecord.decode(record.encode())
