"""Mistakes that show at the first requests: the operator reads the fix, and the user nothing internal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from starlette.applications import Starlette
from starlette.routing import Mount

from tests.connections.connecting import Connecting, kind_of
from tokenmw.connections.connect_app import ConnectApp
from tokenmw.errors import ConfigurationError
from tokenmw.redis.sealing import Sealer
from tokenmw.testing import Fault

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from tests.connections.world import World as Broker


@pytest.fixture
async def program() -> AsyncGenerator[Connecting]:
    """A browser in front of the program."""
    made = Connecting()
    async with made.browser, made.idp:
        yield made


async def test_workers_with_different_secrets_are_logged(program: Connecting, caplog: pytest.LogCaptureFixture) -> None:
    """The user reads that the attempt has expired, which is of no help to the operator."""
    callback = await program.consent(await program.begin())
    program.users.sealer = Sealer(["another-secret-of-a-sealer-7"])
    assert "expired" == kind_of(await program.back(callback))
    assert "same secret_key" in caplog.text
    caplog.clear()
    assert "expired" == kind_of(await program.browser.get("/connect/crm/callback?state=x"))
    assert not caplog.records


async def test_a_store_that_fails_is_not_the_other_service(
    program: Connecting, caplog: pytest.LogCaptureFixture
) -> None:
    """A page of states or of disconnecting says what did not work; the log says so once, and names the app."""
    program.users.store_fails = True
    for method, path, title in (
        ("GET", "/connect/", "Accounts not available"),
        ("POST", "/connect/crm/disconnect", "Account not disconnected"),
    ):
        answer = await program.browser.request(method, path, headers={"sec-fetch-site": "same-origin"})
        assert (503, True) == (answer.status_code, title in answer.text), answer.text
        assert "other service" not in answer.text
    assert "account of :" not in caplog.text
    assert "could not connect" not in caplog.text


async def test_a_mistake_of_the_front_end_is_logged(program: Connecting, caplog: pytest.LogCaptureFixture) -> None:
    """The user reads that the request is not valid; which option is the list is in the log."""
    assert "invalid" == kind_of(await program.browser.get("/connect/crm?return_to=/elsewhere"))
    assert "ConnectApp(return_to=…)" in caplog.text
    assert "/elsewhere" not in caplog.text


async def test_a_mount_elsewhere_is_logged_once(program: Connecting, caplog: pytest.LogCaptureFixture) -> None:
    """Errors would lead users to a path at which nothing is."""
    connect = ConnectApp(program.users, allow=lambda _: True)
    program._made = Starlette(routes=[Mount("/accounts", connect)])
    for _ in range(2):
        assert 302 == (await program.browser.get("/accounts/crm")).status_code
    (record,) = caplog.records
    assert "/accounts" in record.getMessage()
    assert "connect_path" in record.getMessage()


async def test_a_server_without_the_endpoint(program: Connecting, caplog: pytest.LogCaptureFixture) -> None:
    """The option that replaces it is named."""
    without = Fault(without=["authorization_endpoint"])
    program.server.oauth2_metadata.script.then(without)
    assert "refused" == kind_of(await program.browser.get("/connect/crm"))
    assert "give authorize_url=…" in caplog.text


async def test_another_machine_over_http(program: Connecting) -> None:
    """It may be a proxy, or a developer's second machine."""
    with pytest.raises(ConfigurationError, match=r"http.*this machine.*public_url|public_url.*http.*this machine"):
        await program.browser.get("http://192.168.1.5:8000/connect/crm")


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda users: users.token("crn", "ada"), "no app 'crn': did you mean 'crm'"),
        (lambda users: users.token(None, "ada"), "app.*must be a str, not NoneType"),
        (lambda users: users.token(["crm"], "ada"), "app.*must be a str, not list"),
        (lambda users: users.token("crm", None), "subject must be.*not NoneType"),
        (lambda users: users.save("crm", "ada", refresh_token="r", scope=["a"]), r"save\(scope=….*one str"),
        (lambda users: users.save("crm", "ada", refresh_token="r", access_token="a"), "expires_in=… with access_token"),
        (lambda users: users.save("crm", "ada", refresh_token="r", expires_in=60), "access_token=… with expires_in"),
    ],
)
async def test_calls_outside_of_requests(world: Broker, call: Any, text: str) -> None:
    """Each wrong argument is named."""
    with pytest.raises(ConfigurationError, match=text):
        await call(world.broker.connections)


async def test_the_token_of_a_user_has_no_request(world: Broker) -> None:
    """A task outside of a request names the user."""
    with pytest.raises(ConfigurationError, match=r"broker\.connections\.token\('crm', …\)"):
        await world.broker.token("crm")
