"""Secrets that are kept elsewhere and change while the program runs: files, environment variables, vaults.

A source is read for each token request, which is once in a token's lifetime, and never on the event loop. If the
provider refuses what was read, the source is read again: the secret may just have been changed.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeAlias, cast

from tokenmw.errors import ConfigurationError, TokenUnavailable
from tokenmw.options import credential_text, secret_text
from tokenmw.providers.base import call_credential
from tokenmw.redaction import FrozenValue, HiddenStr, without_locals

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["EnvSecret", "FileSecret", "Secret", "SecretSource"]

_MAX_SECRETS: Final = 4
_MAX_BYTES: Final = 64 << 10  # of a file
_READ_SECONDS: Final = 3.0  # less than `Limits.fetch_seconds`, so that the error names the file
_READS: Final[dict[Path, Future[str]]] = {}
_LOCK: Final = threading.Lock()


class SecretSource(FrozenValue):
    """A secret that a function returns, such as one that reads a vault.

    >>> async def read_vault() -> str:
    ...     return "…"
    >>> SecretSource(read_vault, credential_id="vault:kv/crm")
    SecretSource(credential_id='vault:kv/crm')

    It goes where a secret goes: `client_secret=SecretSource(…)`, `app_secret=SecretSource(…)`. Tokens belong to the
    source and not to the text that it returns: those that the old secret has obtained stay in use after a change.

    Args:
        function: Returns the secret, or while it is changed a list: the new one and the old one. Sync or async; it is
            called for each token request. A sync function must not block, as it is called on the event loop.
        credential_id: A name for what the function reads. Two sources with one name are one credential.

    Raises:
        ConfigurationError: It is not callable, or the name is missing.
    """

    __slots__ = ("_function", "credential_id")

    credential_id: str
    _function: Callable[[], Any]

    def __init__(
        self, function: Callable[[], str | Sequence[str] | Awaitable[str | Sequence[str]]], *, credential_id: str
    ) -> None:
        name = type(self).__name__
        if not callable(function):
            raise ConfigurationError(f"{name} takes a function that returns the secret, not {_kind_of(function)}.")
        object.__setattr__(self, "_function", function)
        object.__setattr__(self, "credential_id", credential_text(credential_id, option=f"{name}(credential_id=…)"))

    @without_locals
    async def read(self) -> tuple[HiddenStr, ...]:
        """Return the secret or secrets as they are now, in order of preference.

        Raises:
            TokenUnavailable: They cannot be read, or are no secrets. The text has no part of them.
        """
        given = await call_credential(self._function, option=repr(self))
        listed = list(cast("Iterable[object]", given)) if isinstance(given, (list, tuple)) else [given]
        if not 0 < len(listed) <= _MAX_SECRETS:
            raise TokenUnavailable(f"{self!r} returned {len(listed)} secrets: it must return 1 to {_MAX_SECRETS}")
        return tuple(dict.fromkeys(_checked(one, source=repr(self)) for one in listed))

    def __repr__(self) -> str:
        return f"{type(self).__name__}(credential_id={self.credential_id!r})"


class FileSecret(SecretSource):
    """A secret in a file, as Kubernetes and Docker mount them. A newline after it is no part of it.

    >>> FileSecret("/run/secrets/crm")
    FileSecret('/run/secrets/crm')

    The path is opened anew at each read, in a thread, so that a file or link that was replaced is noticed.

    Args:
        path: The file's path.
        credential_id: A name for the secret, if instances have it at different paths. Default: the path.

    Raises:
        ConfigurationError: The path is empty.
    """

    __slots__ = ("_path",)

    _path: Path

    def __init__(self, path: str | os.PathLike[str], *, credential_id: str | None = None) -> None:
        given: object = path
        if not isinstance(given, (str, os.PathLike)) or not os.fspath(path):
            raise ConfigurationError(f"FileSecret takes the path of a file, not {_kind_of(given)}.")
        object.__setattr__(self, "_path", Path(path))
        super().__init__(self._read, credential_id=f"file:{path}" if credential_id is None else credential_id)

    async def _read(self) -> str:
        try:
            async with asyncio.timeout(_READ_SECONDS):
                return await asyncio.shield(asyncio.wrap_future(_reading(self._path)))
        except TimeoutError:
            text = f"{self!r} was not read within {_READ_SECONDS:g} s: is its file system available?"
        raise TokenUnavailable(text)

    def __repr__(self) -> str:
        return f"FileSecret({str(self._path)!r})"


class EnvSecret(SecretSource):
    """A secret in an environment variable, read at each token request and not at construction.

    >>> EnvSecret("CRM_SECRET")
    EnvSecret('CRM_SECRET')

    Args:
        name: The variable's name.

    Raises:
        ConfigurationError: The name is empty or has a `=`.
    """

    __slots__ = ("_name",)

    _name: str

    def __init__(self, name: str) -> None:
        if "=" in credential_text(name, option="EnvSecret(name)"):
            raise ConfigurationError("EnvSecret takes the name of a variable, not its value.")
        object.__setattr__(self, "_name", name)
        super().__init__(self._read, credential_id=f"env:{name}")

    def _read(self) -> str:
        value = os.environ.get(self._name)
        if value is None:
            raise TokenUnavailable(f"{self!r}: the environment variable is not set: set it for this process")
        return value

    def __repr__(self) -> str:
        return f"EnvSecret({self._name!r})"


Secret: TypeAlias = str | Sequence[str] | SecretSource
"""What a provider takes as its secret: text, while it is changed `[new, old]`, or where to read it."""


def _reading(path: Path) -> Future[str]:
    """Return the read of a file: one at a time, in a thread of its own, because a mount may hang for ever."""
    with _LOCK:
        reading = _READS.get(path)
        if reading is None:
            reading = _READS[path] = Future()
            threading.Thread(target=_read_into, args=(reading, path), name="tokenmw secret", daemon=True).start()
        return reading


def _read_into(reading: Future[str], path: Path) -> None:
    try:
        text = _text_of(path)
    except TokenUnavailable as error:
        _end_read(path)
        reading.set_exception(error)
    else:
        _end_read(path)
        reading.set_result(text)


def _end_read(path: Path) -> None:
    with _LOCK:
        _READS.pop(path, None)


def _text_of(path: Path) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_BYTES + 1)
    except OSError as error:
        raise TokenUnavailable(
            f"FileSecret({str(path)!r}) cannot be read: {error.strerror or type(error).__name__}; check the path and "
            f"its rights"
        ) from None
    if len(content) > _MAX_BYTES:
        raise TokenUnavailable(f"FileSecret({str(path)!r}) has more than {_MAX_BYTES} bytes: is it the right file?")
    try:
        return content.decode().rstrip("\r\n")
    except UnicodeDecodeError:
        text = f"FileSecret({str(path)!r}) holds bytes that are not UTF-8: is it the right file?"
        raise TokenUnavailable(text) from None


def _checked(given: object, *, source: str) -> HiddenStr:
    try:
        return HiddenStr(secret_text(given, option=source))
    except ConfigurationError as error:
        # The secret is wrong now; it may be right at the next read.
        raise TokenUnavailable(str(error)) from None


def _kind_of(given: object) -> str:
    return f"a {type(given).__name__}" if given or not isinstance(given, str) else "an empty text"
