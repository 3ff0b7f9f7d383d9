"""What is stored of a token: read as it was written, and refused if nobody could use it."""

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
    """Return values of types that belong to nobody's signature."""
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
def test_a_record_that_nobody_could_use_is_damaged(row: object) -> None:
    """Empty values, values that would break a header, lives that are none."""
    with pytest.raises(Unreadable, match="damaged"):
        TokenRecord.decode(json.dumps(row).encode())


@pytest.mark.parametrize("body", [b"", b"\xff", b"[" * 100_000])
def test_what_is_no_json_is_damaged(body: bytes) -> None:
    """Whatever the parser makes of it."""
    with pytest.raises(Unreadable, match="damaged"):
        TokenRecord.decode(body)


def test_a_record_is_read_as_it_was_written() -> None:
    """And its text form shows no token; the format is held, as other releases read it."""
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
    value: str, life: float, no_refresh_until: float | None, extra: dict[str, Any]
) -> None:
    """By other processes, and by other releases."""
    record = TokenRecord(value, "Bearer", life, no_refresh_until, extra)
    assert record == TokenRecord.decode(record.encode())


@given(JSON | st.lists(JSON, min_size=5, max_size=5) | st.tuples(st.text(), st.just("B"), FINITE, JSON, EXTRA))
def test_no_record_is_too_strange(row: Any) -> None:
    """It can be served, or it is damaged."""
    try:
        record = TokenRecord.decode(json.dumps(row).encode())
    except Unreadable:
        return
    assert 0 < record.life <= MAX_LIFETIME
    assert record == TokenRecord.decode(record.encode())
