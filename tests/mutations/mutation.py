"""What a mutation is."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Mutation"]


@dataclass(frozen=True)
class Mutation:
    """One deliberate fault.

    Attributes:
        name: The behaviour that it breaks.
        file: The file that is changed.
        old: The text that is replaced.
        new: What replaces it.
        tests: The arguments of pytest: files, or single tests. One failed test is enough.
    """

    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]
