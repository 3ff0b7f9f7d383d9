"""Token exchange (RFC 8693), the JWT bearer grant (RFC 7523) and Entra on behalf of, against the test server."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

import pytest
from starlette.requests import HTTPConnection

from tests.providers.wire import http_answer, wire
from tokenmw.errors import ConfigurationError, CredentialRejected, SubjectRefused, TokenUnavailable
from tokenmw.limits import Limits
from tokenmw.providers import (
    ClientCredentials,
    EntraOnBehalfOf,
    JWTBearer,
    StaticToken,
    SubjectToken,
    TokenExchange,
    TokenHTTP,
)
from tokenmw.testing import ManualClock, ProviderServer

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from tokenmw.providers.subject import SubjectProvider

SECRET = "s3:cr%3t ä"
GRANTED = b'{"access_token": "t-1", "token_type": "bearer", "expires_in": 60, "issued_token_type": "urn:x"}'
ENTRA = {"tenant": "contoso.example", "base_url": "https://idp.example"}
KINDS = ("exchange", "bearer", "entra")


def provider(kind: str, subject: str | SubjectToken, **options: Any) -> SubjectProvider:
    """Make a provider of one kind for a subject's token."""
    given: dict[str, Any] = {"client_id": "shop", "client_secret": SECRET, "subject": subject}
    given |= (ENTRA if kind == "entra" else {"token_url": "https://idp.example/oauth2/token"}) | options
    match kind:
        case "exchange":
            return TokenExchange(**given)
        case "bearer":
            return JWTBearer(**given)
    return EntraOnBehalfOf(**given)


def connection(*headers: tuple[str, str]) -> HTTPConnection:
    """Make a connection with some headers."""
    lines = [(name.lower().encode(), value.encode()) for name, value in headers]
    return HTTPConnection({"type": "http", "headers": lines})


@pytest.fixture
def clock() -> ManualClock:
    """The clock of server and client."""
    return ManualClock()


@pytest.fixture
def server(clock: ManualClock) -> ProviderServer:
    """A strict server that knows one client."""
    return ProviderServer(clients={"shop": SECRET}, clock=clock)


@pytest.fixture
async def in_process(server: ProviderServer, library: Any, clock: ManualClock) -> AsyncGenerator[TokenHTTP]:
    """The server without a socket, through a client of each library."""
    async with library.AsyncClient(transport=server.transport(library.__name__)) as client:
        yield TokenHTTP(client, limits=Limits(), clock=clock)


@pytest.mark.parametrize("kind", KINDS)
async def test_a_token_of_the_subject_is_granted(server: ProviderServer, in_process: TokenHTTP, kind: str) -> None:
    """It belongs to the subject's user and to the client, and expires a little before the server says."""
    grant = await provider(kind, server.subjects.issue("ada", lifetime=7200.0)).fetch(in_process)
    issued = server.issued.find(grant.value)
    assert issued is not None
    assert ("ada", "shop") == (issued.user, issued.client)
    assert 3590.0 == grant.expires_in


@pytest.mark.parametrize("kind", KINDS)
async def test_the_token_ends_with_that_of_the_subject(
    server: ProviderServer, in_process: TokenHTTP, clock: ManualClock, kind: str
) -> None:
    """Its lifetime is capped, and no request is sent for a subject whose token has expired."""
    made = provider(kind, server.subjects.issue("ada", lifetime=100.0))
    assert 98.0 == (await made.fetch(in_process)).expires_in
    clock.advance(100.0)
    before = server.calls.total()
    with pytest.raises(SubjectRefused, match="has expired"):
        await made.fetch(in_process)
    assert before == server.calls.total()


@pytest.mark.parametrize("kind", KINDS)
async def test_the_end_of_a_token_that_is_no_jwt_can_be_given(
    server: ProviderServer, in_process: TokenHTTP, clock: ManualClock, kind: str
) -> None:
    """An opaque token shows no end."""
    subject = server.subjects.issue("ada")
    ends = clock.time() + 50.0
    assert 49.0 == (await provider(kind, subject, subject_expires_at=ends).fetch(in_process)).expires_in


