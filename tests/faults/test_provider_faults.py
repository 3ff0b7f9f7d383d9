"""Four processes under load get tokens through each fault of a token server, as far as the server gives any.

All faults are run once, at nearly the same time; each test checks the result of one.
"""

from __future__ import annotations

import asyncio
import re

import pytest

from tests.faults.provider_campaign import Run, campaign
from tests.faults.provider_faults import FAULTS, ProviderFault

pytestmark = pytest.mark.campaign
EACH = pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
KEPT = pytest.mark.parametrize("fault", [fault for fault in FAULTS if fault.kept], ids=lambda fault: fault.name)
DEPLOYED = pytest.mark.parametrize(
    "fault", [fault for fault in FAULTS if fault.served_once_deployed], ids=lambda fault: fault.name
)
MAX_LATE = 0.2  # seconds; a process that the machine runs less often misses deadlines by itself
RUNS = 3  # of the campaign, until the machine has run all processes often enough
PROPAGATION = 0.5  # seconds until all processes know what one does; 0.1 s on an idle machine


@pytest.fixture(scope="module")
def results(request: pytest.FixtureRequest) -> dict[str, Run]:
    """The results of the selected faults."""
    params = [item.callspec.params for item in request.session.items if isinstance(item, pytest.Function)
              and hasattr(item, "callspec")]  # fmt: skip
    selected = {id(value["fault"]) for value in params if "fault" in value}
    results: dict[str, Run] = {}
    for _ in range(RUNS):
        results = asyncio.run(campaign(fault for fault in FAULTS if id(fault) in selected))
        if max(one.late for one in results.values()) <= MAX_LATE:
            break
    return results


@pytest.fixture
def run(results: dict[str, Run], fault: ProviderFault) -> Run:
    """The result of the fault of one test."""
    late = max(one.late for one in results.values())
    if late > MAX_LATE:
        pytest.skip(f"The machine did not run a process for {late:.1f} s")
    return results[fault.name]


@KEPT
def test_no_request_with_a_valid_token_fails_or_waits(run: Run) -> None:
    """While its refresh fails, the token that is still valid is returned at once."""
    requests = [request for report in run.of(run.fault.names[0]) for request in report["requests"]]
    assert len(requests) > 400
    assert all(ok for _at, _took, ok in requests)
    assert max(took for _at, took, _ok in requests) < PROPAGATION


@EACH
def test_requests_fail_only_where_the_server_gives_no_token(run: Run) -> None:
    """No request fails before the fault, none after it is healed, and none at all without a reason."""
    failed = [at for report in run.all for at, _took, ok in report["requests"] if not ok]
    assert bool(failed) == bool(run.fault.why)
    if failed:
        assert run.began - run.fault.slowest <= min(failed)
        assert max(failed) <= run.ended + run.fault.healed
        assert max(failed) - min(failed) <= run.fault.refused


@EACH
def test_each_failure_names_its_cause(run: Run) -> None:
    """The text of each failed request says what happened, in the process that asked and in those that waited."""
    texts = {text for report in run.all for text in report["failures"]}
    assert [] == [text for text in texts if not re.search(run.fault.cause, text)]


@EACH
def test_tokens_are_valid(run: Run) -> None:
    """No token is returned after it has expired, to another provider, or long after it was invalidated."""
    assert 0 == sum(report["expired"] for report in run.all)
    for name in run.fault.names:
        for report in run.of(name):
            for value, (first, last) in report["values"].items():
                issued = run.server.issued.find(value)
                assert issued is not None
                assert name == issued.client
                assert last <= issued.expires_at
                if name == run.lost and first < run.began:
                    assert last <= run.began + PROPAGATION


@EACH
def test_the_fleet_asks_as_one_process(run: Run) -> None:
    """The requests to the server have a bound that does not depend on the number of processes."""
    assert 0 < run.fetches <= run.fault.fetches


@EACH
def test_waiting_is_bounded(run: Run) -> None:
    """A request waits no longer than one fetch, or two where the first one was too late."""
    assert max(took for report in run.all for _at, took, _ok in report["requests"]) <= run.slowest


@EACH
def test_all_processes_get_tokens_again(run: Run) -> None:
    """Within the promised time after the fault, each process does, and no request fails any more."""
    assert run.healed is not None
    assert run.healed <= run.fault.healed


@EACH
def test_a_fault_is_logged_once_with_its_cause(run: Run) -> None:
    """A process logs at most the beginning and the end of a fault, and nothing else."""
    for report in run.all:
        kinds = [kind for _at, kind, _text in report["lines"]]
        assert all(kind.startswith("provider:") for kind in kinds)
        assert len(kinds) <= 2
    texts = [text for _kind, text in run.lines]
    assert len(texts) <= run.fault.lines
    assert [] == [text for text in texts if not re.search(f"{run.fault.cause}|there is a token again", text)]


@EACH
def test_session_ids_do_not_change(run: Run) -> None:
    """A provider that fails has no effect on the sessions of the processes."""
    assert run.columns.alternated == 0
    ids = {key: {one for report in run.all for one in report["ids"][key]} for key in run.all[0]["ids"]}
    assert all(len(of_key) == 1 for of_key in ids.values())


@DEPLOYED
def test_a_deployed_process_is_served(run: Run) -> None:
    """A process with a secret that the server accepts is served, also beside others that have only a refused one."""
    for number, report in enumerate(run.of(run.fault.names[-1])):
        assert all(ok for at, _took, ok in report["requests"] if at > run.deployed[number])
