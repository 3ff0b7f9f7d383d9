"""Keeping local tokens and Redis in step: invalidation by comparison, the periodic check, uploads.

What was fetched or invalidated without Redis is unshared, and is uploaded until Redis has it. Versions decide: an older
token never replaces a newer one, and an invalid one never returns.
"""

from __future__ import annotations

import secrets
from functools import partial
from typing import TYPE_CHECKING, Final, Literal

from tokenmw.clock import Instant
from tokenmw.observe.events import TokenInvalidated
from tokenmw.redaction import Unpicklable
from tokenmw.redis.errors import RedisUnavailable
from tokenmw.redis.sealing import Unreadable
from tokenmw.redis.token_store import ClockMismatch, Found, Stored, Tombstoned
from tokenmw.tokens.entry import TokenEntry
from tokenmw.tokens.failures import backoff
from tokenmw.tokens.refresh import new_version, record_of
from tokenmw.values import MAX_LIFETIME

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tokenmw.clock import Clock
    from tokenmw.limits import Limits
    from tokenmw.observe.events import Event
    from tokenmw.redis.token_store import StoredVersions, TokenKeys
    from tokenmw.tokens.cache import RejectedTokens
    from tokenmw.tokens.entry import CachedToken
    from tokenmw.tokens.refresh import Refresher
    from tokenmw.tokens.store import TokenStore
    from tokenmw.values import Grant, Token

__all__ = ["RARER_IF_ANNOUNCED", "TokenSync"]

RARER_IF_ANNOUNCED: Final = 10  # times `check_seconds` between two comparisons, where each change is announced
_TOO_YOUNG: Final = 5.0  # seconds; an API may reject a younger token because it does not know it yet
_MANY: Final = 10  # tokens of one provider's name that were invalidated within `_WINDOW` seconds
_WINDOW: Final = 60.0
_INVALIDATED: Final = "%s: %d tokens were invalidated within %.0f s, the last one by this cause: %s"
_FORGET_REPORTS_AFTER: Final = 600.0  # seconds without a report, after which the next one counts as the first


