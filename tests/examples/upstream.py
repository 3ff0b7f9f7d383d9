"""A model's API whose responses the test controls, and the examples as separate processes in front of it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import subprocess
import sys
import threading
from collections.abc import AsyncGenerator, Generator
from pathlib import Path

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from tokenmw.testing import ProviderServer
from tokenmw.testing.provider_server.latch import Latch
from tokenmw.testing.provider_server.running import running_app

ROOT = Path(__file__).parents[2]
WITHIN = 30.0
"""Seconds until a test gives up waiting for an event that takes milliseconds."""
CLIENT = {"MODEL_CLIENT_ID": "gateway", "MODEL_CLIENT_SECRET": "gateway-secret"}


class Model:
    """`POST /v1/chat/completions`, as an ASGI application.

    Attributes:
        requests: Headers and body of each request.
        begins: Each response waits for it before its head.
        continues: Each response waits for it after its first event.
        closed: Set when a response is complete or was broken off.
        refusal: A response instead of a stream, or None.
        breaks_off: Whether each response breaks off after its first event.
    """

    def __init__(self) -> None:
        self.requests: list[tuple[dict[str, str], bytes]] = []
        self.begins = Latch()
        self.begins.set()
        self.continues = Latch()
        self.closed = Latch()
        self.refusal: Response | None = None
        self.breaks_off = False
        self.app = Starlette(routes=[Route("/v1/chat/completions", self.complete, methods=["POST"])])

    async def complete(self, request: Request) -> Response:
        """Respond with two events, of which the second waits for the test."""
        self.requests.append((dict(request.headers), await request.body()))
        await self._begin(request)
        if self.refusal is not None:
            return self.refusal
        return StreamingResponse(self._events(), media_type="text/event-stream")

    async def _begin(self, request: Request) -> None:
        begins = asyncio.ensure_future(self.begins.wait())
        disconnect = asyncio.ensure_future(request.receive())
        _, waiting = await asyncio.wait({begins, disconnect}, return_when=asyncio.FIRST_COMPLETED)
        if disconnect not in waiting:
            self.closed.set()
        for task in waiting:
            task.cancel()
            await asyncio.wait({task})

    async def _events(self) -> AsyncGenerator[bytes]:
        try:
            yield b"data: one\n\n"
            await self.continues.wait()
            if self.breaks_off:
                raise ConnectionResetError
            yield b"data: two\n\n"
        finally:
            self.closed.set()

    def seen(self, name: str) -> list[str]:
        """Return one header of all requests so far, in order."""
        return [headers[name] for headers, _ in self.requests]


@contextlib.contextmanager
def running_example(module: str, *, model: Model, tokens: ProviderServer, **others: str) -> Generator[str]:
    """Run an example with uvicorn, as its docstring says, and yield its host and port; `others` are settings."""
    with running_app(model.app) as model_url, tokens.running() as token_url:
        settings = {**CLIENT, "MODEL_URL": model_url, "MODEL_TOKEN_URL": f"{token_url}/oauth2/token", **others}
        with subprocess.Popen(
            [sys.executable, "-m", "uvicorn", f"examples.{module}:app", "--port", "0"],
            cwd=ROOT,
            env={**os.environ, **settings},
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            log = _Log(process)
            try:
                yield log.address
            finally:
                # A response that still waits in the model would delay the shutdown.
                model.begins.set()
                model.continues.set()
                process.terminate()
                log.join()


class _Log(threading.Thread):
    """Reads uvicorn's output, so that the pipe never fills."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        super().__init__(name="uvicorn's log")
        assert process.stderr is not None
        self._lines = process.stderr
        self._known = threading.Event()
        self._address: str | None = None
        self._text = ""
        self.start()

    @property
    def address(self) -> str:
        """Host and port, as soon as uvicorn logs them."""
        self._known.wait(WITHIN)
        assert self._address is not None, f"The example did not start:\n{self._text}"
        return self._address

    def run(self) -> None:
        for line in self._lines:
            self._text += line
            if found := re.search(r"running on http://(\S+)", line):
                self._address = found[1]
                self._known.set()
        self._known.set()
