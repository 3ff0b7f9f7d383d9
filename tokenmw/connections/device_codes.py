"""The answers of the device flow's two endpoints (RFC 8628 §3.2, §3.5)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final, cast

from tokenmw.connections.flow_problem import FlowProblem
from tokenmw.connections.pair_reader import read_pair
from tokenmw.errors import TokenUnavailable
from tokenmw.providers.answer import lifetime, number
from tokenmw.providers.http import read_url
from tokenmw.redaction import FrozenValue

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tokenmw.connections.pair import TokenPair
    from tokenmw.providers.answer import Answer
    from tokenmw.providers.proof import Proof

__all__ = ["DEVICE_GRANT", "DeviceCodes", "DevicePending", "read_device_pair"]

DEVICE_GRANT: Final = "urn:ietf:params:oauth:grant-type:device_code"
_INTERVAL: Final = 5.0  # seconds between two polls, if the server does not say (RFC 8628 §3.2)
_MIN_INTERVAL: Final = 1.0
_MAX_CODE: Final = 4096
_MAX_USER_CODE: Final = 100
_MAX_URL: Final = 2000
_ENDED: Final = {"access_denied": "denied", "expired_token": "expired"}


class DevicePending(Exception):
    """Raised by a poll while the user has not decided yet.

    Attributes:
        slow: Whether the server asks for longer intervals.
    """

    def __init__(self, slow: bool) -> None:  # noqa: FBT001  copies are made with the arguments by position
        super().__init__(slow)
        self.slow = slow


class DeviceCodes(FrozenValue):
    """The answer of a device authorization endpoint.

    Attributes:
        device_code: What polls send.
        user_code: What the user types.
        verification_uri: Where the user types it.
        verification_uri_complete: The same with the code in it, or "".
        expires_in: Seconds until both codes expire.
        interval: Seconds between two polls.
    """

    __slots__ = ("device_code", "expires_in", "interval", "user_code", "verification_uri", "verification_uri_complete")

    device_code: str
    user_code: str
    verification_uri: str
    verification_uri_complete: str
    expires_in: float
    interval: float

    def __init__(self, answer: Answer, fields: Mapping[str, Any]) -> None:
        put = object.__setattr__
        put(self, "device_code", _text(answer, fields, "device_code", limit=_MAX_CODE))
        put(self, "user_code", _text(answer, fields, "user_code", limit=_MAX_USER_CODE))
        # Google's endpoint wrote `verification_url` before the standard.
        name = "verification_uri" if "verification_uri" in fields else "verification_url"
        put(self, "verification_uri", _url(answer, _text(answer, fields, name, limit=_MAX_URL)))
        complete = fields.get("verification_uri_complete")
        whole = _text(answer, fields, "verification_uri_complete", limit=_MAX_URL) if complete else ""
        put(self, "verification_uri_complete", whole and _url(answer, whole))
        put(self, "expires_in", lifetime(fields.get("expires_in"), field="expires_in"))
        interval = number(fields.get("interval"))
        usable = interval is not None and 0 < interval < math.inf
        put(self, "interval", max(interval or 0.0, _MIN_INTERVAL) if usable else _INTERVAL)

    def __repr__(self) -> str:
        return "<DeviceCodes>"


def read_device_pair(answer: Answer, proof: Proof, **options: Any) -> TokenPair:
    """Return what the endpoint granted for a device code, as `read_pair` does.

    Raises:
        DevicePending: The user has not decided yet.
        FlowProblem: The user has denied, or the code has expired.
        GrantRefused: The device code is not known, or was used.
        CredentialRejected: The endpoint refuses the client.
        TokenUnavailable: It is busy, or its response cannot be used.
    """
    code = (answer.fields or {}).get("error")
    if code in ("authorization_pending", "slow_down"):
        raise DevicePending(code == "slow_down")
    if code in _ENDED:
        raise FlowProblem(cast("Any", _ENDED[cast("str", code)]), f"the server answered {code}")
    return read_pair(answer, proof, **options)


def _text(answer: Answer, fields: Mapping[str, Any], name: str, *, limit: int) -> str:
    value = fields.get(name)
    if not isinstance(value, str) or not 0 < len(value) <= limit or not value.isprintable():
        raise TokenUnavailable(f"{answer.endpoint} answered without a {name} of at most {limit} characters")
    return value


def _url(answer: Answer, url: str) -> str:
    if read_url(url).scheme not in ("http", "https"):
        raise TokenUnavailable(f"{answer.endpoint} answered with a verification_uri that is no URL")
    return url
