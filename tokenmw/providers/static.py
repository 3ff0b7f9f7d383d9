"""Tokens that come from the program itself: for tests, and for APIs whose tokens are made elsewhere."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Final

from tokenmw.errors import ConfigurationError, TokenUnavailable
from tokenmw.options import credential_text, positive_seconds
from tokenmw.providers.base import Provider
from tokenmw.providers.options import call_credential, host_names
from tokenmw.redaction import HiddenStr, without_locals
from tokenmw.values import MAX_LIFETIME, Grant

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from tokenmw.providers.http import TokenHTTP

__all__ = ["StaticToken"]

# Short, since nothing tells how long the token of a function lives; long enough to be worth keeping.
_LIFE_OF_RESULT: Final = 300.0


class StaticToken(Provider):
    """A token that is given as text, or by a function.

    >>> StaticToken("test-token")
    <StaticToken>

    A function, sync or async, is called when a token is needed, and returns a `str` or a `Grant`::

        async def read_token() -> Grant:
            document = json.loads(await anyio.Path("/run/secrets/token.json").read_text())
            return Grant(document["token"], expires_in=document["expires"] - time.time())

        StaticToken(read_token, credential_id="token.json")

    Args:
        value: The token, or the function.
        expires_in: Seconds after which a token is asked for again, counted from when it was handed over.
            Default: 30 days for text, 300 s for a function that returns a `str`; a `Grant` has its own.
        token_type: The word in front of the token in the `Authorization` header.
        credential_id: A name for what the function reads. Without it, its tokens are shared neither with
            other objects nor with Redis. Text is never shared through Redis: there is nothing to gain.
        hosts: Host names to which an auth object may send the token; None: wherever it is used.
        allow_http: Allows an auth object to send it without TLS outside this machine.

    Raises:
        ConfigurationError: The token is no text that fits into a header, or another option cannot work.
    """

    __slots__ = ("_credential_id", "_life", "_source", "_token_type", "allow_http", "hosts", "scheme", "shareable")

    kind = "static"
    _source: str | Callable[[], str | Grant | Awaitable[str | Grant]]
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
        if expires_in is not None:
            expires_in = positive_seconds(expires_in, option="StaticToken(expires_in=…)")
        if callable(value):
            self._life = expires_in or _LIFE_OF_RESULT
            self._credential_id = credential_id or f"object {secrets.token_hex(16)}"
            self.shareable = credential_id is not None
        else:
            self._life = expires_in or MAX_LIFETIME
            self._credential_id = credential_id
            self.shareable = False
        self._source = value if callable(value) else HiddenStr(credential_text(value, option="StaticToken(…)"))
        self._token_type = token_type
        self.scheme = token_type
        self.hosts = host_names(hosts, option="StaticToken(hosts=…)")
        self.allow_http = allow_http
        _check(value if isinstance(value, str) else "x", token_type)

    def identity(self) -> tuple[object, ...]:
        """Return what makes this token differ from another one; the token itself if it was given as text."""
        text = self._source if isinstance(self._source, str) else None
        return (text, self._credential_id, self._token_type, self._life)

    async def fetch(self, http: TokenHTTP) -> Grant:  # noqa: ARG002  the signature is that of all providers
        """Return the token, or what the function returns now.

        Raises:
            TokenUnavailable: The function failed, or returned neither a usable `str` nor a `Grant`.
            CredentialRejected: The function raised it.
        """
        if isinstance(self._source, str):
            return self._grant(str(self._source))
        return self._grant(await call_credential(self._source, option="the function of StaticToken"))

    @without_locals
    def _grant(self, result: object) -> Grant:
        if isinstance(result, Grant):
            return result
        if isinstance(result, str):
            return Grant(result, expires_in=self._life, token_type=self._token_type)
        raise TokenUnavailable(f"the function of StaticToken returned a {type(result).__name__}, not a str or Grant")


def _check(value: str, token_type: str) -> None:
    try:
        Grant(value, expires_in=1, token_type=token_type)
    except TokenUnavailable as unusable:
        why = str(unusable)
    else:
        return
    raise ConfigurationError(f"StaticToken cannot be used: {why}.")
