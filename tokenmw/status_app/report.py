"""What operators see of a broker, without secrets, API keys, session ids, tenants or users."""

from __future__ import annotations

import asyncio
import os
import socket
from dataclasses import fields
from typing import TYPE_CHECKING, Any, Final

from tokenmw.clock import Instant
from tokenmw.observe.version import __version__
from tokenmw.redaction import Unpicklable
from tokenmw.status import InstanceStatus
from tokenmw.tokens.entry import TokenEntry
from tokenmw.tokens.reporting import reason_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tokenmw.broker import TokenBroker

__all__ = ["Reporter", "loop_lag"]

_KEPT: Final = 0.5  # seconds; of 10 000 credentials a report takes 15 ms, in which no request is served
_WAIT: Final = 0.1  # seconds for the fleet; a slow Redis does not make the page slow
_MOST_FAILING: Final = 20
_SLEEP: Final = 0.01
_OF_AN_INSTANCE: Final = tuple(field.name for field in fields(InstanceStatus))  # `asdict` takes ten times as long


async def loop_lag() -> float:
    """Return the seconds by which the event loop is late now."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    await asyncio.sleep(_SLEEP)
    return max(0.0, loop.time() - began - _SLEEP)


class Reporter(Unpicklable):
    """Makes reports of a broker; one report serves all requests of half a second.

    Args:
        broker: The broker.
    """

    __slots__ = ("_broker", "_made_at", "_report")

    def __init__(self, broker: TokenBroker) -> None:
        self._broker = broker
        self._made_at = float("-inf")
        self._report: dict[str, Any] = {}

    def forget(self) -> None:
        """Make the next report anew: an action has changed something."""
        self._made_at = float("-inf")

    async def report(self) -> dict[str, Any]:
        """Return the report, as it is encoded to JSON. Times are seconds since 1970, or seconds from now on (`_in`)."""
        mono = asyncio.get_running_loop().time()
        if mono >= self._made_at + _KEPT:
            runtime = self._broker._runtime
            if runtime is not None and runtime.fleet is not None and runtime.is_current:
                await runtime.fleet.refresh(wait=_WAIT)
            self._report, self._made_at = self._make(), mono
        return self._report

    def _make(self) -> dict[str, Any]:
        broker = self._broker
        settings, data, runtime = broker._settings, broker._data, broker._runtime
        now, status, entries = Instant(settings.clock), broker.status(), list(data.tokens)
        waiting = self._waiting(entries)
        instances = () if runtime is None else status.instances
        return {
            "version": __version__,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "time": now.wall,
            "open": runtime is not None,
            "redis": self._redis(now),
            "providers": [
                {**self._provider(name, now), "waiting": waiting.get(name, 0), **self._fetches(name)}
                for name in broker._credentials.names
            ],
            "failing_credentials": _failing(entries, now),
            "instances": [{name: getattr(one, name) for name in _OF_AN_INSTANCE} for one in instances],
            "tokens": {
                "cached": status.tokens,
                "unshared": status.unshared_tokens,
                "unshared_invalidations": status.unshared_invalidations,
            },
            "sessions": {"cached": status.sessions, "unshared": status.unshared_sessions, "touches": status.touches},
            "callers": {
                "authenticated": settings.authenticate is not None,
                "refused_keys": len(data.refused_keys),
            },
            "events": [one._asdict() for one in settings.observe.recorder.events],
        }

    def _redis(self, now: Instant) -> dict[str, Any]:
        broker = self._broker
        settings, runtime, status = broker._settings, broker._runtime, broker.status()
        recorder = settings.observe.recorder
        in_use, waiting = (0, 0) if runtime is None or runtime.redis is None else runtime.redis.load
        nodes = [
            {
                "node": node,
                "state": one.state,
                "since": one.since,
                "error": one.error,
                "error_at": one.error_at,
                "outages": recorder.outages(node),
            }
            for node, one in status.servers.items()
        ]
        errors = {reason: hour.total(now.mono) for reason, hour in recorder.command_errors.items()}
        return {
            "state": status.shared,
            "since": status.shared_since,
            "error": status.shared_error,
            "error_at": status.shared_error_at,
            "nodes": nodes,
            "commands": {
                "in_use": in_use,
                "waiting": waiting,
                "connections": settings.limits.connections,
                "last_hour": recorder.commands.total(now.mono),
                "p50": recorder.commands.percentile(0.5, now.mono),
                "p95": recorder.commands.percentile(0.95, now.mono),
                "errors_last_hour": {reason: count for reason, count in errors.items() if count},
            },
            "sealed": status.sealed,
            "unreadable": status.unreadable,
        }

    def _fetches(self, name: str) -> dict[str, Any]:
        count, p95 = self._broker._settings.observe.recorder.fetches(name)
        return {"fetches_last_hour": count, "fetch_p95": p95}

    def _waiting(self, entries: Sequence[TokenEntry]) -> dict[str, int]:
        """Return how many callers wait for tokens, by the provider's name."""
        runtime = self._broker._runtime
        by_provider = {} if runtime is None else runtime.tokens.waiting
        found: dict[str, int] = {}
        for entry in entries if by_provider else ():
            if (waiting := by_provider.get(entry.provider)) is not None:
                found[entry.name] = found.get(entry.name, 0) + waiting
        return found

    def _provider(self, name: str, now: Instant) -> dict[str, Any]:
        entry = self._broker._credentials.find(name)
        if not isinstance(entry, TokenEntry):
            return {"name": name, "state": "per request"}
        failure, current = entry.failure, entry.current
        usable = current is not None and current.usable(now)
        state = "cold" if failure is None else "failing"
        since: float | None = None
        shown: dict[str, Any] = {}
        if current is not None and usable:
            left = current.left(now)
            state, since = "fresh" if current.fresh(now) else "aging", now.wall - current.age(now)
            refresh_in = min(current.refresh_mono - now.mono, current.refresh_wall - now.wall)
            shown = {"expires_in": left, "refresh_in": refresh_in, "lifetime": max(left, current.record.lifetime)}
        if failure is not None:
            problem_since = self._broker._settings.log.since
            began = problem_since(entry.log_kind)
            since = None if began is None else now.wall - (now.mono - began)
            shown |= {
                "error": failure.detail,
                "reason": reason_of(failure),
                "attempts": failure.count,
                "reported_by": failure.writer,
                "next_attempt_in": entry.retry_in(now),
            }
        return {"name": name, "state": state, "since": since, **shown}


def _failing(entries: Sequence[TokenEntry], now: Instant) -> dict[str, Any]:
    """Return the failing credentials that callables have chosen: counts, and the first ones by opaque names."""
    failing = [entry for entry in entries if entry.failure is not None and not entry.named]
    counts: dict[str, int] = {}
    for entry in failing:
        counts[entry.name] = counts.get(entry.name, 0) + 1
    failing.sort(key=lambda entry: 0 if entry.failure is None else -entry.failure.count)
    worst = [
        {
            "provider": entry.name,
            "credential": entry.credential,
            "label": entry.given_label,
            "reason": reason_of(entry.failure),
            "attempts": entry.failure.count,
            "next_attempt_in": entry.retry_in(now),
        }
        for entry in failing[:_MOST_FAILING]
        if entry.failure is not None
    ]
    return {"count": len(failing), "by_provider": counts, "worst": worst}
