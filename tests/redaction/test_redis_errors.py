"""An unexpected exception of a Redis client does not show API keys and tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn

import pytest
import redis.asyncio as redis

from tests.redaction.test_tracebacks import SECRET, report_of
from tokenmw import Grant, SessionUnavailable, TokenBroker
from tokenmw.providers import StaticToken

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tests.servers import RedisServer


def bug(*args: object) -> NoReturn:
    """Raise, with an exception of another kind as its context."""
    try:
        raise KeyError(len(args))
    except KeyError:
        raise ValueError("a bug") from None


class BrokenClient(redis.Redis):
    """A client of the program with a bug: it raises an exception that is not an error of Redis."""

    async def execute_command(self, *args: Any, **_options: Any) -> Any:
        """Raise."""
        bug(*args)

    def pipeline(self, *args: Any, **_options: Any) -> Any:
        """Raise."""
        bug(*args)


CALLS: dict[str, Callable[[TokenBroker], Awaitable[object]]] = {
    "session_id": lambda broker: broker.session_id(SECRET),
    "reset_session": lambda broker: broker.reset_session(SECRET),
    "hand_in": lambda broker: broker.hand_in("crm", Grant(SECRET, expires_in=60)),
    "token": lambda broker: broker.token("crm"),
    "invalidate_provider": lambda broker: broker.invalidate_provider("crm"),
}


@pytest.mark.parametrize("policy", ["available", "required"])
@pytest.mark.parametrize("method", CALLS)
async def test_an_unexpected_exception_of_the_client_shows_no_secret(
    method: str, policy: Any, redis_server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    """Calls succeed as without Redis; the log has the class and place of the exception, not its text or arguments."""
    errors: list[str] = []
    client = BrokenClient.from_url(redis_server.url, password=None)
    provider = StaticToken(lambda: SECRET, credential_id="1")
    async with TokenBroker({"crm": provider}, redis=client, session_policy=policy) as broker:
        try:
            await CALLS[method](broker)
        except SessionUnavailable as error:
            errors.append(report_of(error))
        assert broker.status().shared_error == "client"
    line = bug.__code__.co_firstlineno + 5
    place, address = f"{__name__}:{line}", f"127.0.0.1:{redis_server.port}"
    assert f"tokenmw: The Redis client raised ValueError at {place} ({address})" in caplog.messages
    assert "a bug" not in caplog.text
    assert SECRET not in caplog.text + "".join(errors)
    assert len(errors) == (policy == "required" and "session" in method)
    await client.aclose()
