"""The parts of a provider's identity: what tells its token from every other one, here and in Redis."""

from __future__ import annotations

import inspect
from typing import Final, cast

from tokenmw.errors import ConfigurationError

__all__ = ["checked_identity", "kinds_of"]

_KINDS: Final = (bool, int, float, str, bytes)  # bool first: it is an int


def checked_identity(given: object, *, owner: str) -> tuple[object, ...]:
    """Return what `identity` has given, if Redis keys can be made of it: told without Redis, too.

    Raises:
        ConfigurationError: It is no tuple, or a part is of another type than those; the text shows no part.
    """
    if inspect.iscoroutine(given):
        given.close()
    if not isinstance(given, tuple):
        raise ConfigurationError(
            f"{owner}.identity must be a plain `def` that returns a tuple, such as (self._client_id, self._secret), "
            f"not {type(given).__name__}."
        )
    parts = cast("tuple[object, ...]", given)
    for number, part in enumerate(parts):
        if isinstance(part, tuple):
            checked_identity(cast("object", part), owner=owner)
        elif part is not None and not isinstance(part, _KINDS):
            raise ConfigurationError(
                f"{owner}.identity: part {number} is a {type(part).__name__}; parts are str, bytes, int, float, bool, "
                "None, and tuples of those, so pass its text."
            )
    return parts


def kinds_of(parts: tuple[object, ...]) -> tuple[object, ...]:
    """Return the kinds of the parts: 1, 1.0 and True are equal, and not the same."""
    return tuple(
        kinds_of(cast("tuple[object, ...]", part))
        if isinstance(part, tuple)
        else next((kind for kind in _KINDS if isinstance(part, kind)), None)
        for part in parts
    )
