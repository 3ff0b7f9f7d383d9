"""Mutations of session ids."""

from __future__ import annotations

from tests.mutations.mutation import Mutation

__all__ = ["OF_SESSIONS"]

OF_SESSIONS = (
    Mutation(
        name="derived session id: random instead of derived",
        file="tokenmw/sessions/derive.py",
        old='hmac.digest(self._key, api_key, "sha256")[:16]',
        new="os.urandom(16)",
        tests=("tests/sessions/test_derive.py",),
    ),
    Mutation(
        name="derived session id: the namespace is not a part of it",
        file="tokenmw/sessions/derive.py",
        old='f"sessions/{namespace}"',
        new='"sessions"',
        tests=("tests/sessions/test_derive.py",),
    ),
    Mutation(
        name="new session: a random id although there is a key to derive from",
        file="tokenmw/sessions/derive.py",
        old='self._derive_candidates = new == "derived"',
        new="self._derive_candidates = False",
        tests=("tests/sessions/test_load_balancer.py",),
    ),
    Mutation(
        name="sessions: a long API key is kept",
        file="tokenmw/sessions/cache.py",
        old="return api_key if len(api_key) <= LONGEST_KEPT else",
        new="return api_key if api_key else",
        tests=("tests/sessions/test_long_keys.py",),
    ),
    Mutation(
        name="resets: the tag is not compared",
        file="tokenmw/sessions/derive.py",
        old="return session_id if hmac.compare_digest(tag, expected) else None",
        new="return session_id",
        tests=("tests/sessions/test_resets.py", "tests/sessions/test_derive.py"),
    ),
    Mutation(
        name="resets: what is kept is that of another key",
        file="tokenmw/sessions/derive.py",
        old='hmac.digest(secret, salt + redis_key, "sha256")',
        new='hmac.digest(secret, salt, "sha256")',
        tests=("tests/sessions/test_resets.py", "tests/sessions/test_derive.py"),
    ),
    Mutation(
        name="resets: nothing is kept of one during an outage",
        file="tokenmw/sessions/manager.py",
        old="session.reset = kept",
        new="session.overwrite = True",
        tests=("tests/sessions/test_resets.py",),
    ),
    Mutation(
        name="resets: random ids are kept as well",
        file="tokenmw/sessions/derive.py",
        old="if name_key is not None and self._derive_candidates else None",
        new="if name_key is not None else None",
        tests=("tests/sessions/test_resets.py", "tests/sessions/test_derive.py"),
    ),
)
