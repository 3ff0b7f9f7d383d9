"""What a client of the user's raises, and is no error of Redis, shows no API key and no token."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import redis.asyncio as redis

from tests.redaction.test_tracebacks import SECRET, shown
from tokenmw import Grant, SessionUnavailable, TokenBroker
from tokenmw.providers import StaticToken

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tests.servers import RedisServer


class Odd(redis.Redis):
    """A client of the user's with a slip of its own, which is no error of Redis."""

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        """Fail."""
        try:
            raise KeyError(len(args))
        except KeyError:
            raise ValueError("a slip") from None


UNEXPECTED: dict[str, Callable[[TokenBroker], Awaitable[object]]] = {
    "session_id": lambda broker: broker.session_id(SECRET),
    "reset_session": lambda broker: broker.reset_session(SECRET),
    "hand_in": lambda broker: broker.hand_in("crm", Grant(SECRET, expires_in=60)),
    "token": lambda broker: broker.token("crm"),
    "invalidate_provider": lambda broker: broker.invalidate_provider("crm"),
}


@pytest.mark.parametrize("policy", ["available", "required"])
@pytest.mark.parametrize("method", UNEXPECTED)
async def test_error_of_redis_that_nobody_expected_shows_no_secret(
    method: str, policy: Any, redis_server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    """Requests go on as without Redis; the log has its class and its place, and neither its text nor what was sent."""
    errors: list[str] = []
    client = Odd.from_url(redis_server.url, password=None)
    provider = StaticToken(lambda: SECRET, credential_id="1")
    async with TokenBroker({"crm": provider}, redis=client, session_policy=policy) as broker:
        try:
            await UNEXPECTED[method](broker)
        except SessionUnavailable as error:
            errors.append(shown(error))
        assert broker.status().shared_error == "client"
    slip = Odd.execute_command.__code__.co_firstlineno + 5
    assert f"The Redis client raised ValueError at {__name__}:{slip}." in caplog.messages
    assert "a slip" not in caplog.text
    assert SECRET not in caplog.text + "".join(errors)
    assert len(errors) == (policy == "required" and "session" in method)
    await client.aclose()
