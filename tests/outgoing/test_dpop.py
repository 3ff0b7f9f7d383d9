"""Auth objects with DPoP tokens: a proof for each request, and once more with the API's nonce (RFC 9449 §7, §9)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Iterator
from typing import Any

import pytest

from tests.outgoing.conftest import API, Numbered
from tests.providers.private_keys import jwk_of, make_key, pem_of
from tokenmw import ConfigurationError, TokenBroker
from tokenmw.providers import ClientCredentials, DPoPKey
from tokenmw.testing import Fault, ManualClock, ProviderServer

KEY = pem_of(make_key("P-256"))


@pytest.fixture
def server(clock: ManualClock) -> ProviderServer:
    """A server whose token endpoint and API require proofs with nonces."""
    server = ProviderServer(clock=clock)
    for check in (server.oauth2.dpop, server.api.dpop):
        check.required = check.nonces = True
    return server


@pytest.fixture
def url(server: ProviderServer) -> Iterator[str]:
    """The server over real HTTP."""
    with server.running() as base_url:
        yield base_url


@pytest.fixture
async def http(library: Any, url: str) -> AsyncGenerator[Any]:
    """A client of the API that follows redirects."""
    async with library.AsyncClient(base_url=url, trust_env=False, follow_redirects=True, timeout=30) as client:
        yield client


@pytest.fixture
def crm(url: str) -> ClientCredentials:
    """A credential with a key."""
    return ClientCredentials(token_url=f"{url}/oauth2/token", client_id="crm", client_secret="s", dpop=DPoPKey(KEY))


async def test_each_request_has_a_proof_and_the_nonce_of_the_last_answer(
    broker: TokenBroker, http: Any, server: ProviderServer, crm: ClientCredentials, url: str
) -> None:
    """The first request is sent twice, because the API wants a nonce; the next ones once. The token stays."""
    auth = broker.auth(crm)
    for number in range(4):
        answer = await http.post(f"/api/orders/{number}?a=1#b", json={"n": number}, auth=auth)
        assert (200, len(f'{{"n":{number}}}')) == (answer.status_code, answer.json()["received"])
    assert (2, 5) == (server.calls["oauth2"], server.calls["api"])
    verified = server.api.dpop.verified
    assert [f"{url}/api/orders/{number}" for number in range(4)] == [one["htu"] for one in verified]
    assert {"POST"} == {one["htm"] for one in verified}
    assert 4 == len({one["nonce"] for one in verified}) == len({one["jti"] for one in verified})
    assert 1 == len({one["ath"] for one in verified}) == len(server.issued)


async def test_a_nonce_that_has_expired_is_replaced_without_a_new_token(
    broker: TokenBroker, http: Any, server: ProviderServer, crm: ClientCredentials, clock: ManualClock
) -> None:
    """An old token is not invalidated because the API wants another nonce."""
    auth = broker.auth(crm)
    await http.get("/api/x", auth=auth)
    clock.advance(60)
    server.api.dpop.forget_nonces()
    answer = await http.get("/api/x", auth=auth)
    assert (200, [401]) == (answer.status_code, [one.status_code for one in answer.history])
    assert (1, 4) == (len(server.issued), server.calls["api"])


async def test_an_api_that_never_accepts_a_nonce_gets_two_requests_and_keeps_the_token(
    broker: TokenBroker, http: Any, server: ProviderServer, crm: ClientCredentials, clock: ManualClock
) -> None:
    """The caller gets the API's answer, and nothing is invalidated."""
    token = await broker.token(crm)
    clock.advance(60)
    challenge = {"WWW-Authenticate": 'DPoP error="use_dpop_nonce"', "DPoP-Nonce": "n-1"}
    server.api.script.always = Fault(status=401, headers=challenge)
    assert 401 == (await http.get("/api/x", auth=broker.auth(crm))).status_code
    assert 2 == server.calls["api"]
    assert token.value == (await broker.token(crm)).value


