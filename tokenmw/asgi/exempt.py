"""The requests that the middleware serves without a check of the caller: `exempt=…`, and CORS preflights.

Paths are compared as the application routes them, decoded and below the `root_path`. A request whose path can be
understood in two ways is never exempt: what this module takes for a file below `/static/`, an application or a proxy
may take for `/admin`.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING, Any, Final

from starlette.requests import HTTPConnection

from tokenmw.errors import ConfigurationError
from tokenmw.options import checked_callback, checked_strings
from tokenmw.redaction import Unpicklable

if TYPE_CHECKING:
    from starlette.types import Scope

__all__ = ["Exempt", "ExemptOption", "is_preflight"]

ExemptOption = Iterable[str] | Callable[[HTTPConnection], bool | Awaitable[bool]]

_OPTION: Final = "TokenMiddleware(exempt=…)"
# Empty segments, `.` and `..` (some servers ignore what follows a semicolon), escapes that were escaped themselves,
# backslashes, control characters, and what servers make of bytes that are not UTF-8.
_AMBIGUOUS: Final = re.compile(r"//|/\.{1,2}(?:[/;]|$)|[%\\\x00-\x1f\x7f\ud800-\udfff\ufffd]")
_ENCODED_SLASH: Final = re.compile(rb"%2f|%5c", re.IGNORECASE)


class Exempt(Unpicklable):
    """Decides which requests are exempt.

    Args:
        exempt: Paths, `"/docs"` for itself or `"/static/*"` for all below, or a callable `(connection) -> bool`.

    Raises:
        ConfigurationError: A path cannot work, or would exempt everything.
    """

    __slots__ = ("_decide", "_paths", "_prefixes")

    def __init__(self, exempt: ExemptOption) -> None:
        self._decide: Callable[[HTTPConnection], Any] | None = None
        if callable(exempt):
            checked_callback(exempt, option=_OPTION, takes="(connection) -> bool")
            self._decide, exempt = exempt, ()
        paths = [_checked_path(path) for path in checked_strings(exempt, option=_OPTION, of="paths")]
        self._paths = frozenset(path for path in paths if not path.endswith("*"))
        self._prefixes = tuple(path[:-1] for path in paths if path.endswith("*"))

    @property
    def by_callable(self) -> bool:
        """Whether only the program's callable can decide."""
        return self._decide is not None

    def covers_path(self, scope: Scope) -> bool:
        """Return whether the path of a connection is exempt. It is on the warm path of a middleware with `exempt`."""
        path: str = scope["path"]
        root: str = scope.get("root_path", "")
        # The path as starlette's routes see it.
        below = path[len(root) :] if root and (path == root or path.startswith(f"{root}/")) else path
        return (below in self._paths or below.startswith(self._prefixes)) and not (
            _AMBIGUOUS.search(path) or _ENCODED_SLASH.search(scope.get("raw_path") or b"")
        )

    async def covers(self, scope: Scope) -> bool:
        """Return whether a connection is exempt.

        Raises:
            ConfigurationError: The callable returned neither True nor False.
            Exception: The callable raised it.
        """
        if self._decide is None:
            return self.covers_path(scope)
        exempt = self._decide(HTTPConnection(scope))
        if inspect.isawaitable(exempt):
            exempt = await exempt
        if exempt is not True and exempt is not False:
            raise ConfigurationError(f"{_OPTION} must return True or False, not {type(exempt).__name__}.")
        return exempt


def is_preflight(scope: Scope) -> bool:
    """Return whether a request is a CORS preflight (Fetch, "CORS-preflight request"), which never has an API key."""
    if scope["type"] != "http" or scope["method"] != "OPTIONS":
        return False
    names = {name for name, value in scope["headers"] if value.strip()}  # browsers send none of the two empty
    return b"origin" in names and b"access-control-request-method" in names


def _checked_path(path: object) -> str:
    if not isinstance(path, str):
        raise ConfigurationError(
            f"{_OPTION}: {path!r} is not a path; for a pattern, pass a callable (connection) -> bool."
        )
    if not path.startswith("/"):
        raise ConfigurationError(f"{_OPTION}: {path!r} can match nothing, because a path begins with a slash.")
    if path == "/*":
        raise ConfigurationError(
            f"{_OPTION}: {path!r} exempts every path. To check no caller, leave out authenticate and missing_key."
        )
    if "*" in path.removesuffix("/*"):
        raise ConfigurationError(
            f'{_OPTION}: {path!r} has a * that is not its last segment. "/static/*" exempts all paths below it; for '
            "another pattern, pass a callable (connection) -> bool."
        )
    if "{" in path:
        raise ConfigurationError(
            f"{_OPTION}: {path!r} is a pattern, and paths are compared as texts: pass a callable (connection) -> bool."
        )
    if _AMBIGUOUS.search(path) or "?" in path or "#" in path:
        raise ConfigurationError(
            f"{_OPTION}: {path!r} can match nothing: write the decoded path, without a query, and without empty "
            "segments, dots as segments, backslashes and control characters."
        )
    return path
