"""The broker's options, checked when it is made: what cannot work is said then, and never on the first request."""

from __future__ import annotations

import math
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Final, cast

from starlette.requests import HTTPConnection

from tokenmw.callbacks import checked_callback
from tokenmw.errors import ConfigurationError
from tokenmw.providers.base import Provider, credential_text
from tokenmw.shared.sealing import SHORTEST_SECRET
from tokenmw.values import Grant, Token

if TYPE_CHECKING:
    from tokenmw.clock import Clock

__all__ = [
    "ProviderOfRequest",
    "checked_choice",
    "checked_clock",
    "checked_flag",
    "checked_grant",
    "checked_key",
    "checked_name_key",
    "checked_names",
    "checked_namespace",
    "checked_providers",
    "checked_secrets",
    "checked_token",
    "checked_ttl",
]

ProviderOfRequest = Callable[[HTTPConnection], Provider | Awaitable[Provider]]

_NAMESPACE: Final = re.compile(r"[A-Za-z0-9_.:-]{1,64}")
_LONGEST_TTL: Final = 365 * 86_400.0
_LONGEST_NAME: Final = 100


def checked_providers(providers: object, *, option: str = "providers") -> dict[str, Provider | ProviderOfRequest]:
    """Return the named providers, each a provider or a callable that gives one for a connection."""
    if not isinstance(providers, Mapping):
        raise ConfigurationError(
            f'{option} must be a dict of names to providers, such as {{"crm": ClientCredentials(…)}}, '
            f"not {type(providers).__name__}."
        )
    given = dict(cast("Mapping[object, object]", providers))
    for name, provider in given.items():
        if isinstance(name, bytes):  # not shown: it may be a credential that was put in the wrong place
            raise ConfigurationError(f"{option}: a name is text, not bytes.")
        if not isinstance(name, str) or not name:
            raise ConfigurationError(f"{option}: {name!r} is no name; names are text.")
        # It is in log lines, metrics and answers.
        if not name.isprintable() or len(name) > _LONGEST_NAME:
            raise ConfigurationError(
                f"{option}: {name[:_LONGEST_NAME]!r} is no name: it has a control character, or more than "
                f"{_LONGEST_NAME} characters."
            )
        if _is_provider_class(provider):
            raise ConfigurationError(f"{option}[{name!r}] is a class, not a provider: make an object of it.")
        if not isinstance(provider, Provider):
            if not callable(provider):
                raise ConfigurationError(
                    f"{option}[{name!r}] must be a Provider or a callable (connection) -> Provider, "
                    f"not {type(provider).__name__}."
                )
            checked_callback(provider, option=f"{option}[{name!r}]", takes="(connection) -> Provider")
    return cast("dict[str, Provider | ProviderOfRequest]", given)


def _is_provider_class(given: object) -> bool:
    return isinstance(given, type) and issubclass(given, Provider)


def checked_names(names: Iterable[str], *, option: str, known: Iterable[str]) -> tuple[str, ...]:
    """Return provider names that the broker has."""
    if isinstance(names, (str, bytes)):
        raise ConfigurationError(f"{option} takes a list of names, not a lone string: [{names!r}].")
    if not isinstance(names, Iterable):
        raise ConfigurationError(f"{option} takes a list of provider names, not {type(names).__name__}.")
    known = sorted(known)
    chosen = tuple(names)
    for name in chosen:
        if name not in known:
            raise ConfigurationError(
                f"{option}: there is no provider {name!r}. The broker has: {', '.join(known) or 'none'}."
            )
    return tuple(dict.fromkeys(chosen))


