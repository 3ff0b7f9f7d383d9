"""The arithmetic of the benchmark `fleet`, with round figures."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.benchmarks.sizing import Costs, Fleet, primaries_needed, primary, steady_loads

COSTS = Costs(
    microseconds={
        "check": 10.0,
        "check after a hint": 15.0,
        "touch": 2.0,
        "acquire": 20.0,
        "commit": 50.0,
        "read": 30.0,
        "epoch": 40.0,
        "heartbeat": 30.0,
        "announcement": 1.0,
        "upload": 5.0,
        "session read": 3.0,
        "first sight, known": 8.0,
    },
    token_bytes=200.0,
    session_bytes=150.0,
)
FLEET = Fleet(
    instances=100,
    sessions=10_000,
    distinct_sessions=10_000,
    tenants=1_000,
    session_ttl=4_000.0,
    touches_per_ttl=4,
    check_seconds=100.0,
    token_seconds=1_000.0,
    connections=4,
)


def test_each_operation_of_a_fleet_is_counted() -> None:
    """Each instance checks its tokens and touches its sessions; each token is fetched once and taken over by all."""
    loads = {load.operation: load.per_second for load in steady_loads(FLEET, COSTS)}
    assert loads == pytest.approx(
        {
            "check": 100 * 1_000 / 100,
            "check after a hint": 100 * 1_000 / 775,
            "touch": 100 * 10_000 / 1_000,
            "acquire": 100 * 1_000 / 775,
            "commit": 1_000 / 775,
            "epoch": 100 / 5,
            "heartbeat": 100 / 4.75,
            "announcement": 100 * 1_000 / 775,
        }
    )


def test_cores_are_the_sum_of_all_operations_the_dearest_first() -> None:
    """A core has 1 000 000 microseconds in a second."""
    loads = steady_loads(FLEET, COSTS)
    assert "check" == loads[0].operation
    assert 1_000 * 10 / 1e6 == pytest.approx(loads[0].cores)
    assert sorted((load.cores for load in loads), reverse=True) == [load.cores for load in loads]
    assert sum(load.cores for load in loads) == pytest.approx(primary(FLEET, COSTS).cores)


def test_healing_uploads_a_session_of_many_instances_once() -> None:
    """The instances read together until each session has been read by one of them, which uploads it."""
    tokens = (1_000 * (30 + 50) + 2 * 100 * 1_000 * 10) / 1e6
    read_by_each = 10_000 * (1 - 10_000 ** (-1 / 100))
    sessions = (1.1 * 10_000 * 5 + 100 * read_by_each * 3) / 1e6
    assert tokens + sessions == pytest.approx(primary(FLEET, COSTS).healing_seconds)


def test_sessions_of_one_instance_each_are_uploaded_without_a_read() -> None:
    """Callers that stay with an instance make more sessions, each of which is uploaded by that instance."""
    tokens = (1_000 * (30 + 50) + 2 * 100 * 1_000 * 10) / 1e6
    apart = replace(FLEET, distinct_sessions=100 * 10_000)
    assert tokens + 100 * 10_000 * 5 / 1e6 == pytest.approx(primary(apart, COSTS).healing_seconds)


def test_memory_is_that_of_what_is_different_and_of_connections() -> None:
    """Instances share the tokens, and the sessions that they have in common."""
    one, apart = primary(FLEET, COSTS), primary(replace(FLEET, distinct_sessions=1_000_000), COSTS)
    assert 400 == one.connections
    assert (10_000 * 150 + 1_000 * 200 + 400 * 20_000) / 1e9 == pytest.approx(one.gigabytes)
    assert 990_000 * 150 / 1e9 == pytest.approx(apart.gigabytes - one.gigabytes)


def test_a_cluster_is_divided_by_what_is_scarcest() -> None:
    """By cores, by the time of healing, and into one at least."""
    one = primary(FLEET, COSTS)
    assert 1 == primaries_needed(one, cores=1.0, healing_seconds=30.0)
    assert 3 == primaries_needed(replace(one, cores=2.1), cores=1.0, healing_seconds=30.0)
    assert 4 == primaries_needed(replace(one, healing_seconds=100.0), cores=1.0, healing_seconds=30.0)
