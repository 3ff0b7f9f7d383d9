"""The metrics: names, labels, units and bounds, for the observers of Prometheus and OpenTelemetry.

Labels are names of providers, addresses of Redis and words of this package, never of callers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

__all__ = ["METRICS", "Labels", "Metric"]

Labels: TypeAlias = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric.

    Attributes:
        name: Its name in Prometheus.
        kind: `counter`, `gauge` or `histogram`.
        text: What it measures.
        labels: The names of its labels.
        unit: Its unit in OpenTelemetry.
        bounds: The upper bounds of a histogram's buckets, in seconds.
        merge: How the gauges of brokers and processes become one: `min`, `max` or `sum`.
    """

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    text: str
    labels: Labels = ()
    unit: str = "1"
    bounds: tuple[float, ...] = ()
    merge: Literal["min", "max", "sum"] = "max"

    @property
    def dotted(self) -> str:
        """Its name in OpenTelemetry."""
        return self.name.removesuffix("_total").removesuffix("_seconds").replace("_", ".")


_FETCH_BOUNDS: Final = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)  # a token request takes at most 5 s by default
_WAIT_BOUNDS: Final = (0.005, 0.01, 0.025, *_FETCH_BOUNDS)
_REDIS_BOUNDS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0)

RESULTS: Final = ("hit", "waited", "unavailable", "rejected")
OUTCOMES: Final = ("granted", "repeated", "rejected", "unavailable")
REASONS: Final = ("rejected", "subject_refused", "retry_after", "provider", "unanswered")
CAUSES: Final = ("api", "operator", "instance")
SOURCES: Final = ("local", "redis", "derived", "random")
REFUSALS: Final = ("missing", "unusable", "refused", "unchecked", "no_session")
OPERATIONS: Final = (
    "acquire",
    "commit",
    "release",
    "read",
    "compare",
    "tombstone",
    "session",
    "touch",
    "probe",
    "other",
)
# Of `redis.errors`, those of a command that was sent; a test compares them.
ERROR_WORDS: Final = (
    "auth",
    "busy",
    "client",
    "cluster",
    "connection",
    "damaged",
    "database",
    "disk",
    "dns",
    "error",
    "full",
    "loading",
    "nofile",
    "permission",
    "readonly",
    "refused",
    "replicas",
    "reset",
    "response",
    "script",
    "timeout",
    "unsupported",
)

