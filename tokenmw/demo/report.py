"""The answers of the workers, as a table and as a list of faults."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["Answer", "faults", "table"]

_HEADINGS: Final = ("API key", "worker", "session id", "token", "seconds left")


class Answer(NamedTuple):
    """A worker's answer to one request; `token` is only its end."""

    api_key: str
    worker: int
    session_id: str
    token: str
    seconds_left: int


def table(answers: Iterable[Answer], *, fetches: int) -> str:
    """Return the answers by API key and worker, and the number of token fetches.

    Equal answers are one line, so two lines for one key and worker are a fault.
    """
    lines: dict[tuple[object, ...], Answer] = {}
    for answer in sorted(answers):
        lines.setdefault(answer[:4], answer)  # `seconds_left` may differ by one
    rows = [_HEADINGS, *(tuple(map(str, answer)) for answer in lines.values())]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    rows.insert(1, tuple("-" * width for width in widths))
    text = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([*text, f"Token fetches counted by the token server: {fetches}"])


def faults(answers: Sequence[Answer], *, fetches: int) -> list[str]:
    """Return what was not shared as it should be, one sentence each; an empty list if everything was."""
    ids: dict[str, set[str]] = {}
    keys: dict[str, set[str]] = {}
    for answer in answers:
        ids.setdefault(answer.api_key, set()).add(answer.session_id)
        keys.setdefault(answer.session_id, set()).add(answer.api_key)
    tokens = {answer.token for answer in answers}
    return [
        *(f"{key} has {len(found)} session ids, not one." for key, found in ids.items() if len(found) > 1),
        *(f"{' and '.join(sorted(found))} have the same session id." for found in keys.values() if len(found) > 1),
        *([f"The workers use {len(tokens)} tokens, not one."] if len(tokens) != 1 else []),
        *([f"The token was fetched {fetches} times, not once."] if fetches != 1 else []),
    ]
