"""The search for canaries finds every encoding and recognises the kind."""

from __future__ import annotations

import base64
import html
import json
from urllib.parse import quote

import pytest

from tests.canary.canaries import MARK, canary, hits

SECRET = canary("a secret of this test")


@pytest.mark.parametrize(
    "text",
    [SECRET, json.dumps(json.dumps(SECRET)), repr(SECRET.encode()), quote(SECRET, safe=""), html.escape(SECRET)],
)
def test_a_canary_is_found_and_its_kind_is_recognised(text: str) -> None:
    """The kind is recognised in plain text and where only special characters are escaped."""
    assert {"a secret of this test"} <= {hit.kind for hit in hits(b"before " + text.encode() + b" after")}


@pytest.mark.parametrize(
    "text",
    [
        *(base64.b64encode(b"x" * before + SECRET.encode()).decode() for before in range(6)),
        *(base64.urlsafe_b64encode(f"{'x' * before}:{SECRET}".encode()).decode() for before in range(3)),
        SECRET.encode().hex(),
        SECRET.encode().hex().upper(),
        "".join(f"%{byte:02X}" for byte in SECRET.encode()),
        "".join(f"\\x{byte:02x}" for byte in SECRET.encode()),
        SECRET[: len(MARK) + 3],
        SECRET[-len(MARK) - 3 :],
        base64.b64encode(SECRET[:20].encode()).decode(),
    ],
)
def test_encoded_and_truncated_canaries_are_found(text: str) -> None:
    """A canary is found in base64 at any offset, in hexadecimal, percent-encoded, and by its beginning or end alone."""
    assert hits(b"before " + text.encode() + b" after")


def test_a_canary_counts_once() -> None:
    """The two marks of a canary are one hit, and parts of a mark are none."""
    assert ["a secret of this test"] == [hit.kind for hit in hits(f"({SECRET})".encode())]
    assert [] == hits(f"{MARK[:-1]} {MARK.lower()} {MARK[::-1]}".encode())
