"""Writes examples/guides/options.md from signatures and docstrings: `python -m tests.docs.options_page`."""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, Literal, get_args, get_origin

import tokenmw
from tests.docs.pages import GUIDES
from tokenmw import connections, problems, providers
from tokenmw.status_app import StatusApp

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import ModuleType

__all__ = ["CLASSES", "PATH", "render"]

PATH: Final = GUIDES / "options.md"

# The core first, then every provider of `tokenmw.providers`.
CLASSES: Final[tuple[type, ...]] = (
    tokenmw.TokenBroker,
    tokenmw.TokenMiddleware,
    tokenmw.APIKeySource,
    tokenmw.Limits,
    StatusApp,
    providers.HTTPOptions,
    providers.PrivateKeyJWT,
    providers.DPoPKey,
    connections.Connections,
    connections.OAuthApp,
    connections.ConnectApp,
    connections.SQLStore,
    connections.RedisStore,
    *(
        made
        for made in (getattr(providers, name) for name in providers.__all__)
        if isinstance(made, type) and issubclass(made, tokenmw.Provider) and made is not tokenmw.Provider
    ),
)

_HEAD: Final = """\
# Options

Each option of each public class, with its type and its default. This page is written by
`python -m tests.docs.options_page` from the docstrings: change those and run it again.

All options are keyword-only, except the first one of {positional}. An option that
cannot work raises `ConfigurationError` when the object is made.
"""
_POSITIONAL: Final = inspect.Parameter.POSITIONAL_OR_KEYWORD
_SECTION: Final = re.compile(r"^(Args|Attributes|Raises|Returns|Yields|Example|Examples):$", re.MULTILINE)
_ENTRY: Final = re.compile(r"^    (\w+(?:, \w+)*)(?: \([^)\n]*\))?: ?(.*(?:\n(?:        .*|[ \t]*$))*)", re.MULTILINE)
# "Options are those of :class:`X`", "the same options as `X`", perhaps with ", and `name`, meaning." behind it.
_REFERENCE: Final = re.compile(r"\b(?:options|arguments)\b[^.`]*`~?\.?(\w+)`(.*)", re.DOTALL | re.IGNORECASE)


def render() -> str:
    """Return the page."""
    contents = ["", *(f"- [{made.__name__}](#{made.__name__.lower()})" for made in CLASSES), ""]
    first = [made.__name__ for made in CLASSES if next(iter(_parameters(made).values())).kind is _POSITIONAL]
    head = _HEAD.format(positional=", ".join(f"`{name}`" for name in first[:-1]) + f" and `{first[-1]}`")
    return "\n".join([head.rstrip(), *contents, *(_section(made) for made in CLASSES)]).rstrip() + "\n"


def _parameters(made: type) -> Mapping[str, inspect.Parameter]:
    return inspect.signature(made).parameters


def _section(made: type) -> str:
    described = _described(made)
    unknown = set(_entries(inspect.cleandoc(made.__doc__ or ""))) - set(_parameters(made))
    if unknown:
        raise ValueError(f"{made.__name__}: the docstring describes options that do not exist: {sorted(unknown)}.")
    lines = [f"## {made.__name__}", "", *(f"{paragraph}\n" for paragraph in _paragraphs(made))]
    lines += ["| Option | Type | Default | Meaning |", "|---|---|---|---|"]
    for name, parameter in _parameters(made).items():
        if name not in described:
            raise ValueError(f"{made.__name__}: the docstring does not describe {name!r}.")
        default = "required" if parameter.default is parameter.empty else f"`{_default(parameter.default)}`"
        cells = (f"`{name}`", f"`{_type(parameter.annotation)}`", default, _markdown(described[name]))
        lines.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
    return "\n".join([*lines, ""])


def _paragraphs(made: type) -> list[str]:
    """Return the prose of a docstring, without its examples, its sections and "Options are those of"."""
    text = _SECTION.split(inspect.getdoc(made) or "")[0]
    # A paragraph that ends in "::" introduces an example.
    found = [one for one in re.split(r"\n\s*\n", text.strip()) if not one.startswith((" ", ">>>"))]
    return [_markdown(one) for one in found if not one.endswith("::") and not _REFERENCE.match(one)]


def _described(made: type) -> dict[str, str]:
    """Return descriptions by option name, of the class itself and of those it refers to or inherits from."""
    found: dict[str, str] = {}
    for base in reversed(made.__mro__[:-1]):
        document = inspect.cleandoc(base.__dict__.get("__doc__") or "")
        reference = _REFERENCE.search(document)
        if reference is not None and isinstance(named := getattr(providers, reference[1], None), type):
            found |= _described(named)
            # "…, and `tenant_key`, the tenant's name": what the class adds is behind the reference.
            for name, meaning in re.findall(r"and `(\w+)`, ([^.]+\.)", reference[2]):
                found[name] = f"{meaning[0].upper()}{meaning[1:]}"
        found |= _entries(document)
    return found


def _entries(document: str) -> dict[str, str]:
    parts = _SECTION.split(document)
    sections = dict(zip(parts[1::2], parts[2::2], strict=True))
    text = sections.get("Args") or sections.get("Attributes") or ""
    return {name: meaning for names, meaning in _ENTRY.findall(text) for name in names.split(", ")}


def _markdown(text: str) -> str:
    """Return docstring text as one line of Markdown."""
    text = re.sub(r":\w+:`~?\.?([^`]+)`", r"`\1`", text)
    return re.sub(r"\s+", " ", text).strip()


def _default(value: Any) -> str:
    if value is problems.problem_response:
        return "problem_response"
    if isinstance(value, (tokenmw.Limits, tokenmw.APIKeySource)):
        return f"{type(value).__name__}()"
    if value is None or type(value) in (str, bool, int, float, tuple):
        return repr(value).replace("'", '"')
    for module in _modules():
        for name, one in vars(module).items():
            if one is value and name.isupper():
                return name
    return type(value).__name__


def _type(annotation: Any) -> str:
    """Return an annotation as text, with the package's own aliases written out."""
    text = annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)
    text = re.sub(r"Literal\[['\"](\w+)['\"]\]", r'"\1"', text)  # one choice beside an alias
    return re.sub(r"\b[A-Z]\w+\b", lambda found: _alias(found[0]), text).replace("'", "")


def _alias(name: str) -> str:
    for module in _modules():
        alias = getattr(module, name, None)
        if get_origin(alias) is Literal:
            return " | ".join(f'"{choice}"' for choice in get_args(alias))
        if get_origin(alias) is Callable:
            return re.sub(r"\b(?:[a-z_]\w*\.)+", "", repr(alias))
        if isinstance(alias, str):  # of classes that are imported for type checkers only
            return alias
    return name


def _modules() -> list[ModuleType]:
    return [module for name, module in sorted(sys.modules.items()) if name.startswith("tokenmw.")]


if __name__ == "__main__":
    PATH.write_text(render(), encoding="utf-8")
