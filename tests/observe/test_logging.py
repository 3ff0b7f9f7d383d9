"""Events as structured log records: the name of the event, and its fields."""

from __future__ import annotations

import json
import logging
import sys
from typing import Any

import pytest
import structlog

from tests.observe.test_events import EVENTS
from tokenmw.errors import ConfigurationError
from tokenmw.observe import Event, StateSampled, TokenFetched
from tokenmw.observe.logging import FREQUENT, LoggingObserver, fields_of, name_of
from tokenmw.observe.structlog import StructlogObserver


def test_an_event_is_a_record_with_its_fields(caplog: pytest.LogCaptureFixture) -> None:
    """The message is the event's name, so that a search finds all of a kind; empty fields are left out."""
    caplog.set_level(logging.INFO)
    LoggingObserver()(TokenFetched("crm", "granted", 0.5))
    (record,) = caplog.records
    assert ("tokenmw.token_fetched", logging.INFO, "tokenmw.events") == (
        record.getMessage(),
        record.levelno,
        record.name,
    )
    fields = {name: value for name, value in vars(record).items() if name.startswith("tokenmw.")}
    assert {"tokenmw.provider": "crm", "tokenmw.outcome": "granted", "tokenmw.seconds": 0.5} == fields


def test_frequent_events_are_left_out(caplog: pytest.LogCaptureFixture) -> None:
    """What happens with nearly each request is for metrics, unless the program wants it."""
    caplog.set_level(logging.DEBUG)
    for event in EVENTS:
        LoggingObserver(level=logging.DEBUG)(event)
    logged = [type(event) for event in EVENTS if type(event) not in FREQUENT]
    assert len(logged) == len(caplog.records)
    caplog.clear()
    LoggingObserver(logging.getLogger("mine"), leave_out=())(EVENTS[-1])
    assert "tokenmw.state_sampled" == caplog.records[0].getMessage()


def test_a_level_that_is_off_costs_no_record(caplog: pytest.LogCaptureFixture) -> None:
    """Nothing is made of an event that nobody reads."""
    caplog.set_level(logging.WARNING)
    LoggingObserver()(EVENTS[0])
    assert [] == caplog.records


@pytest.mark.parametrize("event", EVENTS, ids=name_of)
def test_fields_can_be_written_as_json(event: Event) -> None:
    """A formatter that writes JSON has no trouble with any of them."""
    json.dumps(fields_of(event))


def test_structlog_gets_the_same() -> None:
    """The event's name is the event, and its fields are keys."""
    seen: list[Any] = []

    def keep(_logger: object, level: str, entry: Any) -> Any:
        seen.append((level, dict(entry)))
        raise structlog.DropEvent

    observer = StructlogObserver(structlog.wrap_logger(None, processors=[keep]))
    observer(TokenFetched("crm", "granted", 0.5))
    observer(StateSampled(1))
    entry = {"event": "tokenmw.token_fetched", "provider": "crm", "outcome": "granted", "seconds": 0.5}
    assert [("info", entry)] == seen


def test_structlog_has_a_logger_of_its_own() -> None:
    """Without a logger of the program's, the observer makes one."""
    with structlog.testing.capture_logs() as lines:
        StructlogObserver()(TokenFetched("crm", "granted", 0.5))
    assert "tokenmw.token_fetched" == lines[0]["event"]


def test_missing_library_is_named_with_its_install_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """The module can be imported without the library; only making the observer needs it."""
    monkeypatch.setitem(sys.modules, "structlog", None)
    with pytest.raises(ConfigurationError, match=r'pip install "tokenmw\[structlog\]"'):
        StructlogObserver()
