"""A check of the names in `provider_token(…)`, when the application starts and not when a request fails.

FastAPI keeps the dependencies of each route as a tree. It is read by the names of its attributes, so that the core does
not need FastAPI. An application that cannot be read is not checked: the same mistake is found by its first request.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, Final, NamedTuple, cast

from tokenmw.errors import ConfigurationError
from tokenmw.options import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

__all__ = ["DeclaredName", "check_declared_names"]

_MAX_OBJECTS: Final = 100_000  # applications, routers and routes that are read
_MAX_MIDDLEWARES: Final = 100  # around one application
# The function that makes these dependencies, by name, because its module imports this one.
_FACTORY: Final = ("tokenmw.asgi.dependencies", "provider_token")


class DeclaredName:
    """The base class of dependencies that name a provider.

    Attributes:
        name: The provider's name.
    """

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name


def check_declared_names(app: object, *, names: Iterable[str], other_names: Iterable[str]) -> None:
    """Raise for a route of an application that depends on a provider that no broker has.

    Mounted applications and included routers are read as well; dependencies in `dependency_overrides` are not.

    Args:
        app: The application, or a middleware around it.
        names: The names of the broker's providers, for the text.
        other_names: The names of all brokers of the program. Which broker serves a route shows only in a request.

    Raises:
        ConfigurationError: The text has the path, the name, and close matches.
    """
    known, accepted = sorted(names), {*names, *other_names}
    try:
        declarations = list(_declared_in(app))
        wrong = [declared for declared in declarations if declared.name is not None and declared.name not in accepted]
        uncalled = [declared.path for declared in declarations if declared.name is None]
    except Exception:  # noqa: BLE001  an application may be any object, with attributes that raise
        return
    if uncalled:
        # FastAPI would make a query parameter of `name`: a caller could choose the provider.
        raise ConfigurationError(
            f"{uncalled[0] or 'A route'} depends on provider_token itself: call it with the name of a provider, "
            'Depends(provider_token("crm")).'
        )
    if wrong:
        raise ConfigurationError(
            "\n".join(
                f"{declared.path or 'A route'} needs provider_token({declared.name!r}), and the broker has no such "
                f"provider{did_you_mean(declared.name or '', known)}"
                for declared in dict.fromkeys(wrong)
            )
            + f" The broker has: {', '.join(known) or 'none'}."
        )


class _Declared(NamedTuple):
    """A dependency on a provider's token; without a name, on the function that makes such dependencies."""

    path: str
    name: str | None


class _Found(NamedTuple):
    """An application, router or route, the path in front of it, and the overrides of the application it is in."""

    part: Any
    prefix: str
    overrides: Mapping[Any, Any]


def _declared_in(app: object) -> Iterator[_Declared]:
    waiting = deque([_Found(app, "", {})])
    seen: dict[int, object] = {}  # with the objects, because the id of one that is freed can become another one's
    while waiting and len(seen) < _MAX_OBJECTS:
        part, prefix, overrides = waiting.popleft()
        if id(part) in seen:
            continue
        seen[id(part)] = part
        own: Any = getattr(part, "dependency_overrides", None)
        overrides = cast("Mapping[Any, Any]", own) if isinstance(own, dict) else overrides
        path = getattr(part, "path", "")
        path = prefix + path if isinstance(path, str) else prefix
        for call in _calls(getattr(part, "dependant", None), overrides):
            if isinstance(call, DeclaredName):
                yield _Declared(path, call.name)
            elif (getattr(call, "__module__", ""), getattr(call, "__qualname__", "")) == _FACTORY:
                yield _Declared(path, None)
        waiting += (_Found(inner, path, overrides) for inner in _inside(part))


def _inside(part: Any) -> list[Any]:
    """Return the application inside a mount, host or middleware, or the routes of an application or router."""
    app = getattr(part, "app", None)
    for _ in range(_MAX_MIDDLEWARES):
        if app is None or hasattr(app, "routes"):
            break
        app = getattr(app, "app", None)
    if hasattr(app, "routes"):
        return [app]  # a mount has the routes as well, but not the overrides
    # FastAPI's included router has its routes only together with what the inclusion adds to them.
    candidates = getattr(part, "effective_candidates", None)
    given = candidates() if callable(candidates) else getattr(part, "routes", None)
    routes = cast("list[Any] | None", given)
    return routes if isinstance(routes, list) else []


def _calls(dependant: Any, overrides: Mapping[Any, Any]) -> Iterator[Any]:
    """Yield the functions of a dependency and of those below it, without the overridden ones."""
    waiting = [] if dependant is None else [dependant]
    while waiting:
        one = waiting.pop()
        if one.call not in overrides:
            yield one.call
            waiting += one.dependencies
