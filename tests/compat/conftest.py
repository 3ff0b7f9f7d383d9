"""Fixtures: the version before, installed in its own environment, and worlds for both versions."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
from collections.abc import AsyncGenerator
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

from tests.compat.sides import Version, World, world_of
from tests.servers import RedisServer

COMMIT = "61f244d3652de605e95d94c3081e0b628684cf40"
"""The last commit before the package was restructured."""
HISTORY = "TOKENMW_HISTORY"
"""The environment variable that names the repository, where the tests run in a copy of the tree without it."""

OPTIONS: dict[str, dict[str, Any]] = {
    "sealed": {"secret_key": "a secret for the tests only"},
    "unsealed": {},
}


def archive() -> bytes:
    """Return the files of the version before as a tar file; skip where its commit is missing, as in a shallow clone."""
    repository = os.environ.get(HISTORY) or str(Path(__file__).parents[2])
    command = ["git", "-c", "safe.directory=*", "-C", repository, "archive", "--format=tar", COMMIT]
    try:
        return subprocess.run(command, capture_output=True, check=True).stdout
    except OSError as error:
        reason = str(error)
    except subprocess.CalledProcessError as error:
        reason = error.stderr.decode(errors="replace").strip()
    pytest.skip(f"Commit {COMMIT[:7]} is not available in {repository} ({reason}). Set {HISTORY} to a full clone.")


@pytest.fixture(scope="session")
def old_python(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The interpreter of an environment in which the version before is installed, with the extra `crypto`."""
    directory = tmp_path_factory.mktemp("before")
    source, environment = directory / "source", directory / "environment"
    with tarfile.open(fileobj=BytesIO(archive())) as files:
        files.extractall(source, filter="data")
    python = str(environment / "bin" / "python")
    subprocess.run([sys.executable, "-m", "venv", environment], check=True)
    pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", f"{source}[crypto]"]
    subprocess.run(pip, check=True, timeout=300)
    return python


@pytest.fixture(params=OPTIONS)
async def world(request: pytest.FixtureRequest, redis_server: RedisServer, old_python: str) -> AsyncGenerator[World]:
    """One Redis and one token endpoint for workers of both versions, sealed and unsealed."""
    async with world_of(redis_server, python=old_python, options=dict(OPTIONS[request.param])) as world:
        yield world


@pytest.fixture(params=OPTIONS)
async def private_world(
    request: pytest.FixtureRequest, private_redis: RedisServer, old_python: str
) -> AsyncGenerator[World]:
    """The same with a Redis that the test may kill."""
    async with world_of(private_redis, python=old_python, options=dict(OPTIONS[request.param])) as world:
        yield world


@pytest.fixture(params=["old", "new"])
def first(request: pytest.FixtureRequest) -> Version:
    """The version that changes something."""
    version: Version = request.param
    return version


@pytest.fixture
def second(first: Version) -> Version:
    """The other version, which must notice the change."""
    return "new" if first == "old" else "old"
