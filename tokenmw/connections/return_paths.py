"""Where a user may be sent after connecting an account: paths of this site, from a list of the program."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote_to_bytes

from tokenmw.errors import ConfigurationError
from tokenmw.options import checked_strings
from tokenmw.redaction import FrozenValue

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["ReturnPaths"]

_MAX: Final = 1_000  # characters; the path is a part of the cookie
_VISIBLE: Final = re.compile(r"/[!-~]*", re.ASCII)
# What a browser or a proxy could take for another host or path: `//host`, `/\host`, dots as segments, and each of these
# with escapes, also with escapes of escapes.
_AMBIGUOUS: Final = re.compile(rb"//|\\|/\.{1,2}(?:[/;?]|$)|[\x00-\x20\x7f-\xff%]")


class ReturnPaths(FrozenValue):
    """The allowed paths.

    Args:
        paths: Paths, such as `"/settings"`, and `"/projects/*"` for all below `/projects/`. A request may add a query
            to a path.
        option: The option's name, for error texts.

    Attributes:
        default: The first path that stands for itself; "" without one.

    Raises:
        ConfigurationError: It is a lone string, or an item is no path of this site.
    """

    __slots__ = ("_paths", "_prefixes", "default")

    default: str
    _paths: frozenset[str]
    _prefixes: tuple[str, ...]

    def __init__(self, paths: Iterable[str], *, option: str) -> None:
        given: list[object] = list(checked_strings(paths, option=option, of="paths"))
        listed = [_checked(path, option=option) for path in given]
        exact = [path for path in listed if not path.endswith("*")]
        put = object.__setattr__
        put(self, "_paths", frozenset(exact))
        put(self, "_prefixes", tuple(path[:-1] for path in listed if path.endswith("*")))
        put(self, "default", exact[0] if exact else "")

    def allows(self, path: str) -> bool:
        """Return whether a user may be sent to a path, which may have a query.

        >>> paths = ReturnPaths(["/settings", "/projects/*"], option="return_to")
        >>> paths.allows("/settings?tab=2"), paths.allows("/projects/7"), paths.allows("//evil.example")
        (True, True, False)
        """
        if len(path) > _MAX or not _VISIBLE.fullmatch(path) or "#" in path:
            return False
        plain, _, query = path.partition("?")
        if "\\" in query or _AMBIGUOUS.search(unquote_to_bytes(plain)):
            return False
        return plain in self._paths or any(plain.startswith(prefix) for prefix in self._prefixes)

    def __repr__(self) -> str:
        return f"<ReturnPaths {sorted(self._paths)} {list(self._prefixes)}>"


def _checked(path: object, *, option: str) -> str:
    if not isinstance(path, str) or not _VISIBLE.fullmatch(path) or len(path) > _MAX:
        raise ConfigurationError(f'{option}: {path!r} is not a path of this site, such as "/settings".')
    if any(part in path for part in ("?", "#", "%")) or _AMBIGUOUS.search(path.encode()):
        raise ConfigurationError(
            f"{option}: {path!r} must be a plain path without a query, escapes, backslashes, empty segments and dots."
        )
    if path == "/*":
        raise ConfigurationError(f"{option}: {path!r} would allow every path: list those that users return to.")
    if "*" in path.removesuffix("/*"):
        raise ConfigurationError(f'{option}: {path!r} has a * that is not its last segment, as in "/projects/*".')
    return path
