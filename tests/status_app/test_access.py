"""Only those that `allow` names see the status; without a clear answer no request does."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

import pytest
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection
from starlette.responses import Response

from tests.asgi_client import call
from tests.status_app.serving import AT, everyone, serve_status
from tokenmw import ConfigurationError, Limits, TokenBroker
from tokenmw.status_app import StatusApp

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

DETAILS = ("/", "/status.json", "/events", "/nothing")


def broker() -> TokenBroker:
    """Make a broker without providers, whose callables may take 0.2 s."""
    return TokenBroker({}, limits=Limits(fetch_seconds=0.05, lease_seconds=0.1, wait_seconds=0.2))


@pytest.mark.parametrize("options", [{}, {"allow_all": False}, {"allow_all": True, "allow": everyone}])
def test_who_may_see_it_is_required(options: dict[str, Any]) -> None:
    """Neither option, and both of them, are errors that name the options."""
    with pytest.raises(ConfigurationError, match=r"allow=….*allow_all=True"):
        StatusApp(broker(), **options)


def yielding(_connection: HTTPConnection) -> Generator[bool]:
    """Yield an answer instead of returning it."""
    yield False


@pytest.mark.parametrize("allow", [yielding, lambda: True, "yes", dict])
def test_a_callable_that_cannot_decide_is_an_error(allow: Any) -> None:
    """A generator function, a class, a wrong signature and no callable are refused at the start."""
    with pytest.raises(ConfigurationError, match=r"StatusApp\(allow=…\)"):
        StatusApp(broker(), allow=allow)


async def later(_connection: HTTPConnection) -> bool:
    """Refuse, asynchronously."""
    await asyncio.sleep(0)
    return False


async def hangs(_connection: HTTPConnection) -> bool:
    """Never answer."""
    await asyncio.sleep(60)
    return True


def raises(error: Exception) -> Any:
    """Return a callable that raises."""

    def allow(_connection: HTTPConnection) -> bool:
        raise error

    return allow


REFUSING: dict[str, tuple[Callable[[HTTPConnection], object], int]] = {
    "False": (lambda _: False, 403),
    "None": (lambda _: None, 403),
    "async": (later, 403),
    "HTTPException 403": (raises(HTTPException(403)), 403),
    "HTTPException 401": (raises(HTTPException(401, headers={"WWW-Authenticate": "Basic"})), 401),
    "HTTPException 200": (raises(HTTPException(200)), 503),
    "an error": (raises(LookupError("canary")), 503),
    "a generator": (lambda _: (one for one in [False]), 503),
    "a tuple": (lambda _: (False,), 503),
    "a response": (lambda _: Response(status_code=403), 503),
    "not awaited": (lambda _: later, 503),
    "too slow": (hangs, 503),
}


@pytest.mark.parametrize("name", REFUSING)
@pytest.mark.parametrize("path", DETAILS)
async def test_it_fails_closed(name: str, path: str) -> None:
    """Whatever `allow` returns or raises beside a true value, the response has nothing of the status."""
    allow, status = REFUSING[name]
    async with broker() as opened:
        answered = await call(StatusApp(opened, allow=allow), path=path)
    assert answered.status == status
    assert answered.body in (b"Not allowed.", b"Not decided.")
    assert answered.headers["cache-control"] == "no-store"
    assert answered.headers.get("www-authenticate") == ("Basic" if status == 401 else None)


async def test_an_answer_that_decides_nothing_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """The log has the option and the reason, and not the text of the exception."""
    async with broker() as opened:
        with caplog.at_level(logging.WARNING):
            await call(StatusApp(opened, allow=raises(LookupError("canary"))), path="/status.json")
    (line,) = [record.getMessage() for record in caplog.records if "StatusApp" in record.getMessage()]
    assert line.startswith("tokenmw: StatusApp(allow=…) raised LookupError at tests.status_app.test_access:")
    assert "canary" not in line


async def test_allowed_requests_see_the_status() -> None:
    """`allow` gets the connection, and its decision holds for one request."""

    def with_password(connection: HTTPConnection) -> bool:
        return connection.headers.get("authorization") == "Basic b3BzOm9wcw=="

    async with serve_status(broker(), allow=with_password) as client:
        assert (await client.get(f"{AT}/status.json", auth=("ops", "ops"))).json()["open"]
        assert (await client.get(f"{AT}/status.json")).status_code == 403
        assert (await client.get(f"{AT}/livez")).text == "ok"


async def test_other_methods_and_connections_are_refused() -> None:
    """A POST is a 405, an unknown path a 404, and a WebSocket is closed."""
    async with broker() as opened:
        app = StatusApp(opened, allow_all=True)
        assert (await call(app, path="/status.json", method="POST")).status == 405
        assert (await call(app, path="/nothing")).status == 404
        assert (await call(app, kind="websocket", path="/events")).kinds == ["websocket.close"]
