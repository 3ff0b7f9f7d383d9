"""The page in a real browser: on a phone and a desktop, dark and light, live, and with its forms."""

from __future__ import annotations

import asyncio
import base64
import contextlib
from typing import TYPE_CHECKING, Any

import pytest

from tests.interop.chromium import Chromium, Tab, chromium
from tests.status_app.fleets import write_heartbeats
from tests.status_app.serving import AT, everyone, serve_status
from tests.status_app.shown import SECRET, broker_of, fill
from tokenmw.observe import RedisStateChanged

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path

    from tests.servers import RedisServer

pytestmark = pytest.mark.sdk

# Of each element with text, the ratio of its luminance and that of what is behind it (WCAG 2.2, 1.4.3).
CONTRASTS = """
(() => {
  const light = (css) => {
    const [r, g, b] = css.match(/[0-9.]+/g).slice(0, 3).map((v) => v / 255)
      .map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (one) => {
    for (; one; one = one.parentElement) {
      const color = getComputedStyle(one).backgroundColor;
      if (!color.endsWith(", 0)")) return color;
    }
    return "rgb(255, 255, 255)";
  };
  return Math.min(...[...document.querySelectorAll("body *")]
    .filter((one) => one.checkVisibility() && [...one.childNodes].some((n) => n.nodeType === 3 && n.data.trim()))
    .map((one) => {
      const [a, b] = [light(getComputedStyle(one).color), light(behind(one))].sort((x, y) => y - x);
      return (a + 0.05) / (b + 0.05);
    }));
})()
"""


@contextlib.asynccontextmanager
async def shown(server: RedisServer, **options: Any) -> AsyncGenerator[tuple[Chromium, str, Any]]:
    """Serve a broker in a bad hour, and yield a browser, the page's URL, and the broker."""
    broker = broker_of(redis=server.url, label=lambda connection: f"Customer {len(connection.headers['x-tenant'])}")
    async with serve_status(broker, allow_all=True, **options) as client, chromium() as browser:
        await fill(broker, tenants=12, sessions=40)
        broker._settings.observe(RedisStateChanged(f"127.0.0.1:{server.port}", up=False, error="timeout"))
        await asyncio.sleep(1)
        broker._settings.observe(RedisStateChanged(f"127.0.0.1:{server.port}", up=True))
        await write_heartbeats(broker, 6, wrong=2)
        with server.connect() as connection:  # a stale one
            connection.call("PEXPIRE", connection.call("KEYS", "*beat*")[0], 6_000)
        yield browser, f"{client.base_url}{AT}/".replace("//_", "/_"), broker


async def emulate(tab: Tab, *, width: int, scheme: str) -> None:
    """Give a tab the width and the colours of a device."""
    send, session = tab._browser.send, tab._session
    await send(
        "Emulation.setDeviceMetricsOverride",
        session=session,
        width=width,
        height=900,
        deviceScaleFactor=1,
        mobile=width < 500,
    )
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    await send("Emulation.setEmulatedMedia", session=session, features=features)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
async def test_the_page_is_readable(width: int, scheme: str, redis_server: RedisServer, tmp_path: Path) -> None:
    """Nothing is wider than the screen, each text has a contrast of 4.5, controls are 44 px high; with a picture."""
    async with shown(redis_server, allow_actions=everyone) as (browser, url, _):
        tab = await browser.tab("about:blank")
        await emulate(tab, width=width, scheme=scheme)
        await tab.open(url)
        await tab.wait_for("Live.")
        assert await tab.run("document.documentElement.scrollWidth") <= width
        assert await tab.run(CONTRASTS) >= 4.5
        heights = await tab.run("[...document.querySelectorAll('button,select,input')].map(one => one.offsetHeight)")
        assert len(heights) == 5
        assert min(heights) >= 44
        dark = await tab.run("getComputedStyle(document.body).backgroundColor") != "rgb(255, 255, 255)"
        assert dark == (scheme == "dark")
        picture = await browser.send(
            "Page.captureScreenshot", session=tab._session, captureBeyondViewport=True, format="png"
        )
        (tmp_path / f"status-{width}-{scheme}.png").write_bytes(base64.b64decode(picture["data"]))


async def test_the_page_is_live_and_its_forms_work(redis_server: RedisServer) -> None:
    """A change arrives without a reload and without moving the focus; the forms pass the check of the origin."""
    async with shown(redis_server, allow_actions=everyone) as (browser, url, broker):
        tab = await browser.tab(url)
        await tab.wait_for("Live.")
        await tab.run("window.kept = true; document.getElementById('key').focus()")
        await broker.token("reports")
        await tab.run(
            "new Promise(done => { const look = () => "
            "/reports\\s+(State\\s+)?fresh/.test(document.getElementById('live').innerText) ? done() "
            ": setTimeout(look, 50); look(); })"
        )
        assert await tab.run("window.kept && document.activeElement.id") == "key"
        before = await broker.session_id(SECRET)
        await tab.run(f"document.getElementById('key').value = '{SECRET}'")
        await tab.run("document.querySelector('form[action$=reset-session] button').click()")
        text = await tab.wait_for("The API key has another session id.")
        assert SECRET not in text
        assert await broker.session_id(SECRET) != before
        await tab.run("document.querySelector('button[formaction$=invalidate]').click()")
        await tab.wait_for("The token was invalidated.")
