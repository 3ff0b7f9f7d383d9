"""A worker under steady load. It records the results of its requests before, during and after a fault of Redis."""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from tests.brokers import runtime_of
from tests.faults.name_server import Resolver
from tests.processes import receive, send
from tests.redis.glides import configuration_of
from tokenmw import Limits, TokenBroker
from tokenmw.observe.throttle import LOGGER
from tokenmw.providers import ClientCredentials

if TYPE_CHECKING:
    from tokenmw.tokens.entry import TokenEntry

__all__ = ["NAMES", "SECRET", "WARM", "Phase", "under_load"]

SECRET = "a secret for the tests only"
NAMES = ("crm", "billing")
LONG_LIVED = ("kept", "dropped")  # their tokens do not expire; "dropped" is invalidated during a fault
WARM = tuple(f"warm-{number}" for number in range(20))
TICK = 0.01  # seconds
SLOW = 0.02  # seconds; a longer request has waited


@dataclass
class Phase:
    """The results of the requests of one phase.

    Attributes:
        requests: The number of requests.
        failures: The exceptions of failed requests.
        expired: The number of tokens that were expired when they were returned.
        values: The values of returned tokens, by provider.
        waited: Seconds that requests with new keys and tokens waited in all; they are made one after another.
        longest: The longest of these waits in seconds.
        warm: The duration of each request with a known key in seconds.
        ids: The session ids that were returned, by API key.
        changed: The ids that differ from the first one within the phase, by API key.
    """

    requests: int = 0
    failures: list[str] = field(default_factory=list[str])
    expired: int = 0
    values: dict[str, list[str]] = field(default_factory=lambda: {name: [] for name in NAMES})
    waited: float = 0.0
    longest: float = 0.0
    warm: list[float] = field(default_factory=list[float])
    ids: dict[str, str] = field(default_factory=dict[str, str])
    changed: dict[str, list[str]] = field(default_factory=dict[str, list[str]])

    def add(self, api_key: str, session_id: str) -> None:
        """Record a session id that was returned."""
        if self.ids.setdefault(api_key, session_id) != session_id:
            changed = self.changed.setdefault(api_key, [])
            if session_id not in changed:
                changed.append(session_id)


