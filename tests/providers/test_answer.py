from __future__ import annotations

import contextlib
import gzip
import json
import time
import zlib
from collections.abc import AsyncGenerator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import httpx
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tokenmw.errors import TokenUnavailable
from tokenmw.providers.answer import MAX_RETRY_AFTER, Answer, UnusableAnswer, read_body, retry_after
from tokenmw.providers.answer import http_date as parse_http_date

NOW = datetime(2026, 11, 20, 8, 49, 37, tzinfo=UTC)


def http_date(seconds: float) -> str:
    """Write the instant `seconds` after NOW as an HTTP date."""
    return format_datetime(NOW + timedelta(seconds=seconds), usegmt=True)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("120", 120.0),
        ("0", 0.0),
        (" 7 ", 7.0),
        ("1.5", 1.5),
        ("3601", MAX_RETRY_AFTER),
        ("999999999", MAX_RETRY_AFTER),
        (http_date(30), 30.0),
        (http_date(86_400), MAX_RETRY_AFTER),
        ("Friday, 20-Nov-26 08:50:07 GMT", 30.0),
        ("Fri Nov 20 08:50:07 2026", 30.0),
        (http_date(-1), None),
        ("-5", None),
        ("", None),
        ("soon", None),
        ("5, 10", None),
        ("1e3", None),
        ("٣", None),
        ("NaN", None),
        ("Fri, 99 Nov 2026 08:50:07 GMT", None),
    ],
)
def test_retry_after_is_read_in_both_forms(value: str, expected: float | None) -> None:
    """Seconds and dates are read (RFC 9110 §10.2.3), at most 3600 s; other values count as not given."""
    assert expected == retry_after({"retry-after": value}, now=NOW.timestamp())


def test_date_is_compared_with_the_response_s_own_clock() -> None:
    """A server whose clock is an hour off still asks for half a minute."""
    headers = {"retry-after": http_date(3630), "date": http_date(3600)}
    assert 30.0 == retry_after(headers, now=NOW.timestamp())
    assert 30.0 == retry_after({**headers, "retry-after": http_date(30), "date": "?"}, now=NOW.timestamp())


@settings(deadline=None)
@given(value=st.text(), date=st.text())
@example(value="Mon, 01 Jan 0001 00:00:00 +2359", date="")
@example(value="Fri, 20 Nov 99999 08:50:07 GMT", date="")
@example(value=" ", date=",")
def test_any_header_gives_at_most_an_hour(value: str, date: str) -> None:
    """Any two header values give None, or between 0 and 3600 seconds."""
    seconds = retry_after({"retry-after": value, "date": date}, now=NOW.timestamp())
    assert seconds is None or 0 <= seconds <= MAX_RETRY_AFTER


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 599])
def test_busy_statuses_raise_with_retry_after(status: int) -> None:
    """The error is the provider's own, so it is shared with other instances."""
    with pytest.raises(TokenUnavailable, match=f"HTTP {status}") as caught:
        Answer(status, retry_after=7.0).check_busy()
    assert (True, 7.0) == (caught.value.said, caught.value.retry_after)
    assert {"Retry-After": "7"} == caught.value.headers


@pytest.mark.parametrize("status", [200, 400, 401, 403, 404, 422])
def test_other_statuses_are_for_the_provider_to_read(status: int) -> None:
    """Other statuses do not raise."""
    Answer(status).check_busy()


@settings(deadline=None)
@given(st.dictionaries(st.text(), st.none() | st.integers() | st.text() | st.lists(st.booleans())))
def test_json_object_is_read(document: dict[str, Any]) -> None:
    """A JSON object is read in UTF-8, and in the encodings that RFC 4627 allowed."""
    for encoding in ("utf-8", "utf-8-sig", "utf-16", "utf-32"):
        assert document == Answer(200, body=json.dumps(document).encode(encoding)).json()


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b"null", b'"text"', b"{", b"\xff", b"<html>", b"[" * 100_000, b'{"a":' * 100_000, b"1" * 5_000],
    ids=["empty", "list", "null", "text", "half", "no text", "HTML", "deep list", "deep object", "huge number"],
)
def test_other_bodies_are_unavailability(body: bytes) -> None:
    """A body that is not a JSON object raises, and the text has no part of it."""
    with pytest.raises(TokenUnavailable) as caught:
        Answer(200, body=body).json()
    expected = f"did not answer with a JSON object (HTTP 200, no content type, {len(body)} bytes)"
    assert f"the token endpoint {expected}" == str(caught.value)


