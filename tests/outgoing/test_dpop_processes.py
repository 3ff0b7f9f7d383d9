"""Several processes with one key share one bound token through Redis; each makes its own proofs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.processes import Workers
from tests.providers.private_keys import jwk_of, make_key, pem_of
from tokenmw.testing import ProviderServer

if TYPE_CHECKING:
    from pathlib import Path

    from tests.servers import RedisServer


@pytest.mark.parametrize("shared", [True, False])
async def test_processes_with_one_key_share_a_token(redis_server: RedisServer, tmp_path: Path, *, shared: bool) -> None:
    """With one key there is one fetch, and the API accepts every process; with keys of their own, each fetches one."""
    file = tmp_path / "dpop.pem"
    file.write_text(pem_of(make_key("P-256")))
    server = ProviderServer()
    for check in (server.oauth2.dpop, server.api.dpop):
        check.required = check.nonces = True
    with server.running() as base_url:
        arguments: dict[str, Any] = {
            "base_url": base_url,
            "redis": redis_server.url,
            "key": str(file) if shared else None,
            "requests": 5,
        }
        async with Workers("tests.outgoing.dpop_workers:call_api", processes=3, arguments=arguments) as workers:
            await workers.receive()
            await workers.send("go")
            results = await workers.results()
    assert [[200] * 5] * 3 == [result["statuses"] for result in results]
    fetched = 1 if shared else 3
    assert fetched == len(server.issued) == len({result["value"] for result in results})
    assert fetched == len({issued.thumbprint for issued in server.issued._tokens.values()})
    assert 15 == len(server.api.dpop.verified)
    keys = redis_server.command("KEYS", "*")
    stored = repr([redis_server.command("DUMP", key) for key in keys])
    for secret in (jwk_of(make_key("P-256"))["d"], results[0]["value"]):
        assert secret not in repr(keys) + stored
