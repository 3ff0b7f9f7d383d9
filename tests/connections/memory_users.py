"""A broker's connections in memory: what `ConnectApp` needs, and no more."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.connections.over_http import http_over
from tokenmw.clock import SYSTEM_CLOCK, Clock
from tokenmw.connections.store import StoreUnavailable
from tokenmw.observe.throttle import ThrottledLog
from tokenmw.redis.sealing import Sealer

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from starlette.requests import HTTPConnection

    from tokenmw.connections.app import OAuthApp
    from tokenmw.connections.pair import TokenPair
    from tokenmw.providers import TokenHTTP

SECRET = "k7Qm-secret-of-the-sealer-91"


class MemoryUsers:
    """The connections of users, by app and user. The header `x-user` says who is signed in.

    Attributes:
        pairs: The pairs that were stored.
        store_fails: Whether the store cannot be reached.
    """

    def __init__(self, apps: Mapping[str, OAuthApp], client: Any, *, clock: Clock = SYSTEM_CLOCK) -> None:
        self.apps = apps
        self.sealer = Sealer([SECRET])
        self.clock = clock
        self.log = ThrottledLog(clock)
        self.pairs: dict[tuple[str, str], TokenPair] = {}
        self.store_fails = False
        self._client = client

    @property
    def connections(self) -> MemoryUsers:
        """As of a broker."""
        return self

    def http(self) -> TokenHTTP:
        """Return what sends token requests."""
        return http_over(self._client, clock=self.clock)

    async def subject_of(self, connection: HTTPConnection, /) -> str | None:
        """Return the user of a request."""
        return connection.headers.get("x-user")

    async def granted_scope(self, app: str, subject: str, /) -> str:
        """Return the scopes of a connection."""
        pair = self.pairs.get((app, subject))
        return "" if pair is None else pair.scope or ""

    async def complete(self, app: str, subject: str, exchange: Callable[[], Awaitable[TokenPair]], /) -> TokenPair:
        """Exchange a code and keep the pair."""
        pair = await exchange()
        if self.store_fails:
            raise StoreUnavailable("the database is read-only")
        self.pairs[app, subject] = pair
        return pair

    async def states(self, subject: str, /) -> Mapping[str, Mapping[str, Any]]:
        """Return the states of a user's connections."""
        return {app: {"state": "ok"} for app, user in self.pairs if user == subject}

    async def disconnect(self, app: str, subject: str, /) -> None:
        """Forget a connection."""
        if self.store_fails:
            raise StoreUnavailable("the database is read-only")
        pair = self.pairs.pop((app, subject), None)
        if pair is not None and pair.refresh_token is not None:
            await self.apps[app].revoke(self.http(), pair.refresh_token, hint="refresh_token")
