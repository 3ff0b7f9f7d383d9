"""Reads from the package's source each text that it can log and each word that its status can have.

Log calls are found by what they are made on (`log`, `_log` or `LOGGER`), whatever the method's name, and by the
function `warn`. In a text, `%s` and its like stand for what differs from line to line. The prefix of all lines is left
out.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import TYPE_CHECKING, Final

import tokenmw

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["log_texts", "redis_reasons", "repeated_endings", "specific_match"]

_PACKAGE: Final = Path(tokenmw.__file__).parent
_NAMES: Final = frozenset({"log", "_log", "LOGGER"})
_FUNCTION: Final = "warn"
_PLACEHOLDER: Final = re.compile(r"%[-+# 0]*\d*(?:\.\d+)?[sdrfg]")
# Programs of their own, not the library in a user's process.
_APART: Final = frozenset({"demo", "testing"})
_SERVER_CODE: Final = "WRONGPASS"
_REASON: Final = re.compile(r"[a-z]+")


def log_texts(package: Path = _PACKAGE) -> set[str]:
    """Return all log texts of a package.

    Raises:
        ValueError: A call logs something whose text cannot be read from the source.
    """
    found: set[str] = set()
    for path, tree in _modules(package):
        if _defines_logger(tree):
            continue
        constants = _constants(tree)
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and _is_log_call(node):
                texts = [text for argument in node.args for text in _texts(argument, constants)]
                sentences = {text for text in texts if " " in text}
                if node.args and not sentences:
                    raise ValueError(f"{path.name}:{node.lineno}: the text of this log call is not a constant.")
                found |= sentences
    return found


def repeated_endings() -> set[str]:
    """Return what the throttled log adds to a text: durations, counts, and a duration with a count."""
    nodes = [node for _, tree in _modules() if _defines_logger(tree) for node in ast.walk(tree)]
    inner = {part for node in nodes if isinstance(node, ast.JoinedStr) for part in node.values}
    texts = {_strings_of_f(node) for node in nodes if isinstance(node, ast.JoinedStr)}
    texts |= {node.value for node in nodes if node not in inner and _is_text(node)}  # type: ignore[attr-defined]
    durations = {text for text in texts if text.startswith(" after ")}
    counts = {text.removeprefix("%s") for text in texts if " suppressed" in text and _PLACEHOLDER.search(text)}
    return durations | counts | {duration + count for duration in durations for count in counts}


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def _strings_of_f(node: ast.JoinedStr) -> str:
    """Return the text of an f-string, with `%s` for each value that it has put in."""
    return "".join(str(part.value) if isinstance(part, ast.Constant) else "%s" for part in node.values)


def redis_reasons() -> set[str]:
    """Return the words that classify failures of Redis, from the module that knows Redis's own error codes."""
    found: set[str] = set()
    for _, tree in _modules():
        nodes = list(ast.walk(tree))
        if any(isinstance(node, ast.Constant) and node.value == _SERVER_CODE for node in nodes):
            for node in nodes:
                found |= {word for word in _words(node) if _REASON.fullmatch(word)}
        for node in nodes:
            if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("RedisUnavailable"):
                found |= {word for argument in node.args for word in _strings(argument)}
    return found


def specific_match(row: str, texts: set[str]) -> str | None:
    """Return the text that a row of the table stands for: of those that fit, the one with the most fixed characters.

    A row writes `…` for what differs, and may leave out the end of a long text by `…`.
    """
    shortened = re.compile(".*".join(map(re.escape, row.split("…"))), re.DOTALL)
    fitting = [text for text in texts if pattern(text).fullmatch(row) or shortened.fullmatch(text)]
    return max(fitting, key=lambda text: len(_PLACEHOLDER.sub("", text)), default=None)


def pattern(text: str) -> re.Pattern[str]:
    """Return a pattern of the lines that a text becomes."""
    return re.compile(".*".join(map(re.escape, _PLACEHOLDER.split(text.replace("%%", "%")))), re.DOTALL)


def _modules(package: Path = _PACKAGE) -> Iterator[tuple[Path, ast.Module]]:
    for path in sorted(package.rglob("*.py")):
        if path.relative_to(package).parts[0] not in _APART:
            yield path, ast.parse(path.read_text(encoding="utf-8"))


def _defines_logger(tree: ast.Module) -> bool:
    return any("getLogger" in ast.unparse(node) for node in tree.body if isinstance(node, (ast.Assign, ast.AnnAssign)))


def _constants(tree: ast.Module) -> dict[str, set[str]]:
    """Return the texts of a module's constants by name."""
    found: dict[str, set[str]] = {}
    for node in tree.body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        value = getattr(node, "value", None)
        if isinstance(node, (ast.Assign, ast.AnnAssign)) and isinstance(value, ast.expr):
            found |= {target.id: set(_strings(value)) for target in targets if isinstance(target, ast.Name)}
    return found


def _is_log_call(call: ast.Call) -> bool:
    if not isinstance(call.func, ast.Attribute):
        return isinstance(call.func, ast.Name) and call.func.id == _FUNCTION
    on = call.func.value
    name = on.id if isinstance(on, ast.Name) else on.attr if isinstance(on, ast.Attribute) else ""
    return name in _NAMES


def _texts(argument: ast.expr, constants: dict[str, set[str]]) -> set[str]:
    names = {node.id for node in ast.walk(argument) if isinstance(node, ast.Name)}
    known = {text for name in names for text in constants.get(name, ())}
    # What is passed on to another call is an argument of the line, not its text.
    return known | ({*_strings(argument)} if not isinstance(argument, (ast.Call, ast.JoinedStr)) else set())


def _strings(node: ast.AST) -> Iterator[str]:
    return (one.value for one in ast.walk(node) if isinstance(one, ast.Constant) and isinstance(one.value, str))


def _words(node: ast.AST) -> set[str]:
    """Return the strings that a mapping from errors to words gives, or that a function returns."""
    match node:
        case ast.Dict(values=values):
            return {word for value in values for word in _strings(value)}
        case ast.Tuple(elts=[ast.Name(), ast.Constant(value=str(word))]):
            return {word}
        case ast.Return(value=ast.Constant(value=str(word))):
            return {word}
        case ast.AnnAssign(value=ast.Constant(value=str(word))) | ast.Assign(value=ast.Constant(value=str(word))):
            return {word}
        case ast.IfExp(orelse=ast.Constant(value=str(word))):
            return {word}
        case _:
            return set()
