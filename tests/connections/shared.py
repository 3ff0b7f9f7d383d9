"""What several processes with one connection share: the server, and the database."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.connections.workers import FAST, broker_over, store_of
from tests.processes import Workers

if TYPE_CHECKING:
    from tokenmw.testing import ProviderServer
    from tokenmw.testing.provider_server.families import Family

__all__ = ["MODULE", "Shared"]

MODULE = "tests.connections.workers"


class Shared:
    """What all processes share: the server, and the database with the connection.

    Attributes:
        server: The server, which revokes a family when one of its refresh tokens is used twice.
        options: The arguments of each process.
    """

    def __init__(self, server: ProviderServer, base_url: str, *, database: str) -> None:
        self.server = server
        self.options: dict[str, Any] = {
            "database": database,
            "base_url": base_url,
            "redis": None,
            "limits": FAST,
        }

    async def connect(self, *, expires_in: float) -> Family:
        """Store a connection, and return its family."""
        store = store_of(self.options["database"])
        async with broker_over(store, base_url=self.options["base_url"], redis=None) as broker:
            pair = self.server.users.grant("ada", client="crm")
            await broker.connections.save(
                "crm",
                "user-1",
                refresh_token=pair.refresh_token,
                access_token=pair.access_token,
                expires_in=expires_in,
            )
        return pair.family

    async def ask_again(self) -> dict[str, Any]:
        """Ask in one more process, which tries until claims of other processes can be taken over."""
        async with Workers(f"{MODULE}:ask", processes=1, arguments={**self.options, "tries": 25}) as workers:
            await workers.receive()
            await workers.send("go")
            (result,) = await workers.results()
        return dict(result)
