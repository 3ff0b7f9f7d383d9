"""Sentry records no secret of this package: it reads each variable of a frame, and walks into what is a mapping."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from tests.processes import Workers
from tests.redaction.test_tracebacks import SECRET

if TYPE_CHECKING:
    from collections.abc import Iterator

# Frames of the application and its framework hold the request; they are not the package's.
_OURS: Final = ("tokenmw", "httpx", "httpcore", "redis", "h11", "anyio")


def frames_of(event: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the place and the variables of each frame of the package and its libraries in an event."""
    values = [*event.get("exception", {}).get("values", ()), *event.get("threads", {}).get("values", ())]
    for value in values:
        stack: dict[str, list[dict[str, Any]]] = value.get("stacktrace") or {}
        for frame in stack.get("frames", []):
            if str(frame.get("module")).partition(".")[0] in _OURS:
                yield f"{frame['module']}:{frame['function']}:{frame['lineno']}", frame.get("vars", {})


async def test_sentry_records_no_secret() -> None:
    """Neither variables of frames nor texts, breadcrumbs and traces have a secret, in any case of the program."""
    async with Workers("tests.redaction.sentry_program:events", processes=1, arguments={}) as workers:
        (events,) = await workers.results()
    found: dict[str, Any] = {}
    places: set[str] = set()
    for event in events:
        for place, variables in frames_of(event):
            places.add(place.partition(":")[0])
            found |= {f"{place}: {name}": value for name, value in variables.items() if SECRET in repr(value)}
        rest = {name: value for name, value in event.items() if name not in ("exception", "threads", "request")}
        found |= {name: value for name, value in rest.items() if SECRET in repr(value)}
        texts = [value.get("value") for value in event.get("exception", {}).get("values", ())]
        found |= {text: text for text in texts if SECRET in str(text)}
    assert {} == found
    assert len(events) > 100
    assert {"tokenmw.asgi.middleware", "tokenmw.asgi.request", "tokenmw.broker"} <= places
