"""A test that leaks tasks, causes warnings or stops the shared server fails."""

from __future__ import annotations

import os
import subprocess
import sys
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import PROCESSES, pytest_cmdline_main

ROOT = Path(__file__).parents[1]
DEFAULT_MARKS = "not soak and not campaign and not compat"


@pytest.fixture
def first_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Be the process that a command starts, whatever runs this test."""
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)
    monkeypatch.setattr(sys, "dont_write_bytecode", False)


def command(*arguments: str, directory: Path = ROOT, **options: Any) -> Any:
    """Return the configuration that pytest makes of a command: what the hook below reads of it."""
    option = {"keyword": "", "markexpr": DEFAULT_MARKS, "usepdb": False, "trace": False, "capture": "fd"}
    option |= {"numprocesses": None, "dist": "no"} | options
    return Namespace(
        args=arguments or ["tests"],
        option=Namespace(**option),
        invocation_params=Namespace(dir=directory),
        getini={"addopts": ["-m", DEFAULT_MARKS]}.__getitem__,
    )


@pytest.mark.parametrize(
    "config",
    [command(), command("tests"), command("."), command(str(ROOT / "tests")), command(".", directory=ROOT / "tests")],
)
def test_the_whole_suite_runs_in_several_processes(config: Any, first_process: None) -> None:
    """All tests of a module run in the same process, because they share fixtures."""
    pytest_cmdline_main(config)
    assert PROCESSES == config.option.numprocesses
    assert "loadfile" == config.option.dist


@pytest.mark.parametrize(
    "config",
    [
        command("tests/redis"),
        command("tests", "tests/redis"),
        command("tests/test_conftest.py::test_of_this_name"),
        command(keyword="msal"),
        command(markexpr="sdk"),
        command(markexpr="campaign"),
        command(usepdb=True),
        command(trace=True),
        command(capture="no"),
    ],
)
def test_selected_and_watched_tests_run_in_one_process(config: Any, first_process: None) -> None:
    """A second process takes seconds to start, and has no terminal for a debugger or for what a test prints."""
    pytest_cmdline_main(config)
    assert config.option.numprocesses is None


@pytest.mark.parametrize("number", [0, 4])
def test_a_number_of_processes_in_the_command_is_kept(number: int, first_process: None) -> None:
    """`-n 0` runs the whole suite in one process."""
    config = command(numprocesses=number)
    pytest_cmdline_main(config)
    assert (number, "no") == (config.option.numprocesses, config.option.dist)


def test_one_of_several_processes_starts_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each process has the command's arguments, and would otherwise start processes of its own."""
    monkeypatch.setenv("PYTEST_XDIST_WORKER", "gw0")
    config = command()
    pytest_cmdline_main(config)
    assert config.option.numprocesses is None


def test_a_whole_run_compiles_once_where_no_bytecode_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Child processes have a common cache outside of the source tree, as long as the run lasts."""
    made: list[str] = []
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    monkeypatch.setenv("PYTHONPYCACHEPREFIX", "")

    def register(_remove: object, directory: str, **_options: object) -> None:
        made.append(directory)

    monkeypatch.setattr("atexit.register", register)
    pytest_cmdline_main(command("tests/redis"))
    assert [] == made
    pytest_cmdline_main(command())
    assert made == [os.environ["PYTHONPYCACHEPREFIX"]]
    assert "PYTHONDONTWRITEBYTECODE" not in os.environ
    Path(made[0]).rmdir()


def test_a_run_without_the_plugin_is_one_process(first_process: None) -> None:
    """The options of pytest-xdist are then missing."""
    config = command()
    del config.option.numprocesses
    pytest_cmdline_main(config)
    assert "no" == config.option.dist


def run(tmp_path: Path, *, sample: str) -> str:
    """Run a sample with the fixtures and configuration of this test suite, and return the output of pytest."""
    file = tmp_path / "test_sample.py"
    # Of the plugin's fixtures, anyio's own is found first, which would also take trio where that is installed.
    backend = "@pytest.fixture\ndef anyio_backend():\n    return 'asyncio'\n"
    file.write_text("import asyncio\nimport pytest\n" + backend + sample)
    line = [sys.executable, "-m", "pytest", "-c", str(ROOT / "pyproject.toml"), "--rootdir", str(tmp_path)]
    line += ["-p", "tests.conftest", "-p", "no:cacheprovider", "-q", str(file)]
    return subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=False).stdout


def test_a_leaked_task_is_an_error(tmp_path: Path) -> None:
    """The error has the name of the task, and the next test passes."""
    output = run(
        tmp_path,
        sample="""
async def test_leaks():
    keep.append(asyncio.create_task(asyncio.sleep(60), name="forgotten"))

async def test_is_clean():
    await asyncio.create_task(asyncio.sleep(0))

keep = []
""",
    )
    assert "forgotten" in output
    assert "2 passed, 1 error" in output


def test_a_task_that_a_fixture_cancels_or_that_finishes_is_no_leak(tmp_path: Path) -> None:
    """A task may run until its fixture is closed, or finish shortly after its test. Sync tests have no event loop."""
    output = run(
        tmp_path,
        sample="""
@pytest.fixture
async def background():
    task = asyncio.create_task(asyncio.sleep(60))
    yield
    task.cancel()

async def test_with_a_fixture(background):
    pass

async def test_with_a_task_that_finishes():
    keep.append(asyncio.create_task(asyncio.sleep(0.01)))

def test_without_a_loop(request):
    assert "anyio_backend" not in request.fixturenames
    with pytest.raises(RuntimeError):
        asyncio.get_running_loop()

keep = []
""",
    )
    assert "3 passed in" in output


def test_a_warning_is_a_failure(tmp_path: Path) -> None:
    """A test with a coroutine that was never awaited fails."""
    output = run(
        tmp_path,
        sample="""
def test_forgets_to_await():
    asyncio.sleep(0)
""",
    )
    assert "never awaited" in output
    assert "1 failed" in output


def test_a_test_that_stops_the_shared_server_is_an_error(tmp_path: Path) -> None:
    """The error names the fixture to use instead, and the next test has a running server."""
    output = run(
        tmp_path,
        sample="""
def test_kills(redis_server):
    redis_server.kill()

def test_uses_the_server(redis_server):
    assert redis_server.command("PING") == "PONG"
""",
    )
    assert "Use private_redis for outages" in output
    assert "2 passed, 1 error" in output


def test_a_blocking_call_of_the_package_is_an_error(tmp_path: Path) -> None:
    """The call raises, and the test fails even if the package handles what was raised. A test may block as it likes."""
    output = run(
        tmp_path,
        sample="""
import time
from tokenmw import TokenBroker, singleflight
from tokenmw.providers import StaticToken

def block():
    time.sleep(0.001)

async def test_calls_the_package(monkeypatch):
    # Compiled as a function of the package.
    code = "def block():\\n    try:\\n        time.sleep(0)\\n    except Exception:\\n        pass\\n"
    exec(compile(code, singleflight.__file__, "exec"), {"__name__": "tokenmw.singleflight", "time": time}, keep)
    keep["block"]()

async def test_blocks_itself():
    block()

async def test_blocks_in_a_function_that_the_package_calls():
    def token():
        block()
        return "t"
    async with TokenBroker({"crm": StaticToken(token)}) as broker:
        assert (await broker.token("crm")).value == "t"

keep = {}
""",
    )
    assert "time.sleep" in output
    assert "The event loop was blocked" in output
    assert "3 passed, 1 error" in output
