"""A server that is known by its issuer: how its token endpoint is found, kept and found again, over real HTTP."""

from __future__ import annotations

import asyncio
import contextlib
import traceback
from collections import Counter
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from tests.providers.private_keys import make_key, pem_of
from tokenmw import ConfigurationError, TokenBroker, TokenUnavailable
from tokenmw.clock import SYSTEM_CLOCK
from tokenmw.limits import Limits
from tokenmw.providers import ClientCredentials, PrivateKeyJWT, TokenHTTP
from tokenmw.providers.discovery import ServerMetadata
from tokenmw.testing import Fault, ManualClock, ProviderServer
from tokenmw.testing.provider_server.endpoint import Endpoint
from tokenmw.testing.provider_server.oauth2 import OAuth2Endpoint

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from starlette.requests import Request

    from tests.servers import RedisServer

SECRET = "s3:cr%3t ä"


class MovedEndpoint(OAuth2Endpoint):
    """A token endpoint at another place."""

    name = "moved"
    path = "/v2/token"


class World:
    """One server with both sorts of metadata, and a client to reach it.

    Attributes:
        base: The server's base URL.
        issuer: Its issuer.
        calls: The calls of its endpoints.
        clock: The clock of the brokers.
        moved: A token endpoint beside `oauth2`.
    """

    def __init__(self) -> None:
        self.moved: MovedEndpoint
        self.server = ProviderServer(clients={"crm": SECRET, "erp": SECRET}, endpoints=[self._moved])
        self.clock = ManualClock()
        self.base = self.issuer = ""

    def _moved(self, server: ProviderServer) -> Endpoint:
        self.moved = MovedEndpoint(server, life=3600.0)
        return self.moved

    def publish(self, fields: dict[str, Any] | None, *, openid: dict[str, Any] | None = None) -> None:
        """Publish metadata of RFC 8414, and those of OpenID Connect Discovery; None: 404."""
        for endpoint, given in ((self.server.oauth2_metadata, fields), (self.server.openid_metadata, openid)):
            endpoint.script.always = Fault(status=404) if given is None else Fault(body=given)

    @property
    def calls(self) -> Counter[str]:
        """The calls by endpoint."""
        return Counter({name: count for name, count in self.server.calls.items() if isinstance(name, str)})

    def metadata(self, **fields: Any) -> dict[str, Any]:
        """Return the metadata of this server, with other fields."""
        return {"issuer": self.issuer, "token_endpoint": f"{self.base}/oauth2/token", **fields}

    def credentials(self, client_id: str = "crm", **options: Any) -> ClientCredentials:
        """Make a client of this server that knows its issuer only."""
        given: dict[str, Any] = {"issuer": self.issuer, "client_id": client_id, "client_secret": SECRET}
        return ClientCredentials(**(given | options))

    @contextlib.asynccontextmanager
    async def broker(self, *providers: ClientCredentials, **options: Any) -> AsyncGenerator[TokenBroker]:
        """Open a broker for some clients, named 0, 1 and so on."""
        named: dict[str, Any] = {str(number): one for number, one in enumerate(providers)}
        async with httpx.AsyncClient(trust_env=False) as http:
            time: dict[str, Any] = {} if "redis" in options else {"clock": self.clock}
            async with TokenBroker(named, http=http, **time, **options) as broker:
                yield broker


@pytest.fixture
def world() -> Any:
    """A running server with metadata of RFC 8414 for a realm."""
    world = World()
    with world.server.running() as base_url:
        world.base, world.issuer = base_url, f"{base_url}/realms/crm"
        world.publish(world.metadata())
        yield world


@pytest.mark.parametrize("path", ["", "/realms/crm", "/a/b"])
async def test_the_documents_of_the_test_server_are_found(world: World, path: str) -> None:
    """They are those of real servers: at the root, or with the issuer's path behind or before the well-known one."""
    for first in (world.server.oauth2_metadata, world.server.openid_metadata):
        world.server.oauth2_metadata.script.always = world.server.openid_metadata.script.always = Fault(status=404)
        first.script.always = None
        async with world.broker(world.credentials(issuer=f"{world.base}{path}")) as broker:
            assert (await broker.token("0")).value


