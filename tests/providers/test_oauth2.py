from __future__ import annotations

import time
import traceback
import uuid
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

import jwt
import pytest

from tests.providers.wire import http_answer, wire
from tokenmw.clock import SYSTEM_CLOCK
from tokenmw.errors import ConfigurationError, CredentialRejected, TokenUnavailable
from tokenmw.limits import Limits
from tokenmw.providers import ClientCredentials, TokenHTTP
from tokenmw.testing import Fault, ProviderServer

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

SECRET = "s3:cr%3t ä"
GRANTED = b'{"access_token": "t-1", "token_type": "bearer", "expires_in": 60, "instance_url": "https://na1.example"}'


def credentials(**options: Any) -> ClientCredentials:
    """Make the credential of the client `crm`."""
    defaults = {"token_url": "https://idp.example/oauth2/token", "client_id": "crm", "client_secret": SECRET}
    given: dict[str, Any] = defaults | options
    return ClientCredentials(**given)


@pytest.fixture
def server() -> ProviderServer:
    """A strict server that knows one client."""
    return ProviderServer(clients={"crm": SECRET})


@pytest.fixture
async def in_process(server: ProviderServer, library: Any) -> AsyncGenerator[TokenHTTP]:
    """The server without a socket, through a client of each library."""
    async with library.AsyncClient(transport=server.transport(library.__name__)) as client:
        yield TokenHTTP(client, limits=Limits(), clock=SYSTEM_CLOCK)


@pytest.mark.parametrize("method", ["client_secret_basic", "client_secret_post"])
async def test_secret_gets_a_token(server: ProviderServer, in_process: TokenHTTP, method: str) -> None:
    """Both methods of RFC 6749 §2.3.1 work, with one request each and secrets of any letters."""
    grant = await credentials(auth_method=method, scope="b a").fetch(in_process)
    issued = server.issued.find(grant.value)
    assert issued is not None
    assert ("crm", "b a", 3600.0, "Bearer") == (issued.client, issued.scope, grant.expires_in, grant.token_type)
    assert {"scope": "b a"} == dict(grant.extra)
    assert 1 == server.calls["oauth2"] == server.calls["oauth2", "crm"]


async def test_signed_assertion_gets_a_token_each_time(server: ProviderServer, in_process: TokenHTTP) -> None:
    """Assertions made with PyJWT as in the docstring (RFC 7523 §2.2) work; one used twice is refused by its `jti`."""

    def assertion() -> str:
        claims = {"iss": "crm", "sub": "crm", "aud": "https://idp.example/oauth2/token", "jti": str(uuid.uuid4())}
        return jwt.encode(claims | {"exp": int(time.time()) + 60}, "k" * 32, algorithm="HS256")

    crm = credentials(client_secret=None, auth_method="private_key_jwt", client_assertion=assertion)
    assert (await crm.fetch(in_process)).value != (await crm.fetch(in_process)).value
    fixed = credentials(client_secret=None, auth_method="private_key_jwt", client_assertion=assertion())
    await fixed.fetch(in_process)
    with pytest.raises(CredentialRejected, match="invalid_client"):
        await fixed.fetch(in_process)


async def test_request_is_the_form_of_rfc_6749(http: TokenHTTP) -> None:
    """Options that are not given are not sent, and the scope is sent as given."""
    async with wire(http_answer(200, body=GRANTED)) as server:
        await credentials(token_url=f"{server.url}/t").fetch(http)
        crm = credentials(token_url=f"{server.url}/t", scope="z a", audience="https://api.example", resource="urn:r")
        grant = await crm.fetch(http)
    assert ("t-1", 60.0, "Bearer") == (grant.value, grant.expires_in, grant.token_type)
    assert {"instance_url": "https://na1.example"} == dict(grant.extra)
    bare, full = (request.rpartition(b"\r\n\r\n")[2].decode() for request in server.requests)
    assert {"grant_type": ["client_credentials"]} == parse_qs(bare)
    fields = {"scope": ["z a"], "audience": ["https://api.example"], "resource": ["urn:r"]}
    assert {"grant_type": ["client_credentials"], **fields} == parse_qs(full)


