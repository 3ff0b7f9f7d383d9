"""What a provider is: a frozen credential that can fetch a token, and knows how its API takes the token."""

from __future__ import annotations

import functools
import inspect
from types import MemberDescriptorType
from typing import TYPE_CHECKING, Any, ClassVar, Final, Protocol, cast

from tokenmw.errors import ConfigurationError, CredentialRejected, TokenUnavailable
from tokenmw.observe.error_place import place_of
from tokenmw.options import checked_flag, optional_seconds
from tokenmw.providers.dpop import checked_dpop
from tokenmw.providers.urls import checked_hosts
from tokenmw.redaction import FrozenValue, without_locals

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, MutableMapping

    from starlette.requests import HTTPConnection

    from tokenmw.providers.client_certificate import ClientCertificate
    from tokenmw.providers.dpop import DPoPKey
    from tokenmw.providers.http import TokenHTTP
    from tokenmw.providers.network.pinned import PinnedServer
    from tokenmw.values import Grant, Token

__all__ = ["OutgoingAnswer", "OutgoingRequest", "Provider", "call_credential", "check_provider", "check_same_class"]

_PART_TYPES: Final = (bool, int, float, str, bytes)  # bool first: it is an int
_OURS: Final = __name__.partition(".")[0]
_GUIDE: Final = 'the guide "Writing a provider" shows one'


class OutgoingRequest(Protocol):
    """The part of an httpx or httpx2 request that a provider may change to place its token."""

    @property
    def headers(self) -> MutableMapping[str, str]:
        """The headers that will be sent."""
        ...

    url: Any


class OutgoingAnswer(Protocol):
    """The part of an API's response that shows whether the API accepted the token."""

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
        """The body in bytes, or None while it has not been read."""
        ...


