"""What a check has found: lines of `ok`, `WARN` and `FAIL`, as text or as JSON, and the exit code."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Finding", "as_json", "as_text", "exit_code"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of a report.

    Attributes:
        result: `ok`, `WARN` or `FAIL`.
        subject: What was checked: `configuration`, `redis`, `provider <name>` or `connections`.
        text: What was found, with the fix of what is wrong; without secrets.
    """

    result: Literal["ok", "WARN", "FAIL"]
    subject: str
    text: str


def exit_code(findings: Sequence[Finding]) -> int:
    """Return 1 if something failed, 2 if there are only warnings, else 0."""
    results = {finding.result for finding in findings}
    return 1 if "FAIL" in results else 2 if "WARN" in results else 0


def as_text(findings: Sequence[Finding]) -> str:
    """Return a line for each finding."""
    width = max((len(finding.subject) for finding in findings), default=0)
    return "\n".join(f"{finding.result:<4}  {finding.subject:<{width}}  {finding.text}" for finding in findings)


def as_json(findings: Sequence[Finding]) -> str:
    """Return the findings and the exit code as one JSON object."""
    return json.dumps(
        {"exit_code": exit_code(findings), "findings": [asdict(finding) for finding in findings]}, indent=2
    )
