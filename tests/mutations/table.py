"""The mutations: data only. Paths are relative to the root of the tree; `old` must be in its file exactly once."""

from __future__ import annotations

from tests.mutations.failing_providers import FAILING_PROVIDERS
from tests.mutations.mutation import Mutation

__all__ = ["MUTATIONS", "Mutation"]


MUTATIONS = (
    *FAILING_PROVIDERS,
    Mutation(
        name="acquire: a token is found although the caller knows it",
        file="tokenmw/redis/lua/acquire.lua",
        old="if value and stored > known and stored > dead then",
        new="if value and stored > dead then",
        tests=("tests/redis/test_scripts.py",),
    ),
    Mutation(
        name="acquire: a token is found although there is a tombstone for it",
        file="tokenmw/redis/lua/acquire.lua",
        old="if value and stored > known and stored > dead then",
        new="if value and stored > known then",
        tests=("tests/redis/test_scripts.py", "tests/redis/test_scripts_damage.py"),
    ),
    Mutation(
        name="acquire: the version is only the server's time",
        file="tokenmw/redis/lua/acquire.lua",
        old="local version = math.max(microseconds(), dead + 1, known + 1)",
        new="local version = microseconds()",
        tests=("tests/redis/test_scripts.py",),
    ),
    Mutation(
        name="acquire: every caller gets a lease",
        file="tokenmw/redis/lua/acquire.lua",
        old="elseif owner then",
        new="elseif false then",
        tests=("tests/redis/test_scripts.py",),
    ),
    Mutation(
        name="commit: an older version replaces a newer one",
        file="tokenmw/redis/lua/commit.lua",
        old="if value and stored >= version then",
        new="if false then",
        tests=("tests/redis/test_scripts.py",),
    ),
    Mutation(
        name="commit: the lease of another owner is ignored",
        file="tokenmw/redis/lua/commit.lua",
        old="if owner and not mine then",
        new="if false then",
        tests=("tests/redis/test_scripts.py",),
    ),
    Mutation(
        name="commit: a tombstone is ignored",
        file="tokenmw/redis/lua/commit.lua",
        old="if dead >= version then",
        new="if false then",
        tests=("tests/redis/test_scripts.py",),
    ),
    Mutation(
        name="invalidate: the token is dropped although it is not the current one",
        file="tokenmw/tokens/sync.py",
        old="if current is None or current.token.value != token.value:",
        new="if current is None:",
        tests=("tests/tokens/test_invalidation.py",),
    ),
    Mutation(
        name="single flight: a cancelled waiter cancels the task that all wait for",
        file="tokenmw/singleflight.py",
        old="""\
            await waiter
        finally:
""",
        new="""\
            await waiter
        except asyncio.CancelledError:
            self._task.cancel()
            raise
        finally:
""",
        tests=("tests/test_singleflight.py",),
    ),
    Mutation(
        name="closing: a cancel scope keeps the broker from waiting until it is closed",
        file="tokenmw/broker.py",
        old="with anyio.CancelScope(shield=True):",
        new="with anyio.CancelScope(shield=False):",
        tests=("tests/broker/test_closing.py",),
    ),
    Mutation(
        name="closing: the cancellation of the task that leaves cancels the close",
        file="tokenmw/broker.py",
        old="await asyncio.wait([closing])",
        new="await closing",
        tests=("tests/broker/test_closing_cancelled.py",),
    ),
    Mutation(
        name="second clock: a token is returned although the wall clock says that it has expired",
        file="tokenmw/tokens/manager.py",
        old="""\
        if mono < current.refresh_mono and wall < current.refresh_wall:
            entry.used = True
            return current.token
        if mono < current.stop_mono and wall < current.stop_wall:
""",
        new="""\
        if mono < current.refresh_mono:
            entry.used = True
            return current.token
        if mono < current.stop_mono:
""",
        tests=("tests/tokens/test_manager.py",),
    ),
    Mutation(
        name="second clock: a token is adopted although the wall clock says that it has expired",
        file="tokenmw/tokens/entry.py",
        old="return now.mono < self.stop_mono and now.wall < self.stop_wall",
        new="return now.mono < self.stop_mono",
        tests=("tests/tokens/test_manager.py", "tests/tokens/test_lifetimes.py"),
    ),
    Mutation(
        name="second clock: the time for which the machine was suspended is not counted",
        file="tokenmw/clock.py",
        old="return max(self.mono - earlier.mono, self.wall - earlier.wall)",
        new="return self.mono - earlier.mono",
        tests=("tests/tokens/test_lifetimes.py",),
    ),
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
        name="eviction: a use within a second of the placing does not count",
        file="tokenmw/caches.py",
        old="if entry.used <= entry.placed or",
        new="if entry.used <= entry.placed + 1.0 or",
        tests=("tests/test_caches.py",),
    ),
    Mutation(
        name="first sight: without a permit nothing is read",
        file="tokenmw/redis/session_store.py",
        old='("GETEX", key, "PX", self._ttl) if value is None else',
        new='("EXISTS", key) if value is None else',
        tests=("tests/sessions/test_flood.py",),
    ),
    Mutation(
        name="sessions: a long API key is kept",
        file="tokenmw/sessions/cache.py",
        old="return api_key if len(api_key) <= LONGEST_KEPT else",
        new="return api_key if api_key else",
        tests=("tests/sessions/test_long_keys.py",),
    ),
    Mutation(
        name="single flight: a late waiter gives up when the first one does",
        file="tokenmw/singleflight.py",
        old="if arrived + wait_seconds > now:",
        new="if arrived > now:",
        tests=("tests/test_singleflight_limits.py",),
    ),
    Mutation(
        name="marker: a written marker does not count as a successful write",
        file="tokenmw/redis/scripts.py",
        old='frozenset({"probe", "marker", "put"})',
        new='frozenset({"probe"})',
        tests=("tests/redis/test_writers.py",),
    ),
    Mutation(
        name="housekeeping: one server of a cluster that is down stops the comparison with the others",
        file="tokenmw/housekeeping.py",
        old="""\
                if isinstance(result, BaseException) and not (
                    isinstance(result, RedisUnavailable) and self._connection.usable
                ):
""",
        new="""\
                if isinstance(result, BaseException):
""",
        tests=("tests/broker/test_compare_batch.py", "tests/broker/test_housekeeping_cluster.py"),
    ),
    Mutation(
        name="adversary: a lease counts however long it lasts",
        file="tokenmw/redis/lua/acquire.lua",
        old="lease_at(KEYS[2], math.max(tonumber(ARGV[2]), 60000))",
        new="lease_at(KEYS[2], math.huge)",
        tests=("tests/redis/test_adversary.py",),
    ),
    Mutation(
        name="adversary: a failure note counts however long it lasts",
        file="tokenmw/redis/lua/acquire.lua",
        old="mortal(KEYS[3], LONGEST_TEXT, NOTE_LASTS)",
        new="mortal(KEYS[3], LONGEST_TEXT, math.huge)",
        tests=("tests/redis/test_adversary.py",),
    ),
    Mutation(
        name="adversary: a process waits for as long as a failure note would last",
        file="tokenmw/tokens/failures.py",
        old="retry_at = now + min(left, MAX_RETRY_AFTER)",
        new="retry_at = now + left",
        tests=("tests/tokens/test_wrong_clocks.py",),
    ),
    Mutation(
        name="adversary: a failure that was read from a note does not end with the note",
        file="tokenmw/tokens/refresh.py",
        old="if failure is not None and not noted and entry.failure is failure:",
        new="if False:",
        tests=("tests/tokens/test_wrong_clocks.py",),
    ),
    Mutation(
        name="adversary: a version counts however far it is ahead",
        file="tokenmw/redis/lua/tokens.lua",
        old="return version < LAST and version <= microseconds() + AHEAD",
        new="return version < LAST",
        tests=("tests/redis/test_adversary.py",),
    ),
    Mutation(
        name="adversary: a tombstone that does not count stays, and counts later",
        file="tokenmw/redis/lua/commit.lua",
        old="if dead == 0 then",
        new="if false then",
        tests=("tests/redis/test_adversary.py",),
    ),
    Mutation(
        name="adversary: a token counts however long it lasts",
        file="tokenmw/redis/lua/tokens.lua",
        old="mortal(key, LONGEST_TOKEN, TOKEN_LASTS)",
        new="mortal(key, LONGEST_TOKEN, math.huge)",
        tests=("tests/redis/test_adversary.py",),
    ),
    Mutation(
        name="adversary: a value counts however long it is",
        file="tokenmw/redis/lua/prelude.lua",
        old="if not value or value == '' or #value > longest then",
        new="if not value or value == '' then",
        tests=("tests/redis/test_adversary.py",),
    ),
    Mutation(
        name="adversary: any text is an epoch marker",
        file="tokenmw/redis/lua/marker.lua",
        old="if not mark or #mark > 64 or not string.match(mark, '^%x+$') then",
        new="if not mark then",
        tests=("tests/redis/test_adversary.py",),
    ),
    Mutation(
        name="replay: a token is used after the end of its lifetime",
        file="tokenmw/redis/token_store.py",
        old="if until_over <= 0:",
        new="if False:",
        tests=("tests/redis/test_token_store.py",),
    ),
    Mutation(
        name="replay: a longer TTL extends a token again at each read",
        file="tokenmw/redis/token_store.py",
        old="min(left / 1000, record.lifetime, until_over)",
        new="min(left / 1000, record.lifetime)",
        tests=("tests/redis/test_token_store.py",),
    ),
    Mutation(
        name="clocks: a token of a slow clock is stored with a version that looks old",
        file="tokenmw/redis/lua/commit.lua",
        old="if not possible(version) or version < requested - BEHIND then",
        new="if not possible(version) then",
        tests=("tests/redis/test_adversary.py",),
    ),
    Mutation(
        name="clocks: a process keeps versions that the server's clock rules out",
        file="tokenmw/tokens/leased_refresh.py",
        old="self._entry.redate(reply.server_time, at)",
        new="pass",
        tests=("tests/tokens/test_wrong_clocks.py",),
    ),
    Mutation(
        name="unsupported: an error reply to the probe is a fault of one command",
        file="tokenmw/redis/guard.py",
        old="""\
                if classify(error) != "response":
                    raise
                reply = None
""",
        new="""\
                raise
""",
        tests=("tests/redis/test_unsuitable.py",),
    ),
    Mutation(
        name="unsupported: the state is up before Redis has answered",
        file="tokenmw/redis/connection.py",
        old='return "up" if any(server.guard.breaker.heard for server in self._servers) else "unknown"',
        new='return "up"',
        tests=("tests/redis/test_unsuitable.py",),
    ),
    Mutation(
        name="unsupported: a failed first probe does not open the circuit",
        file="tokenmw/redis/connection.py",
        old="guard.probe(trips=True)",
        new="guard.probe()",
        tests=("tests/redis/test_unsuitable.py",),
    ),
    Mutation(
        name="errors: a kept exception is raised itself, and collects the frames of each raise",
        file="tokenmw/errors.py",
        old="again = _copied(error)",
        new="again = error",
        tests=("tests/asgi/test_raised_again.py",),
    ),
    Mutation(
        name="hints: a tombstone is not published",
        file="tokenmw/redis/lua/tombstone.lua",
        old="if news and ARGV[4] and ARGV[4] ~= '' then",
        new="if false then",
        tests=("tests/broker/test_hints.py",),
    ),
    Mutation(
        name="hints: a stored token is not published",
        file="tokenmw/redis/lua/commit.lua",
        old="if ARGV[6] and ARGV[6] ~= '' then",
        new="if false then",
        tests=("tests/broker/test_hints.py",),
    ),
    Mutation(
        name="hints: a reset session is not published",
        file="tokenmw/redis/lua/put.lua",
        old="if ARGV[3] ~= '' then",
        new="if false then",
        tests=("tests/broker/test_hints.py",),
    ),
    Mutation(
        name="hints: a refused PUBLISH fails the script",
        file="tokenmw/redis/lua/tombstone.lua",
        old="redis.pcall('PUBLISH'",
        new="redis.call('PUBLISH'",
        tests=("tests/broker/test_hints.py",),
    ),
    Mutation(
        name="hints: nothing is compared after a connection",
        file="tokenmw/redis/hints.py",
        old="        self._on_listening()\n",
        new="",
        tests=("tests/broker/test_hints.py", "tests/redis/test_hints.py"),
    ),
    Mutation(
        name="hints: a connection whose peer is lost is kept",
        file="tokenmw/redis/hints.py",
        old="                if pings >= _MOST_PINGS or",
        new="                if",
        tests=("tests/broker/test_hints.py",),
    ),
    Mutation(
        name="hints: a flood is read without a bound",
        file="tokenmw/tokens/hints.py",
        old="min(_BATCH, allowed)",
        new="_BATCH",
        tests=("tests/broker/test_hints.py",),
    ),
    Mutation(
        name="hints: a long message is kept in memory",
        file="tokenmw/redis/hints.py",
        old="return data[max(end, len(data) - self._keep) :]",
        new="return data[end:]",
        tests=("tests/redis/test_hints.py",),
    ),
    Mutation(
        name="comparison: a token sealed with an old secret is left as it is",
        file="tokenmw/redis/token_store.py",
        old="header == self._sealer.header(version)",
        new="header[:9] == self._sealer.header(version)[:9]",
        tests=("tests/broker/test_compare_versions.py",),
    ),
)
