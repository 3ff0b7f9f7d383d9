"""Device codes: a user approves on another device, and the client polls until then (RFC 8628)."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, final

from tokenmw.testing.provider_server.families import RefusedError

if TYPE_CHECKING:
    from tokenmw.clock import Clock
    from tokenmw.testing.provider_server.user_options import UserOptions

__all__ = ["DeviceCode", "DeviceCodes"]

_LETTERS: Final = "BCDFGHJKLMNPQRSTVWXZ"  # RFC 8628 §6.1: no vowels, so that no word comes up
_SLOWER: Final = 5.0  # seconds added to the interval by `slow_down` (§3.5)


@dataclass(eq=False, kw_only=True)
class DeviceCode:
    """One device code.

    Attributes:
        value: The device code, which the client keeps.
        user_code: What the user types.
        client: The client.
        scope: The requested scope.
        issuer: The issuer whose endpoint has issued it.
        expires_at: When it expires, by the monotonic clock, in seconds.
        interval: The seconds that must be between two polls.
        polled_at: When it was polled last; None before the first poll.
        polls: The number of polls.
        user: The user that has approved it, or "".
        denied: Whether the user has denied it.
        used: Whether tokens were issued for it.
    """

    value: str
    user_code: str
    client: str
    scope: str
    issuer: str
    expires_at: float
    interval: float
    polled_at: float | None = None
    polls: int = 0
    user: str = ""
    denied: bool = False
    used: bool = False


@final
class DeviceCodes:
    """All device codes.

    Args:
        options: The options, read at each use.
        clock: The clock by which codes expire and polls are too early.
    """

    def __init__(self, options: UserOptions, *, clock: Clock) -> None:
        self._options = options
        self._clock = clock
        self._codes: dict[str, DeviceCode] = {}

    def issue(self, client: str, *, scope: str = "", issuer: str = "") -> DeviceCode:
        """Return a new device code."""
        letters = "".join(secrets.choice(_LETTERS) for _ in range(8))
        code = DeviceCode(
            value=f"device-{secrets.token_urlsafe(16)}",
            user_code=f"{letters[:4]}-{letters[4:]}",
            client=client,
            scope=scope,
            issuer=issuer,
            expires_at=self._clock.monotonic() + self._options.device_life,
            interval=self._options.device_interval,
        )
        self._codes[code.value] = code
        return code

    def with_user_code(self, user_code: str) -> DeviceCode:
        """Return the device code of a user code, in upper or lower case, with or without its dash.

        Raises:
            KeyError: No device code that is still open has it.
        """
        typed = _letters(user_code)
        for code in self._codes.values():
            if _letters(code.user_code) == typed and not code.used and self._clock.monotonic() < code.expires_at:
                return code
        raise KeyError(user_code)

    def take(self, value: str, *, client: str) -> DeviceCode:
        """Poll with a device code, and return it if its user has approved.

        Raises:
            RefusedError: `authorization_pending`, `slow_down`, `access_denied` and `expired_token` as in RFC 8628 §3.5;
                `invalid_grant` for one that is unknown, used, or of another client.
        """
        code = self._codes.get(value)
        if code is None:
            raise RefusedError("invalid_grant", "unknown")
        if code.client != client:
            raise RefusedError("invalid_grant", "client")
        if code.used:
            raise RefusedError("invalid_grant", "reused")
        now, last = self._clock.monotonic(), code.polled_at
        code.polled_at, code.polls = now, code.polls + 1
        if now >= code.expires_at:
            raise RefusedError("expired_token")
        if last is not None and now < last + code.interval:
            code.interval += _SLOWER
            raise RefusedError("slow_down")
        if code.denied:
            raise RefusedError("access_denied")
        if not code.user:
            raise RefusedError("authorization_pending")
        code.used = True
        return code


def _letters(user_code: str) -> str:
    return "".join(one for one in user_code.upper() if one.isalnum())
