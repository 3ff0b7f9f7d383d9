"""The assertion of a JWT bearer grant (RFC 7523 §2.1): signed here with a key, read, or made by the program."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, cast

from tokenmw.errors import ConfigurationError, TokenUnavailable
from tokenmw.options import credential_text
from tokenmw.providers.base import call_credential
from tokenmw.providers.jwt_assertion import timed_claims
from tokenmw.providers.private_key_jwt import PrivateKeyJWT, signed_text
from tokenmw.providers.secret_sources import SecretSource
from tokenmw.providers.subject import SubjectToken
from tokenmw.redaction import FrozenValue, HiddenStr

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

__all__ = ["GrantAssertion"]

_MAX_CHARACTERS: Final = 64 << 10
_MAX_CLAIMS: Final = 8 << 10  # characters of JSON
_MADE: Final = ("exp", "iat", "jti", "nbf")


class GrantAssertion(FrozenValue):
    """An assertion that is the grant, and not the proof of a client.

    Args:
        given: A signed JWT, a key that signs one, where to read one, or a function that returns one.
        claims: The claims that the key signs.
        client_id: The client's id, which is the issuer if `claims` names none.
        credential_id: A name for the key behind a function.
        provider: The provider's class name, for error texts.

    Attributes:
        shareable: Whether other processes can make the same assertion.

    Raises:
        ConfigurationError: A value is missing, malformed, or has no effect.
    """

    __slots__ = ("_claims", "_credential_id", "_given", "shareable")

    _claims: Mapping[str, Any]
    _credential_id: str | None
    _given: str | PrivateKeyJWT | SecretSource | Callable[[], str | Awaitable[str]]
    shareable: bool

    def __init__(
        self, given: object, *, claims: object, client_id: str | None, credential_id: str | None, provider: str
    ) -> None:
        if credential_id is not None:
            credential_text(credential_id, option=f"{provider}(credential_id=…)")
        put = object.__setattr__
        signs = isinstance(given, PrivateKeyJWT)
        if isinstance(given, SubjectToken):
            raise ConfigurationError(
                f"{provider}(assertion=…) is this service's own: the caller's token is subject=SubjectToken()."
            )
        known = signs or isinstance(given, SecretSource)
        if not known and (isinstance(given, type) or not callable(given)):
            given = HiddenStr(signed_text(given, option=f"{provider}(assertion=…)"))
        put(self, "_given", given)
        put(self, "_claims", _checked_claims(claims, client_id=client_id, provider=provider, signs=signs))
        put(self, "shareable", known or isinstance(given, str) or credential_id is not None)
        # Two functions cannot be compared by the key they use, and id() is reused after its object is freed.
        put(self, "_credential_id", credential_id if self.shareable else f"object {secrets.token_hex(16)}")

    def identity(self) -> tuple[object, object]:
        """Return the assertion and the `credential_id`; with the latter, a newer assertion is the same credential."""
        given = self._given
        fixed: object = None
        if isinstance(given, PrivateKeyJWT):
            key = given.identity() if self._credential_id is None else None
            fixed = ("signed", key, json.dumps(self._claims, sort_keys=True))
        elif self._credential_id is None:
            fixed = ("source", given.credential_id) if isinstance(given, SecretSource) else given
        return fixed, self._credential_id

    async def text(self, *, audience: str) -> str:
        """Return the assertion of one token request; `audience` is the endpoint, for `claims` that name no other.

        Raises:
            TokenUnavailable: The function or the source failed, or returned no assertion.
        """
        given: object = self._given
        if isinstance(given, PrivateKeyJWT):
            return await given.sign(timed_claims({"aud": audience, **self._claims}))
        if isinstance(given, SecretSource):
            given = (await given.read())[0]
        elif callable(given):
            given = await call_credential(cast("Callable[[], Any]", given), option="assertion")
        if not isinstance(given, str) or not given or len(given) > _MAX_CHARACTERS:
            raise TokenUnavailable(
                f"assertion did not return a str of 1 to {_MAX_CHARACTERS} characters: call the function by itself to "
                "see its result"
            )
        return given

    @property
    def fix(self) -> str:
        """What to check if the server refuses the assertion."""
        if not isinstance(self._given, PrivateKeyJWT):
            return "check key, iss, sub, aud and exp of the assertion, and this machine's clock"
        named = "iss, sub, aud" if "sub" in self._claims else "iss, aud; no sub is given"
        return (
            f"check claims ({named}), that the server has the public key of PrivateKeyJWT, its key_id and algorithm, "
            f"and this machine's clock"
        )

    def __repr__(self) -> str:
        return "<GrantAssertion>"


def _checked_claims(claims: object, *, client_id: str | None, provider: str, signs: bool) -> Mapping[str, Any]:
    option = f"{provider}(claims=…)"
    if not signs:
        if claims is None:
            return {}
        raise ConfigurationError(
            f"{option} is for assertion=PrivateKeyJWT(…), which signs them: give that, or leave claims out."
        )
    if claims is not None and not isinstance(claims, Mapping):
        raise ConfigurationError(
            f'{option} must be a dict such as {{"iss": "…", "sub": "…"}}, not {type(claims).__name__}.'
        )
    made: dict[Any, Any] = {} if client_id is None else {"iss": client_id}
    made |= claims or {}
    _check_names(made, option=option)
    try:
        text = json.dumps(made, allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        text = ""
    if not text or len(text) > _MAX_CLAIMS:
        raise ConfigurationError(f"{option} must be values of JSON, with {_MAX_CLAIMS} characters in all at most.")
    # A copy of its own: the program may change its dict later.
    return cast("Mapping[str, Any]", json.loads(text))


def _check_names(claims: Mapping[Any, Any], *, option: str) -> None:
    for name in claims:
        if not isinstance(name, str) or not name:
            raise ConfigurationError(f"{option} must have names that are str, not {type(name).__name__}.")
        if name in _MADE:
            raise ConfigurationError(f"{option} has {name}, which is made for each assertion: leave it out.")
    if "iss" not in claims:
        raise ConfigurationError(
            f'{option} needs "iss", the name by which the server knows the signer, such as '
            f'claims={{"iss": "robot@project.example"}}; or client_id=…, if that is the same.'
        )
    for name in ("iss", "sub"):
        if name in claims:
            credential_text(claims[name], option=f'{option}: "{name}"')
