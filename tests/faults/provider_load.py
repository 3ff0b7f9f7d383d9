"""A worker of the campaign with providers that fail: brokers under a steady load of requests for tokens."""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import httpx

from tests.processes import receive, send
from tokenmw import Limits, TokenBroker
from tokenmw.observe.throttle import LOGGER
from tokenmw.providers import ClientCredentials

if TYPE_CHECKING:
    from tokenmw import Token

__all__ = ["TICK", "Report", "under_load"]

SECRET = "a secret for the tests only"
TICK = 0.1  # seconds between two requests for a provider's token
KEYS = 20  # API keys, used in turn
STATUS_EVERY = 5  # ticks


class TokenRejected(Exception):
    """Raised when the API rejects a second token, too."""


@dataclass
class Report:
    """What one worker has noticed of one provider. All times are monotonic, in seconds.

    Attributes:
        requests: For each request when it began, how long it took, and whether it succeeded.
        failures: The texts of failed requests.
        values: For each token when it was returned first and last.
        expired: The number of tokens that were expired when they were returned, by their own `expires_at`.
        rejected: The number of tokens that the API rejected.
        ids: The session ids of each API key.
        late: The longest time in seconds for which the machine did not run the process, although a request was due.
        states: What `status()` has shown: the time, whether Redis is in use, and the provider's state.
        lines: The log lines: their time, kind and text.
    """

    requests: list[tuple[float, float, bool]] = field(default_factory=list[tuple[float, float, bool]])
    failures: dict[str, int] = field(default_factory=dict[str, int])
    values: dict[str, tuple[float, float]] = field(default_factory=dict[str, tuple[float, float]])
    expired: int = 0
    rejected: int = 0
    late: float = 0.0
    ids: dict[str, list[str]] = field(default_factory=dict[str, list[str]])
    states: list[tuple[float, str, str]] = field(default_factory=list[tuple[float, str, str]])
    lines: list[tuple[float, str, str]] = field(default_factory=list[tuple[float, str, str]])


class _LogLines(logging.Handler):
    """Adds each line to the report of its provider; a line about anything else to all of them."""

    def __init__(self, reports: dict[str, Report]) -> None:
        super().__init__()
        self.reports = reports

    def emit(self, record: logging.LogRecord) -> None:
        kind: str = vars(record).get("tokenmw.kind", "?")
        name = kind.removeprefix("provider:")
        for report in [self.reports[name]] if name in self.reports else self.reports.values():
            report.lines.append((time.monotonic(), kind, record.getMessage().removeprefix("tokenmw: ")))


