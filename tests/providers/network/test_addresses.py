"""`allow_private=False`: URLs that tenants choose lead to public addresses only, also when a name server lies."""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING, Any

import httpcore
import httpx
import httpx2
import pytest

from tests.providers.network.certificates import self_signed
from tests.providers.network.servers import GRANT, answers, listening
from tokenmw import TokenBroker
from tokenmw.clock import SYSTEM_CLOCK
from tokenmw.errors import ConfigurationError, TokenUnavailable
from tokenmw.limits import Limits
from tokenmw.providers import ClientCredentials, HTTPOptions, Provider, TokenHTTP, WeCom
from tokenmw.providers.http_client import default_client
from tokenmw.providers.network import backend
from tokenmw.providers.network.addresses import is_public
from tokenmw.values import Grant, Token

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable
    from pathlib import Path

PLAIN_BACKEND: Any = httpcore.AnyIOBackend  # pyright sees the stand-in for a missing anyio


def anything(_: str) -> bool:
    """Take every address for a public one."""
    return True


PRIVATE = [
    *("0.0.0.0", "0.1.2.3", "10.0.0.1", "100.64.0.1", "100.100.100.200", "127.0.0.1", "127.255.255.255"),
    *("169.254.169.254", "168.63.129.16", "172.16.0.1", "172.31.255.255", "192.0.0.192", "192.0.2.1", "192.88.99.1"),
    *("192.168.1.1", "198.18.0.1", "198.51.100.1", "203.0.113.1", "224.0.0.1", "239.1.2.3", "240.0.0.1"),
    "255.255.255.255",
    *("::", "::1", "fe80::1", "fe80::1%eth0", "fec0::1", "fc00::1", "fd00:ec2::254", "ff02::1", "ff0e::1"),
    *(
        "::ffff:127.0.0.1",
        "::ffff:8.8.8.8",
        "::127.0.0.1",
        "::8.8.8.8",
        "64:ff9b::10.0.0.1",
        "64:ff9b::169.254.169.254",
    ),
    *("64:ff9b:1::1", "100::1", "2001::1", "2001:0:4136:e378:8000:63bf:3fff:fdd2", "2001:db8::1"),
    *("2002:7f00:1::", "2002:808:808::", "3fff::1", "4000::1", "5f00::1"),
]
PUBLIC = ["8.8.8.8", "1.1.1.1", "172.32.0.1", "100.128.0.1", "2606:4700::1111", "2a00:1450::1", "64:ff9b::8.8.8.8"]


@pytest.mark.parametrize("address", PRIVATE)
def test_private_addresses(address: str) -> None:
    """Private, loopback, link-local, shared, multicast, reserved and metadata addresses are not public."""
    assert not is_public(address)


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses(address: str) -> None:
    """Addresses of the internet are public, also behind the NAT64 prefix."""
    assert is_public(address)


@pytest.mark.parametrize("text", ["", "idp.example", "8.8.8", "0x8.8.8.8", "8.8.8.8 ", "008.8.8.8"])
def test_what_is_no_address_is_not_public(text: str) -> None:
    """Only one spelling counts, that of an address that was resolved."""
    assert not is_public(text)


def tenants_url(url: str, **options: Any) -> ClientCredentials:
    """Make the credential of a tenant that has chosen the URL."""
    return ClientCredentials(token_url=url, client_id="c", client_secret="s", allow_private=False, **options)


@pytest.mark.parametrize(
    "host",
    [
        *(
            "127.0.0.1",
            "10.0.0.1",
            "169.254.169.254",
            "100.64.0.1",
            "0.0.0.0",
            "[::1]",
            "[::ffff:127.0.0.1]",
            "[fd00::1]",
        ),
        *("[64:ff9b::7f00:1]", "[2002:7f00:1::]", "[::]", "127.1", "127.0.1", "0x7f.1", "0x7f000001", "2130706433"),
        *("0177.0.0.1", "017700000001", "0", "127.0.0.1.", "2130706433.", "localhost", "LOCALHOST", "localhost."),
        *("idp.localhost", "99999999999", "256.256.256.256", "0x.0x.0x.0x"),
    ],
)
def test_private_hosts_are_refused_at_construction(host: str) -> None:
    """A private address in any spelling that resolvers accept, and names of this machine, are refused with the fix."""
    with pytest.raises(ConfigurationError, match=r"token_url=…\) (leads to a private address|has an invalid|must be)"):
        tenants_url(f"https://{host}/token")


