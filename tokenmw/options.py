"""The checks of options, each in one place: a wrong option is reported at construction, not by the first request.

Each function returns the value in the form in which it is used, or raises a `ConfigurationError` with the option, what
is wrong with it, and the fix. No text shows a value that may be a secret. A check that needs the class it is about
stands beside that class: providers in `providers` and `credentials`, Redis URLs in `redis.client`, `seal` in
`redis.sealing`.
"""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Sequence
from difflib import get_close_matches
from itertools import islice, pairwise
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

from tokenmw.errors import ConfigurationError
from tokenmw.redaction import without_locals

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tokenmw.clock import Clock

__all__ = [
    "MIN_SECRET_LENGTH",
    "checked_api_key",
    "checked_callback",
    "checked_choice",
    "checked_clock",
    "checked_flag",
    "checked_instance",
    "checked_lifespan",
    "checked_name_key",
    "checked_namespace",
    "checked_secrets",
    "checked_session_ttl",
    "checked_strings",
    "credential_text",
    "did_you_mean",
    "optional_seconds",
    "positive_number",
    "positive_seconds",
    "secret_text",
    "stripped_text",
]

T = TypeVar("T")

MIN_SECRET_LENGTH: Final = 16  # characters; a shorter secret can be guessed by anyone who has read Redis
_NAMESPACE: Final = re.compile(r"[A-Za-z0-9_.:-]{1,64}")
_READ: Final = 128  # characters of a secret that are looked at
_MIN_CORE: Final = 7  # characters of a secret that do not follow from the ones before
_MIN_DISTINCT: Final = 5
_LETTERS_AND_NUMBER: Final = re.compile(r"([A-Za-z]?[a-z]{1,19}|[A-Z]{1,20})[^A-Za-z0-9]*[0-9]{0,4}[^A-Za-z0-9]*")
_MAX_SESSION_TTL: Final = 365 * 86_400.0  # seconds
_MAX_COMPARED: Final = 256  # names
_MAX_COMPARED_NAME: Final = 100  # characters
_NUMBER: Final = re.compile(r"\s*[+-]?[0-9][0-9_.]{0,9}\s*", re.ASCII)
_MAKE_A_SECRET: Final = 'python -c "import secrets; print(secrets.token_urlsafe(32))" makes a good one.'


def positive_number(value: object, *, option: str, unit: str = "") -> float:
    """Return a positive, finite number; `unit` is named in the error, for example "seconds"."""
    # bool is an int, and True as a bound or a duration is always a mistake.
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < math.inf:
        raise ConfigurationError(
            f"{option} must be a positive, finite number{f' of {unit}' if unit else ''}, not {_shown_number(value)}"
        )
    return value


def _shown_number(value: object) -> str:
    """Return what was given instead of a number, with the fix. A text that is no number may be a misplaced secret."""
    if hasattr(value, "total_seconds"):
        return f"a {type(value).__name__}: pass its .total_seconds()."
    if isinstance(value, str):
        if _NUMBER.fullmatch(value):
            return f"the text {value!r}: convert it with float() or int()."
        return "text."
    return f"{value!r}." if isinstance(value, (bool, int, float)) else f"{type(value).__name__}."


def positive_seconds(value: object, *, option: str) -> float:
    """Return a duration in seconds."""
    return float(positive_number(value, option=option, unit="seconds"))


def optional_seconds(value: object, *, option: str) -> float | None:
    """Return a duration in seconds, or None if the option was not given."""
    return None if value is None else positive_seconds(value, option=option)


def checked_session_ttl(session_ttl: object) -> float:
    """Return the idle time of sessions in seconds, from 1 to a year."""
    if isinstance(session_ttl, (int, float)) and session_ttl is not True and 1 <= session_ttl <= _MAX_SESSION_TTL:
        return float(session_ttl)
    raise ConfigurationError(
        f"session_ttl must be between 1 s and a year, in seconds, not {_shown_number(session_ttl)}"
    )


def checked_flag(value: object, *, option: str, optional: bool = False) -> None:
    """Raise unless an option is True or False, or None if that is allowed: a text such as "no" would count as True."""
    if not (isinstance(value, bool) or (optional and value is None)):
        raise ConfigurationError(f"{option} must be True or False, not {type(value).__name__}.")


