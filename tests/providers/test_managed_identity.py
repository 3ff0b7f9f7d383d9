from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.providers.wire import http_answer, wire
from tokenmw.clock import SYSTEM_CLOCK
from tokenmw.errors import ConfigurationError, CredentialRejected, TokenUnavailable
from tokenmw.limits import Limits
from tokenmw.providers import Answer, ManagedIdentity, TokenHTTP
from tokenmw.testing import Fault, ProviderServer
from tokenmw.values import MAX_LIFETIME

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

GRAPH = "https://graph.microsoft.com"
ENDPOINT = "http://localhost/metadata/identity/oauth2/token"


@pytest.fixture
def server() -> ProviderServer:
    """An identity endpoint that knows one user-assigned identity."""
    return ProviderServer(clients={"user-assigned": ""}, token_life=86400)


@pytest.fixture
async def in_process(server: ProviderServer, library: Any) -> AsyncGenerator[TokenHTTP]:
    """The server without a socket, for requests to any address."""
    async with library.AsyncClient(transport=server.transport(library.__name__)) as client:
        yield TokenHTTP(client, limits=Limits(), clock=SYSTEM_CLOCK)


async def test_machine_uses_the_metadata_endpoint(server: ProviderServer, in_process: TokenHTTP) -> None:
    """Numbers come as text, and the endpoint repeats a young token."""
    machine = ManagedIdentity(resource=GRAPH)
    first, again = await machine.fetch(in_process), await machine.fetch(in_process)
    assert (86400.0, first.value) == (first.expires_in, again.value)
    assigned = await ManagedIdentity(resource=GRAPH, client_id="user-assigned").fetch(in_process)
    assert first.value != assigned.value
    assert 1 == server.calls["managed_identity", "user-assigned"]


async def test_app_uses_the_endpoint_of_its_platform(server: ProviderServer, in_process: TokenHTTP) -> None:
    """The request has the identity header, and the lifetime is read from `expires_on`."""
    server.managed_identity.header = "platform-header"
    app = ManagedIdentity(resource=GRAPH, identity_endpoint=ENDPOINT, identity_header="platform-header")
    assert 86400.0 == pytest.approx((await app.fetch(in_process)).expires_in, abs=2)
    wrong = ManagedIdentity(resource=GRAPH, identity_endpoint=ENDPOINT, identity_header="other")
    with pytest.raises(CredentialRejected, match="check that this machine or app has an identity") as caught:
        await wrong.fetch(in_process)
    assert not caught.value.said
    assert "other" not in str(caught.value) + repr(wrong)


async def test_expires_on_is_read_by_the_response_s_clock(http: TokenHTTP) -> None:
    """A wrong clock of this machine does not change the lifetime, unless the response has no date."""
    lifetimes: list[float] = []
    date = "Date: Tue, 05 Mar 2024 00:00:00 GMT\r\n"  # 1709596800
    expires_on_later = int(SYSTEM_CLOCK.time() + 3600)
    for headers, expires_on in ((date, 1709596800 + 3600), ("", expires_on_later)):
        body = f'{{"access_token": "t", "expires_on": "{expires_on}", "token_type": "Bearer"}}'.encode()
        async with wire(http_answer(200, headers=headers, body=body)) as server:
            one = ManagedIdentity(resource=GRAPH, identity_endpoint=f"{server.url}/msi?x=1", identity_header="h")
            lifetimes.append((await one.fetch(http)).expires_in)
        assert b"GET /msi?x=1&api-version=2019-08-01&resource=https%3A%2F%2Fgraph" in server.requests[0]
        assert b"x-identity-header: h\r\n" in server.requests[0].lower()
    assert 3600.0 == lifetimes[0]
    assert 3600.0 == pytest.approx(lifetimes[1], abs=30)


@pytest.mark.parametrize(
    "expires_on",
    ["2100-05-22T17:14:33Z", "05/22/2100 17:14:33 +00:00", "5/22/2100 5:14:33 PM +00:00", "4115114073"],
)
@pytest.mark.parametrize("expires_in", [None, "", "0", 0])
async def test_expires_on_has_many_forms(
    server: ProviderServer, in_process: TokenHTTP, expires_on: str, expires_in: object
) -> None:
    """The endpoints of App Service on Windows and Linux, of Azure Arc and of others differ."""
    server.managed_identity.script.then(Fault(fields={"expires_on": expires_on, "expires_in": expires_in}))
    assert MAX_LIFETIME == (await ManagedIdentity(resource=GRAPH).fetch(in_process)).expires_in


@pytest.mark.parametrize(
    ("fields", "refresh_in"),
    [
        ({"expires_in": "86399"}, 43199.5),
        ({"expires_in": "7200"}, 3600.0),
        ({"expires_in": "7199"}, None),
        ({"expires_in": "86399", "refresh_in": "1000"}, 1000.0),
        ({"expires_in": "3600", "refresh_in": 1800}, 1800.0),
        ({"expires_in": "86399", "refresh_in": "soon"}, 43199.5),
        ({"expires_in": "86399", "refresh_in": float("nan")}, 43199.5),
    ],
)
async def test_new_token_is_fetched_when_the_endpoint_says_or_at_half_a_long_lifetime(
    server: ProviderServer, in_process: TokenHTTP, fields: dict[str, Any], refresh_in: float | None
) -> None:
    """The endpoint may have an outage of hours."""
    server.managed_identity.script.then(Fault(fields=fields))
    assert refresh_in == (await ManagedIdentity(resource=GRAPH).fetch(in_process)).extra.get("refresh_in")