@pytest.mark.parametrize("host", ["idp.example", "8.8.8.8", "[2606:4700::1111]", "10.0.0.1.nip.example", "a0x7f.1e"])
def test_other_hosts_are_accepted_at_construction(host: str) -> None:
    """A public address, and any name: its addresses are checked when a request connects."""
    assert not tenants_url(f"https://{host}/token").allow_private


@pytest.mark.parametrize("given", [None, 0, "", "no"])
def test_any_value_but_true_refuses(given: Any) -> None:
    """An option that was read wrongly from somewhere refuses private addresses."""
    with pytest.raises(ConfigurationError, match="leads to a private address"):
        ClientCredentials(token_url="https://10.0.0.1/", client_id="c", client_secret="s", allow_private=given)
    provider = ClientCredentials(token_url="https://a.example/", client_id="c", client_secret="s", allow_private=given)
    assert provider.allow_private is False


def test_the_option_is_no_part_of_the_credential() -> None:
    """Whether private addresses are refused changes neither the identity nor the keys in Redis."""
    url = "https://idp.example/token"
    open_ = ClientCredentials(token_url=url, client_id="c", client_secret="s")
    assert open_ == tenants_url(url)
    assert open_.identity() == tenants_url(url).identity()


@pytest.fixture
def resolved(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """What the name servers answer: one list of addresses for each lookup, the last one for all further ones."""
    answered: list[list[str]] = []

    def getaddrinfo(*_: Any, **__: Any) -> list[Any]:
        addresses = answered.pop(0) if len(answered) > 1 else answered[0]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 0)) for address in addresses]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    return answered


@pytest.fixture
async def public_http() -> AsyncGenerator[TokenHTTP]:
    """What the provider of a tenant gets."""
    http = TokenHTTP(default_client(limits=Limits()), limits=Limits(), clock=SYSTEM_CLOCK)
    yield http.public_only()
    await http.aclose()


@pytest.mark.parametrize("address", ["127.0.0.1", "10.0.0.1", "169.254.169.254", "::1", "::ffff:127.0.0.1"])
async def test_name_with_a_private_address(public_http: TokenHTTP, resolved: list[list[str]], address: str) -> None:
    """No connection is made to a name that resolves to a private address; the text says why."""
    resolved.append([address])
    async with listening(answers(GRANT)) as port:
        with pytest.raises(TokenUnavailable, match=rf"is refused: its address {address} is not public"):
            await public_http.request("POST", f"http://tenant.example:{port}/")


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]", "0x7f.1", "2130706433"])
async def test_literal_addresses_are_checked_by_the_request_too(public_http: TokenHTTP, host: str) -> None:
    """Code that sends to another URL than that of the option gets no further."""
    async with listening(answers(GRANT)) as port:
        with pytest.raises(TokenUnavailable, match="is refused: its address"):
            await public_http.request("POST", f"http://{host}:{port}/")


class _NoTokens:
    async def token(self, _provider: Provider, /) -> Token:
        raise TokenUnavailable("none")

    async def invalidate(self, _token: Token, /) -> None:
        pass


async def test_with_the_tokens_of_other_providers_it_stays_public(public_http: TokenHTTP) -> None:
    """The order of `public_only` and `with_nested` does not matter."""
    async with listening(answers(GRANT)) as port:
        with pytest.raises(TokenUnavailable, match="is refused: its address"):
            await public_http.with_nested(_NoTokens()).request("POST", f"http://127.0.0.1:{port}/")


