"""What the flows need of a broker: a protocol, because imports point down only."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from tokenmw.clock import Clock
    from tokenmw.connections.connections import Connections
    from tokenmw.connections.pair import TokenPair
    from tokenmw.connections.user_connections import ConnectionState
    from tokenmw.observe.throttle import ThrottledLog
    from tokenmw.providers.http import TokenHTTP
    from tokenmw.redis.sealing import Sealer
    from tokenmw.redis.used_flows import UsedFlows

__all__ = ["BrokerOfUsers", "FlowParts", "UsersConnections"]


class FlowParts(NamedTuple):
    """The parts of an open broker that flows use.

    Attributes:
        http: Sends token requests.
        sealer: Seals the cookies of flows; it has a secret.
        clock: Time.
        log: Where failures are logged.
        used: The flows that were completed in any process; None without Redis.
    """

    http: TokenHTTP
    sealer: Sealer
    clock: Clock
    log: ThrottledLog
    used: UsedFlows | None = None


class UsersConnections(Protocol):
    """`broker.connections`, as far as flows need it."""

    @property
    def config(self) -> Connections:
        """The apps, and whose connections a request uses."""
        ...

    def flow_parts(self) -> FlowParts:
        """Return the parts in the running event loop."""
        ...

    async def connect(
        self, name: str, subject: str, get_pair: Callable[[TokenHTTP], Awaitable[TokenPair]]
    ) -> TokenPair:
        """Get the first pair of a connection and store it, whether or not the caller is cancelled meanwhile."""
        ...

    async def state(self, name: str, subject: str) -> ConnectionState | None:
        """Return the state of a user's connection; None if there is none."""
        ...

    async def list(self, subject: str) -> Mapping[str, ConnectionState]:
        """Return the states of a user's connections by the apps' names."""
        ...

    async def disconnect(self, name: str, subject: str) -> bool:
        """Delete a user's connection, and revoke its tokens."""
        ...


class BrokerOfUsers(Protocol):
    """A broker with connections."""

    @property
    def connections(self) -> UsersConnections:
        """The connections of its users."""
        ...
