"""The refresh of one connection, by one process of all.

    1. Load the document. No connection, or one that has ended: `ReconnectRequired`. A pair that a process could not
       store is newer: it is stored first.
    2. The stored access token is good: return it. Another process has refreshed it.
    3. Another process's claim: while the access token can be used, return it; else wait for another version. A claim
       whose process died is taken over when its version did not change for `claim_seconds` by this process's clock.
       It is first replaced by a claim that sends nothing, for some seconds: if the other process lives, and the store
       took no writes in the meantime, it stores its pair now.
    4. Claim the connection, by a write that compares the version. It proves that the store takes writes.
    5. Directly before the refresh token is sent: a claim that is too old is given up, as another process may take it
       over before the server answers. The process may have been suspended.
    6. Store the new pair, then return its access token.
    7. `invalid_grant`: load again. Another refresh token is there: start again; else the user has to connect again.
       After any other failure only the claim is removed.

The token request takes at most `exchange_seconds`, and the claim lasts `claim_seconds`. So a process that takes over
sends the refresh token only when the other process can no longer send it. One case remains: the server has spent the
refresh token, and its answer is lost with the process or the network.
"""

from __future__ import annotations

import asyncio
import random
import secrets
from functools import partial
from typing import TYPE_CHECKING, Final, Literal

from tokenmw.clock import Instant
from tokenmw.connections.data import SeenClaim
from tokenmw.connections.document import Claim, ConnectionDocument
from tokenmw.connections.documents import Found, Unusable
from tokenmw.connections.loading import (
    FORESTALLED,
    MAX_FORESTALLED,
    NOT_CONNECTED,
    ConnectionLoader,
    reconnect_required,
)
from tokenmw.connections.pair import AccessTokenUnusable, GrantRefused, TokenPair
from tokenmw.connections.store import StoreUnavailable
from tokenmw.errors import CredentialRejected, RequestError, TokenUnavailable
from tokenmw.observe.events import ConnectionChanged
from tokenmw.redaction import Unpicklable
from tokenmw.redis.errors import RedisUnavailable
from tokenmw.values import Grant, windows

if TYPE_CHECKING:
    from collections.abc import Callable

    from tokenmw.clock import Clock
    from tokenmw.connections.data import ConnectionData
    from tokenmw.connections.documents import Documents
    from tokenmw.connections.ended import EndedConnections
    from tokenmw.connections.exchanges import Exchange, Exchanges
    from tokenmw.connections.pair_storage import PairStorage
    from tokenmw.connections.store import ConnectionKey
    from tokenmw.connections.user_token import UserToken
    from tokenmw.limits import Limits
    from tokenmw.observe.events import Event
    from tokenmw.observe.throttle import ThrottledLog
    from tokenmw.providers.http import TokenHTTP
    from tokenmw.tokens.cache import RejectedTokens

__all__ = ["ConnectionRefresher"]

_EXPIRED: Final = "expired"
_MIN_POLL: Final = 0.05  # seconds
_MAX_POLL: Final = 0.25
_MIN_LEFT: Final = 1.0  # seconds
_LAST_CALL: Final = 2.0  # seconds, twice the time after which a process offers a pair again that was not stored
_WAIT_SHARE: Final = 0.8  # of `fetch_seconds`, for which another process's claim is waited for