class TokenSync(Unpicklable):
    """Compares token entries with Redis, and invalidates them in both.

    What no request waits for goes through `background_store`: None for that of the refresher.

    Attributes:
        uploaded: How many of each kind, `token` and `tombstone`, were stored in Redis after they were made without it.
    """

    __slots__ = (
        "_background_store",
        "_clock",
        "_invalidated",
        "_limits",
        "_observe",
        "_refresher",
        "_rejected",
        "_store",
        "uploaded",
    )

    def __init__(
        self,
        *,
        refresher: Refresher,
        rejected: RejectedTokens,
        limits: Limits,
        clock: Clock,
        observe: Callable[[Event], None],
        background_store: TokenStore | None = None,
    ) -> None:
        self._refresher = refresher
        self._store = refresher.store
        self._background_store = background_store or refresher.store
        self._rejected = rejected
        self._limits = limits
        self._clock = clock
        self._observe = observe
        self.uploaded = {"token": 0, "tombstone": 0}
        self._invalidated: dict[str, tuple[float, int]] = {}  # by provider's name: since when, how many

    async def invalidate(self, token: Token) -> bool:
        """Drop a token that an API rejected, if it is still the current one. Return whether it was dropped.

        A report about an older token, one fetched less than 5 s ago, or one that the provider has just repeated, is
        ignored; further reports count after a backoff that grows as after failures.
        """
        entry = token._origin
        if not isinstance(entry, TokenEntry):
            return False
        current, now = entry.current, Instant(self._clock)
        if current is None or current.token.value != token.value:
            return False
        if current.age(now) < _TOO_YOUNG or now.mono < entry.ignore_reports_until:
            return False
        _count_report(entry, now.mono)
        self._drop(entry, current, current.version, cause="api")
        await self._write_tombstone(self._store, entry, version=entry.invalid_version)
        return True

    async def invalidate_current(self, entry: TokenEntry) -> None:
        """Drop the token that an entry has or is fetching, here and in Redis, and allow a refresh immediately."""
        now = Instant(self._clock)
        if entry.current is not None:
            self._drop(entry, entry.current, entry.current.version, cause="operator")
        # A token that is being fetched now, here or elsewhere, is invalid too, and its lifetime is not known yet. The
        # clock alone would miss it, as the version requested here may be ahead of the clock.
        requested = max(int(now.wall * 1_000_000), entry.requested_version)
        until = now.mono + MAX_LIFETIME
        entry.mark_invalid(requested, until=until)
        entry.failure = None
        if entry.client is not None:
            entry.client.failure = None
        entry.ignore_reports_until = now.mono
        if self._store is None or entry.keys is None:
            await self._write_tombstone(None, entry, version=None)
            return
        # Another process may have fetched a token without Redis, by its own clock. The server's clock decides, as it is
        # now: a server that was suspended executes the next command late, perhaps after the next token was fetched.
        try:
            server_time = await self._store.server_time(entry.keys)
        except RedisUnavailable:
            return  # housekeeping writes the tombstone later
        entry.mark_invalid(server_time, until=until)
        await self._write_tombstone(self._store, entry, version=None)

    async def retry(self, entry: TokenEntry, *, by: str) -> bool:
        """Let this process and all others ask the provider again now, whatever backoff they are in.

        Return whether the others can know of it: Redis has the request of the operator `by`.
        """
        if entry.failure is not None:
            entry.failure.end_backoff(self._clock.monotonic())
        if self._store is None or entry.keys is None:
            return False
        try:
            # Known before it is written, so that a read that is under way does not follow it here, too.
            entry.retried_version = await self._store.server_time(entry.keys)
            await self._store.write_retry(entry.keys, by, version=entry.retried_version)
        except RedisUnavailable:
            return False
        return True

    async def hand_in(self, entry: TokenEntry, grant: Grant) -> bool:
        """Give an entry a token that came without a request, with a version above those known here and in Redis.

        Return whether the entry lost it again: another process has invalidated that version meanwhile.
        """
        known = 0
        if self._store is not None and entry.keys is not None:
            try:
                found, known = await self._store.read(entry.keys)
            except (RedisUnavailable, Unreadable):
                found = None  # this process's clock is as good as any other's
            known = max(known, 0 if found is None else found.version)
        at = Instant(self._clock)
        version = new_version(at, entry.known_version, known)
        shared = entry.keys is None
        self._refresher.install(entry, record_of(grant), version=version, left=grant.expires_in, at=at, shared=shared)
        try:
            return await self._compare(self._store, entry)
        except RedisUnavailable:
            return False  # housekeeping uploads it later

    def is_due(self, entry: TokenEntry, now: float, *, announced: bool = False) -> bool:
        """Return whether an entry must be compared with Redis at this monotonic time.

        Where each change is `announced`, the periodic comparison only finds what Redis has evicted, and is rare.
        """
        if entry.keys is None:
            return False
        current = entry.current
        if entry.tombstone_due_until > now or (current is not None and not current.shared):
            return True
        seconds = self._limits.check_seconds * (RARER_IF_ANNOUNCED if announced else 1)
        return entry.used and current is not None and now - current.checked >= seconds

    async def changed(self, entries: Sequence[TokenEntry], *, keep_used: bool = False) -> list[TokenEntry]:
        """Return the entries that must be compared one by one: Redis has another version or none, or gets a tombstone.

        For the others one batch without values was enough, also after an outage: most have been uploaded by others.
        With `keep_used`, the next periodic comparison of an entry still depends on the requests before this one.

        Raises:
            RedisUnavailable: No server of these entries can be asked.
        """
        changed: list[TokenEntry] = []
        asked: list[tuple[TokenEntry, CachedToken, TokenKeys]] = []
        at = Instant(self._clock)
        for entry in entries:
            token = entry.current
            if token is None or entry.keys is None or entry.tombstone_due_until > at.mono:
                changed.append(entry)
            else:
                # An upload is no periodic comparison: what others announce next concerns a token in use.
                entry.used = entry.used and (keep_used or not token.shared)
                asked.append((entry, token, entry.keys))
        if asked and self._background_store is not None:
            held = await self._background_store.holds([(keys, token.version) for _entry, token, keys in asked])
            for (entry, token, _keys), same in zip(asked, held, strict=True):
                if entry.current is token and same:
                    token.checked, token.shared = at.mono, True
                else:
                    changed.append(entry)
        return changed

    async def check_hinted(
        self, entries: Sequence[TokenEntry]
    ) -> tuple[list[TokenEntry], list[TokenEntry], list[TokenEntry]]:
        """Drop the tokens that Redis has a tombstone for, of entries that another process has announced as changed.

        Return the entries that lost a token in use, those for which Redis has a newer token, and those whose server did
        not answer. An entry that no request uses gets no token in place of one that it lost: the next request reads it.
        Nor does it get a newer one, unless that invalidates the one before. An entry without a token takes over the
        tombstone's version, so that a refresh in progress does not install an older token.

        Raises:
            RedisUnavailable: No server of these entries can be asked.
        """
        lost: list[TokenEntry] = []
        newer: list[TokenEntry] = []
        unanswered: list[TokenEntry] = []
        at = Instant(self._clock)
        asked = [(entry, entry.current, entry.keys) for entry in entries if entry.keys]
        for (entry, token, _keys), stored in zip(asked, await self._versions(asked), strict=True):
            current = entry.current
            if stored is None:
                unanswered.append(entry)
            elif current is None:
                entry.invalid_version = max(entry.invalid_version, stored.tombstone)
            elif stored.tombstone >= current.version:
                self._drop(entry, current, stored.tombstone, redis_knows=True)
                if entry.used:
                    lost.append(entry)
            elif current is token and stored.token > current.version:
                if entry.used or entry.provider.exclusive:
                    newer.append(entry)
            elif current is token and _same(stored, current):
                current.checked = at.mono
        return lost, newer, unanswered

    async def _versions(
        self, asked: Sequence[tuple[TokenEntry, CachedToken | None, TokenKeys]]
    ) -> list[StoredVersions | None]:
        if self._background_store is None:
            return [None] * len(asked)
        return await self._background_store.versions([keys for _entry, _token, keys in asked])

    async def compare(self, entry: TokenEntry) -> bool:
        """Compare an entry with Redis and correct the one that is behind. Return whether the entry lost its token.

        Raises:
            RedisUnavailable: What is unshared stays so.
        """
        return await self._compare(self._background_store, entry)

    async def _compare(self, store: TokenStore | None, entry: TokenEntry) -> bool:
        keys = entry.keys
        if keys is None or store is None:
            return False
        # The tombstone first: once a newer token is stored, it would not be written any more.
        if entry.tombstone_due_until > self._clock.monotonic():
            if not await self._write_tombstone(store, entry, version=entry.invalid_version):
                return False
            self.uploaded["tombstone"] += 1
        token = entry.current
        return token is not None and await self._compare_token(store, keys, entry, token)

    async def _compare_token(self, store: TokenStore, keys: TokenKeys, entry: TokenEntry, token: CachedToken) -> bool:
        entry.used = entry.used and not token.shared
        at = Instant(self._clock)
        try:
            found, invalid = await store.read(keys)
        except Unreadable:
            token.shared = True  # other instances have stored theirs, sealed by a secret that this one lacks
            token.checked = at.mono
            return False
        token.checked = at.mono
        if entry.current is not token:
            return False
        if invalid >= token.version:
            self._drop(entry, token, invalid, redis_knows=True)
            return True
        if found is None or found.version < token.version:
            await self._upload(store, keys, entry, token)
        elif found.version > token.version and found.record.value in self._rejected:
            await store.write_tombstone(keys, version=found.version, known=entry.known_version, left=found.left)
        else:
            if found.version > token.version:
                self._refresher.adopt(entry, found, at)
            token.shared = True  # Redis has it, or a newer one
        return False

    async def _upload(self, store: TokenStore, keys: TokenKeys, entry: TokenEntry, token: CachedToken) -> None:
        now = Instant(self._clock)
        left = token.left(now)
        if left <= 0:
            token.shared = True  # expired: nothing to upload any more
            return
        commit = partial(
            store.commit, keys, secrets.token_hex(8), token.record, left=left, announce=not token.announced
        )
        reply = await commit(version=token.version)
        if isinstance(reply, ClockMismatch) and entry.current is token:
            entry.redate(reply.server_time, now)
            reply = await commit(version=token.version)
        if isinstance(reply, Stored):
            token.shared = token.announced = True
            self.uploaded["token"] += 1
        elif isinstance(reply, Found):
            self._refresher.adopt(entry, reply, Instant(self._clock))
            token.shared = True  # Redis has a newer one, adopted or not
        elif isinstance(reply, Tombstoned) and entry.current is token:
            self._drop(entry, token, reply.version)

    def _drop(
        self,
        entry: TokenEntry,
        token: CachedToken,
        version: int,
        *,
        redis_knows: bool = False,
        cause: Literal["api", "operator", "instance"] = "instance",
    ) -> None:
        self._rejected.add(token.token.value)
        if redis_knows:
            # Another process has invalidated it, which counts here too: else an API that rejects every token would cost
            # a fleet more tokens than one process.
            _count_report(entry, self._clock.monotonic())
        entry.mark_invalid(version, until=token.expires_mono, redis_knows=redis_knows)
        entry.current = None
        self._observe(TokenInvalidated(entry.name, cause, entry.credential))
        self._note_invalidated(entry.name, cause)

    def _note_invalidated(self, name: str, cause: str) -> None:
        # One token that an API rejects is a matter of course; many at once are a revocation, or a mistake.
        now = self._clock.monotonic()
        began, count = self._invalidated.get(name, (now, 0))
        began, count = (began, count + 1) if now - began <= _WINDOW else (now, 1)
        self._invalidated[name] = began, count
        if count >= _MANY:
            log, seconds = self._refresher.log, now - began
            log.problem(f"invalidated:{name}", _INVALIDATED, name, count, seconds, cause, provider=name, reason=cause)

    async def _write_tombstone(self, store: TokenStore | None, entry: TokenEntry, *, version: int | None) -> bool:
        """Declare a version invalid in Redis; None: whatever is stored. Return whether Redis could be asked."""
        if store is None or entry.keys is None:
            entry.tombstone_due_until = entry.tombstone_until = 0.0
            return True
        at = Instant(self._clock)
        sent = entry.invalid_version, entry.tombstone_until
        try:
            reply = await self._send_tombstone(store, entry.keys, entry, version=version)
        except RedisUnavailable:
            return False  # housekeeping writes it later, as long as the token would live
        except Unreadable:
            reply = None  # other instances have stored a newer token, sealed by a secret that this one lacks
        if sent == (entry.invalid_version, entry.tombstone_until):
            entry.tombstone_due_until = 0.0  # else another version was invalidated meanwhile
        if isinstance(reply, Found):
            self._refresher.adopt(entry, reply, at)
        elif isinstance(reply, Tombstoned):
            entry.invalid_version = max(entry.invalid_version, reply.version)
        return True

    async def _send_tombstone(
        self, store: TokenStore, keys: TokenKeys, entry: TokenEntry, *, version: int | None
    ) -> Found | Tombstoned | ClockMismatch:
        at = Instant(self._clock)
        left = max(0.0, entry.tombstone_due_until - at.mono)
        # A token that was installed after the invalidation stays valid.
        reply = await store.write_tombstone(keys, version=version, known=entry.invalid_version, left=left)
        if isinstance(reply, ClockMismatch):
            entry.redate(reply.server_time, at)
            version = None if version is None else entry.invalid_version
            reply = await store.write_tombstone(keys, version=version, known=entry.invalid_version, left=left)
        return reply


def _count_report(entry: TokenEntry, now: float) -> None:
    if now > entry.ignore_reports_until + _FORGET_REPORTS_AFTER:
        entry.rejections = 0
    entry.rejections += 1
    entry.ignore_reports_until = now + backoff(entry.rejections)


def _same(stored: StoredVersions, token: CachedToken) -> bool:
    return stored.token == token.version and stored.tombstone < token.version and stored.current_seal
