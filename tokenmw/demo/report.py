"""What the answers of the workers show, as a table and as a verdict."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Answer", "faults", "table", "verdict"]

_HEADINGS: Final = ("API key", "worker", "session id", "token", "seconds left")


class Answer(NamedTuple):
    """What a worker has answered to one request.

    Attributes:
        api_key: The caller's API key.
        worker: The worker's number, from 1 on.
        session_id: The session id that the worker has for the key.
        token: The end of the token that it would use.
        seconds_left: Seconds until that token expires.
    """

    api_key: str
    worker: int
    session_id: str
    token: str
    seconds_left: int


def table(answers: Sequence[Answer], *, fetches: int) -> str:
    """Return the answers by API key and worker, and how often the token server was asked.

    Answers that tell the same are one line, so two lines for a key and a worker are two that do not agree.
    """
    lines: dict[tuple[object, ...], Answer] = {}
    for answer in sorted(answers):
        # A second may pass between two requests, which makes them no different.
        lines.setdefault(answer[:4], answer)
    rows = [_HEADINGS, *(tuple(map(str, answer)) for answer in lines.values())]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    rows.insert(1, tuple("-" * width for width in widths))
    text = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([*text, "", f"Token fetches counted by the token server: {fetches}"])


def faults(answers: Sequence[Answer], *, api_keys: Sequence[str], workers: int, fetches: int) -> list[str]:
    """Return what was not shared as it should be, one sentence each; nothing if all is well."""
    found: list[str] = []
    ids: dict[str, set[str]] = {}
    for answer in answers:
        ids.setdefault(answer.api_key, set()).add(answer.session_id)
    for key in api_keys:
        silent = [
            number for number in range(1, workers + 1) if not any(answer[:2] == (key, number) for answer in answers)
        ]
        found += [f"Worker {number} has not answered {key}." for number in silent]
        if len(ids.get(key, ())) > 1:
            found.append(f"{key} has {len(ids[key])} session ids and not one.")
    owners: dict[str, set[str]] = {}
    for answer in answers:
        owners.setdefault(answer.session_id, set()).add(answer.api_key)
    found += [f"{' and '.join(sorted(keys))} have the same session id." for keys in owners.values() if len(keys) > 1]
    tokens = {answer.token for answer in answers}
    if len(tokens) > 1:
        found.append(f"The workers use {len(tokens)} different tokens.")
    if fetches != 1:
        found.append(f"The token was fetched {fetches} times and not once.")
    return found


def verdict(answers: Sequence[Answer], found: Sequence[str]) -> str:
    """Return the last lines of the report."""
    if found:
        return "\n".join(["Not everything was shared:", *(f"- {fault}" for fault in found)])
    return (
        f"All is well: each API key has one session id in all workers, different keys have different ones,\n"
        f"and {len(answers)} requests at once caused one token fetch."
    )