def checked_secrets(secret_key: str | Sequence[str] | None) -> tuple[str, ...]:
    """Return the ring of secrets; their strength is checked where they are used."""
    if secret_key is None:
        return ()
    ring: object = (secret_key,) if isinstance(secret_key, str) else secret_key
    if isinstance(ring, Sequence) and not isinstance(ring, (bytes, bytearray)):
        if not ring:
            raise ConfigurationError("secret_key is an empty list: leave it out, or give a secret.")
        return tuple(credential_text(secret, option="secret_key", empty=True) for secret in ring)
    if hasattr(ring, "get_secret_value"):
        raise ConfigurationError("secret_key was given a SecretStr: pass its .get_secret_value().")
    raise ConfigurationError("secret_key must be a str, or a list of str of which the first seals and all open.")


def checked_name_key(name_key: str | None, *, secrets: Sequence[str]) -> str | None:
    """Return the key that hides names, by default the oldest secret: that one changes last in a rotation."""
    if name_key is not None:
        if len(credential_text(name_key, option="name_key")) < SHORTEST_SECRET:
            raise ConfigurationError(
                f"name_key must be a str of at least {SHORTEST_SECRET} characters, else whoever reads Redis can guess "
                'it; python -c "import secrets; print(secrets.token_urlsafe(32))" makes a good one.'
            )
        return name_key
    return secrets[-1] if secrets else None


def checked_clock(clock: Clock) -> Clock:
    """Return the clock if it has what a clock has."""
    if isinstance(clock, type) or not all(
        callable(getattr(clock, name, None)) for name in ("monotonic", "time", "sleep")
    ):
        raise ConfigurationError(
            "clock must have monotonic(), time() and sleep(): leave it out, or give a ManualClock()."
        )
    return clock


def checked_flag(value: object, *, option: str, unset: bool = False) -> None:
    """Raise unless an option is True or False, or None where that means "as is best": "no" would be taken for yes."""
    if not (isinstance(value, bool) or (unset and value is None)):
        raise ConfigurationError(f"{option} must be True or False, not {type(value).__name__}.")


def checked_namespace(namespace: str) -> str:
    """Return the namespace if it can stand in front of Redis keys and in ACL patterns."""
    if not isinstance(namespace, str) or not _NAMESPACE.fullmatch(namespace):
        raise ConfigurationError("namespace must be 1 to 64 letters, digits, and any of _ . : -")
    return namespace


def checked_ttl(session_ttl: float) -> float:
    """Return the session time if it is a sensible number of seconds."""
    if hasattr(session_ttl, "total_seconds"):
        raise ConfigurationError("session_ttl is a number of seconds: pass its .total_seconds().")
    if (
        isinstance(session_ttl, bool)
        or not isinstance(session_ttl, (int, float))
        or not math.isfinite(session_ttl)
        or not 1 <= session_ttl <= _LONGEST_TTL
    ):
        raise ConfigurationError("session_ttl must be between 1 s and a year, in seconds.")
    return float(session_ttl)


def checked_key(api_key: str | bytes) -> bytes:
    """Return an API key as it stands in a request."""
    key = api_key
    if isinstance(key, str):
        try:
            key = key.encode()
        except UnicodeEncodeError:
            key = b""
    if not isinstance(key, bytes) or not key:
        raise ConfigurationError("api_key must be text or bytes, and not empty; text that has no UTF-8 is none.")
    return key


def checked_token(token: object) -> None:
    """Raise for what is no token: its value would be taken for one that is not current any more, and nothing happen."""
    if not isinstance(token, Token):
        raise ConfigurationError(f"invalidate takes the Token that broker.token(…) gave, not {type(token).__name__}.")


def checked_grant(grant: object) -> None:
    """Raise for what is no grant: a bare token does not tell how long it lives."""
    if not isinstance(grant, Grant):
        kind = type(grant).__name__
        raise ConfigurationError(f"hand_in takes a Grant, such as Grant(token, expires_in=3600), not {kind}.")


def checked_choice(value: object, *, option: str, choices: Sequence[str]) -> None:
    """Raise unless an option has one of its values."""
    if value not in choices:
        raise ConfigurationError(f"{option} must be one of {', '.join(map(repr, choices))}, not {value!r}.")