@pytest.mark.parametrize(
    "headers",
    [
        {"WWW-Authenticate": 'DPoP error="use_dpop_nonce"'},
        {"WWW-Authenticate": 'DPoP error="use_dpop_nonce"', "DPoP-Nonce": 'a"b'},
        {"WWW-Authenticate": 'DPoP error="invalid_dpop_proof"', "DPoP-Nonce": "n-1"},
    ],
)
async def test_what_a_nonce_does_not_fix_is_sent_once(
    broker: TokenBroker,
    http: Any,
    server: ProviderServer,
    crm: ClientCredentials,
    clock: ManualClock,
    *,
    headers: dict[str, str],
) -> None:
    """Without a nonce that can be sent, and for a refused proof, the answer is the caller's, and the token stays."""
    token = await broker.token(crm)
    clock.advance(60)
    server.api.script.then(Fault(status=401, headers=headers))
    assert 401 == (await http.get("/api/x", auth=broker.auth(crm))).status_code
    assert (1, token.value) == (server.calls["api"], (await broker.token(crm)).value)


@pytest.mark.parametrize("nonce_expires", [False, True])
async def test_a_rejected_token_is_replaced_and_proven_anew(
    broker: TokenBroker,
    http: Any,
    server: ProviderServer,
    crm: ClientCredentials,
    clock: ManualClock,
    *,
    nonce_expires: bool,
) -> None:
    """A rejected token is invalidated; the request is repeated with the newer one, and then with a nonce if need be."""
    auth = broker.auth(crm)
    await http.get("/api/x", auth=auth)
    clock.advance(60)
    server.api.script.then(Fault(status=401, headers={"WWW-Authenticate": 'DPoP error="invalid_token"'}))
    if nonce_expires:
        server.api.dpop.forget_nonces()
    assert 200 == (await http.get("/api/x", auth=auth)).status_code
    assert (2, 5 if nonce_expires else 4) == (len(server.issued), server.calls["api"])


async def test_an_upload_that_cannot_be_repeated_is_sent_once(
    broker: TokenBroker, http: Any, server: ProviderServer, crm: ClientCredentials, clock: ManualClock
) -> None:
    """The answer that wants a nonce is the caller's; the token stays, and the next request has the nonce."""

    async def upload() -> AsyncGenerator[bytes]:
        yield b"one"

    await broker.token(crm)
    clock.advance(60)
    auth = broker.auth(crm)
    assert 401 == (await http.post("/api/x", content=upload(), auth=auth)).status_code
    assert 200 == (await http.post("/api/x", content=upload(), auth=auth)).status_code
    assert (1, 2) == (len(server.issued), server.calls["api"])


async def test_a_redirect_gets_a_proof_of_its_own(
    broker: TokenBroker, http: Any, server: ProviderServer, crm: ClientCredentials, clock: ManualClock
) -> None:
    """The client follows without token and proof; then the request to the new URL is proven, and the token stays."""
    auth = broker.auth(crm)
    await http.get("/api/x", auth=auth)
    clock.advance(60)
    server.api.script.then(Fault(status=307, headers={"Location": "/api/y?z=1"}))
    answer = await http.get("/api/x", auth=auth)
    assert (200, "/api/y") == (answer.status_code, answer.json()["path"])
    assert server.api.dpop.verified[-1]["htu"].endswith("/api/y")
    assert 1 == len(server.issued)
    server.api.dpop.forget_nonces()
    server.api.script.then(Fault(status=307, headers={"Location": "/api/z"}))
    assert "/api/z" == (await http.get("/api/x", auth=auth)).json()["path"]
    assert 1 == len(server.issued)


async def test_a_redirect_elsewhere_has_neither_token_nor_proof(
    broker: TokenBroker, http: Any, server: ProviderServer, crm: ClientCredentials, *, foreign: API, foreign_url: str
) -> None:
    """Another host gets nothing that it could use, nor the proof."""
    sent: list[Any] = []

    async def keep(request: Any) -> None:
        sent.append(request)

    await http.get("/api/x", auth=broker.auth(crm))
    http.event_hooks["request"] = [keep]
    server.api.script.then(Fault(status=307, headers={"Location": f"{foreign_url}/y"}))
    assert 200 == (await http.get("/api/x", auth=broker.auth(crm))).status_code
    assert ["127.0.0.1", "localhost"] == [one.url.host for one in sent]
    for name in ("authorization", "dpop"):
        assert [True, False] == [name in one.headers for one in sent]
    assert [""] == foreign.seen


