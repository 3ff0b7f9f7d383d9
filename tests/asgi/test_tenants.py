"""Which credentials share a token: with a real Redis, a token server, and two brokers in place of two processes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING, Any

import pytest

from tests.brokers import runtime_of
from tokenmw import CredentialRejected, TokenBroker
from tokenmw.providers import ClientCredentials, StaticToken
from tokenmw.testing import ProviderServer
from tokenmw.testing.provider_server import Fault

if TYPE_CHECKING:
    from tests.servers import RedisServer


@pytest.fixture(scope="module")
def server_and_url() -> Iterator[tuple[ProviderServer, str]]:
    """Run one token server for all tests."""
    server = ProviderServer()
    with server.running() as base_url:
        yield server, base_url


@pytest.fixture
async def brokers(redis_server: RedisServer) -> AsyncIterator[tuple[TokenBroker, TokenBroker]]:
    """Open two brokers, which are two processes for Redis."""
    options: dict[str, Any] = {"redis": redis_server.url, "secret_key": "a secret for the tests only"}
    async with TokenBroker({}, **options) as one, TokenBroker({}, **options) as other:
        yield one, other


def credential(base_url: str, **changes: Any) -> ClientCredentials:
    """Return the credential of all tests, with changes."""
    options: dict[str, Any] = {
        "token_url": f"{base_url}/oauth2/token",
        "client_id": "app",
        "client_secret": "secret",
        "scope": "a b",
        **changes,
    }
    return ClientCredentials(**options)


async def test_equal_credentials_have_one_token(
    server_and_url: tuple[ProviderServer, str], brokers: tuple[TokenBroker, TokenBroker]
) -> None:
    """Also in another process, and with the scopes in another order."""
    server, base_url = server_and_url
    before = server.calls["oauth2"]
    one, other = brokers
    values = {
        (await one.token(credential(base_url))).value,
        (await one.token(credential(base_url, scope="b a"))).value,
        (await other.token(credential(base_url))).value,
    }
    assert 1 == len(values)
    assert before + 1 == server.calls["oauth2"]


@pytest.mark.parametrize(
    "changes",
    [
        {"client_secret": "another"},
        {"client_id": "another"},
        {"scope": "a"},
        {"scope": "a b c"},
        {"audience": "https://api.example"},
        {"resource": "https://api.example"},
        {"auth_method": "client_secret_post"},
        {"token_url": "localhost"},
    ],
    ids=lambda changes: next(iter(changes)),
)
async def test_another_credential_has_another_token(
    server_and_url: tuple[ProviderServer, str], brokers: tuple[TokenBroker, TokenBroker], changes: dict[str, str]
) -> None:
    """One different part is enough, so two tenants never share a token."""
    _server, base_url = server_and_url
    if "token_url" in changes:
        changes = {"token_url": f"{base_url.replace('127.0.0.1', 'localhost')}/oauth2/token"}
    one, other = brokers
    first = await one.token(credential(base_url))
    second = await one.token(credential(base_url, **changes))
    third = await other.token(credential(base_url, **changes))
    assert first.value != second.value
    assert second.value == third.value


async def test_a_new_secret_is_not_in_the_backoff_of_the_old_one(
    server_and_url: tuple[ProviderServer, str], brokers: tuple[TokenBroker, TokenBroker]
) -> None:
    """Both processes share the rejection of the old secret, and the new one works at once in both."""
    server, base_url = server_and_url
    one, other = brokers
    wrong = credential(base_url, client_id="rotating", client_secret="old")
    server.oauth2.script.then(Fault(status=401, body={"error": "invalid_client"}))
    before = server.calls["oauth2"]
    for broker in brokers:
        with pytest.raises(CredentialRejected) as info:
            await broker.token(wrong)
        assert "invalid_client" == info.value.code
    assert before + 1 == server.calls["oauth2"]
    right = credential(base_url, client_id="rotating", client_secret="new")
    assert (await one.token(right)).value == (await other.token(right)).value


async def test_a_callable_without_an_id_shares_nothing(
    brokers: tuple[TokenBroker, TokenBroker], redis_server: RedisServer
) -> None:
    """Two functions cannot be compared; with the same `credential_id` they are one credential."""
    calls: list[str] = []

    async def value() -> str:
        calls.append("call")
        return f"t{len(calls)}"

    one, other = brokers
    alone = StaticToken(value)
    assert "t1" == (await one.token(alone)).value == (await one.token(alone)).value
    assert "t2" == (await one.token(StaticToken(value))).value
    assert "t3" == (await other.token(alone)).value
    assert [] == redis_server.command("KEYS", "*:token")
    named = StaticToken(value, credential_id="vault/crm")
    assert "t4" == (await one.token(named)).value
    assert "t4" == (await other.token(StaticToken(value, credential_id="vault/crm"))).value
    assert 1 == len(redis_server.command("KEYS", "*:token"))


async def test_one_credential_under_two_names_is_one_token_with_two_names() -> None:
    """`Token.provider` is the name by which it was requested."""
    server = ProviderServer()
    with server.running() as base_url:
        async with TokenBroker({"crm": credential(base_url), "erp": credential(base_url)}) as broker:
            crm, erp = await broker.token("crm"), await broker.token("erp")
    assert crm.value == erp.value
    assert ("crm", "erp") == (crm.provider, erp.provider)
    assert 1 == server.calls["oauth2"]


async def test_invalidating_reaches_the_other_process(
    server_and_url: tuple[ProviderServer, str], brokers: tuple[TokenBroker, TokenBroker]
) -> None:
    """It finds the tombstone at its next comparison, and gets a newer token."""
    _server, base_url = server_and_url
    one, other = brokers
    mine = credential(base_url, client_id="to be invalidated")
    first = await one.token(mine)
    assert not await one.invalidate(first)  # younger than 5 s
    await one.invalidate_provider(mine)
    second = await one.token(mine)
    assert first.value != second.value
    entry = other._data.tokens.entry(mine, "x")
    assert second.value == (await other.token(mine)).value
    await one.invalidate_provider(mine)
    await runtime_of(other).token_sync.compare(entry)
    assert second.value != (await other.token(mine)).value
    assert (await one.token(mine)).value == (await other.token(mine)).value