async def test_404_is_an_update_of_imds_or_a_wrong_endpoint(server: ProviderServer, in_process: TokenHTTP) -> None:
    """Only IMDS answers so while it is updated."""
    server.managed_identity.script.then(*(Fault(status=404, body={"error": "no_route"}) for _ in range(2)))
    with pytest.raises(TokenUnavailable, match=r"169\.254\.169\.254:80 is being updated \(no_route, HTTP 404\)"):
        await ManagedIdentity(resource=GRAPH).fetch(in_process)
    app = ManagedIdentity(resource=GRAPH, identity_endpoint=ENDPOINT)
    with pytest.raises(
        TokenUnavailable, match=r"localhost:80 has no .* this path \(no_route, HTTP 404\): check identity_endp"
    ):
        await app.fetch(in_process)


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (Fault(status=404), TokenUnavailable),
        (Fault(status=410), TokenUnavailable),
        (Fault(status=429), TokenUnavailable),
        (Fault(status=500), TokenUnavailable),
        (Fault(body="<h1>A proxy</h1>"), TokenUnavailable),
        (Fault(close=True), TokenUnavailable),
        (Fault(without=["access_token"]), TokenUnavailable),
        (Fault(without=["expires_in", "expires_on"]), TokenUnavailable),
        (Fault(without=["expires_in"], fields={"expires_on": "12/20/2019 23:59:59 +00:00"}), TokenUnavailable),
        (Fault(without=["expires_in"], fields={"expires_on": "soon"}), TokenUnavailable),
        (Fault(without=["expires_in"], fields={"expires_on": "nan"}), TokenUnavailable),
        (Fault(without=["expires_in"], fields={"expires_on": "1"}), TokenUnavailable),
        (Fault(status=400, body={"error": "invalid_request", "error_description": "Identity not found"}), None),
        (Fault(status=403), None),
    ],
)
async def test_each_fault_is_one_error(
    server: ProviderServer, in_process: TokenHTTP, fault: Fault, error: type[Exception] | None
) -> None:
    """An endpoint that is being updated is transient; a missing identity is a refusal for this machine only."""
    server.managed_identity.script.then(fault)
    with pytest.raises(error or CredentialRejected):
        await ManagedIdentity(resource=GRAPH).fetch(in_process)
    assert (await ManagedIdentity(resource=GRAPH).fetch(in_process)).value


def test_only_user_assigned_identities_are_shared() -> None:
    """Two machines with their own identities do not share a token through Redis."""
    assert not ManagedIdentity(resource=GRAPH).shareable
    here = ManagedIdentity(resource=GRAPH, client_id="a")
    there = ManagedIdentity(resource=GRAPH, client_id="a", identity_endpoint=ENDPOINT, identity_header="h")
    assert here.shareable
    assert here == there
    assert here != ManagedIdentity(resource=GRAPH, client_id="b")
    assert here != ManagedIdentity(resource="https://vault.azure.net", client_id="a")
    assert ManagedIdentity(resource=GRAPH) != ManagedIdentity(resource=GRAPH, identity_endpoint=ENDPOINT)


def test_hosts_are_those_of_the_resource() -> None:
    """A bot's token goes to the channels, Graph's token to Graph."""
    assert frozenset({"graph.microsoft.com"}) == ManagedIdentity(resource=GRAPH).hosts
    channels = ManagedIdentity(resource="https://api.botframework.com").hosts
    assert channels is not None
    assert "smba.trafficmanager.net" in channels
    assert ManagedIdentity(resource="https://vault.azure.net").hosts is None


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"resource": ""}, r"\(resource=…\) is empty"),
        ({"resource": f"{GRAPH}/.default"}, "leave out"),
        ({"client_id": 5}, r"\(client_id=…\) must be a str"),
        ({"identity_header": "h"}, "needs identity_endpoint=…"),
        ({"identity_endpoint": "http://10.0.0.1/msi"}, r"\(identity_endpoint=…\) would send .* allow_http=True"),
        ({"refresh_before": 0}, r"\(refresh_before=…\) must be a positive"),
    ],
)
def test_options_that_cannot_work_are_refused_at_construction(options: dict[str, Any], text: str) -> None:
    """The text names the option."""
    given: dict[str, Any] = {"resource": GRAPH} | options
    with pytest.raises(ConfigurationError, match=text):
        ManagedIdentity(**given)


def test_401_is_a_rejection() -> None:
    """As for any token of Entra, only a 401 is a rejection."""
    assert ManagedIdentity(resource=GRAPH).is_rejected(Answer(401))
    assert not ManagedIdentity(resource=GRAPH).is_rejected(Answer(403))
