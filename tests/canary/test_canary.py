"""No secret leaves the process: all output of a program that goes through failures is searched for canaries."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.canary.campaign import Outputs, campaign
from tests.canary.canaries import Hit, hits
from tests.canary.credentials import KINDS, TOKENS
from tests.canary.endpoints import BEHAVIOURS
from tests.canary.leaks import LEAKS
from tests.canary.rendering import REPORTED

if TYPE_CHECKING:
    from collections.abc import Iterable

_UNSEALED = b"plain"
"""The beginning of the namespaces of brokers that do not seal."""


def lines_of(outputs: Outputs) -> list[bytes]:
    """Return the lines that the process wrote."""
    return [*outputs.stdout.splitlines(), *outputs.stderr.splitlines()]


@pytest.fixture(scope="module")
async def outputs() -> Outputs:
    """The outputs of one campaign."""
    return await campaign()


def hits_in(texts: Iterable[bytes]) -> list[Hit]:
    """Return the canaries in all texts."""
    return [hit for text in texts for hit in hits(text)]


async def test_the_campaign_takes_place(outputs: Outputs) -> None:
    """All secrets were sent, every behaviour of an endpoint was used, and responses were successes and errors."""
    assert 0 == outputs.code
    assert set(BEHAVIOURS) == set(outputs.requests)
    # A static token and the token of a function are sent to APIs only, so no endpoint receives their secrets.
    sent = {f"secret of {kind}" for kind in KINDS if kind not in {"static", "function"}}
    assert set() == sent - outputs.received
    assert {"app_ticket", "token of basic", "token of wecom", "token of dingtalk"} <= outputs.received
    statuses = {response.split(b" ")[1] for response in outputs.responses if response.startswith(b"HTTP/1.1 ")}
    assert {b"200", b"401", b"500", b"502", b"503"} <= statuses
    responses = b"".join(outputs.responses)
    assert b"application/problem+json" in responses
    assert b"<h2>Last events of this process</h2><ol" in responses
    assert b'"events":[{' in responses
    assert b'"instances":[{' in responses
    for event in ("error='auth'", "error='refused'", "error='full'", "why='damaged'", "why='unknown-key'"):
        assert event.encode() in outputs.stdout
    log = outputs.stderr.decode(errors="replace")
    for logger in ("tokenmw", "httpx", "httpx2", "httpcore.http11", "httpcore2.http11", "asyncio", "uvicorn.access"):
        assert f"\n{logger} " in log


async def test_no_secret_leaves_the_process(outputs: Outputs) -> None:
    """No log line, error, metric, status, `repr` or response contains a secret."""
    assert [] == hits_in(line for line in lines_of(outputs) if not line.startswith(REPORTED.encode()))
    assert [] == hits_in(outputs.responses)


async def test_error_trackers_record_no_secret(outputs: Outputs) -> None:
    """No local variable of a frame of the package or its libraries holds a secret, and no hidden chained error does."""
    reported = [line for line in lines_of(outputs) if line.startswith(REPORTED.encode())]
    assert len(reported) > 1000
    assert [] == hits_in(reported)


async def test_redis_receives_no_secret_but_tokens_in_unsealed_values(outputs: Outputs) -> None:
    """No key and no sealed value contains a secret, and an unsealed value contains a token only."""
    monitor = outputs.redis
    assert [] == hits_in([*monitor.names, *monitor.keys()])
    unsealed = [(line, hits(line)) for line in [*monitor.commands, *monitor.dumps()]]
    unsealed = [(line, found) for line, found in unsealed if found]
    assert [] == [line for line, _ in unsealed if b'"' + _UNSEALED not in line]
    assert set() == {hit.kind for _, found in unsealed for hit in found} - TOKENS
    assert set() == {hit.kind for hit in hits_in(monitor.reports)} - TOKENS
    # The search works: it finds the tokens where they are expected.
    assert TOKENS - {"token of static"} == {hit.kind for _, found in unsealed for hit in found}


async def test_the_search_finds_deliberate_leaks() -> None:
    """The search finds the canary of every place where one was leaked on purpose."""
    outputs = await campaign(leaks=True)
    monitor = outputs.redis
    texts = {
        "stdout": [outputs.stdout],
        "stderr": [outputs.stderr],
        "responses": outputs.responses,
        "redis names": monitor.names,
        "redis values": monitor.values,
        "redis commands": monitor.commands,
        "redis keys": monitor.keys(),
        "redis reports": monitor.reports,
    }
    kinds = {output: {hit.kind for hit in hits_in(parts)} for output, parts in texts.items()}
    # asyncio shortens arguments to their beginning and end, which do not identify the kind.
    whole = {place: output for place, output in LEAKS.items() if place != "loop handle"}
    assert {} == {place: output for place, output in whole.items() if f"leaked, {place}" not in kinds[output]}
    assert "?" in kinds[LEAKS["loop handle"]]
