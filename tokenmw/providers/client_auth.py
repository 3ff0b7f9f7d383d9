"""How a client authenticates to a token endpoint (RFC 6749 §2.3.1, RFC 7523 §2.2)."""

from __future__ import annotations

import base64
import secrets
from typing import TYPE_CHECKING, Any, Final, Literal, get_args
from urllib.parse import quote, quote_plus

from tokenmw.errors import ConfigurationError, TokenUnavailable
from tokenmw.options import credential_text
from tokenmw.providers.base import call_credential
from tokenmw.redaction import FrozenValue, HiddenStr

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

__all__ = ["AuthMethod", "ClientAuth", "Proof"]

AuthMethod = Literal["client_secret_basic", "client_secret_post", "private_key_jwt"]

_ASSERTION_TYPE: Final = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
_MAX_ASSERTION_CHARACTERS: Final = 64 << 10
_MIN_OVERLAP: Final = 6  # characters; a shorter piece may be in a text by chance


class Proof(FrozenValue):
    """The client authentication of one token request.

    Attributes:
        form: Fields of the form.
        headers: Header lines.
    """

    __slots__ = ("_sent", "form", "headers")

    form: Mapping[str, str]
    headers: Mapping[str, str]
    _sent: tuple[str, ...]

    def __init__(self, secret: str, *, form: Mapping[str, str], headers: Mapping[str, str]) -> None:
        put = object.__setattr__
        encoded = [line.removeprefix("Basic ") for line in headers.values()]
        put(self, "_sent", (secret, quote(secret, safe=""), quote_plus(secret), *encoded))
        put(self, "form", form)
        put(self, "headers", headers)

    def is_in(self, text: str) -> bool:
        """Return whether a text repeats the secret or assertion that was sent, or a piece of it, encoded or not."""
        return any(_overlap(sent, text) for sent in self._sent)

    def __repr__(self) -> str:
        return "<Proof>"


def _overlap(one: str, other: str) -> bool:
    shorter, longer = sorted((one, other), key=len)
    return one == other or (len(shorter) >= _MIN_OVERLAP and shorter in longer)


class ClientAuth(FrozenValue):
    """A client's id and its secret or assertion, for one of the three methods. Providers build on it.

    Args:
        client_id: The client's id at the server.
        provider: The provider's class name, for error texts.
        method: One of :data:`AuthMethod`.
        secret: For `client_secret_basic` and `client_secret_post`.
        assertion: For `private_key_jwt`: a signed JWT, or a function, sync or async, that returns a new one.
            The function is called for each attempt, because servers refuse an assertion that they have seen.
        credential_id: A name for the key behind `assertion`.
        form_encode_basic: Whether id and secret are form-encoded in the `Authorization` header.

    Raises:
        ConfigurationError: A value is missing, contradicts the method, or is not text.
    """

    __slots__ = ("_assertion", "_credential_id", "_form_encode", "_id", "_method", "_secret", "shareable")

    shareable: bool
    _assertion: str | Callable[[], Any] | None
    _credential_id: str | None
    _form_encode: bool
    _id: str
    _method: AuthMethod
    _secret: str | None

    def __init__(
        self,
        client_id: str,
        *,
        provider: str,
        method: AuthMethod,
        secret: str | None,
        assertion: str | Callable[[], str | Awaitable[str]] | None,
        credential_id: str | None,
        form_encode_basic: bool = True,
    ) -> None:
        _check_method(method, provider=provider, secret=secret, assertion=assertion)
        texts = {"client_id": client_id, "client_secret": secret, "credential_id": credential_id}
        if not callable(assertion):
            texts["client_assertion"] = assertion
        for name, text in texts.items():
            if text is not None or name == "client_id":
                credential_text(text, option=f"{provider}({name}=…)")
        if method == "client_secret_basic" and not form_encode_basic and ":" in client_id:
            raise ConfigurationError(
                f"{provider}(client_id=…) has a colon, which would end it in the Authorization header: "
                f'leave form_encode_basic=True, or use auth_method="client_secret_post".'
            )
        put = object.__setattr__
        put(self, "_id", client_id)
        put(self, "_method", method)
        put(self, "_secret", None if secret is None else HiddenStr(secret))
        put(self, "_assertion", HiddenStr(assertion) if isinstance(assertion, str) else assertion)
        put(self, "_form_encode", form_encode_basic)
        put(self, "shareable", credential_id is not None or not callable(assertion))
        # Two functions cannot be compared by the key they use, and id() is reused after its object is freed.
        put(self, "_credential_id", credential_id if self.shareable else f"object {secrets.token_hex(16)}")

    def identity(self) -> tuple[object, ...]:
        """Return what makes this client differ from another one, the secret included."""
        # With a credential_id, a newer assertion is the same credential.
        fixed = self._assertion if isinstance(self._assertion, str) and self._credential_id is None else None
        return (self._id, self._method, self._secret, fixed, self._credential_id)

    async def prove(self) -> Proof:
        """Return the client authentication of one token request.

        Raises:
            TokenUnavailable: The `client_assertion` function failed, or returned no assertion.
        """
        if self._assertion is not None:
            return await self._assert()
        secret = self._secret or ""
        if self._method == "client_secret_post":
            return Proof(secret, form={"client_id": self._id, "client_secret": secret}, headers={})
        pair = (quote_plus(self._id), quote_plus(secret)) if self._form_encode else (self._id, secret)
        encoded = base64.b64encode(":".join(pair).encode()).decode()
        return Proof(secret, form={}, headers={"authorization": f"Basic {encoded}"})

    async def _assert(self) -> Proof:
        assertion = self._assertion
        if callable(assertion):
            assertion = await call_credential(assertion, option="client_assertion")
        if not isinstance(assertion, str) or not assertion or len(assertion) > _MAX_ASSERTION_CHARACTERS:
            raise TokenUnavailable(
                f"client_assertion did not return a str of 1 to {_MAX_ASSERTION_CHARACTERS} characters: "
                f"call the function by itself to see its result"
            )
        form = {
            "client_id": self._id,
            "client_assertion_type": _ASSERTION_TYPE,
            "client_assertion": assertion,
        }
        return Proof(assertion, form=form, headers={})

    def __repr__(self) -> str:
        return f"<ClientAuth {self._method}>"


def _check_method(method: object, *, provider: str, secret: object, assertion: object) -> None:
    if method not in get_args(AuthMethod):
        raise ConfigurationError(f"{provider}(auth_method=…) must be one of {', '.join(get_args(AuthMethod))}.")
    if secret is not None and assertion is not None:
        raise ConfigurationError(
            f"{provider} takes client_secret or client_assertion, not both (RFC 6749 §2.3): leave one out."
        )
    if method == "private_key_jwt" and assertion is None:
        raise ConfigurationError(f'{provider} needs client_assertion=… for auth_method="private_key_jwt".')
    if method != "private_key_jwt" and assertion is not None:
        raise ConfigurationError(f'{provider}(client_assertion=…) needs auth_method="private_key_jwt" with it.')
    if method != "private_key_jwt" and secret is None:
        raise ConfigurationError(f"{provider} needs client_secret=…, or client_assertion=… in its place.")
