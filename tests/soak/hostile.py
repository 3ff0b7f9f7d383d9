"""Thousands of hostile requests a second through the real middleware, beside callers whose sessions are known.

The application is called directly, without an HTTP server, which would take more time than everything that is measured
here. Requests arrive at a steady rate, whether or not the ones before have been answered. Beyond a number in progress
they are dropped, as by uvicorn's `limit_concurrency`.
"""

from __future__ import annotations

import asyncio
import gc
import os
import random
import statistics
import time
from collections import Counter
from collections.abc import Callable
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import count, cycle
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from tests.soak.arrivals import Arrivals
from tests.soak.load import SECRET, application
from tokenmw import Limits, TokenBroker, TokenMiddleware

if TYPE_CHECKING:
    from collections.abc import Generator

    from starlette.requests import HTTPConnection
    from starlette.types import Message

__all__ = ["Figures", "Hostile", "percentile"]

_MOST_IN_PROGRESS = 1_000
_WARM, _COLD = 500, 1_500  # known callers of each application: in this process's memory, and in Redis only
_HOSTILE_FOR_EACH_KNOWN = 50
_KNOWN_RATE = 200  # requests of known callers a second at least
_COLD_EVERY = 10  # one of so many known callers is one that only Redis knows
_MEMORY_EVERY = 1.0  # seconds

_Scope = dict[str, Any]
_Hostile = tuple[TokenMiddleware, _Scope]