class ConnectionRefresher(Unpicklable):
    """Returns the access tokens of connections, and refreshes them.

    Args:
        documents: The store.
        storage: Stores new pairs.
        ended: Deletes the rows of connections that their users have ended.
        exchanges: The tasks in which refreshes run.
        data: What this process remembers.
        rejected: The access tokens that an API rejected.
        limits: `exchange_seconds`, `claim_seconds` and `fetch_seconds`.
        clock: Time.
        log: Where the operator learns of connections that cannot be used.
        observe: Gets `ConnectionChanged`.
        writer: This host and process, for its claims.
    """

    __slots__ = (
        "_clock",
        "_data",
        "_documents",
        "_exchanges",
        "_limits",
        "_loader",
        "_log",
        "_observe",
        "_rejected",
        "_storage",
        "_writer",
    )

    def __init__(
        self,
        *,
        documents: Documents,
        storage: PairStorage,
        ended: EndedConnections,
        exchanges: Exchanges,
        data: ConnectionData,
        rejected: RejectedTokens,
        limits: Limits,
        clock: Clock,
        log: ThrottledLog,
        observe: Callable[[Event], None],
        writer: str,
    ) -> None:
        self._documents = documents
        self._storage = storage
        self._loader = ConnectionLoader(documents, storage=storage, ended=ended, log=log)
        self._exchanges = exchanges
        self._data = data
        self._rejected = rejected
        self._limits = limits
        self._clock = clock
        self._log = log
        self._observe = observe
        self._writer = writer

    async def grant(self, provider: UserToken, http: TokenHTTP) -> Grant:
        """Return a grant of a connection's access token. The exchange outlives a caller that is cancelled.

        Raises:
            ReconnectRequired: There is no connection, or it can no longer be used.
            TokenUnavailable: There is no access token now.
            CredentialRejected: The server refuses the client.
        """
        key = self._documents.key(provider.app_name, provider.subject)
        grant: Grant = await self._exchanges.join(key.digest, partial(self._refresh, provider, key, http))
        return grant

    async def _refresh(self, provider: UserToken, key: ConnectionKey, http: TokenHTTP, exchange: Exchange) -> Grant:
        started = self._clock.monotonic()
        forestalled = 0
        while forestalled < MAX_FORESTALLED:
            loaded = Instant(self._clock)
            found = await self._loader.load(provider, key)
            document = found.document
            grant = self._usable(provider, document)
            if grant is not None and self._is_good(provider, document):
                return grant
            if not document.refresh_token:
                if grant is not None:
                    return grant
                raise reconnect_required(provider, _EXPIRED)
            if not self._is_free(document):
                if grant is not None and self._lasts(provider, document):
                    return grant  # another process refreshes it
                await self._wait_or_take_over(key, found, started=started)
                continue
            forestalled += 1
            if Instant(self._clock).since(loaded) > self._limits.claim_seconds / 2:
                continue  # this process was stopped: what it has read may be of a row that was deleted since
            exchange.spending = True
            try:
                refreshed = await self._claim_and_spend(provider, key, http, found)
            finally:
                exchange.spending = False
            if refreshed is not None:
                return refreshed
        raise TokenUnavailable(FORESTALLED)

    async def _wait_or_take_over(self, key: ConnectionKey, found: Found, *, started: float) -> None:
        if not self._may_take_over(key, found):
            await self._wait(found.document, started=started)
        elif await self._loader.redis_has_none(key, found):
            await self._announce(key, found)

    def _usable(self, provider: UserToken, document: ConnectionDocument) -> Grant | None:
        value, left = document.access_token, document.left(self._clock.time())
        if value is None or value in self._rejected or left <= self._windows(provider, document)[1]:
            return None
        return Grant(value, expires_in=left, token_type=document.token_type, extra=document.extra)

    def _is_good(self, provider: UserToken, document: ConnectionDocument) -> bool:
        return document.left(self._clock.time()) > self._windows(provider, document)[0]

    def _lasts(self, provider: UserToken, document: ConnectionDocument) -> bool:
        """Return whether a usable access token is still usable when a caller has it."""
        return document.left(self._clock.time()) > self._windows(provider, document)[1] + _MIN_LEFT

    def _windows(self, provider: UserToken, document: ConnectionDocument) -> tuple[float, float]:
        window = windows(document.lifetime, refresh_before=provider.refresh_before)
        return window.refresh, window.stop

    def _is_free(self, document: ConnectionDocument) -> bool:
        return document.claim is None or self._data.ended_claims.get(document.claim.id) == self._writer

    def _may_take_over(self, key: ConnectionKey, found: Found) -> bool:
        now, seen = Instant(self._clock), self._data.claims.get(key.digest)
        claim_id = "" if found.document.claim is None else found.document.claim.id
        if seen is None or (seen.id, seen.version) != (claim_id, found.version):
            self._data.claims[key.digest] = SeenClaim(claim_id, found.version, now)
            return False
        # By the monotonic clock: a wall clock that is set forward must not end the claim of a process that works.
        return now.mono - seen.at.mono >= self._limits.claim_seconds

    async def _wait(self, document: ConnectionDocument, *, started: float) -> None:
        if self._clock.monotonic() - started >= _WAIT_SHARE * self._limits.fetch_seconds:
            by = "" if document.claim is None else f" ({document.claim.by})"
            raise TokenUnavailable(f"another process{by} refreshes the connection, and has not stored a token yet")
        await self._clock.sleep(random.uniform(_MIN_POLL, _MAX_POLL))

    async def _claim_and_spend(
        self, provider: UserToken, key: ConnectionKey, http: TokenHTTP, found: Found
    ) -> Grant | None:
        """Claim the connection, spend its refresh token and store the new pair. Return None to start again."""
        at = Instant(self._clock)
        claim = self._new_claim(at)
        claimed = await self._claim(key, found, claim)
        if claimed is None:
            return None
        if self._is_late(at):
            await self._release(key, claimed)
            return None
        self._data.ended_claims.pop(claim.id, None)
        try:
            return await self._spend(provider, key, http, claimed, at)
        finally:
            self._data.ended_claims[claim.id] = self._writer

    async def _announce(self, key: ConnectionKey, found: Found) -> None:
        """Replace a claim that is taken over by one that sends nothing, and let its process store what it has."""
        claimed = await self._claim(key, found, self._new_claim(Instant(self._clock)))
        if claimed is None:
            return
        try:
            await self._clock.sleep(self._limits.store_seconds + _LAST_CALL)
        except asyncio.CancelledError:
            await self._release(key, claimed)
            raise

    def _new_claim(self, at: Instant) -> Claim:
        claim = Claim(id=secrets.token_hex(16), by=self._writer, at=at.wall)
        self._data.ended_claims[claim.id] = self._writer  # until the refresh token may be sent
        return claim

    async def _claim(self, key: ConnectionKey, found: Found, claim: Claim) -> Found | None:
        document = found.document
        if document.access_token in self._rejected:  # no other process is to return it
            document = document.changed(access_token=None)
        document = document.changed(claim=claim)
        try:
            stored = await self._documents.save(key, document, expected=found.version)
        except StoreUnavailable as error:
            # The write may have been done.
            try:
                again = await self._documents.load(key)
            except (StoreUnavailable, Unusable):
                again = None
            if again is None or again.document.claim is None or again.document.claim.id != claim.id:
                raise TokenUnavailable(f"the store of connections takes no writes: {error}") from None
            return again
        return Found(found.version + 1, document) if stored else None

    def _is_late(self, claimed_at: Instant) -> bool:
        # By both clocks: a suspended machine's monotonic clock may stand still.
        limits = self._limits
        return Instant(self._clock).since(claimed_at) > limits.claim_seconds - limits.exchange_seconds

    async def _spend(
        self, provider: UserToken, key: ConnectionKey, http: TokenHTTP, claimed: Found, at: Instant
    ) -> Grant | None:
        document = claimed.document
        sender = http.with_seconds(
            self._limits.exchange_seconds, may_send=lambda: not self._is_late(at) and not self._exchanges.closing
        )
        pair: TokenPair | None = None
        unusable: TokenUnavailable | None = None
        asked = self._clock.time()
        try:
            pair = await provider.app.refresh(sender, document.refresh_token or "", scope="")
        except GrantRefused as refused:
            return await self._refused(provider, key, claimed, refused)
        except AccessTokenUnusable as error:
            unusable = TokenUnavailable(str(error))
            new = document.rotated(error.refresh_token()).without_claim(failing="unavailable", now=asked)
        except Exception as error:
            rejected = isinstance(error, CredentialRejected)
            await self._release(key, claimed, failing="credential rejected" if rejected else "unavailable")
            raise
        else:
            new = ConnectionDocument.of_pair(pair, now=asked, before=document)
        late = Instant(self._clock).since(at) > self._limits.claim_seconds
        outcome = await self._storage.store(key, new, spent=document, expected=claimed.version, late=late)
        if outcome == "superseded":
            return None
        if outcome == "disconnected":
            await self.revoke(provider, http, new)
            raise reconnect_required(provider, NOT_CONNECTED)
        if pair is None:
            if not document.failing:
                self._observe(ConnectionChanged(key.app, "failing", "unavailable"))
            raise unusable or TokenUnavailable
        if document.failing:
            self._observe(ConnectionChanged(provider.app_name, "ok"))
        if self._rejected.discard(pair.access_token):
            self._log.problem(
                f"connection-repeated:{key.app}",
                "%s granted again an access token that its API rejects",
                key.app,
                provider=key.app,
            )
        return self._usable(provider, new) or Grant(
            pair.access_token, expires_in=pair.expires_in, token_type=pair.token_type, extra=pair.extra
        )

    async def _release(self, key: ConnectionKey, claimed: Found, *, failing: str = "") -> None:
        """Remove this process's claim. If the store does not take that, others wait until they may take it over."""
        document = claimed.document.without_claim(failing=failing, now=self._clock.time())
        try:
            released = await self._documents.save(key, document, expected=claimed.version)
        except StoreUnavailable:
            return
        if released and failing and not claimed.document.failing:
            self._observe(ConnectionChanged(key.app, "failing", failing))

    async def _refused(
        self, provider: UserToken, key: ConnectionKey, claimed: Found, refused: GrantRefused
    ) -> Grant | None:
        reason = refused.code or "refused"
        for _ in range(MAX_FORESTALLED):
            try:
                found = await self._documents.load(key)
            except (StoreUnavailable, Unusable) as error:
                raise TokenUnavailable(
                    f"the refresh token is refused ({reason}), and the store cannot say whether there is a newer one: "
                    f"{error}"
                ) from None
            if found is None or found.document.refresh_token != claimed.document.refresh_token:
                return None
            if await self._kept_elsewhere(key, found):
                return None
            now = self._clock.time()
            ended = found.document.changed(
                claim=None, failing="", failing_since=0.0, reconnect=reason, reconnect_at=now
            )
            try:
                if await self._documents.save(key, ended, expected=found.version):
                    break
            except StoreUnavailable as error:
                raise TokenUnavailable(f"the refresh token is refused ({reason}); not stored: {error}") from None
        else:
            raise TokenUnavailable(f"the refresh token is refused ({reason}); {FORESTALLED}")
        self._log.problem(
            f"connection-reconnect:{key.app}",
            "A user of %s has to connect again: the server refuses the refresh token (%s)",
            key.app,
            reason,
            provider=key.app,
            reason=reason,
        )
        self._observe(ConnectionChanged(key.app, "reconnect", reason))
        raise reconnect_required(provider, reason)

    async def _kept_elsewhere(self, key: ConnectionKey, found: Found) -> bool:
        try:
            return await self._loader.store_newer(key, found, required=True)
        except RedisUnavailable:
            return False  # the connection was not taken over: no other process has spent its refresh token

    async def revoke(self, provider: UserToken, http: TokenHTTP, document: ConnectionDocument) -> None:
        """Revoke the tokens of a connection that the user has ended; a server that fails is only logged."""
        hint: Literal["access_token", "refresh_token"] = "refresh_token" if document.refresh_token else "access_token"
        token = document.refresh_token or document.access_token  # an access token ends with its refresh token
        if token is None:
            return
        try:
            await provider.app.revoke(http, token, hint=hint)
        except Exception as error:  # noqa: BLE001  the connection is ended here, whatever the server says
            self._log.problem(
                f"connection-revoke:{provider.app_name}",
                "%s did not revoke the tokens of a user who disconnected: %s",
                provider.app_name,
                error._text if isinstance(error, RequestError) else type(error).__name__,
                provider=provider.app_name,
            )