class _LogLines(logging.Handler):
    """Keeps log records as kind, suppressed messages and text."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[tuple[str, int, str]] = []

    def emit(self, record: logging.LogRecord) -> None:
        fields = vars(record)
        self.lines.append(
            (
                fields.get("tokenmw.kind", "?"),
                fields.get("tokenmw.suppressed", 0),
                record.getMessage().removeprefix("tokenmw: "),
            ),
        )


class _Load:
    """The requests of one worker. `command` is the last command of the test that names a phase."""

    def __init__(self, broker: TokenBroker) -> None:
        self.broker = broker
        self.command: dict[str, Any] = {"phase": "before", "keys": list(WARM)}
        self.phases: dict[str, Phase] = {}
        self.down: list[str] = []

    @property
    def phase(self) -> Phase:
        """The current phase."""
        return self.phases.setdefault(self.command["phase"], Phase())

    async def warm(self) -> None:
        """Make requests with known keys."""
        number = 0
        while True:
            phase, key = self.phase, WARM[number % len(WARM)]
            began = time.perf_counter()
            await self._request(phase, key, providers=())
            phase.warm.append(time.perf_counter() - began)
            status = self.broker.status()
            if status.shared == "down" and status.shared_error not in self.down:
                self.down.append(status.shared_error)
            number += 1
            await asyncio.sleep(TICK)

    async def fresh(self) -> None:
        """Make requests with new keys, and for tokens that need a refresh, one after another."""
        while True:
            phase, keys = self.phase, self.command.get("keys", [])
            began = time.perf_counter()
            await self._request(phase, keys.pop(0) if keys else WARM[0], providers=NAMES)
            took = time.perf_counter() - began
            phase.longest = max(phase.longest, took)
            phase.waited += took if took > SLOW else 0.0
            await asyncio.sleep(TICK)
            if self.command.get("stall") and len(keys) % 5 == 1:
                time.sleep(self.command["stall"])  # noqa: ASYNC251  a stalled event loop is the fault

    async def _request(self, phase: Phase, key: str, *, providers: tuple[str, ...]) -> None:
        phase.requests += 1
        try:
            phase.add(key, await self.broker.session_id(key))
            for name in providers:
                token = await self.broker.token(name)
                phase.expired += time.time() >= token.expires_at
                if token.value not in phase.values[name]:
                    phase.values[name].append(token.value)
        except Exception as error:  # noqa: BLE001  every kind of exception is counted
            phase.failures.append(f"{type(error).__name__}: {error}")


async def under_load(
    *,
    redis: str,
    base_url: str,
    long_lived_url: str,
    limits: dict[str, Any],
    client: str = "redis-py",
    broker: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Make requests until the test stops them, and return the results of all phases.

    The test sends commands. `{"phase": name, "keys": keys}` begins a phase with new API keys. `{"phase": "idle"}` stops
    the requests, so that only background tasks share anything. `{"ask": keys}` is answered with the worker's state.
    `{"drop": name}` invalidates a provider's token and fetches another one. `{"resolve": address}` is where the name of
    the server is from now on. `{"stop": true}` ends the load. `client` is "redis-py" or "glide"; `broker` has further
    options of the broker.
    """
    resolver = Resolver()
    resolver.install()
    lines = _LogLines()
    LOGGER.addHandler(lines)
    LOGGER.propagate = False
    providers = {
        name: ClientCredentials(token_url=f"{url}/oauth2/token", client_id=name, client_secret=f"{name}-secret")
        for names, url in ((NAMES, base_url), (LONG_LIVED, long_lived_url))
        for name in names
    }
    options: dict[str, Any] = {"secret_key": SECRET, "limits": Limits(**limits), **(broker or {})}
    given = redis if client == "redis-py" else configuration_of(redis)
    async with TokenBroker(providers, redis=given, **options) as made:
        for name in LONG_LIVED:
            await made.token(name)
        load = _Load(made)
        running = [asyncio.create_task(load.warm()), asyncio.create_task(load.fresh())]
        send("running")
        while "stop" not in (command := await asyncio.to_thread(receive)):
            if "ask" in command:
                send(await _state(made, command["ask"]))
                continue
            if "drop" in command:
                await made.invalidate_provider(command["drop"])
                await made.token(command["drop"])
                send("done")
                continue
            if "resolve" in command:
                resolver.answer(command["resolve"])
                send("done")
                continue
            load.command = command
            if command["phase"] == "idle":
                await _cancel(running)
            send("done")
        await _cancel(running)
    phases = {name: asdict(phase) for name, phase in load.phases.items()}
    return {"phases": phases, "lines": lines.lines, "down": load.down}


async def _state(broker: TokenBroker, keys: list[str]) -> dict[str, Any]:
    status = broker.status()
    ids = {key: runtime_of(broker).sessions.cached(key.encode()) for key in keys}
    waiting = status.unshared + status.touches
    state = {"shared": status.shared, "error": status.shared_error, "waiting": waiting, "ids": ids}
    return {**state, "tokens": {entry.name: _token(entry) for entry in broker._data.tokens if entry.name in LONG_LIVED}}


def _token(entry: TokenEntry) -> dict[str, Any]:
    """Return the Redis keys of a token and its tombstone, and the versions of both in this process."""
    assert entry.keys is not None
    keys = {"key": entry.keys.token.decode(), "tombstone": entry.keys.tombstone.decode()}
    version = 0 if entry.current is None else entry.current.version
    return {**keys, "version": version, "invalid": entry.invalid_version}


async def _cancel(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