async def test_name_that_changes_its_address(
    public_http: TokenHTTP, resolved: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The address that was checked is the one connected to: a name is looked up once for each connection."""
    resolved += [["8.8.8.8"], ["127.0.0.1"]]
    connected: list[str] = []
    connect = PLAIN_BACKEND.connect_tcp

    async def record(self: Any, host: str, *arguments: Any, **options: Any) -> Any:
        connected.append(host)
        if host == "8.8.8.8":
            raise httpcore.ConnectError("there is no network here")
        return await connect(self, host, *arguments, **options)

    monkeypatch.setattr(PLAIN_BACKEND, "connect_tcp", record)
    async with listening(answers(GRANT)) as port:
        with pytest.raises(TokenUnavailable, match="could not be reached"):
            await public_http.request("POST", f"http://tenant.example:{port}/")
        with pytest.raises(TokenUnavailable, match=r"is refused: its address 127\.0\.0\.1"):
            await public_http.request("POST", f"http://tenant.example:{port}/")
    assert ["8.8.8.8"] == connected


async def test_only_the_public_addresses_of_a_name_are_used(
    public_http: TokenHTTP, resolved: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a name with addresses of both sorts, the private ones are left out."""
    resolved.append(["10.0.0.1", "127.0.0.2", "127.0.0.1"])
    monkeypatch.setattr(backend, "is_public", "127.0.0.1".__eq__)
    async with listening(answers(GRANT)) as port:
        answer = await public_http.request("POST", f"http://tenant.example:{port}/")
    assert "t-1" == answer.json()["access_token"]


async def test_connections_to_private_addresses_are_not_reused(resolved: list[list[str]]) -> None:
    """An idle connection that another provider has opened to a private address of the same name is not used."""
    resolved.append(["127.0.0.1"])
    http = TokenHTTP(default_client(limits=Limits()), limits=Limits(), clock=SYSTEM_CLOCK)
    async with listening(answers(GRANT)) as port:
        await http.request("POST", f"http://tenant.example:{port}/")
        with pytest.raises(TokenUnavailable, match="is refused"):
            await http.public_only().request("POST", f"http://tenant.example:{port}/")
    await http.aclose()


async def test_certificate_is_checked_for_the_name(
    resolved: list[list[str]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """TLS verifies the URL's name, not the address that it was resolved to."""
    resolved.append(["127.0.0.1"])
    monkeypatch.setattr(backend, "is_public", anything)
    ca_file, context = self_signed(tmp_path, host="tenant.example")
    http = TokenHTTP(
        default_client(HTTPOptions(ca_file=ca_file), limits=Limits()), limits=Limits(), clock=SYSTEM_CLOCK
    ).public_only()
    async with listening(answers(GRANT), ssl=context) as port:
        answer = await http.request("POST", f"https://tenant.example:{port}/")
        assert "t-1" == answer.json()["access_token"]
        with pytest.raises(TokenUnavailable, match=r"\(certificate\): hostname mismatch"):
            await http.request("POST", f"https://other.example:{port}/")
    await http.aclose()


async def test_broker_keeps_a_tenants_provider_from_private_addresses(resolved: list[list[str]]) -> None:
    """Through a broker, a tenant's URL gets no connection, and one without the option does."""
    resolved.append(["127.0.0.1"])
    async with listening(answers(GRANT)) as port, TokenBroker({}) as broker:
        url = f"http://tenant.example:{port}/"
        with pytest.raises(TokenUnavailable, match=r"is refused: its address 127\.0\.0\.1 is not public"):
            await broker.token(tenants_url(url, allow_http=True))
        own = ClientCredentials(token_url=url, client_id="other", client_secret="s", allow_http=True)
        assert "t-1" == (await broker.token(own)).value


class OfTheProgram(Provider):
    """A provider that a program has written, for URLs of its tenants."""

    __slots__ = ("_url", "nested")
    kind = "own"
    allow_private = False

    def __init__(self, url: str, *, nested: Provider | None = None) -> None:
        self._url = url
        self.nested = nested

    def identity(self) -> tuple[object, ...]:
        return (self._url,)

    async def fetch(self, http: TokenHTTP) -> Grant:
        if self.nested is not None:
            await http.token(self.nested)
        answer = await http.request("POST", self._url)
        return Grant(answer.json()["access_token"], expires_in=3600)


async def test_providers_of_the_program_are_kept_from_private_addresses() -> None:
    """The class attribute is enough: the check does not depend on what `fetch` does."""
    async with listening(answers(GRANT)) as port, TokenBroker({}) as broker:
        url = f"http://127.0.0.1:{port}/"
        with pytest.raises(TokenUnavailable, match="is refused"):
            await broker.token(OfTheProgram(url))
        inner = ClientCredentials(token_url=url, client_id="c", client_secret="s")
        with pytest.raises(TokenUnavailable, match="of a ClientCredentials, which must have allow_private=False too"):
            await broker.token(OfTheProgram("https://a.example/", nested=inner))


class TenantsWeCom(WeCom):
    """A platform's private deployment whose URL a tenant chooses."""

    __slots__ = ()
    allow_private = False


async def test_platforms_are_kept_from_private_addresses_by_a_subclass() -> None:
    """A class derived from a platform's provider needs nothing but the attribute."""
    async with listening(answers(GRANT)) as port, TokenBroker({}) as broker:
        with pytest.raises(TokenUnavailable, match="is refused: its address"):
            await broker.token(TenantsWeCom(corp_id="c", corp_secret="s", base_url=f"http://127.0.0.1:{port}"))


@pytest.mark.parametrize("make", [httpx.AsyncClient, httpx2.AsyncClient])
async def test_client_of_the_program_is_refused(make: Callable[[], Any]) -> None:
    """Another client cannot be kept from private addresses, so it is refused as early as the provider is known."""
    provider = tenants_url("https://idp.example/token")
    async with make() as client:
        with pytest.raises(ConfigurationError, match=r"providers\['crm'\]: allow_private=False needs .* HTTPOptions"):
            TokenBroker({"crm": provider}, http=client)
        async with TokenBroker({}, http=client) as broker:
            with pytest.raises(TokenUnavailable, match=r"was not asked: allow_private=False needs .* HTTPOptions"):
                await broker.token(provider)
            with pytest.raises(ConfigurationError, match="allow_private=False needs"), broker.override({}):
                TokenBroker({"crm": provider}, http=client)


async def test_an_address_is_tried_after_another(resolved: list[list[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    """An address that refuses or does not answer delays the next one by a quarter of a second at most."""
    resolved.append(["127.0.0.9", "127.0.0.8", "127.0.0.1"])
    connect = PLAIN_BACKEND.connect_tcp

    async def slow(self: Any, host: str, *arguments: Any, **options: Any) -> Any:
        if host == "127.0.0.9":
            await asyncio.sleep(60)
        return await connect(self, host, *arguments, **options)

    monkeypatch.setattr(PLAIN_BACKEND, "connect_tcp", slow)
    http = TokenHTTP(default_client(limits=Limits()), limits=Limits(), clock=SYSTEM_CLOCK)
    async with listening(answers(GRANT)) as port:
        answer = await http.request("POST", f"http://tenant.example:{port}/")
    await http.aclose()
    assert "t-1" == answer.json()["access_token"]


@pytest.mark.parametrize(
    ("given", "ordered"),
    [
        (("1.1.1.1",), ["1.1.1.1"]),
        (("::1", "::2", "1.1.1.1"), ["::1", "1.1.1.1", "::2"]),
        (("1.1.1.1", "1.1.1.2", "::1", "::2"), ["1.1.1.1", "::1", "1.1.1.2", "::2"]),
        (("1.1.1.1", "::1"), ["1.1.1.1", "::1"]),
    ],
)
def test_second_address_is_of_the_other_family(given: tuple[str, ...], ordered: list[str]) -> None:
    """A family without a route costs one attempt."""
    assert ordered == backend._alternating(given)
