"""What a benchmark gives: figures of several rounds, ours and the peers', and the goal."""

from __future__ import annotations

import gc
import statistics
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["FULL", "SHORT", "Benchmark", "Figure", "Plan", "Row", "best_of", "interleaved"]


@dataclass(frozen=True)
class Plan:
    """How much is measured.

    Attributes:
        rounds: How often each contestant runs.
        size: The part of the full number of requests, keys and expiries.
        slack: What a goal is multiplied by: a machine that does other work must not fail, a figure that is far
            worse than it was must.
    """

    rounds: int
    size: float
    slack: float

    def of(self, count: int) -> int:
        """Return this plan's part of a full number."""
        return max(1, int(count * self.size))


FULL = Plan(rounds=9, size=1.0, slack=1.0)
SHORT = Plan(rounds=5, size=0.1, slack=2.0)


@dataclass(frozen=True)
class Figure:
    """The rounds of one contestant, in the unit of its row."""

    rounds: tuple[float, ...]

    @property
    def median(self) -> float:
        """The middle one."""
        return statistics.median(self.rounds)

    @property
    def spread(self) -> float:
        """Half the distance between the quartiles, as a part of the median."""
        if len(self.rounds) < 2 or not self.median:
            return 0.0
        low, _, high = statistics.quantiles(self.rounds, n=4)
        return (high - low) / 2 / self.median

    def __str__(self) -> str:
        return f"{self.median:10.2f} ±{self.spread:3.0%}"


@dataclass(frozen=True)
class Row:
    """One thing that was measured.

    Attributes:
        name: What.
        unit: Of all its figures.
        ours: Our figure.
        peers: The others', by name.
        goal: In words.
        met: Whether it was reached; None: there is none for this row.
        notes: What else is to be said, such as which peers are missing.
    """

    name: str
    unit: str
    ours: Figure
    peers: dict[str, Figure] = field(default_factory=dict[str, Figure])
    goal: str = ""
    met: bool | None = None
    notes: tuple[str, ...] = ()

    def lines(self) -> list[str]:
        """Return what is printed."""
        verdict = {True: "  met", False: "  NOT MET", None: ""}[self.met]
        heading = f"{self.name}: {self.goal}{verdict}" if self.goal else self.name
        lines = [heading, f"    {'tokenmw':<34}{self.ours} {self.unit}"]
        for name, figure in self.peers.items():
            ratio = f"   ours is {self.ours.median / figure.median:.3f} of it" if figure.median else ""
            lines.append(f"    {name:<34}{figure} {self.unit}{ratio}")
        return [*lines, *(f"    {note}" for note in self.notes)]

    def record(self) -> dict[str, Any]:
        """Return it as JSON values."""
        figures = {"tokenmw": self.ours, **self.peers}
        return {
            "name": self.name,
            "unit": self.unit,
            "goal": self.goal,
            "met": self.met,
            "rounds": {name: figure.rounds for name, figure in figures.items()},
            "notes": self.notes,
        }


Benchmark = Callable[[Plan], Awaitable[list[Row]]]
Contestant = Callable[[], Awaitable[float]]


async def interleaved(contestants: Mapping[str, Contestant], *, rounds: int) -> dict[str, Figure]:
    """Run each contestant once in each round, so that a noisy minute disturbs all of them."""
    results: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(rounds):
        for name, contestant in contestants.items():
            gc.collect()
            results[name].append(await contestant())
    return {name: Figure(tuple(figures)) for name, figures in results.items()}


def best_of(contestant: Contestant, *, batches: int = 5) -> Contestant:
    """Make a round the best of several batches: what comes on top of it is the machine's other work."""

    async def best() -> float:
        return min([await contestant() for _ in range(batches)])

    return best
