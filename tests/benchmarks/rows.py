"""The result of a benchmark: figures of several rounds, of this package and of others, and the goal."""

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
        rounds: The number of times that each contestant runs.
        size: The fraction of the full number of requests, keys and expiries.
        slack: The factor for goals: a busy machine must not fail, a much worse figure must.
    """

    rounds: int
    size: float
    slack: float

    def of(self, count: int) -> int:
        """Return this plan's fraction of a full number, at least 1."""
        return max(1, int(count * self.size))


FULL = Plan(rounds=9, size=1.0, slack=1.0)
SHORT = Plan(rounds=5, size=0.1, slack=2.0)


@dataclass(frozen=True)
class Figure:
    """The rounds of one contestant, in the unit of its row."""

    rounds: tuple[float, ...]

    @property
    def median(self) -> float:
        """The median of the rounds."""
        return statistics.median(self.rounds)

    @property
    def spread(self) -> float:
        """Half the interquartile range, as a fraction of the median."""
        if len(self.rounds) < 2 or not self.median:
            return 0.0
        low, _, high = statistics.quantiles(self.rounds, n=4)
        return (high - low) / 2 / self.median

    def __str__(self) -> str:
        return f"{self.median:10.2f} ±{self.spread:3.0%}"


@dataclass(frozen=True)
class Row:
    """One measurement.

    Attributes:
        name: What was measured.
        unit: The unit of all figures.
        ours: The figure of this package.
        peers: The figures of others, by name.
        goal: The goal in words.
        met: Whether the goal was met; None if there is no goal.
        notes: Remarks, such as which peers are not installed.
    """

    name: str
    unit: str
    ours: Figure
    peers: dict[str, Figure] = field(default_factory=dict[str, Figure])
    goal: str = ""
    met: bool | None = None
    notes: tuple[str, ...] = ()

    def lines(self) -> list[str]:
        """Return the lines to print."""
        verdict = {True: "  met", False: "  NOT MET", None: ""}[self.met]
        heading = f"{self.name}: {self.goal}{verdict}" if self.goal else self.name
        lines = [heading, f"    {'tokenmw':<34}{self.ours} {self.unit}"]
        for name, figure in self.peers.items():
            ratio = f"   ours is {self.ours.median / figure.median:.3f} of it" if figure.median else ""
            lines.append(f"    {name:<34}{figure} {self.unit}{ratio}")
        return [*lines, *(f"    {note}" for note in self.notes)]

    def record(self) -> dict[str, Any]:
        """Return the row as JSON values."""
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
    """Run each contestant once per round, so that noise of the machine affects all of them."""
    results: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(rounds):
        for name, contestant in contestants.items():
            gc.collect()
            results[name].append(await contestant())
    return {name: Figure(tuple(figures)) for name, figures in results.items()}


def best_of(contestant: Contestant, *, batches: int = 5) -> Contestant:
    """Make a round the best of several batches: anything above it is other work of the machine."""

    async def best() -> float:
        return min([await contestant() for _ in range(batches)])

    return best
