"""A world in which the programs of the documents run as they stand.

The python blocks of one `##` section are one program. A comment `<!-- continues: Use -->` in front of a block, or
`<!-- continues: README.md: Use -->`, runs the program of that section first. The hosts that the blocks name (a token
server, an API, Redis) are replaced by servers on this machine, over real HTTP and a real Redis, by replacing the
addresses in the text.
"""

from __future__ import annotations

import ast
import asyncio
import contextlib
import inspect
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

from tests.docs.pages import program
from tests.providers.private_keys import make_key, pem_of
from tokenmw.testing import ProviderServer

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from tests.docs.pages import Block, Page

__all__ = ["ENVIRONMENT", "Program", "World", "world"]

ENVIRONMENT = {
    "CRM_SECRET": "the secret of the client",
    "CRM_KEY": pem_of(make_key("P-256")),
    "TOKENMW_SECRET": "a secret that is long enough",
}


class World:
    """What the programs of the documents talk to.

    Attributes:
        server: The token server and the API behind the example hosts.
        replacements: Addresses in the texts, and the addresses on this machine that replace them.
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
    def run(self, page: Page, section: str) -> Generator[Program]:
        """Run a section's program and the tests in it, and give its names."""
        with asyncio.Runner() as runner:
            running = Program(runner)
            for block in program(page, section):
                running.run(block, self.text(block.text))
            yield running
            leaked = asyncio.all_tasks(runner.get_loop())
            assert {task.get_name() for task in leaked} == set()


class Program:
    """A program of a document that runs in an event loop of its own, block by block.

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
        # The empty lines give a traceback the line numbers of the document.
        source = "\n" * (block.line - 1) + text
        code = compile(source, block.page, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
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
    with server.running() as base_url, _acme() as acme_url:
        hosts = {"https://idp.example": base_url, "https://crm.example": base_url, "https://acme.example": acme_url}
        yield World(server, hosts)


class _Acme(BaseHTTPRequestHandler):
    """The token server and the API of the provider that a guide writes."""

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        if asked == {"key": "k", "secret": "s"}:
            self._answer(200, {"token": "acme-token", "ttl": "3600"})
        else:
            self._answer(401, {"error": "no such client"})

    def do_GET(self) -> None:
        self._answer(200, {"token": self.headers.get("x-acme-token")})

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Keep requests out of the output of the tests."""

    def _answer(self, status: int, answer: dict[str, Any]) -> None:
        body = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@contextlib.contextmanager
def _acme() -> Generator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Acme) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()
