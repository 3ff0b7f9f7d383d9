"""Answers of which the client's log tells the status alone: some servers repeat in the rest what they were sent."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from types import ModuleType

__all__ = ["hide_answer", "silent_transport"]


async def hide_answer(event: str, info: dict[str, Any]) -> None:
    """Be the `trace` extension of a request: take out of httpcore's DEBUG lines what the server said.

    httpcore hands the facts of a line to this function first, and then writes what is left of them
    (https://www.encode.io/httpcore/extensions/). The answer itself stays as it is.
    """
    if event.endswith(".complete") and isinstance(info.get("return_value"), tuple):
        info["return_value"] = next((part for part in info["return_value"] if isinstance(part, int)), None)
    elif event.endswith(".failed"):
        # The text of a protocol error quotes the line that is wrong.
        info["exception"] = type(info.get("exception")).__name__


def silent_transport(library: ModuleType, **options: Any) -> Any:
    """Make a transport of httpx whose answers come without the words beside their status.

    The client writes those words into its log, at INFO, before anybody else has seen the answer.
    """
    return _silent_class(library)(**options)


@functools.cache
def _silent_class(library: ModuleType) -> Any:
    class SilentTransport(library.AsyncHTTPTransport):  # type: ignore[name-defined, misc]
        async def handle_async_request(self, request: Any) -> Any:
            response = await library.AsyncHTTPTransport.handle_async_request(self, request)
            response.extensions.pop("reason_phrase", None)
            return response

    return SilentTransport
