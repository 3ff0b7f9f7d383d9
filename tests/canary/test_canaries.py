"""The search for canaries finds them however they are written, and tells one from the other."""

from __future__ import annotations

import base64
import html
import json
from urllib.parse import quote

import pytest

from tests.canary.canaries import MARK, canary, hits

SECRET = canary("a secret of this test")


@pytest.mark.parametrize(
    "written",
    [SECRET, json.dumps(json.dumps(SECRET)), repr(SECRET.encode()), quote(SECRET, safe=""), html.escape(SECRET)],
)
def test_a_canary_is_found_and_known(written: str) -> None:
    """In the clear and in all forms that escape special characters only, its kind is told."""
    assert {"a secret of this test"} <= {hit.kind for hit in hits(b"before " + written.encode() + b" behind")}


@pytest.mark.parametrize(
    "written",
    [
        *(base64.b64encode(b"x" * before + SECRET.encode()).decode() for before in range(6)),
        *(base64.urlsafe_b64encode(f"{'x' * before}:{SECRET}".encode()).decode() for before in range(3)),
        SECRET.encode().hex(),
        SECRET.encode().hex().upper(),
        "".join(f"%{one:02X}" for one in SECRET.encode()),
        "".join(f"\\x{one:02x}" for one in SECRET.encode()),
        SECRET[: len(MARK) + 3],
        SECRET[-len(MARK) - 3 :],
        base64.b64encode(SECRET[:20].encode()).decode(),
    ],
)
def test_coded_and_cut_canaries_are_found(written: str) -> None:
    """Base64 wherever it begins, hexadecimal digits, percent signs, and the beginning or the end alone."""
    assert hits(b"before " + written.encode() + b" behind")


def test_a_canary_counts_once() -> None:
    """Its end is no second one; and nothing is found where there is none."""
    assert ["a secret of this test"] == [hit.kind for hit in hits(f"({SECRET})".encode())]
    assert [] == hits(f"{MARK[:-1]} {MARK.lower()} {MARK[::-1]}".encode())