class Provider(FrozenValue):
    """A credential, frozen, and the one request that turns it into a token.

    Two providers are equal if their credentials are equal; they then share one token, in this process and in Redis.
    A changed secret is another credential, so nothing has to be cleared when a secret is rotated.

    The class is a part of the credential: an object of another class, also of a subclass, has a token of its own. With
    `class Sub(Acme, same_credential=True)` objects of both classes share their tokens, as those of `FeishuTenant` and
    `FeishuApp` do.

    A subclass names its attributes in `__slots__`, sets each once in `__init__`, and defines `kind`, `identity` and
    `fetch`::

        class Acme(Provider):
            __slots__ = ("_secret",)
            kind = "acme"

            def __init__(self, *, secret: str) -> None:
                self._secret = credential_text(secret, option="Acme(secret=…)")

            def identity(self) -> tuple[object, ...]:
                return (self._secret,)

            async def fetch(self, http: TokenHTTP) -> Grant:
                answer = await http.request("POST", "https://acme.example/token", json={"secret": self._secret})
                answer.check_busy()
                fields = answer.json()
                return Grant(fields["token"], expires_in=lifetime(fields.get("ttl")))

    Attributes:
        kind: The sort of provider, such as `"oauth2"`: one word, for log lines and metrics.
        exclusive: Whether each new token invalidates the one before. Then only a process that holds a lease fetches,
            and without Redis the broker needs `single_process=True`. Default: False.
        renewal_window: Seconds before expiry from which the provider issues a new token. Default: None, at any time.
            0 means never before expiry, so requests wait once per expiry.
        refresh_before: Seconds before expiry at which a new token is fetched in the background. Default: None, a
            quarter of the lifetime, at most 3600 s. Nine tenths of `renewal_window` bound both.
        shareable: Whether the token may be shared through Redis. Equal providers of one process share it in any case.
            Default: True.
        hosts: Host names to which an auth object may send the token, at any port; one that begins with a dot stands
            for every name below it. Default: None, every host that the auth object is used for.
        allow_http: Whether the token endpoint and the API may be reached without TLS on other machines. Default:
            False.
        allow_private: Whether the token endpoint may have a private address. Default: True. False is for URLs that
            others choose; the broker's own HTTP client then connects to public addresses only.
        certificate: The client certificate of token requests, or None. It needs the broker's own HTTP client. Default:
            None.
        scheme: The word in front of the token in the `Authorization` header; None if `authorize` puts the token
            elsewhere. Default: `"Bearer"`.
        dpop: The key to which the token is bound (RFC 9449). An auth object then sends a proof with each request, and
            the token goes into the `Authorization` header. Default: None, no proof.
        per_subject: Whether there is a token for each caller, made from the caller's own; `Limits(subject_tokens=…)`
            bounds these. Default: False.
    """

    __slots__ = ("_checked", "_credential", "_hash", "_part_types")

    _checked: object
    """What keeps its checked attributes for equal objects, if its class does so; see `construction`."""
    _credential: tuple[object, ...]
    _hash: int
    _part_types: tuple[object, ...]

    kind: ClassVar[str] = ""
    exclusive: bool = False
    renewal_window: float | None = None
    refresh_before: float | None = None
    shareable: bool = True
    hosts: frozenset[str] | None = None
    allow_http: bool = False
    allow_private: bool = True
    certificate: ClientCertificate | PinnedServer | None = None
    scheme: str | None = "Bearer"
    dpop: DPoPKey | None = None
    per_subject: bool = False

    # Objects of classes with the same one share tokens if their credentials are equal.
    _credential_class: ClassVar[type[Provider]]

    def __init_subclass__(cls, *, same_credential: bool = False) -> None:
        super().__init_subclass__()
        if "__slots__" not in cls.__dict__:
            # With a __dict__, a JSON encoder that meets a provider would write out the secret.
            raise ConfigurationError(
                f"{cls.__name__} must name its attributes in __slots__ (or have an empty one); a dataclass cannot be a "
                "Provider."
            )
        if not cls.kind.isidentifier():
            raise ConfigurationError(f'{cls.__name__}.kind must be one word, such as kind = "{cls.__name__.lower()}".')
        _check_inherited_identity(cls)
        if not same_credential:
            cls._credential_class = cls
        elif not hasattr(cls, "_credential_class") or cls.kind != cls._credential_class.kind:
            raise ConfigurationError(
                f"{cls.__name__} has same_credential=True, so it needs a provider as base class, and the same kind."
            )

    def __setattr__(self, name: str, value: object) -> None:
        # Each attribute is set once, in __init__; afterwards the value is frozen, because it is the key of its token.
        if _is_set(self, name):
            raise AttributeError(f"{type(self).__name__}.{name} cannot be changed: make a new provider.")
        object.__setattr__(self, name, value)

    def identity(self) -> tuple[object, ...]:
        """Return every part that makes this credential's token differ from another one's, the secret included.

        Parts are str, bytes, int, float, bool, None, and tuples of those. `kind` is added to them.
        """
        raise ConfigurationError(f"{type(self).__name__} has no identity: {_GUIDE}.")

    async def fetch(self, http: TokenHTTP) -> Grant:
        """Request a token from the provider, once.

        Raises:
            CredentialRejected: The provider refuses the credential, so another request soon would fail too.
            TokenUnavailable: The request failed for any other reason.
        """
        raise NotImplementedError

    def authorize(self, request: OutgoingRequest, token: Token) -> None:
        """Put the token where the provider's API expects it."""
        if self.scheme is None:
            name = type(self).__name__
            raise ConfigurationError(f"{name} has scheme = None, so it needs an authorize(self, request, token).")
        request.headers["Authorization"] = token.authorization

    def is_rejected(self, answer: OutgoingAnswer) -> bool | None:
        """Return whether the API answered that the token is not valid; None if the body must be read first.

        An error about a permission, a quota or the wrong app is not a rejection: a new token would not help
        (RFC 6750 §3.1).
        """
        return answer.status == 401

    @property
    def depends_on_request(self) -> bool:
        """Whether the credential is complete only with a part of each request, which `for_request` adds."""
        return False

    def for_request(self, connection: HTTPConnection) -> Provider:
        """Return the provider with what a request adds to its credential."""
        del connection
        return self

    def for_all_subjects(self) -> Provider | None:
        """Return the provider that stands for all that differ only in the subject; None if it has no subject."""
        return None

    @property
    def credential(self) -> tuple[object, ...]:
        """The identity with the kind in front; computed once."""
        try:
            return self._credential
        except AttributeError:
            pass
        parts = _checked_identity(self.identity(), owner=type(self).__name__)
        object.__setattr__(self, "_part_types", _types_of(parts))
        object.__setattr__(self, "_credential", (self.kind, *parts))
        return self._credential

    @property
    def key_parts(self) -> tuple[object, ...]:
        """What the names of its Redis keys are made of: the credential, and the class if it is the program's own.

        Two classes may have one `kind`, also in two programs that share a Redis. This package's own classes have
        different kinds.
        """
        owner = self._credential_class
        if owner.__module__.partition(".")[0] == _OURS:
            return self.credential
        return (self.credential, f"{owner.__module__}.{owner.__qualname__}")

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        if not isinstance(other, Provider):
            return NotImplemented
        return (
            self._credential_class is other._credential_class
            and self.credential == other.credential
            and self._part_types == other._part_types
        )

    def __hash__(self) -> int:
        try:
            return self._hash
        except AttributeError:
            object.__setattr__(self, "_hash", hash(self.credential))
            return self._hash

    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"


@without_locals
def check_provider(provider: Provider) -> None:
    """Check the attributes and methods of a provider, also of a class that is not part of this package.

    Raises:
        ConfigurationError: A value or a method cannot work; the text names the class and the attribute.
    """
    if _is_set(provider, "_checked"):
        return
    name = type(provider).__name__
    for option in ("hosts", "refresh_before", "renewal_window", "scheme", "exclusive", "shareable", "dpop"):
        if not hasattr(provider, option):
            raise ConfigurationError(f"{name} names {option} in __slots__ and never sets it in __init__.")
    checked_flag(provider.allow_http, option=f"{name}.allow_http")
    checked_flag(provider.allow_private, option=f"{name}.allow_private")
    hosts: object = provider.hosts
    if isinstance(hosts, str):
        checked_hosts(hosts, option=f"{name}.hosts")
    optional_seconds(provider.refresh_before, option=f"{name}.refresh_before")
    if provider.renewal_window != 0:
        optional_seconds(provider.renewal_window, option=f"{name}.renewal_window")
    checked_dpop(provider.dpop, option=f"{name}.dpop")
    scheme: object = provider.scheme
    if scheme is not None and not (isinstance(scheme, str) and scheme.isascii() and scheme.replace("-", "").isalnum()):
        raise ConfigurationError(f"{name}.scheme must be one word, such as Bearer, or None.")
    cls: Any = type(provider)
    _check_methods(cls)
    _ = provider.credential  # checks the result of `identity`


