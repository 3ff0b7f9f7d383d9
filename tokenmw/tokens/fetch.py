"""One request to a provider, within a time limit, and what is stored of its grant."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

from tokenmw.errors import TokenUnavailable
from tokenmw.redis.token_store import TokenRecord
from tokenmw.values import Grant

if TYPE_CHECKING:
    from collections.abc import Callable

    from tokenmw.clock import Clock, Instant
    from tokenmw.providers.http import TokenHTTP
    from tokenmw.tokens.entry import TokenEntry

__all__ = ["fetch_within", "new_version", "record_of"]

_CANCEL_SECONDS: Final = 1.0  # for provider code that ignores its cancellation


async def fetch_within(
    seconds: float, entry: TokenEntry, http: TokenHTTP, *, clock: Clock, on_error: Callable[[BaseException], None]
) -> Grant | None:
    """Call the provider's `fetch` once and return its grant.

    Without one, return None, after a call of `on_error` with its exception or the time limit. That comes first: code
    that ignores its cancellation is given another second.
    """
    fetch = asyncio.ensure_future(_call(entry, http))
    timer = asyncio.ensure_future(clock.sleep(seconds))
    try:
        await asyncio.wait({fetch, timer}, return_when=asyncio.FIRST_COMPLETED)
        outcome = _outcome(fetch, seconds=seconds)
        if isinstance(outcome, Grant):
            return outcome
        on_error(outcome)
        return None
    finally:
        await _cancel(fetch, timer)


def record_of(grant: Grant) -> TokenRecord:
    """Return what is stored of a grant."""
    return TokenRecord(grant.value, grant.token_type, grant.expires_in, None, grant.extra)


def new_version(at: Instant, *known: int) -> int:
    """Return a version made without Redis: microseconds since 1970, above every known version."""
    return max(int(at.wall * 1_000_000), *(version + 1 for version in known))


async def _call(entry: TokenEntry, http: TokenHTTP) -> Grant:
    # In the task, so that what a provider raises before its first await is a failure like any other.
    provider = entry.provider
    return await provider.fetch(http if provider.allow_private else http.public_only())


def _outcome(fetch: asyncio.Future[Any], *, seconds: float) -> Grant | BaseException:
    if not fetch.done():
        return TokenUnavailable(f"the provider did not answer within {seconds:g} s")
    if fetch.cancelled():
        return TokenUnavailable("the provider's fetch was cancelled by its own code")
    error = fetch.exception()
    if error is not None:
        return error
    result = fetch.result()
    if isinstance(result, Grant):
        return result
    return TokenUnavailable(f"the provider's fetch must return a Grant, and returned {type(result).__name__}")


async def _cancel(*tasks: asyncio.Future[Any]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks, timeout=_CANCEL_SECONDS)
    for task in tasks:
        task.add_done_callback(_retrieve)


def _retrieve(task: asyncio.Future[Any]) -> None:
    if not task.cancelled():
        task.exception()  # so that the event loop never reports it, with texts that may hold a secret
