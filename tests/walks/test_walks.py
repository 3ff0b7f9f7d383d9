"""How many files a reader has to open to follow a request; `walks.py` defines what is counted."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from tests.walks.recording import Recorder, Walk
from tests.walks.walks import walks
from tokenmw import TokenBroker
from tokenmw.providers import StaticToken

BEFORE: dict[str, dict[str, list[str]]] = json.loads(Path(__file__).with_name("before.json").read_text())["walks"]
"""The walks of commit 61f244d, as `python -m tests.walks --json` printed them there."""

FILES = {"warm": 7, "cold_token": 44, "cold": 54, "rejected": 51, "failure": 2, "outage": 16}
"""The most files of each walk in which any code runs."""
AWAITED = {"warm": 1, "cold_token": 20, "cold": 25, "rejected": 26, "outage": 6}
"""The most files of each walk in which a coroutine runs: those that pass the request on."""
ADDED = {
    "cold_token": 13,
    "cold": 13,
    "rejected": 16,
    "failure_request": 1,
    "opening": 2,
    "outage": 4,
    "recovery": 4,
    "reupload": 10,
    "healed": 10,
}
"""Files of what that version did not do: bounds of an answer, hosts of redirects, secrets in turn and from elsewhere,
fields of a request, the client that all OAuth grants share with its endpoint and its proof, HTTP clients by
certificate, a time limit that reads an answer which has arrived, what is recorded for the status page, heartbeats of
the fleet, replies that are checked, fixes in lines about Redis, host names of Redis looked up apart, hints,
versions compared in batches, and scripts that wait together."""


@pytest.fixture(scope="module")
def found() -> dict[str, Walk]:
    """All walks, done once."""
    return asyncio.run(walks())


@pytest.mark.parametrize("name", FILES)
def test_a_walk_passes_few_files(found: dict[str, Walk], name: str) -> None:
    """Reading the code of a walk means opening no more than this number of files."""
    assert len(found[name].files) <= FILES[name], found[name].files


@pytest.mark.parametrize("name", AWAITED)
def test_a_walk_awaits_in_few_files(found: dict[str, Walk], name: str) -> None:
    """The chain of coroutines that a reader follows is in no more files than this."""
    assert len(found[name].awaited) <= AWAITED[name], found[name].awaited


@pytest.mark.parametrize("name", BEFORE)
def test_no_walk_has_become_longer(found: dict[str, Walk], name: str) -> None:
    """No walk passes more files than in the version before the package was restructured, but for what is new."""
    assert len(found[name].files) <= len(BEFORE[name]["files"]) + ADDED.get(name, 0), found[name].files


def test_walks_are_those_of_the_version_before(found: dict[str, Walk]) -> None:
    """Each walk has the same name in both versions, so that each is compared."""
    assert BEFORE.keys() == found.keys()
    assert FILES.keys() <= found.keys()


async def test_recorder_counts_calls_from_file_to_file() -> None:
    """A walk has the files whose code ran, in the order of their first calls, and no others."""
    async with TokenBroker({"crm": StaticToken("t")}) as broker:
        await broker.token("crm")
        recorder = Recorder()
        with recorder.recording():
            await broker.token("crm")
        position = recorder.position
        await broker.token("crm")
    walk = recorder.walk()
    assert position == recorder.position  # nothing is recorded afterwards
    assert "broker.py" == walk.files[0] == walk.awaited[0]
    assert len(walk.files) - 1 <= walk.moves
    assert not [file for file in walk.files if file.startswith(("redis/", "shared/", "providers/http"))]


async def test_recorder_leaves_out_tasks_that_are_older() -> None:
    """Calls of a task that was started before the recording, like housekeeping, are not counted."""
    async with TokenBroker({"crm": StaticToken("t")}) as broker:
        wanted = asyncio.Event()
        await broker.token("crm")

        async def use_a_token() -> None:
            await wanted.wait()
            await broker.token("crm")

        recorder, task = Recorder(), asyncio.ensure_future(use_a_token())
        await asyncio.sleep(0)
        with recorder.recording():
            wanted.set()
            await task
    assert recorder.calls
    assert () == recorder.walk().files
