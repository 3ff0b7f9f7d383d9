"""What the log has of credentials: a line for each, a name for each, and an end for each."""

from __future__ import annotations

import logging
import re
from typing import TYPE_CHECKING, Any

import pytest

from tokenmw import CredentialRejected, Provider, TokenBroker, TokenUnavailable
from tokenmw.values import Grant

if TYPE_CHECKING:
    from tests.servers import RedisServer
    from tokenmw.providers.http import TokenHTTP

FAILING: set[str] = set()
REJECTED: set[str] = set()


class Tenant(Provider):
    """A tenant's credential, whose endpoint fails while its name is in a set."""

    __slots__ = ("secret", "tenant")
    kind = "tenant"

    def __init__(self, tenant: str) -> None:
        self.tenant = tenant
        self.secret = f"canary-secret-of-{tenant}"

    def identity(self) -> tuple[object, ...]:
        return self.tenant, self.secret

    async def fetch(self, http: TokenHTTP) -> Grant:
        if self.tenant in REJECTED:
            raise CredentialRejected("idp.example refuses it")
        if self.tenant in FAILING:
            raise TokenUnavailable("idp.example:443 refuses connections")
        return Grant(f"token-of-{self.tenant}", expires_in=3600)


@pytest.fixture(autouse=True)
def _reset() -> None:
    FAILING.clear()
    REJECTED.clear()


def kinds(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return the kinds of all lines of problems and recoveries."""
    return [record.__dict__["tokenmw.kind"] for record in caplog.records if record.levelno >= logging.WARNING]


async def test_one_tenants_success_is_no_recovery_of_another(caplog: pytest.LogCaptureFixture) -> None:
    """The tenant that fails has a line, the one that succeeds has none; the line names the tenant by a digest."""
    FAILING.add("a")
    async with TokenBroker({}, name_key="a name key of some length") as broker:
        with pytest.raises(TokenUnavailable):
            await broker.token(Tenant("a"))
        await broker.token(Tenant("b"))
    lines = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert 1 == len(lines)
    found = re.fullmatch(r"tokenmw: tenant\[([\w=-]{8})\]: no token: idp.example:443 refuses connections", lines[0])
    assert found is not None
    assert [f"provider:tenant:{found[1]}"] == kinds(caplog)
    assert found[1] == caplog.records[-1].__dict__["tokenmw.credential"]
    assert "canary" not in caplog.text


async def test_each_tenant_has_a_line_and_a_recovery(caplog: pytest.LogCaptureFixture) -> None:
    """The failure of the second tenant is not suppressed by that of the first one, and each is over by itself."""
    FAILING.update("ab")
    clock = make_clock()
    async with TokenBroker({}, name_key="a name key of some length", clock=clock) as broker:
        for tenant in "ab":
            with pytest.raises(TokenUnavailable):
                await broker.token(Tenant(tenant))
        FAILING.discard("a")
        clock.advance(10.0)
        await broker.token(Tenant("a"))
    texts = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert [False, False, True] == ["there is a token again" in text for text in texts]
    assert kinds(caplog)[0] == kinds(caplog)[2] != kinds(caplog)[1]


async def test_many_tenants_do_not_flood_the_log(caplog: pytest.LogCaptureFixture) -> None:
    """Twenty have lines of their own, the others share one that counts them."""
    names = [f"t{number}" for number in range(100)]
    FAILING.update(names)
    async with TokenBroker({}, name_key="a name key of some length") as broker:
        for tenant in names:
            with pytest.raises(TokenUnavailable):
                await broker.token(Tenant(tenant))
    assert 21 == len(kinds(caplog))
    assert "provider:tenant:others" == kinds(caplog)[-1]


async def test_digests_agree_between_instances_with_one_name_key_only() -> None:
    """Without a secret a digest could be compared with guesses, so it is one of the process, and no name in Redis."""
    with_key = TokenBroker({}, name_key="a name key of some length")
    another = TokenBroker({}, name_key="a name key of some length", namespace="other")
    without = TokenBroker({})
    digests = [broker._credentials.entry(Tenant("a")).credential for broker in (with_key, another, without)]
    assert digests[0] == digests[1] != digests[2]
    assert without._settings.names.digest("token", Tenant("a").key_parts)[:8] != digests[2]


async def test_a_failure_of_another_instance_is_logged_and_published(
    redis_server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    """Requests that are refused because of another process's note leave a line, an event and a count."""
    from tokenmw.observe import FailureAdopted

    REJECTED.add("a")
    events: list[Any] = []
    options: dict[str, Any] = {"redis": redis_server.url, "secret_key": "a secret of some length"}
    async with (
        TokenBroker({"crm": Tenant("a")}, **options) as first,
        TokenBroker({"crm": Tenant("a")}, **options, observers=[events.append]) as second,
    ):
        with pytest.raises(CredentialRejected):
            await first.token("crm")
        caplog.clear()
        for _ in range(100):
            with pytest.raises(CredentialRejected):
                await second.token("crm")
    lines = [message for message in caplog.messages if "crm: " in message]
    assert 1 == len(lines)
    assert "tokenmw: crm: credential rejected: idp.example refuses it (reported by another instance)" == lines[0]
    (adopted,) = [event for event in events if isinstance(event, FailureAdopted)]
    assert ("crm", "rejected", "") == (adopted.provider, adopted.reason, adopted.credential)


async def test_the_start_has_a_line(redis_server: RedisServer, caplog: pytest.LogCaptureFixture) -> None:
    """It says with what the broker was opened, at the level INFO."""
    caplog.set_level(logging.INFO, logger="tokenmw")
    async with TokenBroker({"crm": Tenant("a")}, redis=redis_server.url, secret_key="a secret of some length"):
        pass
    async with TokenBroker({}):
        pass
    lines = [record.getMessage() for record in caplog.records if record.levelno == logging.INFO]
    assert re.fullmatch(
        r"tokenmw: Version [\w.]+ opened with 1 provider \(crm\); Redis 127\.0\.0\.1:\d+ is up, values are sealed, "
        r"hints are on",
        lines[0],
    )
    assert re.fullmatch(r"tokenmw: Version [\w.]+ opened with no providers; no Redis", lines[1])


def make_clock() -> Any:
    """Return a clock that the test moves."""
    from tokenmw.testing import ManualClock

    return ManualClock()
