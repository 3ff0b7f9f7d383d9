"""A model's API that speaks when the test lets it, and the examples as programs of their own in front of it."""

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
WITHIN = 15.0
"""Seconds for what takes a few milliseconds."""
CLIENT = {"MODEL_CLIENT_ID": "gateway", "MODEL_CLIENT_SECRET": "gateway-secret"}


class Model:
    """`POST /v1/chat/completions`, as an ASGI application.

    Attributes:
        requests: Headers and body of each request.
        begins: Each answer waits for it before its head.
        goes_on: Each answer waits for it after its first event.
        ended: Set when an answer has ended, whole or not.
        refusal: The answer in place of a stream, or None.
        breaks_off: Whether each answer breaks off after its first event.
    """

    def __init__(self) -> None:
        self.requests: list[tuple[dict[str, str], bytes]] = []
        self.begins = Latch()
        self.begins.set()
        self.goes_on = Latch()
        self.ended = Latch()
        self.refusal: Response | None = None
        self.breaks_off = False
        self.app = Starlette(routes=[Route("/v1/chat/completions", self.complete, methods=["POST"])])

    async def complete(self, request: Request) -> Response:
        """Answer with two events, of which the second one waits for the test."""
        self.requests.append((dict(request.headers), await request.body()))
        await self._begin(request)
        if self.refusal is not None:
            return self.refusal
        return StreamingResponse(self._events(), media_type="text/event-stream")

    async def _begin(self, request: Request) -> None:
        begins = asyncio.ensure_future(self.begins.wait())
        gone = asyncio.ensure_future(request.receive())
        _, waiting = await asyncio.wait({begins, gone}, return_when=asyncio.FIRST_COMPLETED)
        if gone not in waiting:
            self.ended.set()
        for task in waiting:
            task.cancel()
            await asyncio.wait({task})

    async def _events(self) -> AsyncGenerator[bytes]:
        try:
            yield b"data: one\n\n"
            await self.goes_on.wait()
            if self.breaks_off:
                raise ConnectionResetError
            yield b"data: two\n\n"
        finally:
            self.ended.set()

    def seen(self, name: str) -> list[str]:
        """Return a header of all requests so far, in their order."""
        return [headers[name] for headers, _ in self.requests]


@contextlib.contextmanager
def running_example(module: str, *, model: Model, tokens: ProviderServer, **others: str) -> Generator[str]:
    """Run an example with uvicorn, as its docstring says, and give its host and port; `others` are settings."""
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
                # What hangs in the model would hold up the end.
                model.begins.set()
                model.goes_on.set()
                process.terminate()
                log.join()


class _Log(threading.Thread):
    """Reads what uvicorn writes, so that the pipe never fills."""

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
        """Host and port, as soon as uvicorn tells them."""
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
