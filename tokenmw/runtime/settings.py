"""The checked options of a broker, and the warnings of what they cost."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from tokenmw.observe.throttle import warn
from tokenmw.observe.version import __version__
from tokenmw.redaction import Unpicklable, not_encoded
from tokenmw.redis.keys import KeyNames
from tokenmw.redis.token_store import TokenKeys
from tokenmw.sessions.cache import TOUCHES_PER_TTL

if TYPE_CHECKING:
    from collections.abc import Collection

    from tokenmw.callers.authenticate import Authenticate
    from tokenmw.callers.labels import CredentialLabels
    from tokenmw.clock import Clock
    from tokenmw.connections.connections import Connections
    from tokenmw.limits import Limits
    from tokenmw.observe.observers import Observers
    from tokenmw.observe.throttle import ThrottledLog
    from tokenmw.providers.base import Provider
    from tokenmw.providers.http_client import AsyncHTTPClient
    from tokenmw.providers.network.options import HTTPOptions
    from tokenmw.redis.client import RedisOption
    from tokenmw.redis.sealing import Sealer
    from tokenmw.sessions.derive import SessionIds
    from tokenmw.sessions.manager import SessionPolicy

__all__ = ["REDIS_TTL", "Settings"]

# Of `session_ttl`. The last touch may be a quarter of it older than the last use, and a twentieth late.
REDIS_TTL: Final = 1 + 1 / TOUCHES_PER_TTL + 1 / 20

_DIGEST: Final = 8  # characters
_OF_PROCESS: Final = KeyNames("", name_key=secrets.token_hex(16))
_MOST_NAMES: Final = 20  # of providers in one log line

_OPENED: Final = "Version %s opened with %s; %s%s"
_NOT_SEALED: Final = (
    "Tokens in Redis are readable by anyone who reads Redis, and anyone who writes to Redis can plant tokens and "
    "session ids: values are not sealed. TokenBroker(secret_key=…) with the extra tokenmw[crypto], and without "
    "seal=False, seals them."
)
_RANDOM_IDS: Final = (
    "While Redis is unavailable, a new caller gets a different session id in each process: neither secret_key nor "
    "name_key was given to derive the id from. Give one of them."
)
_NAMES_WILL_CHANGE: Final = (
    "secret_key is a list without a name_key, so names in Redis and derived session ids depend on the last secret. "
    "When that one is removed, tokens are fetched again and callers get new session ids. Give name_key= the secret "
    "that was used first."
)
_SERVED_WITHOUT_KEY: Final = (
    'authenticate is given and missing_key is "random": a request without an API key is served, with a caller of None. '
    'missing_key="reject", of the broker or of TokenMiddleware, refuses it.'
)


@not_encoded
@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Settings(Unpicklable):
    """The checked options of a broker.

    Attributes:
        redis: A URL or a client; None without Redis.
        http: The program's own client for token requests, or the options of the one that each runtime makes.
        names_follow_secrets: Whether the names in Redis depend on a list of secrets, so that a rotation changes them.
        connections: The accounts that users connect; None without any.
        labels: What the program calls credentials that depend on a request; None if it does not.
    """

    redis: str | RedisOption | None
    names: KeyNames
    sealer: Sealer
    session_ttl: float
    session_policy: SessionPolicy
    session_ids: SessionIds
    authenticate: Authenticate | None
    http: AsyncHTTPClient | HTTPOptions | None
    limits: Limits
    single_process: bool
    hints: bool
    clock: Clock
    log: ThrottledLog
    observe: Observers
    names_follow_secrets: bool
    connections: Connections | None
    labels: CredentialLabels | None

    @property
    def channel(self) -> bytes:
        """The channel on which this process announces changes; b"" without hints."""
        return self.names.hints if self.hints else b""

    def token_keys(self, provider: Provider) -> TokenKeys | None:
        """Return the Redis keys of a provider's token; None if it is not shared."""
        if self.redis is None or not provider.shareable:
            return None
        return TokenKeys.of(self.names, self.names.digest("token", provider.key_parts))

    def credential_digest(self, provider: Provider) -> str:
        """Return an opaque name of a credential: the beginning of its digest in Redis keys.

        Without a secret that makes digests, guesses of a credential could be tested: then it is one of this process.
        """
        names = self.names if self.names.keyed else _OF_PROCESS
        return names.digest("token", provider.key_parts)[:_DIGEST]

    def log_opened(self, *, providers: Collection[str], shared: str, server: str) -> None:
        """Log that a broker was opened, and with what.

        Args:
            providers: The names of its providers.
            shared: The state of Redis, as in `Status.shared`.
            server: The address of Redis; "" without Redis.
        """
        redis = f"Redis {server} is {shared}" if server else "no Redis"
        sealed = "sealed" if self.sealer.sealing else "not sealed"
        values = f", values are {sealed}, hints are {'on' if self.hints else 'off'}" if server else ""
        count = len(providers)
        names = ", ".join(list(providers)[:_MOST_NAMES]) + (", …" if count > _MOST_NAMES else "")
        named = f"1 provider ({names})" if count == 1 else f"{count} providers ({names})" if count else "no providers"
        self.log.event("opened", _OPENED, __version__, named, redis, values, server=server)

    def log_costs(self, missing_keys: Collection[str]) -> None:
        """Warn of what these options cost, and of callers that `missing_keys` let in beside `authenticate`."""
        if self.names_follow_secrets:
            warn("names-follow-secrets", _NAMES_WILL_CHANGE)
        if self.redis is not None and not self.sealer.sealing:
            warn("not-sealed", _NOT_SEALED)
        if self.redis is not None and not self.session_ids.derivable:
            warn("random-ids", _RANDOM_IDS)
        if self.authenticate is not None and "random" in missing_keys:
            warn("authenticate-without-reject", _SERVED_WITHOUT_KEY)
