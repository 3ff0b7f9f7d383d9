"""A broker that authenticates callers, and serves requests without a key, says so once when it opens."""

from __future__ import annotations

from typing import Any

import pytest

from tests.asgi_client import answering, call, lifespan, session_of
from tokenmw import TokenBroker, TokenMiddleware

KIND = "authenticate-without-reject"


def warnings_in(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return the warnings of this kind."""
    return [record.getMessage() for record in caplog.records if getattr(record, "tokenmw.kind", "") == KIND]


def accept(_connection: object, key: str) -> str:
    """Accept each key."""
    return key


async def test_it_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    """With the fix, however often the broker is opened."""
    broker = TokenBroker({}, authenticate=accept)
    for _ in range(2):
        async with broker, broker:
            pass
    (text,) = warnings_in(caplog)
    assert 'missing_key="reject"' in text


@pytest.mark.parametrize("options", [{}, {"missing_key": "reject"}, {"missing_key": "reject", "authenticate": accept}])
async def test_it_is_not_logged_where_it_does_not_apply(
    options: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    """Without `authenticate`, each key is a caller anyway; with `reject`, a request without one is refused."""
    async with TokenBroker({}, **options):
        pass
    assert not warnings_in(caplog)


@pytest.mark.parametrize(("of_broker", "of_middleware", "count"), [("random", "reject", 0), ("reject", "random", 1)])
@pytest.mark.parametrize("by_lifespan", ["lifespan", "first request"])
async def test_the_middlewares_option_counts(
    of_broker: Any, of_middleware: Any, count: int, by_lifespan: str, caplog: pytest.LogCaptureFixture
) -> None:
    """It overrides the broker's for all requests that pass the middleware."""
    broker = TokenBroker({}, authenticate=accept, missing_key=of_broker)
    app = TokenMiddleware(answering(session_of), broker=broker, missing_key=of_middleware)
    if by_lifespan == "lifespan":
        async with lifespan(app):
            pass
    else:
        await call(app, headers=[(b"x-api-key", b"k")])
        await broker.__aexit__()
    assert count == len(warnings_in(caplog))


async def test_two_middlewares_count_both(caplog: pytest.LogCaptureFixture) -> None:
    """One that refuses does not hide one that does not."""
    broker = TokenBroker({}, authenticate=accept)
    for missing_key in ("reject", "random"):
        TokenMiddleware(answering(session_of), broker=broker, missing_key=missing_key)
    async with broker:
        pass
    assert 1 == len(warnings_in(caplog))