def check_same_class(provider: Provider, *, other: Provider) -> None:
    """Check that two providers with the same names in Redis are of the same class.

    Raises:
        ConfigurationError: They are of two classes of one name, such as two that one function has made.
    """
    if provider._credential_class is not other._credential_class:
        owner = provider._credential_class
        raise ConfigurationError(
            f"Two classes named {owner.__module__}.{owner.__qualname__} have equal credentials, and would get each "
            "other's tokens: give each its own kind, or define the class once."
        )


async def call_credential(function: Callable[[], Any], *, option: str) -> Any:
    """Call a credential that is a function, sync or async, and return its result.

    Raises:
        TokenUnavailable: The function raised. The text has only the kind of error, and the error is not chained,
            because it may hold the key that the function works with.
        CredentialRejected: The function raised it; its own `TokenUnavailable` passes as well.
    """
    try:
        result = function()
        return await result if inspect.isawaitable(result) else result
    except (CredentialRejected, TokenUnavailable):
        raise
    except Exception as error:  # noqa: BLE001  a user's function may raise anything, and a request must get our error
        kind, place = type(error).__name__, place_of(error, called=function)
    raise TokenUnavailable(f"{option} raised {kind}: call the function by itself to see why").at(place)


def _check_inherited_identity(cls: type[Provider]) -> None:
    named = cls.__dict__["__slots__"]
    added = sorted({named} if isinstance(named, str) else {*named} - {"__weakref__"})
    inherited = any(
        issubclass(base, Provider) and base.identity is cls.identity is not Provider.identity for base in cls.__bases__
    )
    if added and inherited:
        parts = ", ".join(f"self.{name}" for name in added)
        raise ConfigurationError(
            f"{cls.__name__} adds {', '.join(added)} to __slots__ and inherits `identity`, so two objects that differ "
            f"only in that would share a token. Define identity(self): return (*super().identity(), {parts}), or "
            "return super().identity() if the token does not depend on it."
        )


@functools.lru_cache(maxsize=256)  # an auth object checks the provider that a callable makes in each request
def _check_methods(cls: type[Provider]) -> None:
    name = cls.__name__
    if cls.fetch is Provider.fetch:
        raise ConfigurationError(f"{name} has no fetch: {_GUIDE}.")
    if not inspect.iscoroutinefunction(cls.fetch):
        raise ConfigurationError(f"{name}.fetch must be an `async def`.")
    for method in ("authorize", "is_rejected"):
        # Nothing awaits them: requests would go out without a token, or every response would count as a rejection.
        if inspect.iscoroutinefunction(getattr(cls, method)):
            raise ConfigurationError(f"{name}.{method} must be a plain `def`, not an `async def`.")


def _is_set(provider: Provider, name: str) -> bool:
    # Not hasattr(): a class attribute such as `hosts` is the default of an attribute that may still be set.
    slot = getattr(type(provider), name, None)
    if not isinstance(slot, MemberDescriptorType):
        return False
    try:
        slot.__get__(provider)
    except AttributeError:
        return False
    return True


@without_locals  # `hash` and `==` call it, from any code that looks a provider up
def _checked_identity(given: object, *, owner: str) -> tuple[object, ...]:
    # Checked without Redis too, so that a key that cannot be made is found in development.
    if inspect.iscoroutine(given):
        given.close()
    if not isinstance(given, tuple):
        raise ConfigurationError(
            f"{owner}.identity must be a plain `def` that returns a tuple, such as (self._client_id, self._secret), "
            f"not {type(given).__name__}."
        )
    parts = cast("tuple[object, ...]", given)
    for position, part in enumerate(parts):
        if isinstance(part, tuple):
            _checked_identity(cast("object", part), owner=owner)
        elif part is not None and not isinstance(part, _PART_TYPES):
            raise ConfigurationError(
                f"{owner}.identity: part {position} is a {type(part).__name__}; parts are str, bytes, int, float, "
                "bool, None, and tuples of those, so pass its text."
            )
    return parts


def _types_of(parts: tuple[object, ...]) -> tuple[object, ...]:
    # 1, 1.0 and True are equal, but their Redis keys differ.
    return tuple(
        _types_of(cast("tuple[object, ...]", part))
        if isinstance(part, tuple)
        else next((kind for kind in _PART_TYPES if isinstance(part, kind)), None)
        for part in parts
    )
