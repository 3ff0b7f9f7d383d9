"""One process of a fleet that starts. It imports little, because forty of them are started at once."""

from __future__ import annotations

import asyncio
import os
import time
from typing import Any

from tests.processes import receive, send
from tokenmw import TokenBroker
from tokenmw.providers import ClientCredentials

__all__ = ["CALLERS", "KEYS", "SECRET", "serve"]

CALLERS, KEYS = 20, 100
SECRET = "a secret for the tests only"


async def serve(*, redis: str, base_url: str) -> None:
    """Use one token and many keys at once, when the parent says so; keep the connections until it says stop."""
    crm = ClientCredentials(token_url=f"{base_url}/oauth2/token", client_id="crm", client_secret="crm-secret")
    url = f"{redis}?client_name=p{os.getpid()}"
    async with TokenBroker({"crm": crm}, redis=url, secret_key=SECRET) as broker:
        await asyncio.sleep(0.5)  # the listener connects
        send("ready")
        receive()
        seconds: list[float] = []

        async def timed(request: Any) -> Any:
            began = time.monotonic()
            result = await request
            seconds.append(time.monotonic() - began)
            return result

        names = [f"key-{number}" for number in range(KEYS)]
        async with asyncio.TaskGroup() as group:
            ids = {name: group.create_task(timed(broker.session_id(name))) for name in names}
            tokens = [group.create_task(timed(broker.token("crm"))) for _ in range(CALLERS)]
        send(
            {
                "slowest": max(seconds),
                "tokens": sorted({task.result().value for task in tokens}),
                "ids": {name: task.result() for name, task in ids.items()},
            }
        )
        await asyncio.to_thread(receive)