@dataclass
class Figures:
    """What was measured.

    Attributes:
        seconds: How long it took.
        statuses: The number of hostile requests by status; those that were dropped have status 0.
        warm: Seconds from when a known caller's request arrived until its response, including the wait for its turn of
            the event loop.
        served: Of these, the seconds after the event loop came to the request.
        checked: As `warm`, for callers that `authenticate` accepts.
        cold: As `warm`, for callers that only Redis knows.
        wrong: Known callers that got another id.
        memory: Resident memory in bytes, each second.
        collecting: Seconds of each run of the garbage collector.
        processor: The seconds of processor time that this process took.
        idle: The part of the machine's processor time that nobody used.
        stolen: The part of it that the hypervisor gave to other machines.
    """

    seconds: float = 0.0
    statuses: Counter[int] = field(default_factory=Counter[int])
    warm: list[float] = field(default_factory=list[float], repr=False)
    served: list[float] = field(default_factory=list[float], repr=False)
    checked: list[float] = field(default_factory=list[float], repr=False)
    cold: list[float] = field(default_factory=list[float], repr=False)
    wrong: int = 0
    memory: list[int] = field(default_factory=list[int], repr=False)
    collecting: list[float] = field(default_factory=list[float], repr=False)
    processor: float = 0.0
    idle: float = 0.0
    stolen: float = 0.0

    @property
    def answered(self) -> int:
        """How many hostile requests were answered."""
        return self.statuses.total() - self.statuses[0]

    @property
    def rate(self) -> float:
        """Hostile requests answered in a second."""
        return self.answered / self.seconds

    @property
    def known(self) -> int:
        """How many requests of known callers were answered."""
        return len(self.warm) + len(self.checked) + len(self.cold)

    @property
    def grown(self) -> int:
        """The bytes by which resident memory grew in the last third, at most."""
        last = self.memory[len(self.memory) * 2 // 3 :] or [0]
        return max(last) - last[0]

    @property
    def machine(self) -> str:
        """How busy the machine was, to tell a disturbed run from a quiet one."""
        ours = self.processor / self.seconds
        return f"{ours:.0%} of a core used; of all cores {self.idle:.0%} idle, {self.stolen:.1%} stolen"

    def lines(self) -> list[str]:
        """Return what is printed."""
        by_status = dict(sorted(self.statuses.items()))
        parts = {"warm": self.warm, "of which served": self.served, "checked": self.checked, "cold": self.cold}
        return [
            f"{self.rate:.0f} hostile requests/s answered, {self.statuses[0]} dropped; by status: {by_status}",
            *(
                f"known callers, {name}: p50 {percentile(part, 50):.3f} ms, p99 {percentile(part, 99):.3f} ms"
                for name, part in parts.items()
            ),
            f"resident memory in the last third: {self.grown / 1e6:+.1f} MB",
            f"garbage collector: {sum(self.collecting):.2f} s, {max(self.collecting, default=0) * 1e3:.0f} ms at once",
            self.machine,
        ]


def percentile(seconds: list[float], percent: int) -> float:
    """Return a percentile in milliseconds."""
    return 1e3 * statistics.quantiles(seconds, n=100)[percent - 1] if len(seconds) > 1 else 0.0


class Hostile:
    """Two applications with a broker each on one Redis, and callers of them.

    The first serves every caller. The second refuses callers without a key and those that `authenticate` refuses, and
    has exempt paths.
    """

    def __init__(self, redis: str, *, limits: Limits) -> None:
        options: dict[str, Any] = {"redis": redis, "secret_key": SECRET, "limits": limits}
        self._open_options = options
        self._checked_options: dict[str, Any] = {
            **options,
            "namespace": "checked",
            "authenticate": _caller,
            "missing_key": "reject",
        }
        self.brokers = tuple(TokenBroker({}, **each) for each in (self._open_options, self._checked_options))
        self._open = TokenMiddleware(application, broker=self.brokers[0])
        self._checked = TokenMiddleware(application, broker=self.brokers[1], exempt=["/health", "/static/*"])
        self._random = random.Random(1)
        self._in_progress = 0
        self._ids: dict[tuple[TokenMiddleware, bytes], str] = {}
        # The percentage of each kind.
        kinds: dict[Callable[[], _Hostile], int] = {
            self._random_key: 35,
            self._long_key: 10,
            self._too_long_key: 5,
            self._invalid_encoding: 8,
            self._two_keys: 5,
            self._bare_basic: 5,
            self._no_key: 10,
            self._refused_key: 15,
            self._preflight_look_alike: 3,
            self._exempt_look_alike: 4,
        }
        self._kinds = self._random.choices(list(kinds), list(kinds.values()), k=10_000)

    async def __aenter__(self) -> Self:
        for app, options in ((self._open, self._open_options), (self._checked, self._checked_options)):
            async with TokenBroker({}, **options) as other:
                for number in range(_WARM + _COLD):
                    key = b"known-%d" % number
                    self._ids[app, key] = await other.session_id(key)
        self._stack = await AsyncExitStack().__aenter__()
        for broker in self.brokers:
            await self._stack.enter_async_context(broker)
        warm, cold = self._known_callers()
        for app, key in warm:
            await _serve(app, _scope_of((b"x-api-key", key)))
        # In turns, so that each measurement has both.
        self._next_warm, self._next_cold = cycle(warm), iter(cold)
        self._next_kind = cycle(self._kinds)
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._stack.aclose()

    async def send(self, *, rate: float, seconds: float) -> Figures:
        """Send hostile requests at a rate, and those of known callers beside them."""
        figures, known_callers = Figures(), count(1)
        loop = asyncio.get_running_loop()
        start = loop.create_task

        def arrive(sent: float, hostile: int, known: int) -> None:
            figures.seconds = figures.seconds or time.perf_counter()
            before = self._random.randrange(hostile + 1) if known else 0
            start_hostile(before)
            for _ in range(known):
                caller = next(self._next_cold, None) if next(known_callers) % _COLD_EVERY == 0 else None
                times = figures.cold
                if caller is None:
                    caller = next(self._next_warm)
                    times = figures.warm if caller[0] is self._open else figures.checked
                self._in_progress += 1
                start(self._known(caller, figures, times, sent))
            start_hostile(hostile - before)

        def start_hostile(requests: int) -> None:
            for _ in range(requests):
                if self._in_progress >= _MOST_IN_PROGRESS:
                    figures.statuses[0] += 1
                else:
                    self._in_progress += 1
                    start(self._hostile(figures.statuses))

        memory = loop.create_task(_note_memory(figures.memory))
        with _collections(figures.collecting):
            processor, machine = time.process_time(), _machine()
            known = max(_KNOWN_RATE, rate / _HOSTILE_FOR_EACH_KNOWN)
            await Arrivals(arrive, rate=rate, known=known, seconds=seconds).run()
            figures.seconds = time.perf_counter() - figures.seconds  # since the first one arrived
            figures.processor = time.process_time() - processor
            figures.idle, figures.stolen = _parts(machine, _machine())
        memory.cancel()
        while self._in_progress:  # noqa: ASYNC110  an event would take time in each request
            await asyncio.sleep(0.01)
        return figures

    def _known_callers(self) -> tuple[list[tuple[TokenMiddleware, bytes]], list[tuple[TokenMiddleware, bytes]]]:
        """Return those in this process's memory, then those that only Redis has, of both applications in turns."""
        keys = [b"known-%d" % number for number in range(_WARM + _COLD)]
        callers = [(app, key) for key in keys for app in (self._open, self._checked)]
        return callers[: 2 * _WARM], callers[2 * _WARM :]

    async def _hostile(self, statuses: Counter[int]) -> None:
        app, scope = next(self._next_kind)()
        statuses[await _serve(app, scope)] += 1
        self._in_progress -= 1

    async def _known(
        self, caller: tuple[TokenMiddleware, bytes], figures: Figures, times: list[float], sent: float
    ) -> None:
        app, key = caller
        scope = _scope_of((b"x-api-key", key))
        began = time.monotonic()
        status = await _serve(app, scope)
        ended = time.monotonic()
        times.append(ended - sent)
        if times is figures.warm:
            figures.served.append(ended - began)
        self._in_progress -= 1
        figures.wrong += status != 204 or scope["state"]["session_id"] != self._ids[caller]

    def _random_key(self) -> _Hostile:
        return self._open, _scope_of((b"authorization", b"Bearer " + _random_text()))

    def _long_key(self) -> _Hostile:
        return self._open, _scope_of((b"x-api-key", _random_text() * 128))  # 4 096 bytes

    def _too_long_key(self) -> _Hostile:
        return self._open, _scope_of((b"x-api-key", _random_text() * 200))

    def _invalid_encoding(self) -> _Hostile:
        return self._open, _scope_of((b"x-api-key", b"\xff\xfe\xed" + _random_text()))

    def _two_keys(self) -> _Hostile:
        return self._open, _scope_of((b"x-api-key", _random_text()), (b"x-api-key", _random_text()))

    def _bare_basic(self) -> _Hostile:
        return self._open, _scope_of((b"authorization", b"Basic"))

    def _no_key(self) -> _Hostile:
        return self._checked, _scope_of()

    def _refused_key(self) -> _Hostile:
        return self._checked, _scope_of((b"x-api-key", _random_text()))

    def _preflight_look_alike(self) -> _Hostile:
        origin = (b"origin", b"https://evil.example")
        if self._random.random() < 0.5:
            return self._checked, _scope_of(origin, method="OPTIONS")
        return self._checked, _scope_of(origin, (b"access-control-request-method", b"GET"))

    def _exempt_look_alike(self) -> _Hostile:
        paths = ("/static/../admin", "/static//x", "/health/", "/HEALTH", "/static/..;/x", "/static/%2e%2e/admin")
        return self._checked, _scope_of(path=self._random.choice(paths))


def _scope_of(*headers: tuple[bytes, bytes], path: str = "/", method: str = "GET") -> _Scope:
    return {
        "type": "http",
        "path": path,
        "raw_path": path.encode(),
        "method": method,
        "headers": list(headers),
        "query_string": b"",
    }


def _random_text() -> bytes:
    return os.urandom(16).hex().encode()


async def _serve(app: TokenMiddleware, scope: _Scope) -> int:
    statuses: list[int] = []

    async def send(message: Message) -> None:
        if "status" in message:
            statuses.append(message["status"])

    await app(scope, _receive, send)
    return statuses[0]


async def _receive() -> Message:
    return {"type": "http.request", "body": b"", "more_body": False}


async def _caller(_connection: HTTPConnection, key: str) -> object | None:
    await asyncio.sleep(0)
    return key if key.startswith("known-") else None


async def _note_memory(noted: list[int]) -> None:
    while True:
        noted.append(_resident_memory())
        await asyncio.sleep(_MEMORY_EVERY)


def _resident_memory() -> int:
    statm = Path("/proc/self/statm")
    return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGESIZE") if statm.exists() else 0


@contextmanager
def _collections(seconds: list[float]) -> Generator[None]:
    began = 0.0

    def note(phase: str, _info: dict[str, int]) -> None:
        nonlocal began
        now = time.perf_counter()
        if phase == "stop":
            seconds.append(now - began)
        began = now

    gc.callbacks.append(note)
    try:
        yield
    finally:
        gc.callbacks.remove(note)


def _machine() -> list[int]:
    """Return the ticks of all cores: user, nice, system, idle, waiting, interrupts (2), stolen."""
    stat = Path("/proc/stat")
    return [int(part) for part in stat.read_text().split("\n", 1)[0].split()[1:9]] if stat.exists() else [0] * 8


def _parts(before: list[int], after: list[int]) -> tuple[float, float]:
    passed = [later - earlier for earlier, later in zip(before, after, strict=True)]
    return passed[3] / max(1, sum(passed)), passed[7] / max(1, sum(passed))
