"""Processes under steady load keep serving during every fault of Redis, and share everything again afterwards.

All faults are run once, some at the same time; each test checks the result of one.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from tests.faults.campaign import COMMAND_SECONDS, RECOVERED_WITHIN, TOKEN_LIFETIME, campaign
from tests.faults.load import NAMES
from tests.faults.outages import OUTAGES
from tests.faults.outages_glide import GLIDE

if TYPE_CHECKING:
    from tests.faults.campaign import Result
    from tests.faults.outage import Outage, Promise

pytestmark = pytest.mark.campaign
ALL = (*OUTAGES, *GLIDE)
EACH = pytest.mark.parametrize("outage", ALL, ids=lambda outage: outage.name)
RECOVERING = [pytest.param(outage, id=outage.name) for outage in ALL if outage.recovers]
SLACK = 0.45  # seconds, for a busy machine; a wait at each new key would exceed it


@pytest.fixture(scope="module")
def results(request: pytest.FixtureRequest) -> dict[str, Result]:
    """The results of the selected faults."""
    params = [item.callspec.params for item in request.session.items if isinstance(item, pytest.Function)
              and hasattr(item, "callspec")]  # fmt: skip
    selected = {id(value["outage"]) for value in params if "outage" in value}
    return asyncio.run(campaign(outage for outage in ALL if id(outage) in selected))


@pytest.fixture
def result(results: dict[str, Result], outage: Outage) -> Result:
    """The result of the fault of one test."""
    return results[outage.name]


@EACH
def test_no_request_fails(result: Result) -> None:
    """No request fails before, during or after a fault, and there are requests in each phase."""
    assert [] == [failure for phase in result.all_phases for failure in phase["failures"]]
    assert all(phase["requests"] > 20 for phase in result.phases("during"))


@EACH
def test_tokens_are_valid(result: Result, outage: Outage) -> None:
    """Each provider has a token during the fault; none is expired or of another provider."""
    assert [] == result.foreign
    assert all(phase["values"][name] for phase in result.phases("during") for name in NAMES)
    _skip_exempt(outage, "unexpired")
    assert 0 == sum(phase["expired"] for phase in result.all_phases)


@EACH
def test_no_session_id_is_of_two_keys(result: Result) -> None:
    """Whatever replies arrive, no API key gets the session id of another one."""
    owners: dict[str, set[str]] = {}
    for key, ids in result.ids.items():
        for session_id in ids:
            owners.setdefault(session_id, set()).add(key)
    assert [] == [keys for keys in owners.values() if len(keys) > 1]


@EACH
def test_fetches_are_spaced(result: Result) -> None:
    """Each process fetches a token at most once in the part of its lifetime before the refresh."""
    lifetimes = result.seconds / (TOKEN_LIFETIME * 0.75) + 1
    assert result.fetches <= result.outage.workers * len(NAMES) * lifetimes


@EACH
def test_known_keys_keep_their_ids(result: Result) -> None:
    """A key that had an id before the fault has the same id during the fault."""
    for before, report in zip(result.before, result.reports, strict=True):
        during = report["phases"]["during"]["ids"]
        assert before == {key: during[key] for key in before}
        assert {} == report["phases"]["during"]["changed"]


@EACH
def test_new_keys_have_one_id_in_all_processes(result: Result, outage: Outage) -> None:
    """All processes return the same id for a new key, also those for which Redis is available."""
    _skip_exempt(outage, "new ids")
    first, *others = (phase["ids"] for phase in result.phases("during"))
    fresh = [key for key in first if key.startswith("fresh-")]
    assert 20 == len(fresh)
    for other in others:
        assert {key: first[key] for key in fresh} == {key: other.get(key) for key in fresh}


@EACH
def test_derived_ids_do_not_alternate(result: Result, outage: Outage) -> None:
    """A key has one id throughout in all processes; if ids are random, a key that all knew before the fault."""
    known = {key for key in result.before[0] if all(key in before for before in result.before)}
    derived = outage.broker.get("session_ids") != "random"
    several = {key for key, ids in result.ids.items() if len(ids) > 1}
    assert set() == several if derived else several.isdisjoint(known)


@EACH
def test_waiting_is_bounded(result: Result, outage: Outage) -> None:
    """A process waits for at most three command deadlines in all, independent of the number of requests."""
    for phase in result.phases("during"):
        # The 99th percentile: requests with known keys do not wait for Redis.
        assert sorted(phase["warm"])[len(phase["warm"]) * 99 // 100] < COMMAND_SECONDS / 3
        assert phase["longest"] < COMMAND_SECONDS + SLACK
        if outage.state != "up" and "bounded in all" not in outage.exempt:
            assert phase["waited"] < 3 * COMMAND_SECONDS + SLACK


@EACH
def test_the_status_shows_the_outage(result: Result, outage: Outage) -> None:
    """During the fault, `status().shared` says whether Redis is in use."""
    if outage.state != "either":
        assert outage.states == [report["shared"] for report in result.during]


@EACH
def test_an_outage_is_logged_once(result: Result) -> None:
    """One line is logged when the outage begins and one when it ends, with the number of suppressed lines."""
    for report in result.reports:
        kinds = [kind for kind, _suppressed, _text in report["lines"]]
        # An outage that begins again and again is logged up to three times a minute.
        assert all(kinds.count(kind) <= 6 for kind in kinds)
    for report, state in zip(result.reports, result.outage.states, strict=True):
        if state == "down":
            other_lines = "no other lines" in result.outage.exempt
            lines = [line for line in report["lines"] if line[0] == "redis" or not other_lines]
            first, *_, (kind, suppressed, last) = lines
            assert ["redis", 0, "Redis unavailable"] == [*first[:2], first[2][:17]]
            assert ("redis", "Redis recovered") == (kind, last[:15])
            assert last.endswith(f"({suppressed} similar messages suppressed)")
            assert suppressed >= 2


@pytest.mark.parametrize("outage", RECOVERING)
def test_all_is_shared_again_by_itself(result: Result) -> None:
    """Within 15 s after the fault and without a request, Redis and all processes have the same ids and tokens.

    Redis also has the invalidation that one process made during the fault.
    """
    state = f"{result.sessions} of {result.keys} sessions are in Redis, and tokens {result.tokens}"
    assert result.recovery is not None, f"{state}; the processes have {result.served}"
    assert result.recovery <= RECOVERED_WITHIN
    assert result.keys == result.sessions
    assert result.consistent
    assert result.after == [result.third] * result.outage.workers


def _skip_exempt(outage: Outage, promise: Promise) -> None:
    if reason := outage.exempt.get(promise):
        pytest.skip(reason)