BUILD: Final = Metric("tokenmw_build_info", "gauge", "The version of tokenmw.", ("version",))
REQUESTS: Final = Metric(
    "tokenmw_token_requests_total",
    "counter",
    "Tokens that the program asked for, by what it got.",
    ("provider", "result"),
    unit="{request}",
)
WAIT: Final = Metric(
    "tokenmw_token_wait_seconds",
    "histogram",
    "How long callers waited for a token that was not in the local cache.",
    ("provider",),
    "s",
    _WAIT_BOUNDS,
)
FETCHES: Final = Metric(
    "tokenmw_token_fetches_total", "counter", "Token requests.", ("provider", "outcome"), unit="{request}"
)
FETCH: Final = Metric(
    "tokenmw_token_fetch_duration_seconds",
    "histogram",
    "Duration of token requests.",
    ("provider", "outcome"),
    "s",
    _FETCH_BOUNDS,
)
ADOPTED: Final = Metric(
    "tokenmw_tokens_adopted_total", "counter", "Tokens taken from Redis.", ("provider",), unit="{token}"
)
FAILURES: Final = Metric(
    "tokenmw_failures_adopted_total",
    "counter",
    "Failures of token requests that another process noted in Redis, and this one took over.",
    ("provider", "reason"),
    unit="{failure}",
)
INVALIDATED: Final = Metric(
    "tokenmw_tokens_invalidated_total",
    "counter",
    "Tokens dropped as invalid, by the cause.",
    ("provider", "cause"),
    unit="{token}",
)
TAKEOVERS: Final = Metric(
    "tokenmw_lease_takeovers_total",
    "counter",
    "Leases taken over from a process that did not finish its token request.",
    ("provider",),
    unit="{lease}",
)
REFUSED_COMMITS: Final = Metric(
    "tokenmw_commits_refused_total",
    "counter",
    "Fetched tokens that Redis did not store.",
    ("provider", "reason"),
    unit="{token}",
)
UPLOADS: Final = Metric(
    "tokenmw_uploads_total",
    "counter",
    "What was made without Redis, and is stored there now.",
    ("kind",),
    unit="{upload}",
)
CONNECTION_CHANGES: Final = Metric(
    "tokenmw_connection_changes_total",
    "counter",
    "Changes of the state of users' connections.",
    ("provider", "state"),
    unit="{change}",
)
EXPIRY: Final = Metric(
    "tokenmw_token_expiry_timestamp_seconds",
    "gauge",
    "When the token expires, in seconds since 1970; 0 without a token.",
    ("provider",),
    "s",
)
NEXT: Final = Metric(
    "tokenmw_token_next_attempt_timestamp_seconds",
    "gauge",
    "When the token is fetched next, in seconds since 1970; 0 if nothing is due.",
    ("provider",),
    "s",
)
FAILING: Final = Metric(
    "tokenmw_provider_failing_credentials",
    "gauge",
    "Credentials whose last token request failed.",
    ("provider", "reason"),
    "{credential}",
)
SESSIONS: Final = Metric(
    "tokenmw_sessions_resolved_total",
    "counter",
    "Session ids given to requests, by where they came from.",
    ("source",),
    unit="{session}",
)
MADE: Final = Metric("tokenmw_sessions_made_total", "counter", "New sessions stored in Redis.", unit="{session}")
REPLACED: Final = Metric(
    "tokenmw_session_ids_replaced_total",
    "counter",
    "Session ids replaced by those that Redis has.",
    unit="{session}",
)
RESETS: Final = Metric("tokenmw_sessions_reset_total", "counter", "Sessions reset here.", unit="{session}")
CALLERS: Final = Metric(
    "tokenmw_callers_refused_total",
    "counter",
    "Requests refused before they had a caller and a session id.",
    ("reason",),
    unit="{request}",
)
SHARED: Final = Metric("tokenmw_shared_up", "gauge", "Whether Redis is in use.", merge="min")
CHANGES: Final = Metric(
    "tokenmw_shared_changes_total", "counter", "Times Redis became unavailable or recovered.", unit="{change}"
)
NODE: Final = Metric("tokenmw_redis_up", "gauge", "Whether a server of Redis is in use.", ("node",), merge="min")
COMMANDS: Final = Metric(
    "tokenmw_redis_command_duration_seconds",
    "histogram",
    "Duration of Redis commands, with the wait for a connection.",
    ("operation",),
    "s",
    _REDIS_BOUNDS,
)
ERRORS: Final = Metric(
    "tokenmw_redis_errors_total", "counter", "Redis commands that failed.", ("operation", "error"), unit="{error}"
)
BREAKER: Final = Metric(
    "tokenmw_redis_breaker_changes_total",
    "counter",
    "Times the circuit breaker of a server of Redis has opened or closed.",
    ("to",),
    unit="{change}",
)
CONNECTIONS: Final = Metric(
    "tokenmw_redis_connections",
    "gauge",
    "Redis commands that have a connection, or wait for one.",
    ("state",),
    "{command}",
    merge="sum",
)
UNSHARED: Final = Metric(
    "tokenmw_unshared", "gauge", "What has yet to be stored in Redis.", ("kind",), "{item}", merge="sum"
)
UNREADABLE: Final = Metric(
    "tokenmw_unreadable_values_total",
    "counter",
    "Values in Redis that could not be used.",
    ("kind", "why"),
    unit="{value}",
)
LAG: Final = Metric(
    "tokenmw_event_loop_lag_seconds", "gauge", "How late the event loop ran a timer, once a second.", unit="s"
)

METRICS: Final = tuple(value for value in list(globals().values()) if isinstance(value, Metric))
