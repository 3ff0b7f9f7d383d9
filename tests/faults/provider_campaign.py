"""Runs faults of token servers, all at nearly the same time, with four processes under load."""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any, Final

from starlette.responses import Response

from tests.faults.columns import Columns, logged
from tests.processes import Workers
from tests.proxies import Proxy
from tests.servers import RedisServer
from tokenmw.testing import Fault, ProviderServer
from tokenmw.testing.provider_server.endpoint import json_response
from tokenmw.testing.provider_server.oauth2 import OAuth2Endpoint

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from starlette.requests import Request

    from tests.faults.provider_faults import ProviderFault

__all__ = ["DURING", "LIFE", "PROCESSES", "Run", "campaign"]

PROCESSES = 4
BEFORE: Final = 8.0  # seconds; the kept token is due for a refresh some 5 s later
DURING: Final = 10.0  # seconds
AFTER: Final = 12.0  # seconds
BETWEEN: Final = 0.3  # seconds between the beginnings of two faults, so that a busy machine is not the fault
FETCH: Final = 5.0  # seconds; `Limits.fetch_seconds`
LIFE: Final = 30.0  # seconds; the kept token expires some 7 s after a fault


class _Endpoint(OAuth2Endpoint):
    """Accepts any of several secrets, and records when it was asked, and how much later than its delay it answered.

    `alternates`: each client's next answer is 503.
    """

    name = "recorded"
    path = "/recorded/token"

    def __init__(self, server: ProviderServer, *, life: float, accepted: Collection[str]) -> None:
        super().__init__(server, life=life)
        self.accepted = accepted
        self.alternates = False
        self.asked: list[tuple[float, str]] = []
        self.late = 0.0

    async def caller(self, request: Request) -> str:
        client = await super().caller(request)
        request.state.asked = time.monotonic()
        self.asked.append((request.state.asked, client))
        return client

    async def answer(self, request: Request, fault: Fault) -> Response:
        self.late = max(self.late, time.monotonic() - request.state.asked - fault.delay)
        _client, secret = self._basic(request) or ("", "")
        if secret not in self.accepted:
            return json_response({"error": "invalid_client"}, 401)
        client = await super().caller(request)
        if self.alternates and [one for _time, one in self.asked].count(client) % 2 == 0:
            return json_response({"error": "temporarily_unavailable"}, 503)
        return await super().answer(request, fault)