@settings(deadline=None)
@given(st.binary())
def test_any_body_is_an_object_or_our_error(body: bytes) -> None:
    """Any bytes give a dictionary or `TokenUnavailable`."""
    with contextlib.suppress(TokenUnavailable):
        assert isinstance(Answer(200, body=body).json(), dict)


@pytest.mark.parametrize(
    ("content_type", "shown"),
    [
        ("text/html; charset=utf-8", "text/html"),
        ("Application/JSON", "application/json"),
        ("", "no content type"),
        ("<script>/x", "another content type"),
        ("a/s3cr3t", "another content type"),
        ("text/html" + " " * 60_000 + "a/s3cr3t", "text/html"),
    ],
)
def test_content_type_is_shown_only_if_it_is_one(content_type: str, shown: str) -> None:
    """Only well-known types are shown, because the server chooses the text."""
    answer = Answer(200, headers={"Content-Type": content_type}, body=b"<html>hidden")
    with pytest.raises(TokenUnavailable, match=shown) as caught:
        answer.json()
    assert "hidden" not in str(caught.value) + repr(answer)
    assert "s3cr3t" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_answer_is_frozen_and_its_repr_holds_no_body() -> None:
    """An answer holds a token, so it cannot change and its `repr` has sizes only."""
    answer = Answer(200, headers={"X-A": "1"}, body=b'{"access_token": "t"}')
    assert "<Answer 200, 21 bytes>" == repr(answer)
    assert {"x-a": "1"} == answer.headers
    with pytest.raises(AttributeError):
        answer.status = 500


@pytest.mark.parametrize("zone", ["Asia/Shanghai", "America/New_York", "UTC"])
def test_a_date_without_a_zone_is_in_utc(zone: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two of the three date forms have no zone or "-0000" (RFC 9110 §5.6.7); both mean UTC, not local time."""
    with monkeypatch.context() as patched:
        patched.setenv("TZ", zone)
        time.tzset()
        for text in ("Fri Nov 20 08:49:37 2026", "Fri, 20 Nov 2026 08:49:37 -0000", "Fri, 20 Nov 2026 08:49:37 GMT"):
            assert NOW.timestamp() == parse_http_date(text)
    time.tzset()


INSTANTS = st.datetimes(datetime(1970, 1, 1), datetime(9999, 12, 31)).map(  # noqa: DTZ001  all are made UTC
    lambda instant: instant.replace(microsecond=0, tzinfo=UTC)
)


@given(INSTANTS)
def test_every_date_is_read_in_all_three_forms(instant: datetime) -> None:
    """A date is read in the current form, and in the form of asctime()."""
    assert instant.timestamp() == parse_http_date(format_datetime(instant, usegmt=True))
    assert instant.timestamp() == parse_http_date(instant.ctime())


def read(body: bytes, *, coding: str, limit: int) -> bytes | UnusableAnswer:
    """Read a body that arrives in chunks."""

    class Chunks(httpx.AsyncByteStream):
        async def __aiter__(self) -> AsyncGenerator[bytes]:
            for begin in range(0, len(body), 7):
                yield body[begin : begin + 7]

    response = httpx.Response(200, headers={"content-encoding": coding}, stream=Chunks())
    try:
        read_body(response, limit=limit).send(None)
    except StopIteration as stop:  # nothing in it waits
        body_read: bytes = stop.value
        return body_read
    except UnusableAnswer as unusable:
        return unusable
    raise AssertionError("read_body has waited.")


@settings(max_examples=50)
@given(body=st.binary(min_size=1, max_size=200), limit=st.integers(1, 200), cut=st.integers(1, 8))
def test_compressed_body_is_read_or_refused(body: bytes, limit: int, cut: int) -> None:
    """A body within the limit is read back; a longer or cut-off one is refused."""
    for coding, wire in (("gzip", gzip.compress(body, mtime=0)), ("deflate", zlib.compress(body)), ("identity", body)):
        outcome = read(wire, coding=coding, limit=limit)
        if max(len(body), len(wire)) <= limit:
            assert body == outcome
        elif len(body) > limit:
            assert isinstance(outcome, UnusableAnswer)
        if coding != "identity":
            assert isinstance(read(wire[:-cut], coding=coding, limit=1000), UnusableAnswer)
