"""One worker under steady load: what its requests see before, while and after Redis fails."""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from tests.brokers import runtime_of
from tests.processes import receive, send
from tokenmw import Limits, TokenBroker
from tokenmw.observe.throttle import LOGGER
from tokenmw.providers import ClientCredentials

if TYPE_CHECKING:
    from tokenmw.tokens.entry import TokenEntry

__all__ = ["LASTING", "NAMES", "SECRET", "WARM", "Phase", "under_load"]

SECRET = "a secret for the tests only"
NAMES = ("crm", "billing")
LASTING = ("kept", "dropped")  # their tokens live on; the second one's is declared invalid in the middle of a fault
WARM = tuple(f"warm-{number}" for number in range(20))
TICK = 0.01  # seconds
SLOW = 0.02  # seconds; a request that took longer has waited for something


@dataclass
class Phase:
    """What the requests of one phase saw.

    Attributes:
        requests: How many there were.
        failures: The exceptions of those that failed, by name.
        expired: Tokens that were over when they were handed out.
        values: The tokens handed out, by provider.
        waited: Seconds that first-seen keys and tokens waited in all; they come one after another.
        longest: The longest of these waits.
        warm: Seconds that each request for a known key took.
        ids: The session ids that were handed out, by API key.
        moved: Known keys whose id changed within the phase.
    """

    requests: int = 0
    failures: list[str] = field(default_factory=list[str])
    expired: int = 0
    values: dict[str, list[str]] = field(default_factory=lambda: {name: [] for name in NAMES})
    waited: float = 0.0
    longest: float = 0.0
    warm: list[float] = field(default_factory=list[float])
    ids: dict[str, str] = field(default_factory=dict[str, str])
    moved: list[str] = field(default_factory=list[str])

    def saw(self, api_key: str, session_id: str) -> None:
        """Take note of an id that was handed out."""
        if self.ids.setdefault(api_key, session_id) != session_id:
            self.moved.append(api_key)


class _Lines(logging.Handler):
    """Keeps what is logged."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[tuple[str, int, str]] = []

    def emit(self, record: logging.LogRecord) -> None:
        facts = vars(record)
        self.lines.append(
            (facts.get("tokenmw.kind", "?"), facts.get("tokenmw.suppressed", 0), record.getMessage()),
        )


class _Load:
    """The requests of one worker. `order` is what the test has said last."""

    def __init__(self, broker: TokenBroker) -> None:
        self.broker = broker
        self.order: dict[str, Any] = {"phase": "before", "keys": list(WARM)}
        self.phases: dict[str, Phase] = {}
        self.down: list[str] = []

    @property
    def phase(self) -> Phase:
        """What is being noted now."""
        return self.phases.setdefault(self.order["phase"], Phase())

    async def warm(self) -> None:
        """Use what is known, again and again."""
        turn = 0
        while True:
            phase, key = self.phase, WARM[turn % len(WARM)]
            began = time.perf_counter()
            await self._request(phase, key, wanted=())
            phase.warm.append(time.perf_counter() - began)
            status = self.broker.status()
            if status.shared == "down" and status.shared_error not in self.down:
                self.down.append(status.shared_error)
            turn += 1
            await asyncio.sleep(TICK)

    async def fresh(self) -> None:
        """See new keys, and renew tokens, one after another."""
        while True:
            phase, keys = self.phase, self.order.get("keys", [])
            began = time.perf_counter()
            await self._request(phase, keys.pop(0) if keys else WARM[0], wanted=NAMES)
            took = time.perf_counter() - began
            phase.longest = max(phase.longest, took)
            phase.waited += took if took > SLOW else 0.0
            await asyncio.sleep(TICK)
            if self.order.get("stall") and len(keys) % 5 == 1:
                time.sleep(self.order["stall"])  # noqa: ASYNC251  the fault is that the loop stands still

    async def _request(self, phase: Phase, key: str, *, wanted: tuple[str, ...]) -> None:
        phase.requests += 1
        try:
            phase.saw(key, await self.broker.session_id(key))
            for name in wanted:
                token = await self.broker.token(name)
                phase.expired += time.time() >= token.expires_at
                if token.value not in phase.values[name]:
                    phase.values[name].append(token.value)
        except Exception as error:  # noqa: BLE001  every kind of failure is what is counted here
            phase.failures.append(f"{type(error).__name__}: {error}")


async def under_load(*, redis: Any, base_url: str, lasting_url: str, limits: dict[str, Any]) -> dict[str, Any]:
    """Make requests as the test orders, answer when it asks, and report.

    An order is a phase's name with the API keys that are to be seen in it. `{"phase": "quiet"}` is none at all: then
    whatever is shared is shared by the background alone. `{"ask": keys}` is answered with what is known of them;
    `{"drop": name}` declares a provider's token invalid, and a new one is used.
    """
    lines = _Lines()
    LOGGER.addHandler(lines)
    LOGGER.propagate = False
    providers = {
        name: ClientCredentials(token_url=f"{url}/oauth2/token", client_id=name, client_secret=f"{name}-secret")
        for names, url in ((NAMES, base_url), (LASTING, lasting_url))
        for name in names
    }
    async with TokenBroker(providers, redis=redis, secret_key=SECRET, limits=Limits(**limits)) as broker:
        for name in LASTING:
            await broker.token(name)
        load = _Load(broker)
        running = [asyncio.create_task(load.warm()), asyncio.create_task(load.fresh())]
        send("running")
        while "end" not in (order := await asyncio.to_thread(receive)):
            if "ask" in order:
                send(await _answer(broker, order["ask"]))
                continue
            if "drop" in order:
                await broker.invalidate_provider(order["drop"])
                await broker.token(order["drop"])
                send("heard")
                continue
            load.order = order
            if order["phase"] == "quiet":
                await _stopped(running)
            send("heard")
        await _stopped(running)
    phases = {name: asdict(phase) for name, phase in load.phases.items()}
    return {"phases": phases, "lines": lines.lines, "down": load.down}


async def _answer(broker: TokenBroker, keys: list[str]) -> dict[str, Any]:
    status = broker.status()
    known = {key: runtime_of(broker).sessions.cached(key.encode()) for key in keys}
    waiting = status.unshared + status.touches
    told = {"shared": status.shared, "error": status.shared_error, "waiting": waiting, "ids": known}
    return {**told, "tokens": {entry.name: _known(entry) for entry in broker._data.tokens if entry.name in LASTING}}


def _known(entry: TokenEntry) -> dict[str, Any]:
    """Return where Redis should have a token and its tombstone, and the versions that this process has of them."""
    assert entry.keys is not None
    keys = {"key": entry.keys.token.decode(), "tombstone": entry.keys.tombstone.decode()}
    return {**keys, "version": 0 if entry.current is None else entry.current.version, "dead": entry.invalid_version}


async def _stopped(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
