"""Tokens that the program itself provides: for tests, and for APIs whose tokens are made elsewhere."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Final

from tokenmw.errors import ConfigurationError, TokenUnavailable
from tokenmw.options import checked_callback, credential_text, optional_seconds, secret_text
from tokenmw.providers.base import Provider, call_credential
from tokenmw.providers.urls import checked_hosts
from tokenmw.redaction import HiddenStr, without_locals
from tokenmw.values import MAX_LIFETIME, Grant

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from tokenmw.providers.http import TokenHTTP

__all__ = ["StaticToken"]

# Short, because a function's text has no lifetime; long enough for the cache to be useful.
_FUNCTION_LIFETIME: Final = 300.0  # seconds


class StaticToken(Provider):
    """A token given as text, or returned by a function.

    >>> StaticToken("test-token")
    <StaticToken>

    A function, sync or async, is called when a token is needed, and returns a `str` or a `Grant`::

        async def read_token() -> Grant:
            document = json.loads(await anyio.Path("/run/secrets/token.json").read_text())
            return Grant(document["token"], expires_in=document["expires"] - time.time())

        StaticToken(read_token, credential_id="token.json")

    Args:
        value: The token, or a function that returns it.
        expires_in: Seconds that the token lives, counted from when it was provided. Default: 30 days for text, 300 s
            for a function that returns a `str`; a `Grant` has its own lifetime.
        token_type: The word in front of the token in the `Authorization` header. Default: `"Bearer"`.
        credential_id: A name for what the function reads. Default: none, and its tokens are not shared with other
            provider objects or through Redis, so every process calls the function. Text is never shared through Redis.
        hosts: Host names to which auth objects send the token; one that begins with a dot stands for every name below
            it. Default: every host, so the token goes wherever the program sends a request with the auth object.
        allow_http: Allows auth objects to send the token without TLS to other machines. Default: False, it is refused,
            because the network would see the token.

    Raises:
        ConfigurationError: The token does not fit into a header, the function needs arguments, or another option cannot
            work.
    """

    __slots__ = ("_credential_id", "_lifetime", "_token", "_token_type", "allow_http", "hosts", "scheme", "shareable")

    kind = "static"
    _token: str | Callable[[], str | Grant | Awaitable[str | Grant]]
    _credential_id: str | None
    _token_type: str

    @without_locals
    def __init__(
        self,
        value: str | Callable[[], str | Grant | Awaitable[str | Grant]],
        *,
        expires_in: float | None = None,
        token_type: str = "Bearer",
        credential_id: str | None = None,
        hosts: Iterable[str] | None = None,
        allow_http: bool = False,
    ) -> None:
        if credential_id is not None:
            credential_text(credential_id, option="StaticToken(credential_id=…)")
        expires_in = optional_seconds(expires_in, option="StaticToken(expires_in=…)")
        if callable(value):
            _check_function(value)
            self._lifetime = expires_in or _FUNCTION_LIFETIME
            self._credential_id = credential_id or f"object {secrets.token_hex(16)}"
            self.shareable = credential_id is not None
        else:
            self._lifetime = expires_in or MAX_LIFETIME
            self._credential_id = credential_id
            self.shareable = False
        self._token = value if callable(value) else HiddenStr(secret_text(value, option="StaticToken(…)"))
        self._token_type = token_type
        self.scheme = token_type
        self.hosts = checked_hosts(hosts, option="StaticToken(hosts=…)")
        self.allow_http = allow_http
        _check(value if isinstance(value, str) else "x", token_type)

    def identity(self) -> tuple[object, ...]:
        """Return what makes this token differ from another one, the token itself included if it was given as text."""
        text = self._token if isinstance(self._token, str) else None
        return (text, self._credential_id, self._token_type, self._lifetime)

    @without_locals
    async def fetch(self, http: TokenHTTP) -> Grant:  # noqa: ARG002  the signature is that of all providers
        """Return the token, or the function's current result.

        Raises:
            TokenUnavailable: The function failed, or returned neither a usable `str` nor a `Grant`.
            CredentialRejected: The function raised it.
        """
        if isinstance(self._token, str):
            return self._grant(str(self._token))
        return self._grant(await call_credential(self._token, option="the function of StaticToken"))

    def _grant(self, result: object) -> Grant:
        if isinstance(result, Grant):
            return result
        if isinstance(result, str):
            return Grant(result, expires_in=self._lifetime, token_type=self._token_type)
        raise TokenUnavailable(f"the function of StaticToken returned a {type(result).__name__}, not a str or Grant")


def _check_function(function: object) -> None:
    try:
        checked_callback(function, option="The function of StaticToken", takes="() -> str | Grant")
    except ConfigurationError as wrong:
        raise ConfigurationError(
            f"{wrong} For a token of each request, give TokenBroker a callable (connection) -> Provider by its name."
        ) from None


def _check(value: str, token_type: str) -> None:
    try:
        Grant(value, expires_in=1, token_type=token_type)
    except TokenUnavailable as unusable:
        why = str(unusable)
    else:
        return
    raise ConfigurationError(f"StaticToken(…) cannot be used: {why}.")
