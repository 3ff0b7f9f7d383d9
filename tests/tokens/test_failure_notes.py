"""Failure notes in Redis are trusted no more than a provider's response."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenmw.errors import CredentialRejected, TokenUnavailable
from tokenmw.tokens.failures import Failure

UNKNOWN = "crm: no valid token: another process could not get a token"


def read(note: bytes) -> Failure:
    """Read a note that is valid for 30 s."""
    return Failure.from_note(note, left=30.0, before=None, now=1_000.0)


BAD_NOTES = [
    *(b"", b"\xff", b"{}", b"[]", b"[1]", b"[" * 100_000, b'[false, "", "", 1]'),
    *(b'[false, "a", "b", Infinity]', b'[false, "a", "b", "x"]', b'[false, ["a"], "", 1]'),
    *(b'[false, "a\\nforged: line", "", 1]', b'[false, "\\u2028", "", 1]', b'[false, "\\ud800", "", 1]'),
    json.dumps([False, "x" * 1_001, "", 1]).encode(),
]


@pytest.mark.parametrize("note", BAD_NOTES, ids=lambda note: repr(note[:32]))
def test_the_text_of_a_malformed_note_is_not_used(note: bytes) -> None:
    """Otherwise a process that can write to Redis could forge lines of our log."""
    assert UNKNOWN == str(read(note).to_error("crm", now=1_000.0))


@pytest.mark.parametrize("permanent", [False, True])
def test_the_text_of_a_note_is_not_shown_to_callers(permanent: bool) -> None:  # noqa: FBT001
    """It is for the log and the status: without `secret_key`, anyone who can write to Redis can write one."""
    error = read(json.dumps([permanent, "10.0.0.5 says: see evil.example", "evil", 1]).encode()).to_error(
        "crm", now=1_000.0
    )
    assert "evil.example" in str(error)
    assert "evil" not in error.detail
    assert "10.0.0.5" not in error.detail
    assert "evil" not in str(error.headers)


def test_a_note_is_never_longer_than_it_is_read() -> None:
    """A text that other instances would not use is cut before it is written."""
    failure = Failure(permanent=False, detail="x" * 5_000, code="y" * 5_000, count=1, retry_at=0.0, shareable=True)
    assert read(failure.failure_note()).detail == "x" * 1_000


def test_a_malformed_code_is_left_out() -> None:
    """The rest of the note is used."""
    error = read(json.dumps([True, "the token endpoint refuses", "a\nb", 1]).encode()).to_error("crm", now=1_000.0)
    assert isinstance(error, CredentialRejected)
    assert ("", "crm: the provider rejects the credential: the token endpoint refuses") == (error.code, str(error))


PLAIN = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E) | st.sampled_from("ä密"), max_size=40)


@given(st.booleans(), PLAIN.filter(bool), PLAIN, st.integers(1, 1_000))
def test_a_note_is_read_as_it_was_written(permanent: bool, detail: str, code: str, count: int) -> None:  # noqa: FBT001
    """Other instances raise the same error as the one that failed; only a rejection has the provider's code."""
    code = code if permanent else ""
    failure = Failure(permanent=permanent, detail=detail, code=code, count=count, retry_at=0.0, shareable=True)
    again = read(failure.failure_note())
    assert (permanent, detail, code, count, 1_030.0) == (
        again.permanent,
        again.detail,
        again.code,
        again.count,
        again.retry_at,
    )


def test_the_count_of_a_note_is_bounded() -> None:
    """A count with thousands of digits, plus one, would be more digits than Python converts."""
    failure = read(f'[false, "busy", "", {"9" * 4300}]'.encode())
    after = Failure.from_error(TokenUnavailable("busy"), before=failure, now=1_000.0)
    assert after.count == read(after.failure_note()).count + 1 == 1_000_001


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(), lambda leaf: st.lists(leaf, max_size=4)
)


@given(st.binary() | st.lists(JSON, min_size=4, max_size=4).map(lambda row: json.dumps(row).encode()))
def test_any_bytes_are_a_failure(note: bytes) -> None:
    """Whatever a note holds, there is an error of one line to raise, and the count of failures goes on."""
    failure = read(note)
    error: Any = failure.to_error("crm", now=1_000.0)
    assert isinstance(error, (CredentialRejected, TokenUnavailable))
    assert str(error).isprintable()
    after = Failure.from_error(TokenUnavailable("busy"), before=failure, now=1_000.0)
    assert failure.count + 1 == after.count
    assert after.retry_at <= 1_300.0
