"""The parts of an application: what is mounted in it, its routes, and the middlewares around them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["has_middleware_of", "parts_of"]

_MAX_PARTS: Final = 100_000


def parts_of(app: object) -> Iterator[Any]:
    """Yield an application and everything inside of it, at any depth, each once."""
    waiting: list[Any] = [app]
    seen: dict[int, object] = {}  # with the objects, because the id of one that is freed can become another one's
    while waiting and len(seen) < _MAX_PARTS:
        part = waiting.pop()
        if part is None or id(part) in seen:
            continue
        seen[id(part)] = part
        yield part
        routes: Any = getattr(part, "routes", None)
        # A route without an application of its own has routes, and a middleware has the application inside it.
        waiting += [*(routes if isinstance(routes, list) else ()), getattr(part, "app", None)]


def has_middleware_of(app: object, broker: object) -> bool:
    """Return whether a broker's middleware is around an application or a mounted one.

    A mounted application builds its middlewares when it gets its first request, so those that are declared count.
    """
    try:
        for part in parts_of(app):
            declared: Any = getattr(part, "user_middleware", ())
            brokers = [one.kwargs.get("broker") for one in declared] + [getattr(part, "_broker", None)]
            if any(one is broker for one in brokers):
                return True
    except Exception:  # noqa: BLE001  an application may be any object, with attributes that raise
        return True
    return False