@pytest.mark.parametrize("code", ["invalid_request", "invalid_grant", "invalid_token"])
@pytest.mark.parametrize("kind", KINDS)
async def test_a_refused_subject_is_the_callers_401(
    server: ProviderServer, in_process: TokenHTTP, kind: str, code: str
) -> None:
    """It is not this service's 502, and the response tells the caller that its token is not valid."""
    server.oauth2.subject_error = code
    subject = server.subjects.issue("ada")
    server.subjects.refuse(subject)
    with pytest.raises(SubjectRefused) as caught:
        await provider(kind, subject).fetch(in_process)
    error = caught.value
    assert 401 == error.status_code
    assert {"WWW-Authenticate": 'Bearer error="invalid_token"'} == error.headers
    assert subject not in f"{error!r} {error} {error.detail}"
    assert "idp.example" in str(error)
    assert "idp.example" not in error.detail


@pytest.mark.parametrize("kind", KINDS)
async def test_a_refused_client_is_not_the_callers_fault(
    server: ProviderServer, in_process: TokenHTTP, kind: str
) -> None:
    """A wrong secret stays the operator's 502."""
    with pytest.raises(CredentialRejected, match="invalid_client"):
        await provider(kind, server.subjects.issue("ada"), client_secret="wrong").fetch(in_process)


async def test_the_claims_that_entra_asks_for_reach_the_caller(server: ProviderServer, in_process: TokenHTTP) -> None:
    """In base64, as Microsoft's libraries read them from `WWW-Authenticate`."""
    claims = '{"access_token":{"acrs":{"essential":true,"value":"c1"}}}'
    server.entra.claims = claims
    with pytest.raises(SubjectRefused) as caught:
        await provider("entra", server.subjects.issue("ada")).fetch(in_process)
    assert claims == caught.value.claims
    assert caught.value.headers is not None
    challenge = caught.value.headers["WWW-Authenticate"]
    assert challenge.startswith('Bearer error="insufficient_claims", claims="')
    assert json.loads(claims) == json.loads(base64.b64decode(challenge.split('"')[3]))


@pytest.mark.parametrize("claims", ["", "no json", "[1]", '{"a": "' + "x" * 5_000 + '"}'])
async def test_claims_that_are_none_are_left_out(server: ProviderServer, in_process: TokenHTTP, claims: str) -> None:
    """The answer comes from the network and goes into a header."""
    server.entra.claims = claims
    with pytest.raises(SubjectRefused) as caught:
        await provider("entra", server.subjects.issue("ada")).fetch(in_process)
    assert {"WWW-Authenticate": 'Bearer error="invalid_token"'} == caught.value.headers


async def test_the_exchange_is_the_form_of_rfc_8693(http: TokenHTTP) -> None:
    """Options that are not given are not sent; audience and resource may be several."""
    async with wire(http_answer(200, body=GRANTED)) as server:
        url = f"{server.url}/t"
        await provider("exchange", "subject-1", token_url=url).fetch(http)
        grant = await provider(
            "exchange",
            "subject-1",
            token_url=url,
            auth_method="client_secret_post",
            subject_type="id_token",
            actor="actor-1",
            actor_type="urn:example:type",
            requested_type="jwt",
            scope="b a",
            audience=["one", "two"],
            resource="https://api.example/",
        ).fetch(http)
    assert {"issued_token_type": "urn:x"} == dict(grant.extra)
    bare, full = (parse_qsl(request.rpartition(b"\r\n\r\n")[2].decode()) for request in server.requests)
    kind = "urn:ietf:params:oauth:token-type:"
    assert sorted(bare) == [
        ("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange"),
        ("subject_token", "subject-1"),
        ("subject_token_type", f"{kind}access_token"),
    ]
    assert sorted(full) == [
        ("actor_token", "actor-1"),
        ("actor_token_type", "urn:example:type"),
        ("audience", "one"),
        ("audience", "two"),
        ("client_id", "shop"),
        ("client_secret", SECRET),
        ("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange"),
        ("requested_token_type", f"{kind}jwt"),
        ("resource", "https://api.example/"),
        ("scope", "b a"),
        ("subject_token", "subject-1"),
        ("subject_token_type", f"{kind}id_token"),
    ]