class _Service:
    """The requests to one broker."""

    def __init__(
        self,
        namespace: str,
        options: dict[str, Any],
        reports: dict[str, Report],
        *,
        redis: str,
        http: httpx.AsyncClient,
    ) -> None:
        self._namespace = namespace
        limits: dict[str, Any] = {"command_seconds": 2.0, **options["limits"]}
        self._limits = Limits(**limits)
        self._providers: dict[str, dict[str, Any]] = options["providers"]
        self._reports = reports
        self._redis = redis
        self._http = http
        self._requests: set[asyncio.Task[None]] = set()
        self._stack = AsyncExitStack()
        self.broker: TokenBroker | None = None

    async def open(self, secrets: list[str]) -> None:
        """Open a broker with these client secrets, as a new deployment does, and then close the one before."""
        before = self._stack
        providers = {
            name: ClientCredentials(
                token_url=provider["token_url"],
                client_id=name,
                client_secret=secrets,
                refresh_before=provider["refresh_before"],
            )
            for name, provider in self._providers.items()
        }
        broker = TokenBroker(
            providers, redis=self._redis, secret_key=SECRET, namespace=self._namespace, limits=self._limits
        )
        self._stack = AsyncExitStack()
        self.broker = await self._stack.enter_async_context(broker)
        if self._requests:
            await asyncio.wait(self._requests)
        await before.aclose()

    async def close(self) -> None:
        """End the requests in progress, and close the broker."""
        for request in self._requests:
            request.cancel()
        await asyncio.gather(*self._requests, return_exceptions=True)
        await self._stack.aclose()

    async def warm(self) -> None:
        """Get all tokens."""
        assert self.broker is not None
        await asyncio.gather(*(self.broker.token(name) for name in self._providers))

    async def run(self) -> None:
        """Begin a request for each provider every `TICK`, also while others wait."""
        for number in itertools.count():
            assert self.broker is not None
            for name in self._providers:
                request = asyncio.create_task(self._request(self.broker, name, f"key-{number % KEYS}"))
                self._requests.add(request)
                request.add_done_callback(self._requests.discard)
            if number % STATUS_EVERY == 0:
                status = self.broker.status()
                for name in self._providers:
                    row = (round(time.monotonic(), 3), status.shared, status.providers[name].state)
                    self._reports[name].states.append(row)
            due, ran = time.monotonic() + TICK, time.process_time()
            await asyncio.sleep(TICK)
            late = time.monotonic() - due - (time.process_time() - ran)
            for name in self._providers:
                self._reports[name].late = max(self._reports[name].late, late)

    async def _request(self, broker: TokenBroker, name: str, key: str) -> None:
        report, began, succeeded = self._reports[name], time.monotonic(), False
        try:
            session_id = await broker.session_id(key)
            ids = report.ids.setdefault(key, [session_id])
            if ids[-1] != session_id:
                ids.append(session_id)
            await self._call(broker, name, report)
            succeeded = True
        except Exception as error:  # noqa: BLE001  every kind of exception is counted
            text = f"{type(error).__name__}: {error}"
            report.failures[text] = report.failures.get(text, 0) + 1
        report.requests.append((round(began, 3), round(time.monotonic() - began, 3), succeeded))

    async def _call(self, broker: TokenBroker, name: str, report: Report) -> None:
        token = await self._token(broker, name, report)
        api_url = self._providers[name]["api_url"]
        if not api_url or await self._is_accepted(api_url, token):
            return
        report.rejected += 1
        await broker.invalidate(token)
        if not await self._is_accepted(api_url, await self._token(broker, name, report)):
            report.rejected += 1
            raise TokenRejected("the API rejects the next token, too")

    async def _token(self, broker: TokenBroker, name: str, report: Report) -> Token:
        token = await broker.token(name)
        report.expired += time.time() >= token.expires_at
        now = time.monotonic()
        first, _last = report.values.get(token.value, (now, now))
        report.values[token.value] = first, now
        return token

    async def _is_accepted(self, api_url: str, token: Token) -> bool:
        answer = await self._http.get(api_url, headers={"Authorization": token.authorization})
        return answer.status_code != 401


async def under_load(*, redis: str, services: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Make requests until the test stops them, and return the reports by provider.

    The test sends commands, each of which names a service by its namespace. `{"lose": namespace, "name": name}`
    invalidates a provider's token. `{"roll": namespace, "secrets": secrets}` replaces the broker by one with these
    client secrets. `{"stop": true}` ends the load.
    """
    reports = {name: Report() for options in services.values() for name in options["providers"]}
    LOGGER.addHandler(_LogLines(reports))
    LOGGER.propagate = False
    async with httpx.AsyncClient(timeout=10.0, trust_env=False) as http:
        running = {
            namespace: _Service(namespace, options, reports, redis=redis, http=http)
            for namespace, options in services.items()
        }
        for namespace, options in services.items():
            await running[namespace].open(options["secrets"])
        await asyncio.gather(*(service.warm() for service in running.values()))
        send("ready")
        await asyncio.to_thread(receive)
        loads = [asyncio.create_task(service.run()) for service in running.values()]
        send("running")
        while "stop" not in (command := await asyncio.to_thread(receive)):
            if "lose" in command:
                broker = running[command["lose"]].broker
                assert broker is not None
                await broker.invalidate_provider(command["name"])
            else:
                await running[command["roll"]].open(command["secrets"])
            send("done")
        for load in loads:
            load.cancel()
        await asyncio.gather(*loads, return_exceptions=True)
        for service in running.values():
            await service.close()
    return {name: asdict(report) for name, report in reports.items()}
