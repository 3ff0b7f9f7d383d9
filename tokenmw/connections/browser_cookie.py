"""The cookie in which the browser keeps a flow: sealed, for this host alone, for ten minutes and one use.

Each flow has a cookie of its own, named after its `state`, so that two tabs do not disturb each other.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from typing import TYPE_CHECKING, Final

from tokenmw.connections.authorize import FLOW_SECONDS, PendingFlow
from tokenmw.redaction import FrozenValue
from tokenmw.redis.sealing import Unreadable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tokenmw.redis.sealing import Sealer

__all__ = ["FlowCookies"]

_NAME: Final = "tokenmw-connect-"
_HOST: Final = "__Host-"
_LABEL: Final = b"tokenmw/connect-cookie/"  # before the name, so that no other sealed value opens as a cookie
_MAX_VALUE: Final = 3800  # characters; browsers keep cookies of 4096 bytes with name and attributes
# Of the flows of one browser: each cookie is sent with every request, and servers refuse headers of more than 8 KiB.
_MAX_OPEN: Final = 8
_MAX_ALL: Final = 4096  # characters of names and values
_SKEW: Final = 60.0  # seconds by which the clocks of two instances may differ


class FlowCookies(FrozenValue):
    """Writes and reads the cookies of flows.

    Args:
        sealer: Seals them; it must have a secret.
        secure: Whether the browser reaches this program by https. Without it, the cookie has neither `Secure` nor the
            prefix `__Host-`, which need https; `ConnectApp` allows that for loopback addresses only.
    """

    __slots__ = ("_prefix", "_sealer", "_secure")

    _prefix: str
    _sealer: Sealer
    _secure: bool

    def __init__(self, sealer: Sealer, *, secure: bool) -> None:
        object.__setattr__(self, "_sealer", sealer)
        object.__setattr__(self, "_secure", secure)
        object.__setattr__(self, "_prefix", f"{_HOST if secure else ''}{_NAME}")

    def kept(self, flow: PendingFlow) -> str | None:
        """Return the `Set-Cookie` line that makes the browser keep a flow; None if the flow is too long for one."""
        name = self._name(flow.state)
        sealed = self._sealer.seal(flow.encode(), key=_LABEL + name.encode(), version=int(flow.begun))
        value = base64.urlsafe_b64encode(sealed).decode().rstrip("=")
        return None if len(value) > _MAX_VALUE else self._line(name, value, seconds=int(FLOW_SECONDS))

    def find(self, cookies: Mapping[str, str], state: str, *, now: float) -> PendingFlow | None:
        """Return the flow of a `state`; None if the browser has none, or it is too old or was changed.

        Raises:
            Unreadable: It is sealed with a secret that this instance does not have.
        """
        name = self._name(state)
        value = cookies.get(name)
        if value is None or len(value) > _MAX_VALUE:
            return None
        try:
            sealed = base64.b64decode(f"{value}{'=' * (-len(value) % 4)}", altchars=b"-_", validate=True)
            version, body = self._sealer.open(sealed, key=_LABEL + name.encode())
        except (binascii.Error, ValueError):
            return None
        except Unreadable as unreadable:
            if unreadable.reason == "unknown-key":
                raise
            return None
        flow = PendingFlow.decode(body)
        if flow is None or int(flow.begun) != version or not -_SKEW <= now - flow.begun <= FLOW_SECONDS:
            return None
        return flow

    def forgotten(self, state: str) -> str:
        """Return the `Set-Cookie` line that makes the browser forget a flow."""
        return self._line(self._name(state), "", seconds=0)

    def surplus(self, cookies: Mapping[str, str], *, kept: str) -> list[str]:
        """Return the `Set-Cookie` lines that make the browser forget its oldest flows, if there are too many of them.

        Args:
            cookies: The cookies that the browser has, the oldest first, as it sends them (RFC 6265 §5.4).
            kept: The line of the flow that begins.
        """
        sizes = {name: len(name) + len(value) for name, value in cookies.items() if name.startswith(self._prefix)}
        too_many, too_long = len(sizes) + 1 - _MAX_OPEN, sum(sizes.values()) + kept.index(";") - _MAX_ALL
        forgotten: list[str] = []
        for name, size in sizes.items():
            if too_many <= 0 and too_long <= 0:
                break
            forgotten.append(self._line(name, "", seconds=0))
            too_many, too_long = too_many - 1, too_long - size
        return forgotten

    def _name(self, state: str) -> str:
        return self._prefix + hashlib.sha256(state.encode("utf-8", "replace")).hexdigest()[:24]

    def _line(self, name: str, value: str, *, seconds: int) -> str:
        secure = "; Secure" if self._secure else ""
        return f"{name}={value}; Path=/; Max-Age={seconds}; HttpOnly; SameSite=Lax{secure}"

    def __repr__(self) -> str:
        return f"<FlowCookies {self._prefix}…>"