async def test_a_token_that_is_no_access_token_has_no_authorization(
    server: ProviderServer, in_process: TokenHTTP
) -> None:
    """The type `N_A` is taken from an exchange, and from nothing else (RFC 8693 §2.2.1)."""
    made = provider("exchange", server.subjects.issue("ada"), requested_type="saml2")
    grant = await made.fetch(in_process)
    assert "N_A" == grant.token_type
    assert "urn:ietf:params:oauth:token-type:saml2" == grant.extra["issued_token_type"]


async def test_the_actor_may_be_a_provider(http: TokenHTTP) -> None:
    """The service's own token is fetched, cached and renewed as any other."""
    own = StaticToken("own-token-1")

    class Nested:
        async def token(self, provider: Any) -> Any:
            assert provider is own
            return type("T", (), {"value": "own-token-1"})

        async def invalidate(self, token: Any) -> None:
            raise AssertionError(token)

    async with wire(http_answer(200, body=GRANTED)) as server:
        made = provider("exchange", "subject-1", token_url=f"{server.url}/t", actor=own)
        await made.fetch(http.with_nested(Nested()))
    form = dict(parse_qsl(server.requests[0].rpartition(b"\r\n\r\n")[2].decode()))
    assert ("own-token-1", "urn:ietf:params:oauth:token-type:access_token") == (
        form["actor_token"],
        form["actor_token_type"],
    )


async def test_an_assertion_of_this_service_needs_no_client(server: ProviderServer, in_process: TokenHTTP) -> None:
    """As for a service account of Google; its token is renewed in the background like any other."""
    assertions: list[str] = []

    async def assertion() -> str:
        assertions.append(server.subjects.issue("robot"))
        return assertions[-1]

    made = JWTBearer(token_url="https://idp.example/oauth2/token", assertion=assertion, credential_id="robot-1")
    assert 3600.0 == (await made.fetch(in_process)).expires_in
    await made.fetch(in_process)
    assert 2 == len(set(assertions))
    assert (None, False, True) == (made.renewal_window, made.per_subject, made.shareable)
    server.subjects.refuse(assertions[0])
    wrong = JWTBearer(token_url="https://idp.example/oauth2/token", assertion=assertions[0])
    with pytest.raises(CredentialRejected, match=r"invalid_grant.*check key, iss"):
        await wrong.fetch(in_process)