async def test_server_that_does_not_decode_needs_form_encode_basic_false(
    server: ProviderServer, in_process: TokenHTTP
) -> None:
    """A server that does not decode the header refuses an encoded secret, and accepts an unencoded one."""
    server.oauth2.decodes_basic = False
    with pytest.raises(CredentialRejected, match="set form_encode_basic=False"):
        await credentials().fetch(in_process)
    await credentials(form_encode_basic=False).fetch(in_process)


async def test_a_request_that_a_server_cannot_decode_names_form_encode_basic(http: TokenHTTP) -> None:
    """Servers answer an unencoded `%` with `invalid_request`, because they find no client in the header."""
    async with wire(http_answer(400, body=b'{"error": "invalid_request"}')) as server:
        for secret, named in (("100%", True), ("100", False)):
            crm = credentials(token_url=f"{server.url}/t", client_secret=secret, form_encode_basic=False)
            with pytest.raises(CredentialRejected) as it:
                await crm.fetch(http)
            assert named is ("leave form_encode_basic=True" in str(it.value))


@pytest.mark.parametrize(
    ("fault", "error", "retry_after"),
    [
        (Fault(status=503, headers={"Retry-After": "2"}), TokenUnavailable, 2.0),
        (Fault(status=429, body={"error": "slow_down"}), TokenUnavailable, None),
        (Fault(close=True), TokenUnavailable, None),
        (Fault(body="<h1>Sign in to the network</h1>"), TokenUnavailable, None),
        (Fault(fields={"expires_in": 0}), TokenUnavailable, None),
        (Fault(without=["access_token"]), TokenUnavailable, None),
        (Fault(status=400, body={"error": "invalid_scope"}), CredentialRejected, None),
        (Fault(status=404), TokenUnavailable, None),
    ],
)
async def test_one_fault_is_one_error_and_the_next_call_succeeds(
    server: ProviderServer, in_process: TokenHTTP, fault: Fault, error: type[Exception], retry_after: float | None
) -> None:
    """Each fault raises its error, and the next call gets a token."""
    server.oauth2.script.then(fault)
    with pytest.raises(error) as caught:
        await credentials().fetch(in_process)
    assert retry_after == getattr(caught.value, "retry_after", None)
    assert (await credentials().fetch(in_process)).value


async def test_missing_lifetime_is_the_default(server: ProviderServer, in_process: TokenHTTP) -> None:
    """A missing lifetime is 600 s, or `default_life`."""
    server.oauth2.script.always = Fault(without=["expires_in"])
    assert 600.0 == (await credentials().fetch(in_process)).expires_in
    assert 7200.0 == (await credentials(default_life=7200).fetch(in_process)).expires_in


@pytest.mark.parametrize("method", ["client_secret_basic", "client_secret_post", "private_key_jwt"])
async def test_no_error_shows_a_secret(http: TokenHTTP, method: str) -> None:
    """Errors printed with all variables of all frames show no secret, even if the server repeats it."""
    secret = "s3cr3t-of-crm"
    given = (
        {"client_assertion": secret, "client_secret": None}
        if method == "private_key_jwt"
        else {"client_secret": secret}
    )
    answers = [
        http_answer(400, body=f'{{"error": "{secret}", "error_description": "{secret}"}}'.encode()),
        http_answer(401, body=f"<html>{secret}".encode()),
        http_answer(200, headers=f"content-type: text/{secret}!\r\n", body=secret.encode()),
        http_answer(302, headers=f"location: https://idp.example/?{secret}\r\n"),
        b"",
    ]
    for answer in answers:
        async with wire(answer) as server:
            crm = credentials(token_url=server.url, auth_method=method, **given)
            with pytest.raises((CredentialRejected, TokenUnavailable)) as caught:
                await crm.fetch(http)
        trace = traceback.TracebackException.from_exception(caught.value, capture_locals=True)
        trace.stack = traceback.StackSummary.from_list(trace.stack[1:])
        assert secret not in "".join(trace.format()) + repr(crm) + repr(caught.value.__dict__)
        assert caught.value.__context__ is None


@pytest.mark.parametrize(
    ("other", "same"),
    [
        ({}, True),
        ({"scope": "a  b"}, False),
        ({"client_secret": "t"}, False),
        ({"client_id": "erp"}, False),
        ({"token_url": "https://idp.example/other"}, False),
        ({"audience": "a"}, False),
        ({"resource": "urn:a"}, False),
        ({"auth_method": "client_secret_post"}, False),
        ({"hosts": ["api.example"], "refresh_before": 60, "default_life": 60, "allow_http": True}, True),
    ],
)
def test_equality_is_the_credential(other: dict[str, Any], *, same: bool) -> None:
    """Options that change the token make another credential; options about its use do not."""
    assert same is (credentials() == credentials(**other))


