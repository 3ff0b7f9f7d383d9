"""Mutations of everything else."""

from __future__ import annotations

from tests.mutations.mutation import Mutation

__all__ = ["OF_PACKAGE"]

OF_PACKAGE = (
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
        file="tokenmw/runtime/closing.py",
        old="with anyio.CancelScope(shield=True):",
        new="with anyio.CancelScope(shield=False):",
        tests=("tests/broker/test_closing.py",),
    ),
    Mutation(
        name="closing: the cancellation of the task that leaves cancels the close",
        file="tokenmw/runtime/closing.py",
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
        name="eviction: a use within a second of the placing does not count",
        file="tokenmw/caches.py",
        old="if entry.used <= entry.placed or",
        new="if entry.used <= entry.placed + 1.0 or",
        tests=("tests/test_caches.py",),
    ),
    Mutation(
        name="single flight: a late waiter gives up when the first one does",
        file="tokenmw/singleflight.py",
        old="if arrived + wait_seconds > now:",
        new="if arrived > now:",
        tests=("tests/test_singleflight_limits.py",),
    ),
    Mutation(
        name="housekeeping: a process that hears nothing compares its tokens rarely",
        file="tokenmw/housekeeping.py",
        old="self._listener is not None and self._listener.listening and not self._epochs.silent",
        new="self._listener is not None and not self._epochs.silent",
        tests=("tests/broker/test_hints.py",),
    ),
    Mutation(
        name="housekeeping: tokens are compared rarely although a process announces nothing",
        file="tokenmw/housekeeping.py",
        old="self._listener is not None and self._listener.listening and not self._epochs.silent",
        new="self._listener is not None and self._listener.listening",
        tests=("tests/broker/test_hints.py",),
    ),
    Mutation(
        name="housekeeping: tokens are compared a second time although all changes are announced",
        file="tokenmw/housekeeping.py",
        old="if self._recovery.second_due() and not self._all_announced:",
        new="if self._recovery.second_due():",
        tests=("tests/broker/test_recovery.py",),
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
        name="adversary: a process waits for as long as a failure note would last",
        file="tokenmw/tokens/failures.py",
        old="retry_at = now + min(left, MAX_RETRY_AFTER)",
        new="retry_at = now + left",
        tests=("tests/tokens/test_wrong_clocks.py",),
    ),
    Mutation(
        name="adversary: a failure that was read from a note does not end with the note",
        file="tokenmw/tokens/refresh.py",
        old="retry is not None or (failure.noted and not noted)",
        new="retry is not None",
        tests=("tests/tokens/test_wrong_clocks.py",),
    ),
    Mutation(
        name="clocks: a process keeps versions that the server's clock rules out",
        file="tokenmw/tokens/leased_refresh.py",
        old="self._entry.redate(reply.server_time, at)",
        new="pass",
        tests=("tests/tokens/test_wrong_clocks.py",),
    ),
    Mutation(
        name="errors: a kept exception is raised itself, and collects the frames of each raise",
        file="tokenmw/errors.py",
        old="again = _copied(error)",
        new="again = error",
        tests=("tests/asgi/test_raised_again.py",),
    ),
    Mutation(
        name="hints: a flood is read without a bound",
        file="tokenmw/tokens/hints.py",
        old="min(_BATCH, allowed)",
        new="_BATCH",
        tests=("tests/broker/test_hints.py",),
    ),
    Mutation(
        name="hints: all instances compare what they have missed at the same moment",
        file="tokenmw/tokens/hints.py",
        old="random.uniform(0.0, spread)",
        new="0.0",
        tests=("tests/tokens/test_missed_hints.py",),
    ),
    Mutation(
        name="hints: a comparison of what was missed counts as the periodic one",
        file="tokenmw/tokens/hints.py",
        old="changed(batch, keep_used=True)",
        new="changed(batch)",
        tests=("tests/tokens/test_missed_hints.py",),
    ),
)