def checked_choice(value: object, *, option: str, choices: Sequence[str]) -> None:
    """Raise unless an option has one of its values."""
    if value not in choices:
        raise ConfigurationError(f"{option} must be one of {', '.join(map(repr, choices))}, not {value!r}.")


def checked_instance(value: object, kind: type[T], *, option: str, example: str) -> T:
    """Return a value of a class of this package; `example` shows how to make one."""
    if not isinstance(value, kind):
        article = "an" if kind.__name__[0] in "AEIO" else "a"
        raise ConfigurationError(
            f"{option} must be {article} {kind.__name__}, such as {example}, not {type(value).__name__}."
        )
    return value


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return the end of a sentence about an unknown name: `: did you mean 'crm'?`, or a full stop.

    A program may take names from its callers, so a long one is not compared, and no more than 256 known ones are.
    """
    if len(name) > _MAX_COMPARED_NAME:
        return "."
    close = get_close_matches(name, islice(known, _MAX_COMPARED))
    return f": did you mean {' or '.join(map(repr, close))}?" if close else "."


def checked_strings(given: object, *, option: str, of: str = "names") -> tuple[Any, ...]:
    """Return a list as a tuple. A lone string is refused: it would be read letter by letter."""
    if isinstance(given, (str, bytes)):
        raise ConfigurationError(f"{option} takes a list of {of}, not a lone string: [{given!r}].")
    if not hasattr(type(given), "__iter__"):
        raise ConfigurationError(f"{option} takes a list of {of}, not {type(given).__name__}.")
    return tuple(cast("Iterable[Any]", given))


@without_locals
def credential_text(value: object, *, option: str, empty: bool = False) -> str:
    """Return a credential that is text, or raise a `ConfigurationError` that names the option, never the value.

    Args:
        value: The option's value.
        option: The option's name for the error, such as `"ClientCredentials(client_secret=…)"`.
        empty: Whether "" is allowed.
    """
    if hasattr(value, "get_secret_value"):
        raise ConfigurationError(
            f"{option} was given a {type(value).__name__}, which would be sent as asterisks: "
            f"pass its .get_secret_value()."
        )
    if not isinstance(value, str):
        raise ConfigurationError(f"{option} must be a str, not {type(value).__name__}.")
    if not value and not empty:
        raise ConfigurationError(f"{option} is empty: is the variable or file set that it is read from?")
    if any("\ud800" <= character <= "\udfff" for character in value):
        raise ConfigurationError(f"{option} holds bytes that are not UTF-8, perhaps from an environment variable.")
    if any(character < " " or character == "\x7f" for character in value):
        raise ConfigurationError(
            f"{option} holds a control character, perhaps a newline from the file it was read from: strip() it."
        )
    return value


@without_locals
def secret_text(value: object, *, option: str) -> str:
    """Return a secret or token as :func:`credential_text` does, or raise if it has the scheme of a header in front."""
    text = credential_text(value, option=option)
    if text[:7].lower() == "bearer ":
        raise ConfigurationError(f"{option} begins with the word of an Authorization header: leave out `Bearer `.")
    return text


@without_locals
def stripped_text(value: object, *, option: str) -> str:
    """Return a secret or URL as :func:`credential_text` does, or raise if it has a blank before or after it."""
    text = credential_text(value, option=option)
    if text != text.strip():
        raise ConfigurationError(
            f"{option} has a blank before or after it, perhaps from the file it is read from: strip() it."
        )
    return text


def checked_secrets(secret_key: object) -> tuple[str, ...]:
    """Return `secret_key` as a tuple of secrets: the first one encrypts, all of them decrypt."""
    if secret_key is None:
        return ()
    secrets: object = secret_key
    if not isinstance(secrets, Sequence) or isinstance(secrets, (str, bytes, bytearray)):
        secrets = (secrets,)
    if not secrets:
        raise ConfigurationError("secret_key is an empty list: leave it out, or give a secret.")
    return tuple(_strong(secret, option="secret_key") for secret in cast("Sequence[object]", secrets))


def checked_name_key(name_key: object, *, secrets: Sequence[str]) -> str | None:
    """Return the key that hides names: by default the last secret, which a rotation removes last."""
    if name_key is None:
        return secrets[-1] if secrets else None
    return _strong(name_key, option="name_key")


def _strong(secret: object, *, option: str) -> str:
    text = stripped_text(secret, option=option)
    if len(text) < MIN_SECRET_LENGTH:
        raise ConfigurationError(
            f"{option} must be a str of at least {MIN_SECRET_LENGTH} characters, else anyone who reads Redis can guess "
            f"it. {_MAKE_A_SECRET}"
        )
    if _is_guessable(text):
        raise ConfigurationError(
            f"{option} is easy to guess: it repeats itself, counts up or down, or is one word with a number, which "
            f"anyone with access to Redis can try. {_MAKE_A_SECRET}"
        )
    return text


def _is_guessable(secret: str) -> bool:
    """Return whether a secret repeats itself, counts up or down, or is one word of up to 20 letters with a number.

    This is no measure of strength. It refuses what people type to have 16 characters, and nothing that a generator of
    128 random bits has made: `secrets.token_hex(16)`, `token_urlsafe(16)` and UUIDs pass.
    """
    start = secret[:_READ]
    unit = next(start[:size] for size in range(1, len(start) + 1) if start[size:] == start[:-size])
    # Without each character that repeats the one before it or is its neighbour, so that 12345 counts as 1.
    core = unit[0] + "".join(after for before, after in pairwise(unit) if abs(ord(after) - ord(before)) > 1)
    return len(core) < _MIN_CORE or len(set(core)) < _MIN_DISTINCT or _LETTERS_AND_NUMBER.fullmatch(core) is not None


def checked_namespace(namespace: object) -> str:
    """Return the namespace if it can be a prefix of Redis keys and part of ACL patterns."""
    if not isinstance(namespace, str) or not _NAMESPACE.fullmatch(namespace):
        raise ConfigurationError("namespace must be 1 to 64 letters, digits, and any of _ . : -")
    return namespace


def checked_api_key(api_key: object) -> bytes:
    """Return an API key as the bytes that a request carries, in UTF-8."""
    key = api_key
    try:
        key = key.encode() if isinstance(key, str) else key
        if isinstance(key, bytes):
            key.decode()
    except UnicodeError:
        key = b""
    if not isinstance(key, bytes) or not key:
        raise ConfigurationError("api_key must be text or bytes, and not empty; it must be valid UTF-8.")
    return key


def checked_clock(clock: object) -> Clock:
    """Return the clock if it has the methods of a `Clock`."""
    if isinstance(clock, type) or not all(
        callable(getattr(clock, name, None)) for name in ("monotonic", "time", "sleep")
    ):
        raise ConfigurationError(
            "clock must have monotonic(), time() and sleep(): leave it out, or give a ManualClock()."
        )
    return cast("Clock", clock)


def checked_callback(function: object, *, option: str, takes: str) -> None:
    """Raise unless a callable takes the arguments that it will be given.

    Args:
        function: The option's value.
        option: The option's name for the error.
        takes: The signature for the error, such as `(connection, key) -> object | None` or `() -> str`; its commas give
            the number of arguments.
    """
    if not callable(function):
        raise ConfigurationError(f"{option} must be a callable {takes}.")
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return  # some callables written in C have no signature
    parameters = takes.partition(")")[0]
    count = 0 if parameters == "(" else parameters.count(",") + 1
    try:
        signature.bind(*range(count))
    except TypeError:
        # The text of that error would name parameters, but no option.
        raise ConfigurationError(
            f"{option} must be a callable {takes}: this one takes ({', '.join(signature.parameters)})."
        ) from None


def checked_lifespan(lifespan: object) -> None:
    """Raise unless the value is a callable of the application that is not a plain async generator function."""
    checked_callback(lifespan, option="lifespan_with", takes="(app) -> async context manager")
    if inspect.isasyncgenfunction(lifespan):
        name = cast("object", getattr(lifespan, "__name__", "it"))
        raise ConfigurationError(f"lifespan_with: {name} is an async generator; write @asynccontextmanager above it.")
