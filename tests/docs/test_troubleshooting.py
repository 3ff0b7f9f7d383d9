"""The table of troubleshooting has each log line and each word of the status, and nothing that no longer exists."""

from __future__ import annotations

import re
import typing

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

import tokenmw
from tests.docs.log_texts import log_texts, pattern, redis_reasons, repeated_endings, specific_match
from tests.docs.pages import page
from tokenmw import observe
from tokenmw.observe.metrics import ERROR_WORDS, OPERATIONS, REASONS
from tokenmw.redis.connection import OPERATIONS as OPERATIONS_OF_REDIS

GUIDE = page("troubleshooting.md")


def _first_cells(section: str) -> list[str]:
    """Return the first cells of a section's tables; each is one text in backticks, or several."""
    return [text for row in GUIDE.rows(section) for text in re.findall(r"`([^`]+)`", row[0])]


def test_every_log_line_is_in_the_table() -> None:
    """Each text that the package can log has a row."""
    texts = log_texts()
    assert len(texts) > 10
    matched = {specific_match(row, texts) for row in _first_cells("Log lines")}
    assert sorted(texts - matched) == []


def test_every_row_is_a_log_line() -> None:
    """Each row stands for a text that the package can log."""
    texts = log_texts()
    assert [row for row in _first_cells("Log lines") if specific_match(row, texts) is None] == []


def test_every_word_of_the_status_is_in_a_table() -> None:
    """States of Redis and of providers, and the reasons of Redis failures, are explained; no other word is."""
    hints = typing.get_type_hints(tokenmw.Status)
    provider = typing.get_args(hints["providers"])[1]
    states = typing.get_args(typing.get_type_hints(provider)["state"])
    assert sorted(_first_cells("Words of the status: Redis")) == sorted(typing.get_args(hints["shared"]))
    assert sorted(_first_cells("Words of the status: providers")) == sorted(states)
    reasons = redis_reasons()
    assert {"timeout", "connection", "readonly", "full", "client"} <= reasons
    assert sorted(_first_cells("Reasons of Redis failures")) == sorted(reasons)


def test_every_word_of_an_event_is_in_a_table() -> None:
    """Each word that a field of an event can have is explained, and no other one is."""
    classes = [getattr(observe, name) for name in observe.__all__ if name != "Observer"]
    hints = [hint for one in classes for hint in typing.get_type_hints(one).values()]
    words = {word for hint in hints for word in typing.get_args(hint) if isinstance(word, str)}
    assert {*words, *REASONS, "unknown-key", "damaged", "expired"} == set(_first_cells("Words of events"))


def test_reasons_are_those_of_the_metrics() -> None:
    """What the events can have, and what a failure of Redis can be, is what the series begin with."""
    assert redis_reasons() - {"open"} == set(ERROR_WORDS)
    assert {OPERATIONS_OF_REDIS.get(name, "other") for name in (*OPERATIONS_OF_REDIS, "marker")} == set(OPERATIONS)


def test_every_row_has_a_meaning_and_a_fix() -> None:
    """No cell is empty."""
    rows = [row for section in GUIDE.sections for row in GUIDE.rows(section)]
    assert len(rows) > 40
    assert [row for row in rows if len(row) != 3 or not all(row)] == []


@pytest.mark.parametrize("attribute", ["tokens", "session_id", "caller"])
def test_the_error_of_a_missing_attribute_is_in_the_table(attribute: str) -> None:
    """Starlette's text for a state without tokens, session id or caller has a row; the causes are those of the row."""

    async def home(request: Request) -> PlainTextResponse:
        return PlainTextResponse(str(getattr(request.state, attribute)))

    broker = tokenmw.TokenBroker({})
    app = Starlette(routes=[Route("/", home)], lifespan=None if attribute == "tokens" else broker.lifespan)
    if attribute != "tokens":
        app.add_middleware(tokenmw.TokenMiddleware, broker=broker, sessions=False)
    with TestClient(app) as client, pytest.raises(AttributeError) as caught:
        client.get("/")
    assert str(caught.value) in _first_cells("Symptoms without a line")


def test_the_lines_of_an_outage_are_lines_of_the_package() -> None:
    """The example of the guide on operations is made of texts that the package logs, with its counts."""
    lines = page("observability.md").block("text", "tokenmw: Redis ").splitlines()
    texts, endings = log_texts(), ["", *repeated_endings()]
    assert len(lines) == 3
    made = [pattern(text + ending) for text in texts for ending in endings]
    exact = [one for one in made if not one.pattern.startswith(".*")]
    assert [line for line in lines if not any(one.fullmatch(line.removeprefix("tokenmw: ")) for one in exact)] == []
