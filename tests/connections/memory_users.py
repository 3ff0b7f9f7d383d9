"""A broker's connections in memory: what `ConnectApp` needs, and no more."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.connections.over_http import http_over
from tokenmw.clock import SYSTEM_CLOCK, Clock
from tokenmw.connections.connections import Connections
from tokenmw.connections.flow_parts import FlowParts
from tokenmw.connections.user_connections import ConnectionState
from tokenmw.errors import TokenUnavailable
from tokenmw.observe.throttle import ThrottledLog
from tokenmw.redis.sealing import Sealer

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from starlette.requests import HTTPConnection

    from tokenmw.connections.app import OAuthApp
    from tokenmw.connections.pair import TokenPair
    from tokenmw.providers import TokenHTTP

SECRET = "k7Qm-secret-of-the-sealer-91"


class NoStore:
    """A store that is never called."""

    load = save = delete = scan = aclose = print  # never called


def signed_in(connection: HTTPConnection) -> str | None:
    """Return the user that the header `x-user` names."""
    return connection.headers.get("x-user") or None


class MemoryUsers:
    """The connections of users, by app and user. The header `x-user` says who is signed in.

    Attributes:
        pairs: The pairs that were stored.
        store_fails: Whether the store cannot be reached.
        sealer: Seals cookies.
    """

    def __init__(self, apps: Mapping[str, OAuthApp], client: Any, *, clock: Clock = SYSTEM_CLOCK) -> None:
        store: Any = NoStore()
        self.config = Connections(apps, store=store, subject=signed_in)
        self.sealer = Sealer([SECRET])
        self.pairs: dict[tuple[str, str], TokenPair] = {}
        self.store_fails = False
        self._clock = clock
        self._log = ThrottledLog(clock)
        self._client = client

    @property
    def connections(self) -> MemoryUsers:
        """As of a broker."""
        return self

    def flow_parts(self) -> FlowParts:
        """Return what flows use."""
        return FlowParts(http_over(self._client, clock=self._clock), self.sealer, self._clock, self._log)

    async def connect(
        self, name: str, subject: str, get_pair: Callable[[TokenHTTP], Awaitable[TokenPair]]
    ) -> TokenPair:
        """Exchange a code and keep the pair."""
        pair = await get_pair(self.flow_parts().http)
        self._check()
        self.pairs[name, subject] = pair
        return pair

    async def state(self, name: str, subject: str) -> ConnectionState | None:
        """Return the state of a connection."""
        self._check()
        pair = self.pairs.get((name, subject))
        if pair is None:
            return None
        return ConnectionState(
            state="ok",
            reason="",
            since=None,
            scope=pair.scope or "",
            connected_at=1.0,
            refreshed_at=1.0,
            expires_at=None,
        )

    async def list(self, subject: str) -> dict[str, ConnectionState]:
        """Return the states of a user's connections."""
        states = {name: await self.state(name, subject) for name in self.config.apps}
        return {name: state for name, state in states.items() if state is not None}

    async def disconnect(self, name: str, subject: str) -> bool:
        """Forget a connection."""
        self._check()
        pair = self.pairs.pop((name, subject), None)
        if pair is not None and pair.refresh_token is not None:
            await self.config.apps[name].revoke(self.flow_parts().http, pair.refresh_token, hint="refresh_token")
        return pair is not None

    def _check(self) -> None:
        if self.store_fails:
            raise TokenUnavailable("the database is read-only")
