"""README.md as the tests see it: its blocks, its tables, and a world in which its programs run as they stand.

The python blocks of one `##` section are one program; a comment `<!-- continues: Use -->` in front of the first one
lets it go on from the program of another section. What the blocks name (a token server, an API, Redis) is put in
their place on this machine, over real HTTP and a real Redis, by replacing the addresses in the text.
"""

from __future__ import annotations

import ast
import asyncio
import contextlib
import inspect
import re
import shutil
import socket
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route

from tokenmw.testing import ProviderServer
from tokenmw.testing.provider_server.running import running_app

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from starlette.requests import Request

README = Path(__file__).parents[1] / "README.md"
TEXT = README.read_text(encoding="utf-8")

ENVIRONMENT = {"CRM_SECRET": "the secret of the client", "TOKENMW_SECRET": "a secret that is long enough"}

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_HEADING = re.compile(r"^##+ (.+)$", re.MULTILINE)
_CONTINUES = re.compile(r"<!-- continues: (.+) -->\n\Z")


@dataclass(frozen=True)
class Block:
    """One fenced block.

    Attributes:
        language: What stands behind the opening fence.
        text: What stands between the fences.
        line: The line of the README in which the text begins.
        section: The heading that it stands under.
        continues: The section whose program comes first, or "".
    """

    language: str
    text: str
    line: int
    section: str
    continues: str


def blocks() -> list[Block]:
    """Return all fenced blocks."""
    found: list[Block] = []
    for match in _FENCE.finditer(TEXT):
        before = TEXT[: match.start()]
        directive = _CONTINUES.search(before)
        found.append(
            Block(
                language=match[1],
                text=match[2],
                line=before.count("\n") + 2,
                section=_HEADING.findall(before)[-1],
                continues=directive[1] if directive else "",
            )
        )
    return found


def block(language: str, start: str) -> str:
    """Return the text of the only block of a language that begins so."""
    (found,) = (one.text for one in blocks() if one.language == language and one.text.startswith(start))
    return found


def sections() -> dict[str, str]:
    """Return the text under each heading, without that of the headings below it; no fenced blocks."""
    parts = _HEADING.split(_FENCE.sub("", TEXT))
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def rows(section: str) -> list[list[str]]:
    """Return the cells of the table under a heading, without its head."""
    lines = [line for line in sections()[section].splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def program(section: str) -> list[Block]:
    """Return the python blocks of a section, after those that they go on from."""
    own = [block for block in blocks() if block.language == "python" and block.section == section]
    before = [one for block in own if block.continues for one in program(block.continues)]
    return before + own


def programs() -> list[str]:
    """Return the sections that have python blocks."""
    return list(dict.fromkeys(block.section for block in blocks() if block.language == "python"))


class World:
    """What the README's programs talk to.

    Attributes:
        server: The token server and the API behind the example hosts.
        replacements: What is put in place of the addresses in the text.
    """

    def __init__(self, server: ProviderServer, replacements: dict[str, str]) -> None:
        self.server = server
        self.replacements = replacements

    def text(self, text: str) -> str:
        """Return a text with the addresses of this machine."""
        for there, here in self.replacements.items():
            text = text.replace(there, here)
        return text

    @contextlib.contextmanager
    def run(self, section: str) -> Generator[Program]:
        """Run a section's program and the tests in it, and give its names."""
        with asyncio.Runner() as runner:
            running = Program(runner)
            for block in program(section):
                running.run(block, self.text(block.text))
            yield running
            leaked = asyncio.all_tasks(runner.get_loop())
            assert {task.get_name() for task in leaked} == set()


class Program:
    """A program of the README that runs in an event loop of its own, block by block.

    Attributes:
        names: Its global names.
    """

    def __init__(self, runner: asyncio.Runner) -> None:
        self._runner = runner
        self.names: dict[str, Any] = {"__name__": "readme"}

    def __getitem__(self, name: str) -> Any:
        return self.names[name]

    def run(self, block: Block, text: str) -> None:
        """Run one block, then the functions in it that pytest would run."""
        # The empty lines give a traceback the line numbers of the README.
        source = "\n" * (block.line - 1) + text
        code = compile(source, str(README), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
        before = set(self.names)
        self.call(lambda: eval(code, self.names))
        for name in set(self.names) - before:
            if name.startswith("test_"):
                self.call(self.names[name])

    def call(self, function: Callable[[], Any]) -> Any:
        """Call a function, sync or async, and return its result."""
        result = function()
        return self._runner.run(result) if inspect.iscoroutine(result) else result


@contextlib.contextmanager
def world() -> Generator[World]:
    """Serve the hosts of the examples over real HTTP. Redis is for the caller to replace."""
    server = ProviderServer(clients={"crm": ENVIRONMENT["CRM_SECRET"], "acme": "acme's secret"}, token_life=3600)
    with server.running() as base_url, running_app(_acme()) as acme_url:
        hosts = {"https://idp.example": base_url, "https://crm.example": base_url, "https://acme.example": acme_url}
        yield World(server, hosts)


def masked(line: str) -> str:
    """Return a line of the demo's table without what differs from run to run."""
    ids = re.sub(r"[0-9a-f]{8}-[0-9a-f-]{27}|…\S+", "*", line)
    return re.sub(r" +1[0-9]{2}$", " 1xx", ids)


def curl(command: list[str]) -> bytes:
    """Run a curl command and return what it prints; where there is no curl, httpx sends the same request."""
    if shutil.which("curl"):
        return subprocess.check_output(command, timeout=20)
    (name, _, value), url = command[3].partition(": "), command[4]  # curl -s -H "name: value" URL
    return httpx.get(url, headers={name: value}, trust_env=False).content


def wait_for(port: int, server: subprocess.Popen[bytes]) -> None:
    """Wait until a server that is being started listens."""
    deadline = time.monotonic() + 20
    while server.poll() is None and time.monotonic() < deadline:
        with socket.socket() as client:
            if client.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.01)
    pytest.fail(f"uvicorn did not listen within 20 s (exit code {server.poll()}).")


def _acme() -> Starlette:
    async def token(request: Request) -> JSONResponse:
        asked = await request.json()
        if asked != {"key": "k", "secret": "s"}:
            return JSONResponse({"error": "no such client"}, 401)
        return JSONResponse({"token": "acme-token", "ttl": "3600"})

    async def echo(request: Request) -> JSONResponse:
        return JSONResponse({"token": request.headers.get("x-acme-token")})

    return Starlette(routes=[Route("/token", token, methods=["POST"]), Route("/echo", echo)])
