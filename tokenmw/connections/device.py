"""The device flow (RFC 8628), for programs without a browser: the user types a code at the app's server."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, cast

from tokenmw.connections.connect_flow import problem_of
from tokenmw.connections.device_codes import DeviceCodes, DevicePending
from tokenmw.connections.flow_problem import FlowProblem
from tokenmw.connections.options import checked_scope
from tokenmw.connections.pair import GrantRefused
from tokenmw.errors import ConfigurationError, CredentialRejected, TokenUnavailable
from tokenmw.redaction import Unpicklable, without_locals

if TYPE_CHECKING:
    from tokenmw.connections.app import OAuthApp
    from tokenmw.connections.flow_parts import UsersConnections
    from tokenmw.connections.pair import TokenPair
    from tokenmw.providers.http import TokenHTTP

__all__ = ["DeviceFlow", "begin_device"]

_SLOWER: Final = 5.0  # seconds more after `slow_down` (RFC 8628 §3.5)
_MAX_INTERVAL: Final = 60.0


class DeviceFlow(Unpicklable):
    """A flow that waits for the user. Show the user `verification_uri` and `user_code`, and wait for :meth:`done`.

    Attributes:
        user_code: What the user types.
        verification_uri: Where the user types it.
        verification_uri_complete: The same with the code in it, for a QR code; "" if the server gave none.
        expires_in: Seconds from the beginning until the code expires.
    """

    __slots__ = (
        "_codes",
        "_connections",
        "_ends",
        "_is_done",
        "_name",
        "_subject",
        "_waiting",
        "expires_in",
        "user_code",
        "verification_uri",
        "verification_uri_complete",
    )

    def __init__(
        self, connections: UsersConnections, name: str, subject: str, codes: DeviceCodes, *, ends: float
    ) -> None:
        self._connections = connections
        self._name = name
        self._subject = subject
        self._codes = codes
        self._ends = ends
        self._is_done = False
        self._waiting = asyncio.Lock()
        self.user_code = codes.user_code
        self.verification_uri = codes.verification_uri
        self.verification_uri_complete = codes.verification_uri_complete
        self.expires_in = codes.expires_in

    @without_locals
    async def done(self) -> None:
        """Wait until the user has consented, and store the connection. Several tasks may wait for one flow.

        Raises:
            FlowProblem: The user has denied (`kind` is `denied`), or the code has expired (`expired`), or the server
                refuses it (`refused`).
            TokenUnavailable: The store cannot take the connection.
        """
        async with self._waiting:
            if not self._is_done:
                await self._wait()
                self._is_done = True

    @without_locals
    async def _wait(self) -> None:
        clock, interval = self._connections.flow_parts().clock, self._codes.interval
        app = cast("OAuthApp", self._connections.config.apps[self._name])
        granted = False

        async def poll(http: TokenHTTP) -> TokenPair:
            nonlocal granted
            pair = await app.exchange_device_code(http, self._codes.device_code)
            granted = True
            return pair

        while True:
            left = self._ends - clock.monotonic()
            if left <= interval:
                raise FlowProblem("expired", "the user did not type the code in time")
            await clock.sleep(interval)
            try:
                await self._connections.connect(self._name, self._subject, poll)
            except DevicePending as pending:
                interval += _SLOWER if pending.slow else 0.0
            except (GrantRefused, CredentialRejected) as error:
                raise problem_of(error) from None
            except TokenUnavailable as error:
                if granted:
                    raise  # the store's: the code is spent
                # A poll that timed out: less often from now on (RFC 8628 §3.5).
                interval = min(max(2 * interval, error.retry_after or 0.0), max(interval, _MAX_INTERVAL))
            else:
                return

    def __repr__(self) -> str:
        return f"<DeviceFlow of {self._name}>"


@without_locals
async def begin_device(
    connections: UsersConnections, name: str, subject: str, *, scope: str | None = None
) -> DeviceFlow:
    """Begin a device flow.

    Args:
        connections: The broker's connections.
        name: The app's name.
        subject: The user.
        scope: The scopes, separated by spaces. Default: those of the app.

    Raises:
        FlowProblem: The server refuses the request, or cannot be reached.
        ConfigurationError: The app is no `OAuthApp`.
    """
    app = connections.config.apps[name]
    if not hasattr(app, "device_codes"):
        raise ConfigurationError(f"{name} is no OAuthApp, so it has no device flow.")
    parts = connections.flow_parts()
    began = parts.clock.monotonic()
    asked = None if scope is None else checked_scope(scope, option="device(scope=…)")
    try:
        codes = await cast("OAuthApp", app).device_codes(parts.http, scope=app.scope if asked is None else asked)
    except (CredentialRejected, TokenUnavailable) as error:
        raise problem_of(error) from None
    return DeviceFlow(connections, name, subject, codes, ends=began + codes.expires_in)
