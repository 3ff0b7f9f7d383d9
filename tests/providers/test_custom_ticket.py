"""A platform's third-party app as a custom provider: a ticket that the platform sends, and a token that needs it."""

from __future__ import annotations

import json

import httpx
import pytest

from tokenmw import Grant, Provider, TokenBroker, TokenUnavailable
from tokenmw.providers import TokenHTTP, lifetime
from tokenmw.testing import ManualClock


class SuiteTicket(Provider):
    """The ticket that the platform sends as an event."""

    __slots__ = ("_suite",)
    kind = "suite_ticket"
    _suite: str

    def __init__(self, *, suite: str) -> None:
        self._suite = suite

    def identity(self) -> tuple[object, ...]:
        """Return the suite's id."""
        return (self._suite,)

    async def fetch(self, http: TokenHTTP) -> Grant:
        """Raise, because the ticket cannot be requested."""
        raise TokenUnavailable("the platform has not sent the suite_ticket yet")


class Suite(Provider):
    """The token of a third-party app."""

    __slots__ = ("_secret", "_suite")
    kind = "suite"
    _secret: str
    _suite: str

    def __init__(self, *, suite: str, secret: str) -> None:
        self._suite = suite
        self._secret = secret

    def identity(self) -> tuple[object, ...]:
        """Return the suite and its secret."""
        return (self._suite, self._secret)

    async def fetch(self, http: TokenHTTP) -> Grant:
        """Request the token with the ticket."""
        ticket = await http.token(SuiteTicket(suite=self._suite))
        fields_sent = {"suite_id": self._suite, "suite_secret": self._secret, "suite_ticket": ticket.value}
        fields = (await http.request("POST", "https://platform.example/token", json=fields_sent)).json()
        return Grant(fields["token"], expires_in=lifetime(fields["expires_in"]))


async def test_ticket_that_was_handed_in_is_used_for_the_token() -> None:
    """Without a ticket the failure says so; afterwards each token is requested with the current ticket."""
    clock = ManualClock()

    def answer(request: httpx.Request) -> httpx.Response:
        return httpx.Response(
            200, json={"token": f"for-{json.loads(request.content)['suite_ticket']}", "expires_in": 60}
        )

    async with (
        httpx.AsyncClient(transport=httpx.MockTransport(answer)) as http,
        TokenBroker({"suite": Suite(suite="s", secret="x")}, http=http, clock=clock) as broker,
    ):
        with pytest.raises(TokenUnavailable, match="not sent the suite_ticket yet"):
            await broker.token("suite")
        for ticket in ("one", "two"):
            await broker.hand_in(SuiteTicket(suite="s"), Grant(ticket, expires_in=1800))
            clock.advance(70)
            assert f"for-{ticket}" == (await broker.token("suite")).value