async def test_concurrent_requests_each_have_their_proof(
    broker: TokenBroker, http: Any, server: ProviderServer, crm: ClientCredentials
) -> None:
    """Eight at a time with changing nonces: all succeed, with one token."""
    auth = broker.auth(crm)
    answers = [
        answer.status_code
        for _ in range(5)
        for answer in await asyncio.gather(*(http.get("/api/x", auth=auth) for _ in range(8)))
    ]
    assert [200] * 40 == answers
    assert (1, 40) == (len(server.issued), len(server.api.dpop.verified))


async def test_bound_and_bearer_tokens_of_one_client_are_two(
    broker: TokenBroker, http: Any, server: ProviderServer, crm: ClientCredentials, url: str
) -> None:
    """Without the key it is another credential, whose requests have no proof."""
    server.oauth2.dpop.required = server.api.dpop.required = False
    bearer = ClientCredentials(token_url=f"{url}/oauth2/token", client_id="crm", client_secret="s")
    for provider in (crm, bearer):
        assert 200 == (await http.get("/api/x", auth=broker.auth(provider))).status_code
    assert 1 == len(server.api.dpop.verified)
    assert 2 == len(server.issued)


async def test_a_request_without_an_auth_object_is_proven_by_the_key(
    broker: TokenBroker, http: Any, crm: ClientCredentials, url: str
) -> None:
    """`token.authorization` with a proof of `DPoPKey.proof` is accepted, and refused without it."""
    assert crm.dpop is not None
    await http.get("/api/x", auth=broker.auth(crm))
    token = await broker.token(crm)
    address = f"{url}/api/x"
    headers = {"Authorization": token.authorization, "DPoP": crm.dpop.proof("GET", address, token=token)}
    assert 200 == (await http.get("/api/x", headers=headers)).status_code
    assert 401 == (await http.get("/api/x", headers={"Authorization": token.authorization})).status_code


class Elsewhere(Numbered):
    """A provider whose API takes the token in a header of its own, with a proof."""

    __slots__ = ("dpop",)

    def __init__(self) -> None:
        super().__init__(place="header")
        self.dpop = DPoPKey(KEY)

    def identity(self) -> tuple[object, ...]:
        return (*super().identity(), "bound")


async def test_a_provider_of_the_program_may_have_a_key(
    broker: TokenBroker, library: Any, base_url: str, api: API, clock: ManualClock
) -> None:
    """A class with `dpop` gets proofs; its default `is_rejected` does not take a wanted nonce for a rejection."""
    proofs: list[str] = []

    async def keep(request: Any) -> None:
        proofs.append(request.headers["dpop"])

    provider = Elsewhere()
    async with library.AsyncClient(base_url=base_url, trust_env=False, event_hooks={"request": [keep]}) as http:
        assert {"token": "t-1"} == (await http.get("/x", auth=broker.auth(provider))).json()
    assert 1 == len(proofs)


class NeverSet(Numbered):
    """A provider that forgets to set its key."""

    __slots__ = ("dpop",)

    def identity(self) -> tuple[object, ...]:
        return super().identity()


class NoKey(Numbered, same_credential=True):
    """A provider whose key is text."""

    __slots__ = ()
    dpop = KEY  # type: ignore[assignment]


def test_a_key_of_another_sort_is_named() -> None:
    """The error is raised when the broker is made."""
    with pytest.raises(ConfigurationError, match=r"NoKey\.dpop must be DPoPKey\(file=…\)"):
        TokenBroker({"no-key": NoKey()})


def test_a_key_that_is_never_set_is_named() -> None:
    """Its absence would be noticed at the first request only."""
    with pytest.raises(ConfigurationError, match="names dpop in __slots__ and never sets it"):
        TokenBroker({"never": NeverSet()})


async def test_neither_key_nor_token_is_in_a_log(
    broker: TokenBroker, http: Any, crm: ClientCredentials, caplog: pytest.LogCaptureFixture
) -> None:
    """No log line of this package, the client or its transport has the private key or the token."""
    caplog.set_level(logging.DEBUG)
    await http.get("/api/x", auth=broker.auth(crm))
    token = await broker.token(crm)
    for secret in (jwk_of(make_key("P-256"))["d"], KEY.splitlines()[1], token.value):
        assert secret not in caplog.text
