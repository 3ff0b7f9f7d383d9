"""A worker under steady load, whose process the test disturbs. It records everything that it returned to requests.

Requests begin at fixed times, whatever became of those before them, as the requests of a service do.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import resource
import time
from collections import Counter
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from redis.asyncio.sentinel import Sentinel

from tests.brokers import runtime_of
from tests.processes import receive, send
from tokenmw import Limits, TokenBroker
from tokenmw.clock import SYSTEM_CLOCK
from tokenmw.observe.throttle import LOGGER
from tokenmw.providers import ClientCredentials

if TYPE_CHECKING:
    from tokenmw.tokens.entry import TokenEntry

__all__ = ["DROPPED", "HELD", "LONG_LIVED", "NAMES", "SECRET", "OffsetClock", "Record", "under_load"]

SECRET = "a secret for the tests only"
NAMES = ("crm", "billing")
KEPT, DROPPED = LONG_LIVED = ("kept", "dropped")  # their tokens do not expire during a run
HELD = "held"  # no worker has its token before the test says so
TICK = 0.02  # seconds between two requests


class OffsetClock:
    """The clocks of the system, with a wall clock that is wrong by `offset` seconds."""

    def __init__(self) -> None:
        self.offset = 0.0

    monotonic = staticmethod(time.monotonic)
    sleep = staticmethod(asyncio.sleep)

    def time(self) -> float:
        """Return the wrong time, in seconds since 1970."""
        return time.time() + self.offset


@dataclass
class Record:
    """What a worker returned to its requests, and what it logged.

    Attributes:
        requests: The number of requests.
        failures: The exceptions of failed requests.
        slowest: The longest duration of a request in seconds.
        expired: The number of tokens that were expired by the worker's own clock when they were returned.
        values: The last time, by the monotonic clock, at which each value was returned, by provider.
        ids: The session ids that were returned, by API key.
        down: The reasons with which `status().shared` was "down" during the fault.
        lines: The log lines as kind and text.
    """

    requests: int = 0
    failures: list[str] = field(default_factory=list[str])
    slowest: float = 0.0
    expired: int = 0
    values: dict[str, dict[str, float]] = field(default_factory=dict[str, dict[str, float]])
    ids: dict[str, list[str]] = field(default_factory=dict[str, list[str]])
    down: list[str] = field(default_factory=list[str])
    lines: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])

    @property
    def kinds(self) -> Counter[str]:
        """The number of log lines by kind."""
        return Counter(kind for kind, _text in self.lines)


class _LogLines(logging.Handler):
    def __init__(self, record: Record) -> None:
        super().__init__()
        self._record = record

    def emit(self, record: logging.LogRecord) -> None:
        kind = str(vars(record).get("tokenmw.kind", "?"))
        self._record.lines.append((kind, record.getMessage().removeprefix("tokenmw: ")))


class _Load:
    """The requests of one worker, and the faults of its process."""

    def __init__(self, broker: TokenBroker, clock: OffsetClock | None, record: Record, long_lived_url: str) -> None:
        self._broker = broker
        self._clock = clock
        self._long_lived_url = long_lived_url
        self._tasks: set[asyncio.Task[Any]] = set()
        self._blocking: asyncio.Task[None] | None = None
        self._faulty = False
        self._names = [*NAMES, *LONG_LIVED]
        self.record = record
        self.keys: list[str] = []  # each is used in turn
        self.new_keys: list[str] = []  # each is used once, before the others

    async def run(self) -> None:
        """Make requests until cancelled."""
        for number in itertools.count():
            key = self.new_keys.pop(0) if self.new_keys else self.keys[number % len(self.keys)]
            self._start(self._request(key))
            status = self._broker.status()
            if self._faulty and status.shared == "down" and status.shared_error not in self.record.down:
                self.record.down.append(status.shared_error)
            await asyncio.sleep(TICK)

    async def stop(self) -> None:
        """Wait for the requests in progress."""
        await self.command({"block": None})
        await asyncio.gather(*self._tasks)

    async def command(self, command: dict[str, Any]) -> Any:
        """Execute one command of the test, and return the reply."""
        match command:
            case {"ask": keys}:
                return self._state(keys)
            case {"report": _}:
                return asdict(self.record)
            case {"keys": keys, "fault": faulty}:
                self._faulty = faulty
                added = [key for key in keys if key not in self.keys]
                self.new_keys += added
                self.keys += added
            case {"drop": name}:
                await self._broker.invalidate_provider(name)
            case {"fetch": name}:
                self._start(self._fetch(name))
            case {"use": name}:
                self._names.append(name)
            case _:
                self._disturb(command)
        return "done"

    def _disturb(self, command: dict[str, Any]) -> None:
        match command:
            case {"offset": seconds}:
                assert self._clock is not None
                self._clock.offset = seconds
            case {"block": None}:
                if self._blocking is not None:
                    self._blocking.cancel()
            case {"block": [blocked, free]}:
                self._blocking = asyncio.create_task(_block(blocked, free))
            case {"tenants": tenants}:
                for number in range(tenants):
                    self._start(self._tenant(number))
            case _:
                raise ValueError(f"{command} is not a command")

    def _start(self, work: Any) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _request(self, key: str) -> None:
        async with _recorded(self.record):
            self._add_id(key, await self._broker.session_id(key))
            for name in self._names:
                await self._token(name)

    async def _fetch(self, name: str) -> None:
        async with _recorded(self.record):
            await self._token(name)

    async def _tenant(self, number: int) -> None:
        async with _recorded(self.record):
            key = f"tenant-{number}"
            self._add_id(key, await self._broker.session_id(key))
            await self._token(_provider(key, self._long_lived_url), name=key)

    async def _token(self, provider: Any, *, name: str = "") -> None:
        token = await self._broker.token(provider)
        now = time.time() + (self._clock.offset if self._clock is not None else 0.0)
        self.record.expired += now >= token.expires_at
        self.record.values.setdefault(name or provider, {})[token.value] = time.monotonic()

    def _add_id(self, key: str, session_id: str) -> None:
        ids = self.record.ids.setdefault(key, [])
        if session_id not in ids:
            ids.append(session_id)

    def _state(self, keys: list[str]) -> dict[str, Any]:
        status, sessions = self._broker.status(), runtime_of(self._broker).sessions
        entries = [entry for entry in self._broker._data.tokens if entry.name in LONG_LIVED]
        return {
            "shared": status.shared,
            "waiting": status.unshared + status.touches,
            "ids": {key: sessions.cached(key.encode()) for key in keys},
            "tokens": {entry.name: _token(entry) for entry in entries},
        }


class _recorded:  # noqa: N801  it is used as a function
    """Counts one request, its failure and its duration."""

    def __init__(self, record: Record) -> None:
        self._record = record
        self._began = time.perf_counter()

    async def __aenter__(self) -> None:
        self._record.requests += 1

    async def __aexit__(self, _kind: object, error: BaseException | None, _traceback: object) -> bool:
        self._record.slowest = max(self._record.slowest, time.perf_counter() - self._began)
        if isinstance(error, Exception):
            self._record.failures.append(f"{type(error).__name__}: {error}")
            return True
        return False


async def under_load(*, redis: Any, base_url: str, long_lived_url: str, limits: dict[str, Any]) -> dict[str, Any]:
    """Make requests until the test stops them, and return the record.

    `redis` is a URL, or the port of a Sentinel. The test first sends options of this worker: `wrong_clock` and
    `files`, the number of files that it may open. Then it sends commands:

    - `{"keys": keys, "fault": faulty}` adds API keys, and begins or ends the fault.
    - `{"ask": keys}` is answered with the worker's state, and `{"report": true}` with its record.
    - `{"drop": name}` invalidates a provider's token, `{"fetch": name}` asks for it once, `{"use": name}` asks for it
      with each request.
    - `{"offset": seconds}`, `{"block": [blocked, free]}` and `{"tenants": number}` disturb the worker.
    - `{"stop": true}` ends the load.
    """
    options: dict[str, Any] = await asyncio.to_thread(receive)
    clock = OffsetClock() if options.get("wrong_clock") else None
    if files := options.get("files"):
        _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (files, hard))
    record = Record()
    LOGGER.addHandler(_LogLines(record))
    LOGGER.propagate = False
    providers = {name: _provider(name, base_url) for name in NAMES}
    providers |= {name: _provider(name, long_lived_url) for name in (*LONG_LIVED, HELD)}
    async with AsyncExitStack() as stack:
        if isinstance(redis, int):
            redis = _behind_sentinel(stack, redis)
        broker = TokenBroker(
            providers, redis=redis, secret_key=SECRET, limits=Limits(**limits), clock=clock or SYSTEM_CLOCK
        )
        await stack.enter_async_context(broker)
        load = _Load(broker, clock, record, long_lived_url)
        send("open")
        await load.command(await asyncio.to_thread(receive))
        running = asyncio.create_task(load.run())
        send("done")
        while "stop" not in (command := await asyncio.to_thread(receive)):
            send(await load.command(command))
        running.cancel()
        await load.stop()
        return asdict(record)


def _behind_sentinel(stack: AsyncExitStack, port: int) -> Any:
    constructor: Any = Sentinel  # it has no types
    sentinel = constructor([("127.0.0.1", port)])
    for connected in sentinel.sentinels:
        stack.push_async_callback(connected.aclose)
    client = sentinel.master_for("main", socket_timeout=1.0)
    stack.push_async_callback(client.aclose)
    return client


def _provider(name: str, base_url: str) -> ClientCredentials:
    return ClientCredentials(token_url=f"{base_url}/oauth2/token", client_id=name, client_secret=f"{name}-secret")


def _token(entry: TokenEntry) -> dict[str, Any]:
    """Return the Redis keys of a token and its tombstone, and the versions of both in this process."""
    assert entry.keys is not None
    version = 0 if entry.current is None else entry.current.version
    keys = {"key": entry.keys.token.decode(), "tombstone": entry.keys.tombstone.decode()}
    return {**keys, "version": version, "invalid": entry.invalid_version}


async def _block(blocked: float, free: float) -> None:
    while True:
        time.sleep(blocked)  # noqa: ASYNC251  a blocked event loop is the fault
        await asyncio.sleep(free)
