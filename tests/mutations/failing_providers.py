"""Mutations of what happens when a provider fails, and when a secret is changed."""

from __future__ import annotations

from tests.mutations.mutation import Mutation

__all__ = ["FAILING_PROVIDERS"]

FAILING_PROVIDERS = (
    Mutation(
        name="backoff: a provider is probed as rarely without a token as with one",
        file="tokenmw/tokens/failures.py",
        old="ends = self.retry_at if served else self.probe_at",
        new="ends = self.retry_at",
        tests=("tests/tokens/test_provider_recovery.py",),
    ),
    Mutation(
        name="backoff: a Retry-After is prolonged by the backoff",
        file="tokenmw/tokens/backoff.py",
        old="unserved = min(max(asked_for, limits.backoff_seconds), MAX_RETRY_AFTER)",
        new="unserved = max(growing, asked_for)",
        tests=("tests/tokens/test_failures.py", "tests/tokens/test_provider_recovery.py"),
    ),
    Mutation(
        name="backoff: the backoff outlasts the token",
        file="tokenmw/tokens/backoff.py",
        old="served = min(growing, served_for - probe) if served_for > 0 else growing",
        new="served = growing",
        tests=("tests/tokens/test_provider_recovery.py",),
    ),
    Mutation(
        name="notes: a machine's own fault leaves none",
        file="tokenmw/tokens/failures.py",
        old="self.note_until = now + min(wait.unserved, longest_probe_wait(limits))",
        new="pass",
        tests=("tests/tokens/test_provider_recovery.py",),
    ),
    Mutation(
        name="notes: the writer does not stand back",
        file="tokenmw/tokens/failures.py",
        old="self.probe_at += _STAND_BACK * max(0.0, self.note_until - now)",
        new="pass",
        tests=("tests/tokens/test_provider_recovery.py",),
    ),
    Mutation(
        name="notes: a machine's own fault fails the requests of the others",
        file="tokenmw/tokens/leased_refresh.py",
        old="if not first or waited + left + self._limits.fetch_seconds > self._limits.wait_seconds:",
        new="if True:",
        tests=("tests/tokens/test_provider_recovery.py",),
    ),
    Mutation(
        name="notes: one that was written while a token was served is obeyed without one",
        file="tokenmw/tokens/leased_refresh.py",
        old="through_note = self._is_outdated(failure, reply.left)",
        new="through_note = False",
        tests=("tests/tokens/test_provider_recovery.py",),
    ),
    Mutation(
        name="secrets: the accepted one is not remembered",
        file="tokenmw/providers/client_secrets.py",
        old="self._begin_with((untried or secrets)[0], began)",
        new="pass",
        tests=("tests/providers/test_client_secrets.py",),
    ),
    Mutation(
        name="secrets: the next one is sent after any rejection",
        file="tokenmw/providers/client_secrets.py",
        old="if not _is_of_secret(error, codes=codes) or len(secrets) == 1:",
        new="if len(secrets) == 1:",
        tests=("tests/providers/test_client_secrets.py",),
    ),
    Mutation(
        name="backoff: an adopted token that is due for a refresh ends it",
        file="tokenmw/tokens/refresh.py",
        old="if failure is None or not entry.in_backoff(now) or token.fresh(now):",
        new="if True:",
        tests=("tests/tokens/test_adoption.py",),
    ),
    Mutation(
        name="backoff: an adopted token does not end that of the credentials that need it",
        file="tokenmw/tokens/refresh.py",
        old="entry.failure = copy(failure)",
        new="entry.failure = failure",
        tests=("tests/tokens/test_adoption.py",),
    ),
)
