"""What a provider is: a frozen credential that can ask for a token, and knows how the token is used."""

from __future__ import annotations

import math
import re
import sys
from types import MemberDescriptorType
from typing import TYPE_CHECKING, Any, ClassVar, Final, NoReturn, Protocol

from tokenmw.errors import ConfigurationError, TokenUnavailable
from tokenmw.providers.identity_parts import checked_identity, kinds_of
from tokenmw.redaction import FrozenValue
from tokenmw.values import MAX_LIFETIME, Grant, Token

if TYPE_CHECKING:
    from collections.abc import Mapping, MutableMapping

    from tokenmw.providers.http import TokenHTTP

__all__ = ["OutgoingAnswer", "OutgoingRequest", "Provider", "lifetime", "number"]

# As JSON writes them (RFC 8259 §6). What Python reads beyond that, 1_000 or the digits of all alphabets, is a slip.
_NUMBER: Final = re.compile(r"[ \t\r\n]*-?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+)?[ \t\r\n]*", re.ASCII)


class OutgoingRequest(Protocol):
    """The part of an httpx or httpx2 request that a provider may change."""

    @property
    def headers(self) -> MutableMapping[str, str]:
        """The headers that will be sent."""
        ...

    url: Any


class OutgoingAnswer(Protocol):
    """The part of an answer of the provider's API that tells whether it took the token."""

    @property
    def status(self) -> int:
        """The HTTP status."""
        ...

    @property
    def headers(self) -> Mapping[str, str]:
        """The headers, found in any case."""
        ...

    @property
    def body(self) -> bytes | None:
        """The body, or None as long as nobody has read it."""
        ...


class Provider(FrozenValue):
    """A credential, frozen, and the one request that turns it into a token.

    Two providers are equal if their credentials are: then they share one token, in this process and in Redis. A
    changed secret is another credential, so nothing has to be cleared when a secret is rotated.

    A subclass names its attributes in `__slots__`, sets each once in `__init__` with keyword-only arguments, and
    gives `kind`, `identity` and `fetch`. README, "Writing a provider", shows one.

    Attributes:
        kind: The sort of provider, such as `"oauth2"`. One word; it is in log lines and metrics.
        exclusive: Each new token kills the one before, so only the holder of a lease may fetch.
        renewal_window: Seconds before expiry from which the provider hands out a new token. None: at any time;
            0: never before expiry.
        refresh_before: Seconds before expiry at which the user wants a new token, or None for the default.
        shareable: Whether the token may be shared with other objects and through Redis.
        hosts: Host names to which the token may be sent, one that begins with a dot standing for all below it;
            None: wherever the auth object is used.
        allow_http: Whether hosts outside this machine may be spoken to without TLS: a token endpoint by `fetch`,
            and the API by an auth object.
        scheme: The word in front of the token in the `Authorization` header; None if it goes elsewhere.
    """

    __slots__ = ("_credential", "_hash", "_kinds")

    kind: ClassVar[str] = ""
    exclusive: bool = False
    renewal_window: float | None = None
    refresh_before: float | None = None
    shareable: bool = True
    hosts: frozenset[str] | None = None
    allow_http: bool = False
    scheme: str | None = "Bearer"

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if "__slots__" not in cls.__dict__:
            # With a __dict__, a JSON encoder that meets a provider would write out the secret.
            raise ConfigurationError(
                f"{cls.__name__} must name its attributes in __slots__ (or have an empty one); a dataclass cannot be a "
                "Provider."
            )
        if not cls.kind.isidentifier():
            raise ConfigurationError(f'{cls.__name__} needs a kind, such as kind = "{cls.__name__.lower()}".')

    def __setattr__(self, name: str, value: object) -> None:
        # Written once, in __init__; afterwards the value is frozen, because it is the key of its token.
        if _is_set(self, name):
            raise AttributeError(f"{type(self).__name__}.{name} cannot be changed: make a new provider.")
        object.__setattr__(self, name, value)

    def identity(self) -> tuple[object, ...]:
        """Return every part that makes this credential's token differ from another one's, the secret included.

        Parts are str, bytes, int, float, bool, None, and tuples of those. `kind` is added to them.
        """
        raise ConfigurationError(f'{type(self).__name__} has no identity: README, "Writing a provider", shows one.')

    async def fetch(self, http: TokenHTTP) -> Grant:
        """Ask the provider for a token, with one request.

        Raises:
            CredentialRejected: The provider refuses the credential: asking again soon is of no use.
            TokenUnavailable: Anything else went wrong.
        """
        raise NotImplementedError

    def authorize(self, request: OutgoingRequest, token: Token) -> None:
        """Put the token where the provider's API wants it."""
        if self.scheme is None:
            name = type(self).__name__
            raise ConfigurationError(f"{name} has scheme = None, so it needs an authorize(self, request, token).")
        request.headers["Authorization"] = token.authorization

    def is_rejected(self, answer: OutgoingAnswer) -> bool | None:
        """Return whether the API said "this token is not valid"; None: the body has to be read first.

        A permission, quota or wrong-app error is not a rejection: a new token would not help (RFC 6750 §3.1).
        """
        return answer.status == 401

    @property
    def credential(self) -> tuple[object, ...]:
        """The identity with the kind in front; computed once."""
        if not _is_set(self, "_credential"):
            parts = checked_identity(self.identity(), owner=type(self).__name__)
            object.__setattr__(self, "_kinds", kinds_of(parts))
            object.__setattr__(self, "_credential", (self.kind, *parts))
        return self._credential  # type: ignore[attr-defined, no-any-return]

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        if not isinstance(other, Provider):
            return NotImplemented
        return self.credential == other.credential and self._kinds == other._kinds  # type: ignore[attr-defined]

    def __hash__(self) -> int:
        if not _is_set(self, "_hash"):
            object.__setattr__(self, "_hash", hash(self.credential))
        return self._hash  # type: ignore[attr-defined, no-any-return]

    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"


