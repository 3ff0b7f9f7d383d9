"""The scopes that a request may ask for beyond those of an app, by the program's names for them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, cast

from tokenmw.connections.flow_problem import FlowProblem
from tokenmw.connections.options import checked_scope
from tokenmw.errors import ConfigurationError
from tokenmw.options import did_you_mean
from tokenmw.redaction import FrozenValue

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["AllowedScopes"]


class AllowedScopes(FrozenValue):
    """Further scopes of each app, by name.

    Args:
        scopes: Names to scopes for each app, or None.
        apps: The names of the apps.
        option: The option's name, for error texts.

    Raises:
        ConfigurationError: It is not such a dict, or names an unknown app.
    """

    __slots__ = ("_by_app",)

    _by_app: Mapping[str, Mapping[str, str]]

    def __init__(self, scopes: object, *, apps: Iterable[str], option: str) -> None:
        by_app: dict[str, dict[str, str]] = {}
        names = list(apps)
        for app, named in _items(scopes, option=option):
            if app not in names:
                form = f'; write {{"{names[0]}": {{"NAME": "SCOPE"}}}}.' if names else "."
                raise ConfigurationError(f"{option}: there is no app {app!r}{did_you_mean(app, names)[:-1]}{form}")
            by_app[app] = {}
            for name, scope in _items(named, option=f"{option}[{app!r}]"):
                if not name or set(name) & {" ", ","}:
                    raise ConfigurationError(f"{option}[{app!r}]: {name!r} must be one word.")
                by_app[app][name] = checked_scope(scope, option=f"{option}[{app!r}][{name!r}]")
                if not by_app[app][name]:
                    raise ConfigurationError(f"{option}[{app!r}][{name!r}] is empty: name a scope, or leave it out.")
        object.__setattr__(self, "_by_app", by_app)

    def has(self, app: str) -> bool:
        """Return whether requests may ask for scopes of an app."""
        return bool(self._by_app.get(app))

    def asked(self, app: str, names: Iterable[str]) -> str:
        """Return the scopes that a request asks for, by their names, separated by spaces.

        Raises:
            FlowProblem: A name is unknown.
        """
        known, found = self._by_app.get(app, {}), list[str]()
        for name in " ".join(names).split():
            if name not in known:
                raise FlowProblem(
                    "invalid", f"the request asks for a scope that ConnectApp(scopes=…) has not for {app}"
                )
            found.append(known[name])
        return " ".join(found)

    def joined(self, app: str, *scopes: str) -> str:
        """Return all of some scopes once; of the last ones, which the user has granted before, only known ones."""
        *wanted, granted = scopes
        allowed = {scope for named in self._by_app.get(app, {}).values() for scope in named.split()}
        kept = [scope for scope in granted.split() if scope in allowed]
        return " ".join(dict.fromkeys([*" ".join(wanted).split(), *kept]))

    def __repr__(self) -> str:
        return f"<AllowedScopes of {len(self._by_app)} apps>"


def _items(given: object, *, option: str) -> list[tuple[str, object]]:
    if given is None:
        return []
    if not isinstance(given, Mapping):
        raise ConfigurationError(f"{option} must be a dict, not {type(given).__name__}.")
    items = list(cast("Mapping[object, object]", given).items())
    if not all(isinstance(name, str) for name, _ in items):
        raise ConfigurationError(f"{option} must have names that are text.")
    return cast("list[tuple[str, object]]", items)
