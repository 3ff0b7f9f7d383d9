"""Starts the servers and clients of other projects as processes, and says when they are not installed."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import json
import os
import select
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import pytest

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping, Sequence

__all__ = ["compiled", "imported", "node", "python", "result_of", "running", "unavailable"]

PROGRAMS = Path(__file__).parent / "programs"
REQUIRED = "TOKENMW_REQUIRE_SERVERS"
"""The environment variable that makes a missing server a failure, as CI does."""
START_SECONDS = 30.0
GO_PACKAGES = Path("/usr/share/gocode")
"""Where Debian's packages of Go libraries are."""
COMPILE_SECONDS = 300.0


def unavailable(reason: str) -> NoReturn:
    """Skip the test; fail it where the servers are required."""
    if os.environ.get(REQUIRED) == "1":
        pytest.fail(f"{reason} ({REQUIRED}=1)", pytrace=False)
    pytest.skip(reason, allow_module_level=True)


def imported(module: str) -> Any:
    """Import a module of the extra `sdk`; skip the tests of the module that calls this if it is not installed."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError:
        unavailable(f"{module} is not installed: pip install -e '.[sdk]'")


def node(program: str) -> list[str]:
    """Return the command of a program for Node.js, which uses the packages of `package.json`."""
    executable = shutil.which("node")
    if executable is None:
        unavailable("Node.js is not installed")
    if not (PROGRAMS.parent / "node_modules").is_dir():
        unavailable("the npm packages are not installed: npm ci --prefix tests/interop")
    return [executable, str(PROGRAMS / program)]


def compiled(program: str, *, package: str, directory: Path) -> list[str]:
    """Compile a Go program in a directory, with Debian's copy of a package, and return its command."""
    executable = shutil.which("go")
    if executable is None or not (GO_PACKAGES / "src" / package).is_dir():
        unavailable(f"Go or {package} is not installed: apt-get install golang-go golang-golang-x-oauth2-dev")
    made = directory / Path(program).stem
    environment = {
        **_environment(),
        "CGO_ENABLED": "0",  # there may be no C compiler
        "GO111MODULE": "off",
        "GOCACHE": str(directory / "cache"),
        "GOFLAGS": "",
        "GOPATH": str(GO_PACKAGES),
    }
    command = [executable, "build", "-o", str(made), str(PROGRAMS / program)]
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=COMPILE_SECONDS, check=False
    )
    assert 0 == done.returncode, done.stderr
    return [str(made)]


def python(program: str, *, modules: Sequence[str]) -> list[str]:
    """Return the command of a Python program, which uses these modules of the extra `sdk`."""
    for module in modules:
        if not _is_installed(module):
            unavailable(f"{module} is not installed: pip install -e '.[sdk]'")
    # The packages warn of their own deprecated parts, which is not what these tests are about.
    return [sys.executable, "-W", "ignore", str(PROGRAMS / program)]


@contextlib.contextmanager
def running(command: Sequence[str], **options: Any) -> Generator[str]:
    """Start a server, and yield its URL, the only line that it prints."""
    process = subprocess.Popen([*command, json.dumps(options)], stdout=subprocess.PIPE, env=_environment(), text=True)
    assert process.stdout is not None
    try:
        ready, _, _ = select.select([process.stdout], [], [], START_SECONDS)
        url = process.stdout.readline().strip() if ready else ""
        if not url:
            pytest.fail(f"{Path(command[-1]).name} has not started within {START_SECONDS:.0f} s", pytrace=False)
        yield url
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def result_of(command: Sequence[str], *, environment: Mapping[str, str] | None = None, **options: Any) -> Any:
    """Run a client, and return the JSON value that it prints last."""
    variables = {**_environment(), **(environment or {})}
    done = subprocess.run(
        [*command, json.dumps(options)], env=variables, capture_output=True, text=True, timeout=60, check=False
    )
    assert 0 == done.returncode, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def _is_installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # the package that it is in is missing
        return False


def _environment() -> dict[str, str]:
    # A proxy of this machine must not be asked for a server on it.
    return {**os.environ, "NO_PROXY": "*", "no_proxy": "*"}