def _is_set(provider: Provider, name: str) -> bool:
    # Not hasattr(): class attributes such as `hosts` stand for "not given", and a entry may still be filled.
    entry = getattr(type(provider), name, None)
    if not isinstance(entry, MemberDescriptorType):
        return False
    try:
        entry.__get__(provider)
    except AttributeError:
        return False
    return True


def lifetime(raw: object, *, default: float | None = None) -> float:
    """Return the seconds of life that an answer gives, whatever JSON type they came as.

    Numbers count, and text that :func:`number` reads. Lives over 30 days are cut to that.

    Args:
        raw: The field as it stood in the answer; None if it was missing or null.
        default: The documented life where the provider gives none; None: a missing life is an error.

    Raises:
        TokenUnavailable: It is missing without a default, zero, negative, NaN, infinite, a bool or no number.
    """
    if raw is None:
        if default is None:
            raise TokenUnavailable("the answer does not say how long the token lives")
        return default
    seconds = number(raw)
    if seconds is None:
        _refuse_life("not a number")
    if not math.isfinite(seconds):
        _refuse_life("not finite")
    if seconds <= 0:
        _refuse_life("not positive: the token has already expired")
    return min(seconds, MAX_LIFETIME)


def number(raw: object) -> float | None:
    """Return a number of an answer, which is one or is written as text; None: it is no number.

    Text counts if JSON could write the number so, with spaces around it at most: `"7200"`, `" 7.2e3 "`.
    """
    if isinstance(raw, str):
        return float(raw) if _NUMBER.fullmatch(raw) else None
    if isinstance(raw, bool) or not isinstance(raw, (int, float)):
        return None
    try:
        return float(raw)
    except OverflowError:  # a whole number past the range of float is absurd, but positive or negative it is
        return math.copysign(sys.float_info.max, 1 if raw > 0 else -1)


def _refuse_life(why: str) -> NoReturn:
    raise TokenUnavailable(f"the token's life in the answer is {why}")