class Run:
    """One fault as it runs, and its results.

    Attributes:
        fault: The fault.
        server: The token server.
        endpoint: Its endpoint.
        proxy: What stands between the processes and the server.
        began: The monotonic time at which the fault began.
        ended: The monotonic time at which it was over.
        lost: The provider whose token is invalid since then; "" if it is valid.
        deployed: The monotonic time at which each process had its last secrets.
        reports: The reports of each process, by provider.
    """

    def __init__(self, fault: ProviderFault) -> None:
        self.fault = fault
        self.server = ProviderServer(endpoints=[self._make_endpoint])
        self.began = self.ended = 0.0
        self.lost = ""
        self.deployed: dict[int, float] = {}
        self.reports: list[dict[str, dict[str, Any]]] = []

    def _make_endpoint(self, server: ProviderServer) -> _Endpoint:
        self.endpoint = _Endpoint(server, life=self.fault.life, accepted=self.fault.accepted)
        return self.endpoint

    async def open(self, stack: AsyncExitStack) -> dict[str, Any]:
        """Start the server, and return the options of the providers."""
        base_url = await asyncio.to_thread(stack.enter_context, self.server.running())
        self.proxy = await stack.enter_async_context(Proxy(int(base_url.rpartition(":")[2])))
        options = {
            "token_url": f"http://127.0.0.1:{self.proxy.port}/recorded/token",
            "api_url": f"{base_url}/api/items" if self.fault.api else "",
            "refresh_before": LIFE / 2 if self.fault.kept else None,
        }
        return dict.fromkeys(self.fault.names, options)

    async def run(self, fleet: Fleet, *, wait: float) -> None:
        """Make the fault after some seconds."""
        await asyncio.sleep(wait)
        self.fleet = fleet
        self.began = time.monotonic()
        await self.fault.apply(self)
        self.ended = time.monotonic()

    async def lose(self) -> None:
        """Invalidate the token of the provider that is to lose it."""
        self.lost = self.fault.names[-1]
        await self.fleet.command(0, {"lose": self.fault.namespace, "name": self.lost})

    def revoke(self) -> None:
        """Let the API reject all tokens."""
        self.lost = self.fault.names[-1]
        self.server.issued.revoke_all()

    async def deploy(self, *secrets: str, every: float) -> None:
        """Give the processes new client secrets, one process after another."""
        for number in range(PROCESSES):
            await self.fleet.command(number, {"roll": self.fault.namespace, "secrets": secrets})
            self.deployed[number] = time.monotonic()
            await asyncio.sleep(every)

    def of(self, name: str) -> list[dict[str, Any]]:
        """Return each process's report of one provider."""
        return [report[name] for report in self.reports]

    @property
    def all(self) -> list[dict[str, Any]]:
        """All reports of all processes."""
        return [report[name] for report in self.reports for name in self.fault.names]

    @property
    def fetches(self) -> int:
        """The number of requests to the server from the beginning of the fault until it must be healed."""
        healed = self.ended + self.fault.healed
        return sum(self.began <= at <= healed for at, _client in self.endpoint.asked)

    @property
    def late(self) -> float:
        """The longest time in seconds for which the machine did not run a process, the server's included."""
        late: float = max(report["late"] for report in self.all)
        return max(late, self.endpoint.late)

    @property
    def slowest(self) -> float:
        """The seconds that a request may take; a fetch more if the machine made the answer miss the limit."""
        return self.fault.slowest if self.late <= self.fault.margin else self.fault.slowest + FETCH

    @property
    def lines(self) -> list[tuple[str, str]]:
        """The kind and the text of each log line."""
        return [(kind, text) for report in self.all for _at, kind, text in report["lines"]]

    @property
    def healed(self) -> float | None:
        """Seconds from the end of the fault until every process got tokens again; None if one did not."""
        latest = self.ended
        for report in self.all:
            after = sorted((at + took, ok) for at, took, ok in report["requests"] if at + took > self.ended)
            failed = [at for at, ok in after if not ok]
            if not after or not after[-1][1]:
                return None
            latest = max(latest, *failed, *(at for at, ok in after[:1] if ok))
        return latest - self.ended

    @property
    def columns(self) -> Columns:
        """The row of the table."""
        requests = [request for report in self.all for request in report["requests"]]
        until = max(self.ended, self.began + 1.0)  # some faults take no time
        during = [row for report in self.all for row in report["states"] if self.began <= row[0] <= until]
        shared = ", ".join(f"`{one}`" for one in sorted({row[1] for row in during}))
        states = ", ".join(f"`{one}`" for one in sorted({row[2] for row in during}))
        return Columns(
            fault=self.fault.name,
            status=f"{shared}; {states}",
            requests=len(requests),
            failed=sum(not ok for _at, _took, ok in requests),
            slowest=max(took for _at, took, _ok in requests),
            fetches=self.fetches,
            alternated=sum(len(ids) > 1 for report in self.all for ids in report["ids"].values()),
            healed=self.healed,
            logged=logged(kind for kind, _text in self.lines),
        )


class Fleet:
    """The processes, which take one command at a time."""

    def __init__(self, workers: Workers) -> None:
        self._workers = workers
        self._locks = [asyncio.Lock() for _ in workers]

    async def command(self, number: int, command: dict[str, Any]) -> None:
        """Send a command to one process, and wait until it is done."""
        async with self._locks[number]:
            await self._workers[number].send(command)
            await self._workers[number].receive()


async def campaign(faults: Iterable[ProviderFault]) -> dict[str, Run]:
    """Run the faults and return their results by name."""
    runs = [Run(fault) for fault in faults]
    async with AsyncExitStack() as stack:
        redis = await asyncio.to_thread(stack.enter_context, RedisServer())
        services: dict[str, dict[str, Any]] = {}
        for run in runs:
            fault = run.fault
            options = {"secrets": list(fault.secrets), "limits": fault.limits, "providers": {}}
            service = services.setdefault(fault.namespace, options)
            service["providers"] |= await run.open(stack)
        arguments: dict[str, Any] = {"redis": redis.url, "services": services}
        target = "tests.faults.provider_load:under_load"
        workers = await stack.enter_async_context(Workers(target, processes=PROCESSES, arguments=arguments))
        await workers.receive()
        await workers.send("go")
        await workers.receive()
        end = time.monotonic() + BEFORE + BETWEEN * len(runs) + DURING + AFTER
        fleet = Fleet(workers)
        async with asyncio.TaskGroup() as group:
            for number, run in enumerate(runs):
                group.create_task(run.run(fleet, wait=BEFORE + BETWEEN * number))
        await asyncio.sleep(max(0.0, end - time.monotonic()))
        await workers.send({"stop": True})
        reports = await workers.results()
    for run in runs:
        run.reports = [{name: report[name] for name in run.fault.names} for report in reports]
    return {run.fault.name: run for run in runs}
