"""The columns of a row in the tables of faults: what callers, providers and operators notice of one fault."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tests.docs import pages

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["HEAD", "Columns", "logged", "table", "write_table"]

HEAD = (
    "| Fault | `status()` | Failed | Slowest | Fetches | Ids that alternated | Healed after | Logged |",
    "|---|---|---|---|---|---|---|---|",
)


@dataclass(frozen=True)
class Columns:
    """What was noticed of one fault.

    Attributes:
        fault: The name of the fault.
        status: `status().shared` of the processes during the fault, with the reason.
        requests: The number of requests before, during and after the fault.
        failed: The number of requests that failed.
        slowest: The longest duration of a request in seconds.
        fetches: The number of requests to token servers.
        alternated: The number of API keys that had more than one id during the run.
        healed: Seconds from the end of the fault until Redis and all processes had the same; None if they had not.
        logged: The number of log lines of all processes, by kind.
    """

    fault: str
    status: str
    requests: int
    failed: int
    slowest: float
    fetches: int
    alternated: int
    healed: float | None
    logged: Counter[str] = field(default_factory=Counter[str])

    @property
    def row(self) -> str:
        """The row of a Markdown table."""
        healed = "with the next touch" if self.healed is None else f"{self.healed:.1f} s"
        lines = ", ".join(f"{count} {kind}" for kind, count in sorted(self.logged.items())) or "nothing"
        cells = (
            self.fault,
            self.status,
            f"{self.failed} of {self.requests}",
            f"{self.slowest * 1000:.0f} ms",
            str(self.fetches),
            str(self.alternated),
            healed,
            lines,
        )
        return f"| {' | '.join(cells)} |"


def logged(kinds: Iterable[str]) -> Counter[str]:
    """Count log lines by kind; the lines of all providers count as one kind."""
    return Counter(kind.partition(":")[0] for kind in kinds)


def table(rows: Sequence[Columns]) -> str:
    """Return the table of some faults."""
    return "\n".join((*HEAD, *(columns.row for columns in rows)))


def write_table(rows: Sequence[Columns], *, page: str, begin: str, end: str) -> None:
    """Write the table of some faults into a guide, between two of its lines."""
    guide = pages.page(page)
    before, _, rest = guide.text.partition(begin)
    _, _, after = rest.partition(end)
    guide.path.write_text(f"{before}{begin}\n{table(rows)}\n{end}{after}", encoding="utf-8")
