"""Token requests with a DPoP proof: the nonce, and what is refused (RFC 9449 §5, §8)."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator
from typing import Any

import pytest

from tests.providers.private_keys import make_key, pem_of
from tokenmw import CredentialRejected, TokenUnavailable
from tokenmw.clock import SYSTEM_CLOCK
from tokenmw.limits import Limits
from tokenmw.providers import (
    ClientCredentials,
    DPoPKey,
    JWTBearer,
    PrivateKeyJWT,
    Provider,
    SubjectToken,
    TokenExchange,
    TokenHTTP,
)
from tokenmw.testing import Fault, ProviderServer

KEY_PEM = pem_of(make_key("P-256"))


SECRET = "a secret of this server"


@pytest.fixture
def server() -> ProviderServer:
    """A server that issues bound tokens only, and wants a nonce."""
    server = ProviderServer(clients={"crm": SECRET})
    server.oauth2.dpop.required = server.oauth2.dpop.nonces = True
    return server


@pytest.fixture
def token_url(server: ProviderServer) -> Iterator[str]:
    """The token endpoint over real HTTP."""
    with server.running() as base_url:
        yield f"{base_url}/oauth2/token"


@pytest.fixture
async def http(library: Any) -> AsyncGenerator[TokenHTTP]:
    """The object that providers get."""
    async with library.AsyncClient(trust_env=False) as client:
        yield TokenHTTP(client, limits=Limits(), clock=SYSTEM_CLOCK)


def crm(token_url: str, **options: Any) -> ClientCredentials:
    """Make the credential of the client `crm` with a key."""
    given: dict[str, Any] = {"client_id": "crm", "client_secret": SECRET, "dpop": DPoPKey(KEY_PEM)}
    return ClientCredentials(token_url=token_url, **(given | options))


async def test_the_token_is_bound_to_the_key(server: ProviderServer, http: TokenHTTP, token_url: str) -> None:
    """The request is repeated once with the nonce, and later requests have the newest nonce from the start."""
    provider = crm(token_url)
    grants = [await provider.fetch(http) for _ in range(3)]
    assert {"DPoP"} == {grant.token_type for grant in grants}
    issued = server.issued.find(grants[0].value)
    assert issued is not None
    assert provider.dpop is not None
    assert provider.dpop.thumbprint == issued.thumbprint
    assert 1 + 3 == server.calls["oauth2"]
    assert {("POST", token_url)} == {(claims["htm"], claims["htu"]) for claims in server.oauth2.dpop.verified}
    assert 3 == len({claims["nonce"] for claims in server.oauth2.dpop.verified})


async def test_the_query_of_a_token_endpoint_is_no_part_of_the_proof(
    server: ProviderServer, http: TokenHTTP, token_url: str
) -> None:
    """A token endpoint with a query accepts the proof."""
    await crm(f"{token_url}?api-version=1").fetch(http)
    assert token_url == server.oauth2.dpop.verified[0]["htu"]


async def test_a_nonce_that_has_expired_is_replaced(server: ProviderServer, http: TokenHTTP, token_url: str) -> None:
    """After the server has forgotten its nonces, one more request gets the next token."""
    provider = crm(token_url)
    await provider.fetch(http)
    server.oauth2.dpop.forget_nonces()
    await provider.fetch(http)
    assert 4 == server.calls["oauth2"]


@pytest.mark.parametrize("method", ["private_key_jwt", "client_secret_jwt", "client_secret_post"])
async def test_the_second_request_has_another_assertion(
    server: ProviderServer, http: TokenHTTP, token_url: str, method: str
) -> None:
    """The server authenticates the client before it wants a nonce, and accepts no assertion twice."""
    options: dict[str, Any] = {"auth_method": method}
    if method == "private_key_jwt":
        options |= {"client_assertion": PrivateKeyJWT(KEY_PEM), "client_secret": None}
    assert "DPoP" == (await crm(token_url, **options).fetch(http)).token_type
    assert 2 == server.calls["oauth2"]


async def test_the_refusal_of_a_secret_has_the_nonce_for_the_next_one(
    server: ProviderServer, http: TokenHTTP, token_url: str
) -> None:
    """Of two secrets the first is refused, and the request with the second one has the nonce from that answer."""
    await crm(token_url, client_secret=["new", SECRET]).fetch(http)
    assert 2 == server.calls["oauth2"]


async def test_one_key_learns_the_nonce_for_all_its_clients(
    server: ProviderServer, http: TokenHTTP, token_url: str
) -> None:
    """Providers that share a key share the nonces of each server."""
    key = DPoPKey(KEY_PEM)
    for scope in ("a", "b", "c"):
        await crm(token_url, scope=scope, dpop=key).fetch(http)
    assert 4 == server.calls["oauth2"]


@pytest.mark.parametrize("grant", ["exchange", "assertion of a client", "assertion alone"])
async def test_each_grant_may_bind_its_token(
    server: ProviderServer, http: TokenHTTP, token_url: str, grant: str
) -> None:
    """Token exchange and the JWT bearer grant prove the key and learn the nonce; the key is part of the identity."""
    user, key = server.subjects.issue("ada"), DPoPKey(KEY_PEM)
    client: dict[str, Any] = {"client_id": "crm", "client_secret": SECRET}

    def make(key: DPoPKey | None) -> Provider:
        options: dict[str, Any] = {"token_url": token_url, "dpop": key}
        if grant == "exchange":
            return TokenExchange(subject=user, **client, **options)
        return JWTBearer(assertion=user, **(client if "client" in grant else {}), **options)

    provider = make(key)
    granted = await provider.fetch(http)
    issued = server.issued.find(granted.value)
    assert issued is not None
    assert ("DPoP", "ada", key.thumbprint) == (granted.token_type, issued.user, issued.thumbprint)
    assert 2 == server.calls["oauth2"]
    assert provider.dpop is key
    assert (True, False) == (provider.shareable, make(DPoPKey()).shareable)
    assert make(DPoPKey(KEY_PEM)) == provider != make(None)


async def test_the_tokens_of_callers_are_bound_to_the_key_of_the_service(
    server: ProviderServer, http: TokenHTTP, token_url: str
) -> None:
    """A provider with the token of each request has the key of the one that the program named."""
    key = DPoPKey(KEY_PEM)
    named = TokenExchange(token_url=token_url, client_id="crm", client_secret=SECRET, subject=SubjectToken(), dpop=key)
    for user in ("ada", "bob"):
        provider = named.for_subject(server.subjects.issue(user))
        assert provider.dpop is key
        issued = server.issued.find((await provider.fetch(http)).value)
        assert issued is not None
        assert (user, key.thumbprint) == (issued.user, issued.thumbprint)
    assert 3 == server.calls["oauth2"]


async def test_an_exchanged_token_that_is_no_access_token_needs_no_proof(
    server: ProviderServer, http: TokenHTTP, token_url: str
) -> None:
    """`N_A` is accepted, because such a token is not sent to an API (RFC 8693 §2.2.1)."""
    provider = TokenExchange(
        token_url=token_url,
        client_id="crm",
        client_secret=SECRET,
        subject=server.subjects.issue("ada"),
        requested_type="id_token",
        dpop=DPoPKey(KEY_PEM),
    )
    assert "N_A" == (await provider.fetch(http)).token_type


NONCE = {"DPoP-Nonce": "n-1"}


@pytest.mark.parametrize("status", [400, 401])
async def test_a_server_that_never_accepts_a_nonce_gets_two_requests(
    server: ProviderServer, http: TokenHTTP, token_url: str, status: int
) -> None:
    """The error says what happened, and is no rejection of the credential."""
    server.oauth2.script.always = Fault(status=status, body={"error": "use_dpop_nonce"}, headers=NONCE)
    with pytest.raises(TokenUnavailable, match="refuses the nonce in the DPoP proof that it has just sent") as raised:
        await crm(token_url).fetch(http)
    assert raised.value.__context__ is None
    assert 2 == server.calls["oauth2"]


async def test_a_nonce_that_is_not_sent_is_named(server: ProviderServer, http: TokenHTTP, token_url: str) -> None:
    """A server that wants a nonce and sends none is asked once."""
    server.oauth2.script.always = Fault(status=400, body={"error": "use_dpop_nonce"})
    with pytest.raises(TokenUnavailable, match="wants a nonce in the DPoP proof and sends none"):
        await crm(token_url).fetch(http)
    assert 1 == server.calls["oauth2"]


async def test_a_nonce_of_any_answer_is_kept(server: ProviderServer, http: TokenHTTP, token_url: str) -> None:
    """An answer without a token has a nonce for the next request as well."""
    provider = crm(token_url)
    for status in (400, 503):
        server.oauth2.script.then(Fault(status=status, body={"error": "other"}, headers={"DPoP-Nonce": f"n-{status}"}))
        with pytest.raises((CredentialRejected, TokenUnavailable)):
            await provider.fetch(http)
        assert provider.dpop is not None
        assert [f"n-{status}"] == list(provider.dpop._nonces._last.values())


async def test_a_refused_proof_is_no_rejection_of_the_credential(
    server: ProviderServer, http: TokenHTTP, token_url: str
) -> None:
    """It may be the clock of this machine, so other processes are not kept from asking; the text says what to check."""
    server.oauth2.script.always = Fault(status=400, body={"error": "invalid_dpop_proof"})
    with pytest.raises(
        TokenUnavailable, match=r"\(invalid_dpop_proof, HTTP 400\): check this machine's clock"
    ) as raised:
        await crm(token_url).fetch(http)
    assert not raised.value.said


@pytest.mark.parametrize(
    ("fields", "shown"), [({"token_type": "Bearer"}, 'token_type "Bearer" is not DPoP'), ({"token_type": None}, "")]
)
async def test_a_token_that_is_not_bound_is_refused(
    server: ProviderServer, http: TokenHTTP, token_url: str, fields: dict[str, Any], shown: str
) -> None:
    """A server that ignores the proof issues a token of use to a thief, which is not what was asked for."""
    server.oauth2.dpop.nonces = False
    server.oauth2.script.always = Fault(fields=fields)
    with pytest.raises(TokenUnavailable, match=shown or "token_type is not DPoP") as raised:
        await crm(token_url).fetch(http)
    assert "leave dpop out" in str(raised.value)


@pytest.mark.parametrize("token_type", ["dpop", "DPOP", "DPoP"])
async def test_the_type_is_read_in_any_case(
    server: ProviderServer, http: TokenHTTP, token_url: str, token_type: str
) -> None:
    """`token_type` is compared without case (RFC 6749 §5.1), and sent as RFC 9449 writes it."""
    server.oauth2.script.always = Fault(fields={"token_type": token_type})
    server.oauth2.dpop.nonces = False
    assert "DPoP" == (await crm(token_url).fetch(http)).token_type


@pytest.mark.parametrize("nonces", [False, True])
async def test_a_server_that_requires_a_proof_is_reported_with_the_option(
    server: ProviderServer, http: TokenHTTP, token_url: str, *, nonces: bool
) -> None:
    """Without `dpop`, the refusal names the option."""
    code = "use_dpop_nonce" if nonces else "invalid_dpop_proof"
    if nonces:
        server.oauth2.script.always = Fault(status=400, body={"error": code}, headers=NONCE)
    with pytest.raises(CredentialRejected, match=rf"\({code}, HTTP 400\).* set dpop=DPoPKey\(file=…\)"):
        await crm(token_url, dpop=None).fetch(http)


async def test_a_dpop_token_without_a_key_is_refused(server: ProviderServer, http: TokenHTTP, token_url: str) -> None:
    """A token that needs a proof is not sent as a bearer token, and the error names the option."""
    server.oauth2.dpop.required = server.oauth2.dpop.nonces = False
    server.oauth2.script.always = Fault(fields={"token_type": "DPoP"})
    with pytest.raises(TokenUnavailable, match=r"needs a proof in each request.* set dpop=DPoPKey\(file=…\)"):
        await crm(token_url, dpop=None).fetch(http)
