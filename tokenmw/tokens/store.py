"""What the tokens of a process need of Redis, as a protocol; `redis.token_store.RedisTokenStore` implements it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tokenmw.redis.retries import Retry
    from tokenmw.redis.token_store import (
        Busy,
        ClockMismatch,
        FailureNoted,
        Found,
        Leased,
        Stored,
        StoredVersions,
        TokenKeys,
        TokenRecord,
        Tombstoned,
    )

__all__ = ["TokenStore"]


class TokenStore(Protocol):
    """Tokens that all processes share. Each operation may raise `RedisUnavailable` or `Unreadable`.

    `ClockMismatch` means that a version given does not agree with the clock of Redis, and that nothing was stored.
    """

    async def read(self, keys: TokenKeys, /) -> tuple[Found | None, int]:
        """Return the stored token, if any, and the highest version known to be invalid."""
        ...

    async def holds(self, tokens: Sequence[tuple[TokenKeys, int]], /) -> list[bool]:
        """Return for each token whether this version of it is stored; False if that cannot be known now."""
        ...

    async def versions(self, keys: Sequence[TokenKeys], /) -> list[StoredVersions | None]:
        """Return the versions of many tokens without their values; None for one that cannot be known now."""
        ...

    async def acquire(
        self, keys: TokenKeys, owner: str, /, *, known: int, seconds: float, through_note: bool = False
    ) -> Found | Leased | Busy | FailureNoted | ClockMismatch:
        """Return a token above version `known`, else a lease with a fencing version, else what prevents one.

        With `through_note`, a failure note does not prevent it.
        """
        ...

    async def commit(
        self, keys: TokenKeys, owner: str, record: TokenRecord, /, *, version: int, left: float, announce: bool = True
    ) -> Stored | Found | Busy | Tombstoned | ClockMismatch:
        """Store a token under the lease, or without a lease if it is newer than the stored one."""
        ...

    async def release(self, keys: TokenKeys, owner: str, /, *, version: int, note: bytes, seconds: float) -> None:
        """Give the lease back, with a failure note for the other processes if it is not empty."""
        ...

    async def server_time(self, keys: TokenKeys, /) -> int:
        """Return the time of the server that has these keys, in microseconds since 1970."""
        ...

    async def write_tombstone(
        self, keys: TokenKeys, /, *, version: int | None, known: int, left: float
    ) -> Found | Tombstoned | ClockMismatch:
        """Write a tombstone: a version, and all before it, are invalid; None: `known`, and whatever is stored."""
        ...

    async def noted(self, keys: TokenKeys, /) -> tuple[bool, Retry | None]:
        """Return whether there is a failure note, and the last request of an operator to retry."""
        ...

    async def write_retry(self, keys: TokenKeys, by: str, /) -> int:
        """Store an operator's request to retry, and delete the failure note. Return the request's version."""
        ...
