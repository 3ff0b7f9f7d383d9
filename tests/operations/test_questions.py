"""The guide's table of operators' questions: each answer is at each place that it names, in a fleet with faults."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

import pytest

from tests.docs.pages import page
from tests.operations.broken_fleet import Seen, see_broken_fleet

GUIDE: Final = page("operator_questions.md")
ROWS: Final = {row[0]: row[1:] for row in GUIDE.rows("Where each answer is")}


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> tuple[Seen, Seen]:
    """What is seen while providers fail, and when Redis has failed as well."""
    return asyncio.run(see_broken_fleet(tmp_path_factory.mktemp("program")))


@dataclass
class Answer:
    """Where an answer is, and what it is in the fleet of the test.

    Attributes:
        page: What the page shows.
        json: By path, what one of the values is.
        command_line: What `check` or `inspect` prints.
        metrics: By metric, what is true of it.
        without_redis: Whether Redis has to be unavailable for the question.
    """

    page: str = ""
    json: dict[str, Callable[[Any], bool]] = field(default_factory=dict[str, Callable[[Any], bool]])
    command_line: dict[str, str] = field(default_factory=dict[str, str])
    metrics: dict[str, Callable[[Seen], bool]] = field(default_factory=dict[str, Callable[[Seen], bool]])
    without_redis: bool = False


def recent(value: float) -> bool:
    """Return whether a time is in the last minutes."""
    return 0 <= time.time() - value < 600


FAILING: Final = "tokenmw_provider_failing_credentials"
EXPIRY: Final = "tokenmw_token_expiry_timestamp_seconds"
NEXT: Final = "tokenmw_token_next_attempt_timestamp_seconds"
FETCHES: Final = "tokenmw_token_fetches_total"
REQUESTS: Final = "tokenmw_token_requests_total"
UNSHARED: Final = "tokenmw_unshared"
SHOWN_UNSHARED: Final = r"Not in Redis yet 1 token, 1 invalidation, (1 session|[1-9]\d* sessions)\b"

ANSWERS: Final = {
    "Which provider is failing?": Answer(
        r"Providers .*erp failing .*mail failing ",
        {"providers[].name": lambda name: name == "erp", "providers[].state": lambda state: state == "failing"},
        {"check": r"FAIL +provider +erp", "inspect": r"provider erp\n  token +none"},
        {FAILING: lambda one: one.metric(FAILING, provider="erp") == one.metric(FAILING, provider="mail") == 1},
    ),
    "Since when, and why?": Answer(
        r"erp failing [\d: ZUTC-]*.*invalid_client",
        {
            "providers[].since": recent,
            "providers[].error": lambda text: "invalid_client" in text,
            "providers[].reason": lambda reason: reason == "rejected",
        },
        {"check": r"erp.*invalid_client", "inspect": r"failure +rejected: .*invalid_client"},
        {FAILING: lambda one: one.metric(FAILING, provider="erp", reason="rejected") == 1},
    ),
    "How often was it tried, and when is the next attempt?": Answer(
        r"Last error Attempts .*erp failing .* 1, next in \d+ s",
        {"providers[].attempts": lambda count: count >= 1, "providers[].next_attempt_in": lambda left: 0 < left < 60},
        {"inspect": r"attempt 1.*the note expires in \d"},
        {
            FETCHES: lambda one: one.metric(FETCHES, provider="erp", outcome="rejected") >= 1,
            NEXT: lambda one: 0 < one.metric(NEXT, provider="erp") - one.json["time"] < 60,
        },
    ),
    "Which tenants' credentials are failing?": Answer(
        r"Failing credentials of callables: 2 .*tenants \S{8} rejected",
        {
            "failing_credentials.count": lambda count: count == 2,
            "failing_credentials.worst[].credential": lambda name: len(name) == 8,
        },
        {},
        {FAILING: lambda one: one.metric(FAILING, provider="tenants", reason="rejected") == 2},
    ),
    "How old is the token in use, and when is it renewed?": Answer(
        r"crm fresh .* left",
        {
            "providers[].lifetime": lambda lifetime: lifetime == pytest.approx(3600, abs=1),
            "providers[].expires_in": lambda left: 3500 < left < 3600,
            "providers[].refresh_in": lambda left: 2600 < left < 3500,
        },
        {"check": r"ok +provider +crm", "inspect": r"age \d+.*left of 3600 s\n  refresh +due in 2"},
        {
            EXPIRY: lambda one: 3500 < one.metric(EXPIRY, provider="crm") - one.json["time"] < 3600,
            NEXT: lambda one: 2600 < one.metric(NEXT, provider="crm") - one.json["time"] < 3500,
        },
    ),
    "Are session ids shared now, and how many are not?": Answer(
        SHOWN_UNSHARED,
        {"redis.state": lambda state: state == "down", "sessions.unshared": lambda count: count >= 1},
        {"check": r"FAIL +redis"},
        {
            "tokenmw_shared_up": lambda one: one.metric("tokenmw_shared_up") == 0,
            UNSHARED: lambda one: one.metric(UNSHARED, kind="session") >= 1,
        },
        without_redis=True,
    ),
    "Is Redis the cause, which server, since when?": Answer(
        r"Redis .*Server State Since Last error .*127\.0\.0\.1:\d+ down ",
        {
            "redis.nodes[].node": lambda node: node.startswith("127.0.0.1:"),
            "redis.nodes[].state": lambda state: state == "down",
            "redis.nodes[].since": recent,
            "redis.nodes[].error": lambda error: error in ("refused", "connection", "reset"),
        },
        {"check": r"FAIL +redis +.*127\.0\.0\.1:\d+"},
        {
            "tokenmw_redis_up": lambda one: one.metric("tokenmw_redis_up") == 0,
            "tokenmw_redis_errors_total": lambda one: one.metric("tokenmw_redis_errors_total") >= 3,
            "tokenmw_redis_breaker_changes_total": lambda one: (
                one.metric("tokenmw_redis_breaker_changes_total", to="open") == 1
            ),
        },
        without_redis=True,
    ),
    "What does this process hold that others do not know?": Answer(
        SHOWN_UNSHARED,
        {
            "tokens.unshared": lambda count: count == 1,
            "tokens.unshared_invalidations": lambda count: count == 1,
            "sessions.unshared": lambda count: count >= 1,
        },
        {},
        {UNSHARED: lambda one: one.metric(UNSHARED, kind="token") == one.metric(UNSHARED, kind="tombstone") == 1},
        without_redis=True,
    ),
    "Which instances run, and which disagree?": Answer(
        r"Instances: 3 .*secret_key",
        {
            "instances[].pid": lambda pid: pid > 0,
            "instances[].stale": lambda stale: stale is False,
            "instances[].differs": lambda differs: differs == ["secret_key"],
            "instances[].old_tokens": lambda names: names == [],
        },
        {"inspect": r"instances 3\n  instance \S+ .*sealed with a secret that this configuration does not have"},
        {
            "tokenmw_build_info": lambda one: one.metric("tokenmw_build_info") == 1,
            EXPIRY: lambda one: one.metric(EXPIRY, provider="crm") > one.json["time"],
        },
    ),
    "How often is a token fetched, and how long does it take?": Answer(
        r"Requests, last hour .*crm fresh .* \d, 95 % within",
        {
            "providers[].fetches_last_hour": lambda count: count >= 2,
            "providers[].fetch_p95": lambda seconds: 0 < seconds < 5,
        },
        metrics={
            FETCHES: lambda one: one.metric(FETCHES, provider="crm", outcome="granted") >= 1,
            "tokenmw_token_fetch_duration_seconds": lambda one: (
                one.metric("tokenmw_token_fetch_duration_seconds_sum", provider="crm", outcome="granted") > 0
            ),
        },
        without_redis=True,
    ),
    "From where are tokens and session ids served?": Answer(
        metrics={
            REQUESTS: lambda one: (
                one.metric(REQUESTS, provider="crm", result="hit") >= 1
                and one.metric(REQUESTS, provider="crm", result="waited") >= 1
            ),
            "tokenmw_tokens_adopted_total": lambda one: one.metric("tokenmw_tokens_adopted_total") >= 0,
            "tokenmw_sessions_resolved_total": lambda one: (
                min(
                    one.metric("tokenmw_sessions_resolved_total", source=source)
                    for source in ("redis", "local", "derived")
                )
                >= 1
            ),
        },
        without_redis=True,
    ),
    "Who invalidated what?": Answer(
        r"Last events of this process .*crm token dropped: another instance invalidated it",
        {"events[].text": lambda text: text == "token dropped: another instance invalidated it"},
        command_line={"inspect": r"tombstone +versions up to \d+ are invalid"},
        metrics={
            "tokenmw_tokens_invalidated_total": lambda one: (
                one.metric("tokenmw_tokens_invalidated_total", provider="crm", cause="instance") == 1
            )
        },
    ),
    "How many requests were answered 401, and why?": Answer(
        metrics={
            "tokenmw_callers_refused_total": lambda one: (
                one.metric("tokenmw_callers_refused_total", reason="missing") == 1
            )
        }
    ),
    "How many requests got 502 and 503, and why?": Answer(
        metrics={
            REQUESTS: lambda one: (
                one.metric(REQUESTS, provider="erp", result="rejected") == 1
                and one.metric(REQUESTS, provider="tenants", result="rejected") == 2
                and one.metric(REQUESTS, provider="mail", result="unavailable") == 1
            ),
            "tokenmw_callers_refused_total": lambda one: (
                one.metric("tokenmw_callers_refused_total", reason="unchecked") == 0
            ),
        }
    ),
    "Is a token about to expire while its provider fails?": Answer(
        r"Providers .*Token .*Attempts .*crm fresh .* left",
        {"providers[].expires_in": lambda left: left > 0, "providers[].next_attempt_in": lambda left: left > 0},
        {"check": r"provider +crm", "inspect": r"left of 3600 s"},
        {
            EXPIRY: lambda one: one.metric(EXPIRY, provider="erp") == 0,
            FAILING: lambda one: one.metric(FAILING, provider="crm") == 0,
        },
    ),
}


def test_the_guide_has_these_questions() -> None:
    """No question is without a test, and no test is of a question that is not in the table."""
    assert list(ANSWERS) == list(ROWS)


@pytest.mark.parametrize("question", ANSWERS)
def test_the_places_are_those_of_the_guide(question: str) -> None:
    """Each place that a cell names is one in which the answer is found, and "None" has none."""
    answer = ANSWERS[question]
    shown, json, command_line, metrics = ROWS[question]
    assert shown.startswith("None") is not bool(answer.page)
    assert list(answer.json) == re.findall(r"`([\w.\[\]]+)`", json)
    assert list(answer.command_line) == re.findall(r"`(check|inspect)`", command_line)
    assert list(answer.metrics) == re.findall(r"`(tokenmw_\w+)`", metrics)


@pytest.mark.parametrize("question", ANSWERS)
def test_the_answer_is_at_each_place(seen: tuple[Seen, Seen], question: str) -> None:
    """It is found in the page, in the JSON, in the output of commands and in the metrics, from each alone."""
    answer = ANSWERS[question]
    one = seen[answer.without_redis]
    assert re.search(answer.page, one.page), one.page
    for path, is_answer in answer.json.items():
        values = one.at(path)
        assert any(is_answer(value) for value in values if value is not None), (path, values)
    for command, pattern in answer.command_line.items():
        assert re.search(pattern, getattr(one, command)), getattr(one, command)
    for name, is_true in answer.metrics.items():
        assert is_true(one), [series for series in one.metrics if series[0].startswith(name)]
