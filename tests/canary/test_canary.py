"""Secrets stay where they belong: all that leaves a program is searched for them, whatever fails."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.canary.campaign import Outputs, campaign
from tests.canary.canaries import Hit, hits
from tests.canary.credentials import KINDS, TOKENS
from tests.canary.endpoints import WAYS
from tests.canary.leaks import PLANTS
from tests.canary.rendering import REPORTED

if TYPE_CHECKING:
    from collections.abc import Iterable

_UNSEALED = b"plain"
"""How the namespaces begin whose brokers do not seal."""


def written(outputs: Outputs) -> list[bytes]:
    """Return each line that the process wrote."""
    return [*outputs.stdout.splitlines(), *outputs.stderr.splitlines()]


@pytest.fixture(scope="module")
async def outputs() -> Outputs:
    """Go through the campaign once."""
    return await campaign()


def found(texts: Iterable[bytes]) -> list[Hit]:
    """Return what is found in any of the texts."""
    return [hit for text in texts for hit in hits(text)]


async def test_the_campaign_takes_place(outputs: Outputs) -> None:
    """All secrets were sent, all endpoints failed in their way, and callers saw successes as well as failures."""
    assert 0 == outputs.code
    assert set(WAYS) == set(outputs.asked)
    # A static token and a function's are sent to APIs only, and a function itself asks nobody.
    sent = {f"secret of {kind}" for kind in KINDS if kind not in {"static", "function"}}
    assert set() == sent - outputs.received
    assert {"app_ticket", "token of basic", "token of wecom", "token of dingtalk"} <= outputs.received
    statuses = {answer.split(b" ")[1] for answer in outputs.heard if answer.startswith(b"HTTP/1.1 ")}
    assert {b"200", b"401", b"500", b"502", b"503"} <= statuses
    assert b"application/problem+json" in b"".join(outputs.heard)
    for event in ("error='auth'", "error='connection'", "error='full'", "why='damaged'", "why='unknown-key'"):
        assert event.encode() in outputs.stdout
    log = outputs.stderr.decode(errors="replace")
    for logger in ("tokenmw", "httpx", "httpx2", "httpcore.http11", "httpcore2.http11", "asyncio", "uvicorn.access"):
        assert f"\n{logger} " in log


async def test_no_secret_leaves_the_process(outputs: Outputs) -> None:
    """Neither in the log nor in what it prints of errors, metrics and its own state, nor in any answer."""
    assert [] == found(line for line in written(outputs) if not line.startswith(REPORTED.encode()))
    assert [] == found(outputs.heard)


async def test_no_reporter_of_errors_shows_a_secret(outputs: Outputs) -> None:
    """No variable of our frames or of the libraries' below holds one, and no error that stands hidden behind ours."""
    reported = [line for line in written(outputs) if line.startswith(REPORTED.encode())]
    assert len(reported) > 1000
    assert [] == found(reported)


async def test_redis_sees_tokens_in_unsealed_values_and_nothing_else(outputs: Outputs) -> None:
    """No name has a secret in it, no value that is sealed, and no unsealed one has more than a token in it."""
    tap = outputs.tap
    assert [] == found([*tap.names, *tap.keys()])
    unsealed = [(line, hits(line)) for line in [*tap.commands, *tap.dumps()]]
    unsealed = [(line, there) for line, there in unsealed if there]
    assert [] == [line for line, _ in unsealed if b'"' + _UNSEALED not in line]
    assert set() == {hit.kind for _, there in unsealed for hit in there} - TOKENS
    assert set() == {hit.kind for hit in found(tap.notes)} - TOKENS
    # That they are found where they may be shows that they would be found elsewhere.
    assert TOKENS - {"token of static"} == {hit.kind for _, there in unsealed for hit in there}


async def test_the_search_finds_what_leaks() -> None:
    """One canary was let out on purpose by each way out, and is found there."""
    outputs = await campaign(plants=True)
    tap = outputs.tap
    texts = {
        "stdout": [outputs.stdout],
        "stderr": [outputs.stderr],
        "responses": outputs.heard,
        "redis names": tap.names,
        "redis values": tap.values,
        "redis commands": tap.commands,
        "redis keys": tap.keys(),
        "redis notes": tap.notes,
    }
    kinds = {output: {hit.kind for hit in found(parts)} for output, parts in texts.items()}
    # Of an argument, asyncio shows the beginning and the end only, which do not tell the kind.
    whole = {place: output for place, output in PLANTS.items() if place != "loop handle"}
    assert {} == {place: output for place, output in whole.items() if f"planted, {place}" not in kinds[output]}
    assert "?" in kinds[PLANTS["loop handle"]]