async def test_the_endpoint_is_found_once_for_all_clients(world: World) -> None:
    """The first token request finds it by RFC 8414; other clients and later tokens use what was found."""
    async with world.broker(world.credentials(), world.credentials("erp"), world.credentials(scope="a")) as broker:
        assert Counter() == world.calls
        for name in "012":
            assert "Bearer" == (await broker.token(name)).token_type
        await broker.invalidate_provider("0")
        await broker.token("0")
    assert {"oauth2_metadata": 1, "oauth2": 4} == world.calls


@pytest.mark.parametrize(
    "fault",
    [
        None,
        Fault(body="<html>an application of one page"),
        Fault(status=500),
        Fault(status=302, headers={"location": "/login"}),
        Fault(status=401),
        Fault(body={"issuer": "https://other.example"}),
        Fault(close=True),
    ],
)
async def test_without_metadata_of_rfc_8414_those_of_openid_are_used(world: World, fault: Fault | None) -> None:
    """Whatever is at the first place, the second one is tried."""
    world.publish(None, openid=world.metadata())
    if fault is not None:
        world.server.oauth2_metadata.script.always = fault
    async with world.broker(world.credentials()) as broker:
        assert (await broker.token("0")).value
    assert {"oauth2_metadata": 1, "openid_metadata": 1, "oauth2": 1} == world.calls


FIRST = r"/\.well-known/oauth-authorization-server/realms/crm"
SECOND = r"/realms/crm/\.well-known/openid-configuration"


def wrong(base: str) -> list[tuple[dict[str, Any] | None, str]]:
    """Return metadata that cannot be used, and the texts of their errors."""
    issuer = f"{base}/realms/crm"
    endpoint = {"issuer": issuer, "token_endpoint": "https://idp.example/token"}
    return [
        (
            None,
            rf"publishes no metadata at {FIRST} \(HTTP 404, no content .* at {SECOND} \(HTTP 404, .*: check issuer, or",
        ),
        ({**endpoint, "issuer": "https://evil.example"}, r"of another issuer \(https://evil\.example\): issuer must"),
        ({**endpoint, "issuer": f"{issuer}/"}, r'of another issuer \(only the "/" at the end differs\)'),
        ({**endpoint, "issuer": issuer.upper()}, "of another issuer"),
        ({**endpoint, "issuer": "x" * 300}, "of another issuer: issuer must be the same text"),
        ({**endpoint, "issuer": "a\nb"}, "of another issuer: issuer must be the same text"),
        ({**endpoint, "issuer": 5}, r"of another issuer \(it names none\)"),
        ({}, r"of another issuer \(it names none\)"),
        ({"issuer": issuer}, "metadata without a token_endpoint: check issuer, or give token_url"),
        ({**endpoint, "token_endpoint": ["https://idp.example/token"]}, "metadata without a token_endpoint"),
        ({**endpoint, "token_endpoint": "https://idp.example/to ken"}, "metadata without a token_endpoint"),
        ({**endpoint, "token_endpoint": "http://idp.example/token"}, "cannot be used: .* without TLS: use https://"),
        ({**endpoint, "token_endpoint": "https://u:p@idp.example/token"}, "cannot be used: .* user name or password"),
        ({**endpoint, "token_endpoint": "/token"}, "cannot be used: .* must be an absolute URL"),
    ]


@pytest.mark.parametrize("number", range(len(wrong(""))))
async def test_metadata_that_cannot_be_used_are_one_clear_error(world: World, number: int) -> None:
    """The text says what is wrong with them and what to do; no secret is sent, and callers see a fixed sentence."""
    fields, text = wrong(world.base)[number]
    world.publish(fields)
    async with world.broker(world.credentials()) as broker:
        with pytest.raises(TokenUnavailable, match=text) as caught:
            await broker.token("0")
    assert caught.value.detail == TokenUnavailable.fixed_detail
    assert SECRET not in "".join(traceback.format_exception(caught.value))
    assert {"oauth2_metadata": 1, "openid_metadata": 1} == world.calls


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"issuer": "http://idp.example"}, r"ClientCredentials\(issuer=…\) would send .* allow_http=True"),
        ({"issuer": "idp.example"}, r"\(issuer=…\) must be an absolute URL"),
        ({"issuer": "https://idp.example/?a=b"}, r"\(issuer=…\) has a query .* remove it"),
        ({"issuer": "https://idp.example/?"}, r"\(issuer=…\) has a query .* remove it"),
        ({"issuer": "https://idp.example/#a"}, r"\(issuer=…\) has a fragment"),
        ({"issuer": "https://idp.example/.well-known/openid-configuration"}, r"leave out /\.well-known/ and what"),
        ({"issuer": "https://10.0.0.1", "allow_private": False}, r"\(issuer=…\)"),
        ({"issuer": 5}, r"\(issuer=…\) must be a str"),
        ({"issuer": None}, r"ClientCredentials needs token_url=…, or issuer=… in its place, and not both"),
        ({"token_url": "https://idp.example/t"}, r"ClientCredentials needs token_url=…, or issuer=… in its place, and"),
    ],
)
def test_an_issuer_that_cannot_work_is_refused_at_construction(options: dict[str, Any], text: str) -> None:
    """The text names the option and the fix."""
    given: dict[str, Any] = {"issuer": "https://idp.example", "client_id": "crm", "client_secret": "s"}
    with pytest.raises(ConfigurationError, match=text):
        ClientCredentials(**(given | options))


