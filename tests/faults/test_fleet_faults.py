"""A fleet under steady load keeps its promises while Sentinel fails over, a cluster changes and processes misbehave.

All faults are run once, some at the same time; each test checks the result of one.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from tests.faults.fleet_campaign import FLEET_FAULTS, fleet_campaign
from tests.faults.fleet_faults import FIRST_KEYS, NEW_KEYS, TOKEN_LIFETIME
from tests.faults.fleet_load import HELD, LONG_LIVED, NAMES
from tests.redis.clusters import needs_cluster_urls

if TYPE_CHECKING:
    from tests.faults.fleet_campaign import FleetResult
    from tests.faults.fleet_faults import FleetFault

pytestmark = pytest.mark.campaign
EACH = pytest.mark.parametrize(
    "fault",
    [pytest.param(fault, id=fault.name, marks=needs_cluster_urls if fault.cluster else ()) for fault in FLEET_FAULTS],
)
LINES_OF_A_KIND = 6  # in one process: an outage that begins again is logged up to three times a minute, with its end


@pytest.fixture(scope="module")
def results(request: pytest.FixtureRequest) -> dict[str, FleetResult]:
    """The results of the selected faults."""
    params = [item.callspec.params for item in request.session.items if isinstance(item, pytest.Function)
              and hasattr(item, "callspec")]  # fmt: skip
    selected = {id(value["fault"]) for value in params if "fault" in value}
    return asyncio.run(fleet_campaign(fault for fault in FLEET_FAULTS if id(fault) in selected))


@pytest.fixture
def result(results: dict[str, FleetResult], fault: FleetFault) -> FleetResult:
    """The result of the fault of one test."""
    return results[fault.name]


@EACH
def test_no_request_fails(result: FleetResult) -> None:
    """No request fails before, during or after a fault, except those in a process that was killed."""
    assert [] == [failure for record in result.records for failure in record.failures]
    assert all(record.requests > 10 for record in result.records)


@EACH
def test_tokens_are_valid(result: FleetResult) -> None:
    """No token is expired by the worker's clock or by the token server's, and none is another provider's."""
    assert 0 == sum(record.expired for record in result.records)
    assert {} == result.expired
    assert [] == result.foreign
    assert all(record.values.keys() >= {*NAMES, *LONG_LIVED} for record in result.records)


@EACH
def test_no_id_alternates(result: FleetResult) -> None:
    """Each API key has one id, in all processes, also in those that were started after others had been killed."""
    assert {} == result.alternated
    keys = {key for record in result.records for key in record.ids}
    assert keys >= {*FIRST_KEYS, *NEW_KEYS}


@EACH
def test_fetches_are_bounded(result: FleetResult, fault: FleetFault) -> None:
    """A token is fetched once for each part of its lifetime before the refresh, or once by each process alone."""
    lifetimes = result.seconds / (TOKEN_LIFETIME * 0.75) + 1
    for name, fetches in result.fetches.items():
        if name in NAMES:
            assert fetches <= fault.fetchers * lifetimes + 2, name
        elif name in {*LONG_LIVED, HELD}:
            assert fetches <= fault.fetchers + 2, name  # one is invalidated, and one is lost with its process
        else:
            assert 1 == fetches, name


@EACH
def test_waiting_is_bounded(result: FleetResult, fault: FleetFault) -> None:
    """No request takes longer than the deadlines, the lease or the stop of its process that it may wait for."""
    assert result.columns.slowest < fault.slowest


@EACH
def test_the_status_shows_an_outage(result: FleetResult, fault: FleetFault) -> None:
    """`status().shared` is "down" in some process during an outage of Redis, and in none during other faults."""
    down = {reason for record in result.records for reason in record.down}
    assert fault.state == "either" or bool(down) == (fault.state == "down"), down


@EACH
def test_all_is_shared_again(result: FleetResult, fault: FleetFault) -> None:
    """In time after the fault, Redis and all processes have the same ids, tokens and invalidations."""
    assert result.healed is not None, result.unhealed
    assert result.healed <= fault.healed_within


@EACH
def test_few_lines_are_logged(result: FleetResult, fault: FleetFault) -> None:
    """A process logs an outage when it begins and when it ends, for each server, however many requests it affects."""
    for record in result.records:
        assert all(count <= LINES_OF_A_KIND for count in record.kinds.values()), record.lines
        problems = {kind for kind in record.kinds if not kind.startswith(("redis", "provider:"))}
        assert problems <= fault.logged, record.lines
