"""Mutations of connections: each loses or misuses a refresh token."""

from __future__ import annotations

from tests.mutations.mutation import Mutation

__all__ = ["OF_CONNECTIONS"]

_REFRESH = "tokenmw/connections/refresh.py"
_STORAGE = "tokenmw/connections/pair_storage.py"

OF_CONNECTIONS = (
    Mutation(
        name="connections: the refresh token is sent without a claim",
        file=_REFRESH,
        old="""\
        try:
            stored = await self._documents.save(key, document, expected=found.version)
        except StoreUnavailable as error:
            # The write""",
        new="""\
        if document:
            return Found(found.version, document)
        try:
            stored = await self._documents.save(key, document, expected=found.version)
        except StoreUnavailable as error:
            # The write""",
        tests=("tests/connections/test_refresh.py", "tests/connections/test_store_faults.py"),
    ),
    Mutation(
        name="connections: a refresh overwrites the connection that the user has just made",
        file=_STORAGE,
        old='return None if made_of_it else "superseded"',
        new="return None",
        tests=("tests/connections/test_disconnect.py",),
    ),
    Mutation(
        name="connections: invalid_grant is believed although another process has rotated",
        file=_REFRESH,
        old="if found is None or found.document.refresh_token != claimed.document.refresh_token:",
        new="if found is None:",
        tests=("tests/connections/test_refresh_failures.py",),
    ),
    Mutation(
        name="connections: the access token is returned before the pair is stored",
        file=_REFRESH,
        old="outcome = await self._storage.store(key, new, spent=document, expected=claimed.version, late=late)",
        new="""\
outcome = "stored"
        self._storage._start(
            self._storage.store(key, new, spent=document, expected=claimed.version, late=late)
        )""",
        tests=("tests/connections/test_refresh.py::test_the_pair_is_stored_before_its_token_is_returned",),
    ),
    Mutation(
        name="connections: a cancelled fetch cancels the exchange",
        file="tokenmw/connections/exchanges.py",
        old="        await asyncio.wait([self.task])\n",
        new="        await self.task\n",
        tests=("tests/connections/test_refresh.py", "tests/connections/test_disconnect.py"),
    ),
    Mutation(
        name="connections: closing does not wait for an exchange",
        file="tokenmw/connections/exchanges.py",
        old="if not exchange.spending:",
        new="if True:",
        tests=("tests/connections/test_refresh.py", "tests/connections/test_cancelled.py"),
    ),
    Mutation(
        name="connections: a claim is used however old it is",
        file=_REFRESH,
        old="return Instant(self._clock).since(claimed_at) > limits.claim_seconds - limits.exchange_seconds",
        new="return Instant(self._clock).since(claimed_at) > 1e9 * limits.claim_seconds",
        tests=("tests/connections/test_claims.py",),
    ),
    Mutation(
        name="connections: a claim is taken over immediately",
        file=_REFRESH,
        old="return now.mono - seen.at.mono >= self._limits.claim_seconds",
        new="return now.mono - seen.at.mono >= 0.0",
        tests=("tests/connections/test_claims.py", "tests/connections/test_state_machine.py"),
    ),
    Mutation(
        name="connections: an old version's claim is not replaced by a newer one",
        file=_REFRESH,
        old="if seen is None or (seen.id, seen.version) != (claim_id, found.version):",
        new="if seen is None:",
        tests=("tests/connections/test_claims.py",),
    ),
    Mutation(
        name="connections: a kept pair is not searched for",
        file="tokenmw/connections/loading.py",
        old="newer = await self._storage.newer(key, found, required=required)",
        new="newer = None if required is not None else await self._storage.newer(key, found, required=required)",
        tests=("tests/connections/test_store_faults.py",),
    ),
    Mutation(
        name="connections: a document opens for another user",
        file="tokenmw/connections/documents.py",
        old='return _PLAIN_NAMES.digest("connection", (key.app, key.subject)).encode()',
        new='return _PLAIN_NAMES.digest("connection", (key.app, "")).encode()',
        tests=("tests/connections/test_store_faults.py",),
    ),
    Mutation(
        name="connections: an answer without a refresh token loses the old one",
        file="tokenmw/connections/document.py",
        old="refresh_token=pair.refresh_token or old,",
        new="refresh_token=pair.refresh_token,",
        tests=("tests/connections/test_refresh.py",),
    ),
    Mutation(
        name="connections: the row of a connection that its user has ended is deleted at once",
        file="tokenmw/connections/ended.py",
        old="if not early and now.mono - ended.at.mono < self._seconds:",
        new="if ended.version < 0:",
        tests=("tests/connections/test_disconnect.py",),
    ),
)