def test_an_endpoint_must_satisfy_the_rules_of_token_url() -> None:
    """Without `allow_private`, an issuer of a tenant cannot name an endpoint inside."""
    options: dict[str, Any] = {"provider": "P", "allow_http": False}
    inside = ServerMetadata("https://idp.example", allow_private=True, **options)
    outside = ServerMetadata("https://idp.example", allow_private=False, **options)
    assert "" == inside._problem_of("https://10.0.0.1/token")
    assert "private" in outside._problem_of("https://10.0.0.1/token")
    assert "without TLS" in inside._problem_of("http://idp.example/token")
    assert inside != outside


@pytest.mark.parametrize(
    ("supported", "options", "header"),
    [
        (None, {}, True),
        (["client_secret_post", "client_secret_basic"], {}, True),
        (["private_key_jwt", "client_secret_post"], {}, False),
        (["client_secret_post"], {"auth_method": "client_secret_basic"}, True),
        (["client_secret_basic"], {"auth_method": "client_secret_post"}, False),
        (["tls_client_auth"], {"auth_method": "client_secret_post"}, False),
        ("client_secret_post", {}, True),
    ],
)
async def test_the_method_is_one_that_the_server_publishes(
    world: World, supported: Any, options: dict[str, Any], *, header: bool
) -> None:
    """Basic is preferred, also where the server does not say (RFC 8414 §2); `auth_method` decides if it is given."""
    more = {} if supported is None else {"token_endpoint_auth_methods_supported": supported}
    world.publish(world.metadata(**more))
    seen: list[bool] = []
    original = world.server.oauth2.caller

    async def caller(request: Request) -> str:
        seen.append("authorization" in request.headers)
        return await original(request)

    world.server.oauth2.caller = caller  # type: ignore[method-assign]
    async with world.broker(world.credentials(**options)) as broker:
        await broker.token("0")
    assert [header] == seen


async def test_a_server_without_a_usual_method_is_a_clear_error(world: World) -> None:
    """The text names the option that helps; with an assertion, the list does not matter."""
    world.publish(world.metadata(token_endpoint_auth_methods_supported=["private_key_jwt", 5]))
    key = PrivateKeyJWT(pem_of(make_key("P-256")))
    with_key = world.credentials(client_secret=None, client_assertion=key)
    async with world.broker(world.credentials(), with_key) as broker:
        with pytest.raises(
            TokenUnavailable, match=r"neither client_secret_basic nor client_secret_post: set auth_meth"
        ):
            await broker.token("0")
        assert (await broker.token("1")).value


async def test_many_callers_find_it_with_one_request(world: World) -> None:
    """Clients of one issuer that start at the same time wait for one request."""
    clients = [world.credentials(scope=f"s{number}") for number in range(20)]
    async with world.broker(*clients) as broker:
        names = [str(number) for number in range(20)]
        await asyncio.gather(*(broker.token(name) for name in names for _ in range(10)))
    assert {"oauth2_metadata": 1, "oauth2": 20} == world.calls


async def test_a_failure_is_not_repeated_for_each_caller(world: World) -> None:
    """While metadata cannot be used, the server is asked again after a growing backoff, and not by every client."""
    world.publish(None)
    clients = [world.credentials(scope=f"s{number}") for number in range(10)]
    async with world.broker(*clients) as broker:
        for name in range(10):
            for _ in range(5):
                with pytest.raises(TokenUnavailable, match="publishes no metadata"):
                    await broker.token(str(name))
        assert {"oauth2_metadata": 1, "openid_metadata": 1} == world.calls
        world.publish(world.metadata())
        world.clock.advance(60)
        assert (await broker.token("3")).value
    assert {"oauth2_metadata": 2, "openid_metadata": 1, "oauth2": 1} == world.calls


