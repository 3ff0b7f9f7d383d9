"""Drives Debian's Chromium by its DevTools protocol: opens tabs, evaluates scripts, waits for pages."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import shutil
import tempfile
from typing import TYPE_CHECKING, Any

from websockets.asyncio.client import ClientConnection, connect

from tests.interop.running import unavailable

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

__all__ = ["Chromium", "Tab", "chromium"]

_WITHIN = 30.0  # seconds
_MAX_MESSAGE = 16 << 20
_OPTIONS = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--no-proxy-server"),
    "--remote-debugging-port=0",
)


class Chromium:
    """One running browser. Its tabs share their cookies."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self._numbers = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._reader = asyncio.create_task(self._read())

    async def send(self, method: str, *, session: str = "", **params: Any) -> Any:
        """Send a command, and return its result."""
        number = next(self._numbers)
        message: dict[str, Any] = {"id": number, "method": method, "params": params}
        if session:
            message["sessionId"] = session
        self._waiting[number] = asyncio.get_running_loop().create_future()
        await self._socket.send(json.dumps(message))
        async with asyncio.timeout(_WITHIN):
            return await self._waiting[number]

    async def tab(self, url: str) -> Tab:
        """Open a page in a new tab."""
        target = await self.send("Target.createTarget", url="about:blank")
        attached = await self.send("Target.attachToTarget", targetId=target["targetId"], flatten=True)
        tab = Tab(self, attached["sessionId"])
        await tab.open(url)
        return tab

    async def cookies(self) -> list[dict[str, Any]]:
        """Return all cookies."""
        found: list[dict[str, Any]] = (await self.send("Storage.getCookies"))["cookies"]
        return found

    async def _read(self) -> None:
        async for raw in self._socket:
            message = json.loads(raw)
            waiting = self._waiting.pop(message.get("id", 0), None)
            if waiting is None or waiting.done():
                continue
            if "error" in message:
                waiting.set_exception(RuntimeError(message["error"]["message"]))
            else:
                waiting.set_result(message["result"])

    async def close(self) -> None:
        """Stop reading."""
        self._reader.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._reader


class Tab:
    """One tab."""

    def __init__(self, browser: Chromium, session: str) -> None:
        self._browser = browser
        self._session = session

    async def open(self, url: str) -> None:
        """Go to a page, as by the address line."""
        await self._browser.send("Page.navigate", session=self._session, url=url)

    async def run(self, script: str) -> Any:
        """Return what a script evaluates to."""
        done = await self._browser.send(
            "Runtime.evaluate", session=self._session, expression=script, returnByValue=True, awaitPromise=True
        )
        return done["result"].get("value")

    async def text(self) -> str:
        """Return the URL and the text of the page; "" while it loads."""
        with contextlib.suppress(RuntimeError):  # the page is being replaced
            script = "document.readyState === 'complete' ? location.href + '\\n' + document.body.innerText : ''"
            return str(await self.run(script) or "")
        return ""

    async def wait_for(self, part: str) -> str:
        """Wait until the URL or the text of the page has a part, and return both."""
        text = ""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_WITHIN):
                while part not in (text := await self.text() or text):  # noqa: ASYNC110  the page sends no event
                    await asyncio.sleep(0.05)
                return text
        raise AssertionError(f"{part!r} has not appeared, but:\n{text}")

    async def click(self, selector: str) -> None:
        """Click an element, as soon as it is there."""
        async with asyncio.timeout(_WITHIN):
            while True:
                with contextlib.suppress(RuntimeError):
                    script = f"(found => found ? (found.click(), true) : false)(document.querySelector('{selector}'))"
                    if await self.run(script):
                        return
                await asyncio.sleep(0.05)

    async def back(self) -> None:
        """Press the back button."""
        with contextlib.suppress(RuntimeError):  # the page is left, sometimes before it can reply
            await self.run("history.back()")


@contextlib.asynccontextmanager
async def chromium() -> AsyncGenerator[Chromium]:
    """Start a browser with a new profile; skip the test if there is none."""
    executable = shutil.which("chromium")
    if executable is None:
        unavailable("Chromium is not installed: apt-get install chromium")
    profile = tempfile.mkdtemp(prefix="tokenmw-chromium-")
    process = await asyncio.create_subprocess_exec(
        executable,
        *_OPTIONS,
        f"--user-data-dir={profile}",
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        url = await _debugger(process)
        async with connect(url, max_size=_MAX_MESSAGE, proxy=None) as socket:
            browser = Chromium(socket)
            try:
                yield browser
                with contextlib.suppress(Exception):
                    await browser.send("Browser.close")
            finally:
                await browser.close()
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        await asyncio.to_thread(shutil.rmtree, profile, ignore_errors=True)


async def _debugger(process: asyncio.subprocess.Process) -> str:
    assert process.stderr is not None
    async with asyncio.timeout(_WITHIN):
        async for line in process.stderr:
            if line.startswith(b"DevTools listening on "):
                return line.decode().split()[-1]
    raise AssertionError("Chromium has not started")
