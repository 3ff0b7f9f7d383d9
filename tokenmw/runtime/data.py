"""The data of a broker: bounded, and the same from one event loop to the next."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Final

from tokenmw.callers.authenticate import RefusedKeys
from tokenmw.connections.data import ConnectionData
from tokenmw.observe.events import ValueUnreadable
from tokenmw.outgoing.hosts import WithheldTokens
from tokenmw.redaction import Unpicklable
from tokenmw.redis.epoch import EpochMarkers
from tokenmw.runtime.settings import REDIS_TTL
from tokenmw.sessions.cache import SessionCache
from tokenmw.sessions.rate_limit import NewSessions
from tokenmw.tokens.cache import RejectedTokens, TokenCache

if TYPE_CHECKING:
    from tokenmw.runtime.settings import Settings
    from tokenmw.status import InstanceStatus

__all__ = ["BrokerData"]

_NUMBERS: Final = itertools.count(1)
_UNREADABLE: Final = {
    "unknown-key": (
        "A %s in Redis cannot be used (unknown-key, %s): it is sealed with a secret that this instance does not have; "
        "give all instances the same secret_key=[…], with that secret in the list"
    ),
    "expired": (
        "A %s in Redis is not used (expired, %s): its lifetime is over; its TTL was extended, or an old value was "
        "written again"
    ),
    "damaged": (
        "A %s in Redis cannot be used (damaged, %s): it is deleted or replaced; find out what else writes below the "
        "namespace"
    ),
}


class BrokerData(Unpicklable):
    """Everything that a broker remembers: each part has a bound.

    Attributes:
        number: A number that no other broker of this process has.
        instances: The fleet as it was read last.
        missing_keys: The values of `missing_key` by which the broker's middlewares serve requests.
    """

    __slots__ = (
        "_settings",
        "connections",
        "epochs",
        "instances",
        "missing_keys",
        "new_sessions",
        "number",
        "refused_keys",
        "rejected",
        "sessions",
        "tokens",
        "unreadable",
        "withheld",
    )

    def __init__(self, settings: Settings) -> None:
        limits, clock = settings.limits, settings.clock
        self._settings = settings
        keys_of, digest_of = settings.token_keys, settings.credential_digest
        self.tokens = TokenCache(limits=limits, clock=clock, keys_of=keys_of, digest_of=digest_of, log=settings.log)
        self.rejected = RejectedTokens(limits=limits, clock=clock)
        self.sessions = SessionCache(ttl=settings.session_ttl, limits=limits, clock=clock)
        self.new_sessions = NewSessions(limits, redis_ttl=REDIS_TTL * settings.session_ttl, clock=clock)
        self.refused_keys = RefusedKeys(limits=limits, clock=clock)
        self.epochs = EpochMarkers()
        self.connections = ConnectionData(limits)
        self.withheld = WithheldTokens()
        self.number = next(_NUMBERS)
        self.unreadable = 0
        self.instances: tuple[InstanceStatus, ...] = ()
        self.missing_keys = set[str]()

    def purge(self) -> None:
        """Drop everything that has expired."""
        self.tokens.purge()
        self.rejected.purge()
        self.sessions.expire()
        self.refused_keys.expire()

    def note_unreadable(self, kind: str, reason: str, *, server: str) -> None:
        """Count and log a value in Redis that cannot be used."""
        self.unreadable += 1
        self._settings.observe(ValueUnreadable(kind, reason))
        log = self._settings.log
        log.problem(f"unreadable-{kind}", _UNREADABLE[reason], kind, server, reason=reason, server=server)