def test_order_of_scopes_makes_no_other_credential() -> None:
    """The order of scopes does not matter (RFC 6749 §3.3)."""
    assert credentials(scope="a b c") == credentials(scope=" c  b a b")
    assert credentials(audience="urn:a") != credentials(resource="urn:a")


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"token_url": "http://idp.example/t"}, r"ClientCredentials\(token_url=…\) would send .* allow_http=True"),
        ({"client_secret": None}, "ClientCredentials needs client_secret=…"),
        ({"scope": ["a", "b"]}, r"\(scope=…\) must be one str, with spaces between the scopes, not a list"),
        ({"scope": "a\nb"}, "control character"),
        ({"audience": ""}, r"\(audience=…\) is empty"),
        ({"resource": 5}, r"\(resource=…\) must be a str"),
        ({"refresh_before": 0}, r"\(refresh_before=…\) must be a positive"),
        ({"default_life": "600"}, r"\(default_life=…\) must be a positive"),
        ({"hosts": "api.example"}, r"\(hosts=…\) must be a list"),
    ],
)
def test_options_that_cannot_work_are_refused_at_construction(options: dict[str, Any], text: str) -> None:
    """The text names the option."""
    with pytest.raises(ConfigurationError, match=text):
        credentials(**options)


def test_options_are_attributes() -> None:
    """The token manager and the auth object read them from the provider."""
    crm = credentials(hosts=["API.example"], refresh_before=60, token_url="http://idp/", allow_http=True)
    assert (frozenset({"api.example"}), 60.0, True, True) == (
        crm.hosts,
        crm.refresh_before,
        crm.allow_http,
        crm.shareable,
    )
    unnamed = credentials(client_secret=None, auth_method="private_key_jwt", client_assertion=lambda: "a")
    assert not unnamed.shareable
    assert "<ClientCredentials>" == repr(crm)


async def test_scheme_replaces_the_type_of_the_response(server: ProviderServer, in_process: TokenHTTP) -> None:
    """By default a token that needs a proof is refused; with `scheme` every token is sent behind that word."""
    types = ("DPoP", "DPoP", "JWT", "JWT")
    server.oauth2.script.then(*(Fault(fields={"token_type": word}) for word in types))
    acme = credentials(scheme="Acme-JWT")
    with pytest.raises(TokenUnavailable, match=r'token_type "DPoP" needs a proof.*ClientCredentials\(scheme=…\)'):
        await credentials().fetch(in_process)
    assert "Acme-JWT" == (await acme.fetch(in_process)).token_type
    assert "Bearer" == (await credentials().fetch(in_process)).token_type
    assert "Acme-JWT" == (await acme.fetch(in_process)).token_type == acme.scheme
    assert credentials() != acme == credentials(scheme="Acme-JWT")


async def test_lifetime_options_are_read(server: ProviderServer, in_process: TokenHTTP) -> None:
    """Zero means the default if the program says so, and no token lives longer than the program says."""
    server.oauth2.script.then(*(Fault(fields={"expires_in": value}) for value in (0, 0, 3_599_000)))
    with pytest.raises(TokenUnavailable, match="already expired"):
        await credentials().fetch(in_process)
    endless = credentials(zero_means_default_life=True, default_life=86_400)
    assert 86_400.0 == (await endless.fetch(in_process)).expires_in
    assert 3600.0 == (await credentials(max_life=3600).fetch(in_process)).expires_in
    with pytest.raises(ConfigurationError, match=r"\(max_life=…\) must be a positive"):
        credentials(max_life=0)
    with pytest.raises(ConfigurationError, match=r"\(zero_means_default_life=…\) must be True or False"):
        credentials(zero_means_default_life="no")


@pytest.mark.parametrize("scheme", ["", "two words", "a:b", "-", "x" * 65, 5, "\u5bc6"])
def test_scheme_is_one_word(scheme: Any) -> None:
    """It stands in front of the token in a header."""
    with pytest.raises(ConfigurationError, match=r"ClientCredentials\(scheme=…\) must be one word"):
        credentials(scheme=scheme)