async def test_a_function_that_fails_is_named(in_process: TokenHTTP) -> None:
    """Its error may hold the key, so that only its kind is shown."""
    url = "https://idp.example/oauth2/token"
    with pytest.raises(TokenUnavailable, match="assertion raised ZeroDivisionError"):
        await JWTBearer(token_url=url, assertion=lambda: str(1 // 0)).fetch(in_process)
    with pytest.raises(TokenUnavailable, match="assertion did not return a str"):
        await JWTBearer(token_url=url, assertion=lambda: "").fetch(in_process)


@pytest.mark.parametrize("kind", KINDS)
def test_each_subject_is_a_credential_of_its_own(kind: str) -> None:
    """It is known by a digest: the token itself is no part of the credential, and is in no `repr`."""
    one, again, two = (provider(kind, subject) for subject in ("subject-1", "subject-1", "subject-2"))
    assert one == again
    assert hash(one) == hash(again)
    assert one != two
    assert one.for_subject("subject-2") == two
    assert "subject-1" not in repr(one.credential)
    assert "subject-1" not in repr(one)
    assert one != provider(kind, "subject-1", client_secret="another one", scope="x")


@pytest.mark.parametrize("kind", KINDS)
def test_the_subject_comes_from_each_request(kind: str) -> None:
    """A provider with `SubjectToken()` has no credential without a request."""
    named = provider(kind, SubjectToken())
    assert named.depends_on_request
    of_request = named.for_request(connection(("Authorization", "bearer  subject-1 ")))
    assert not of_request.depends_on_request
    assert provider(kind, "subject-1") == of_request
    with pytest.raises(ConfigurationError, match="depends on the request"):
        _ = named.credential


@pytest.mark.parametrize(
    ("headers", "text", "challenge"),
    [
        ([], "no Authorization header", "Bearer"),
        ([("Authorization", "Basic abc")], "does not have one token", "Bearer"),
        ([("Authorization", "Bearer")], "does not have one token", "Bearer"),
        ([("Authorization", "Bearer a"), ("Authorization", "Bearer b")], "does not have one token", "Bearer"),
        ([("Authorization", "Bearer a b")], "malformed", 'Bearer error="invalid_token"'),
        ([("Authorization", "Bearer " + "a" * 20_000)], "too long", 'Bearer error="invalid_token"'),
    ],
)
def test_a_request_without_a_token_is_a_401(headers: list[tuple[str, str]], text: str, challenge: str) -> None:
    """Nothing of what the request has is in the text."""
    with pytest.raises(SubjectRefused, match=text) as caught:
        SubjectToken()(connection(*headers))
    assert {"WWW-Authenticate": challenge} == caught.value.headers


def test_another_header_can_hold_the_token_alone() -> None:
    """As behind a proxy that signs users in."""
    source = SubjectToken(header="X-Forwarded-Access-Token", scheme="")
    assert "abc" == source(connection(("x-forwarded-access-token", "abc")))
    with pytest.raises(SubjectRefused):
        source(connection(("Authorization", "Bearer abc")))


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: provider("exchange", ""), "subject=….* is empty"),
        (lambda: provider("exchange", "Bearer abc"), "leave out `Bearer `"),
        (lambda: provider("exchange", "a" * 20_000), "at most 16384 characters"),
        (lambda: provider("exchange", "s", subject_expires_at=-1), "subject_expires_at"),
        (lambda: provider("exchange", "s", subject_expires_at=1.8e12), "not milliseconds"),
        (lambda: provider("exchange", SubjectToken(), subject_expires_at=2e9), "with subject=SubjectToken"),
        (lambda: provider("bearer", "s", refresh_before=5.0), "refresh_before=….* is for assertion"),
        (lambda: provider("bearer", "s", credential_id="x"), "credential_id=….* is for assertion"),
        (lambda: JWTBearer(token_url="https://idp.example/t", assertion="a", subject_expires_at=2e9), "is for subject"),
        (lambda: provider("exchange", "s", subject_type="token"), "subject_type=….*access_token"),
        (lambda: provider("exchange", "s", requested_type=""), "requested_type"),
        (lambda: provider("exchange", "s", audience=[]), "empty list"),
        (lambda: provider("exchange", "s", actor=provider("exchange", SubjectToken())), "cannot depend on the request"),
        (lambda: provider("bearer", "s", assertion="a"), "one of them"),
        (lambda: JWTBearer(token_url="https://idp.example/t"), "one of them"),
        (lambda: provider("bearer", "s", client_id=None), "needs client_id"),
        (
            lambda: provider("bearer", "s", auth_method="private_key_jwt"),
            "one of client_secret_basic",
        ),
        (lambda: provider("entra", "s", tenant="common"), "tenant"),
        (lambda: SubjectToken(header="a b"), "one word"),
        (lambda: SubjectToken(scheme="a b"), "one word"),
    ],
)
def test_options_that_cannot_work_are_refused_at_construction(make: Any, text: str) -> None:
    """The text names the option."""
    with pytest.raises(ConfigurationError, match=text):
        make()


def test_an_own_token_is_no_provider_of_a_subject() -> None:
    """Only tokens of callers are counted apart."""
    own = ClientCredentials(token_url="https://idp.example/t", client_id="a", client_secret="b")
    assert (False, False) == (own.per_subject, own.depends_on_request)


async def test_an_app_that_may_not_act_for_users_is_no_fault_of_the_caller(http: TokenHTTP) -> None:
    """Entra answers `invalid_grant`, as for a caller's token, and says in its number what it means."""
    body = b'{"error": "invalid_grant", "error_codes": [7000114]}'
    async with wire(http_answer(400, body=body)) as server:
        with pytest.raises(CredentialRejected, match="AADSTS7000114"):
            await provider("entra", "subject-1", base_url=server.url).fetch(http)