async def test_an_endpoint_that_has_moved_is_found_again(world: World) -> None:
    """Its 404 leads to one more request for the metadata, and the token comes from the new place in the same call."""
    async with world.broker(world.credentials()) as broker:
        await broker.token("0")
        world.clock.advance(600)
        world.server.oauth2.script.always = Fault(status=404)
        world.publish(world.metadata(token_endpoint=f"{world.base}/v2/token"))
        await broker.invalidate_provider("0")
        assert (await broker.token("0")).value.startswith("moved-")
        await broker.invalidate_provider("0")
        await broker.token("0")
    assert {"oauth2_metadata": 2, "oauth2": 2, "moved": 2} == world.calls


async def test_an_endpoint_that_is_only_broken_costs_few_requests(world: World) -> None:
    """If the metadata still name it, its own error is raised, and the metadata are not requested for each attempt."""
    async with world.broker(world.credentials()) as broker:
        await broker.token("0")
        world.clock.advance(600)
        world.server.oauth2.script.always = Fault(status=404)
        await broker.invalidate_provider("0")
        for _ in range(20):
            with pytest.raises(TokenUnavailable, match=r"has no token endpoint at /oauth2/token .*: check issuer"):
                await broker.token("0")
            world.clock.advance(4)
        assert world.calls["oauth2_metadata"] <= 10
        assert world.calls["oauth2"] <= 21
        before = world.calls["oauth2_metadata"]
        for _ in range(100):
            with pytest.raises(TokenUnavailable, match="has no token endpoint at /oauth2/token"):
                await broker.token("0")
            world.clock.advance(6)
        assert world.calls["oauth2_metadata"] - before <= 20
        world.server.oauth2.script.always = None
        world.clock.advance(300)
        assert (await broker.token("0")).value


async def test_metadata_are_not_in_redis(world: World, redis_server: RedisServer) -> None:
    """Each process finds the endpoint itself: what is in Redis must not decide where a secret is sent."""
    options = {"redis": redis_server.url, "secret_key": "a secret for the tests only"}
    async with world.broker(world.credentials(), **options) as one, world.broker(world.credentials(), **options) as two:
        assert (await one.token("0")).value == (await two.token("0")).value
        await two.invalidate_provider("0")
        await two.token("0")
    assert {"oauth2_metadata": 2, "oauth2": 2} == world.calls


async def test_the_endpoint_is_the_audience_of_an_assertion(world: World) -> None:
    """An assertion is for the endpoint that was found, not for the issuer."""
    key = PrivateKeyJWT(pem_of(make_key("P-256")))
    audiences: list[str] = []

    class Watched(PrivateKeyJWT):
        async def assertion(self, client_id: str, *, audience: str) -> str:
            audiences.append(audience)
            return await key.assertion(client_id, audience=audience)

    client = world.credentials(client_secret=None, client_assertion=Watched(pem_of(make_key("P-256"))))
    async with world.broker(client) as broker:
        await broker.token("0")
    assert [f"{world.base}/oauth2/token"] == audiences


def test_the_issuer_is_part_of_the_credential() -> None:
    """An issuer and a token endpoint of the same text are two credentials; the rest of it is as before."""
    given: dict[str, Any] = {"client_id": "crm", "client_secret": "s"}
    url = "https://idp.example"
    by_issuer = ClientCredentials(issuer=url, **given)
    assert by_issuer == ClientCredentials(issuer=url, **given)
    assert by_issuer != ClientCredentials(token_url=url, **given)
    assert by_issuer != ClientCredentials(issuer=f"{url}/", **given)
    assert by_issuer != ClientCredentials(issuer=url, auth_method="client_secret_basic", **given)
    assert ClientCredentials(token_url=url, **given) == ClientCredentials(
        token_url=url, auth_method="client_secret_basic", **given
    )
    assert ("oauth2", url, "crm", "client_secret_basic", "s", None, None, (), None, None) == ClientCredentials(
        token_url=url, **given
    ).credential


async def test_without_a_broker_the_error_says_so(world: World) -> None:
    """`fetch` alone has no place to keep what was found."""
    async with httpx.AsyncClient(trust_env=False) as client:
        with pytest.raises(TokenUnavailable, match="which only a TokenBroker can get"):
            await world.credentials().fetch(TokenHTTP(client, limits=Limits(), clock=SYSTEM_CLOCK))
