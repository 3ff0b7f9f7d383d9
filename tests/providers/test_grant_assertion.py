"""`JWTBearer(assertion=PrivateKeyJWT(…), claims=…)`: assertions of service accounts without code of the program's."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.providers.private_keys import jwk_of, make_key, pem_of, started
from tests.providers.verifying import granting
from tokenmw import TokenBroker
from tokenmw.errors import ConfigurationError, CredentialRejected
from tokenmw.providers import ClientCredentials, FileSecret, JWTBearer, PrivateKeyJWT, SubjectToken
from tokenmw.testing import Fault

if TYPE_CHECKING:
    from pathlib import Path

URL = "https://idp.example/token"
ROBOT = {"iss": "robot@project.example", "sub": "ada"}
PEM = pem_of(make_key("P-256"))


@pytest.fixture
async def key() -> PrivateKeyJWT:
    """A key that the servers of these tests know."""
    return await started(PEM, key_id="robot-2")


def bearer(key: object, **options: Any) -> JWTBearer:
    """Make a service account."""
    given: dict[str, Any] = {"token_url": URL, "assertion": key, "claims": ROBOT}
    return JWTBearer(**(given | options))


async def test_a_service_account_gets_a_token(key: PrivateKeyJWT) -> None:
    """The claims are signed as they are given, with the endpoint as audience and times of the assertion's own."""
    claims = {**ROBOT, "scope": "crm.read crm.write", "roles": ["reader"], "level": 2}
    async with granting(make_key("P-256").public_key(), algorithms=["ES256"]) as (server, http):
        robot = bearer(key, token_url=server.url, claims=claims)
        assert (await robot.fetch(http)).value != (await robot.fetch(http)).value
    (header, first), (_, second) = server.seen
    assert {"alg": "ES256", "kid": "robot-2", "typ": "JWT"} == header
    assert claims | {"aud": server.url} == {name: first[name] for name in [*claims, "aud"]}
    assert {"exp", "iat", "nbf", "jti"} == first.keys() - claims.keys() - {"aud"}
    assert first["jti"] != second["jti"]


async def test_claims_name_another_audience(key: PrivateKeyJWT) -> None:
    """As Salesforce wants its login host, whatever the endpoint is."""
    login = "https://login.salesforce.com"
    async with granting(make_key("P-256").public_key(), algorithms=["ES256"]) as (server, http):
        server.audience = login
        await bearer(key, token_url=server.url, claims={**ROBOT, "aud": login}).fetch(http)
        assert login == server.seen[0][1]["aud"]


async def test_the_client_is_the_issuer(key: PrivateKeyJWT) -> None:
    """A client id is the issuer of claims that name none."""
    async with granting(make_key("P-256").public_key(), algorithms=["ES256"]) as (server, http):
        await bearer(key, token_url=server.url, client_id="crm", claims={"sub": "ada"}).fetch(http)
        assert "crm" == server.seen[0][1]["iss"]


async def test_an_endpoint_that_is_found_is_the_audience(key: PrivateKeyJWT) -> None:
    """With an issuer, the endpoint of its document."""
    async with granting(make_key("P-256").public_key(), algorithms=["ES256"]) as (server, _):
        server.server.oauth2_metadata.script.then(Fault(fields={"token_endpoint": server.url}))
        async with TokenBroker(
            {"crm": bearer(key, token_url=None, issuer=server.url.removesuffix(server.path))}
        ) as broker:
            await broker.token("crm")
        assert server.url == server.seen[0][1]["aud"]


async def test_a_refused_assertion_says_what_to_check(key: PrivateKeyJWT) -> None:
    """The key, the claims, and that none of them is the user."""
    async with granting(make_key("P-256").public_key(), algorithms=["ES256"]) as (server, http):
        with pytest.raises(CredentialRejected, match=r"invalid_grant, HTTP 400\): check claims \(iss, sub, aud\)"):
            await bearer(key, token_url=server.url, claims={**ROBOT, "sub": "bob"}).fetch(http)
        with pytest.raises(CredentialRejected, match=r"check claims \(iss, aud; no sub is given\), that .* clock"):
            await bearer(key, token_url=server.url, claims={"iss": "robot"}).fetch(http)


async def test_an_assertion_is_read_from_a_file(tmp_path: Path) -> None:
    """Such as that of a workload, which its platform replaces."""
    path = tmp_path / "assertion"
    async with granting(make_key("P-256").public_key(), algorithms=["ES256"]) as (server, http):
        key = await started(PEM)
        robot = bearer(FileSecret(path), token_url=server.url, claims=None)
        for _ in range(2):
            path.write_text(f"{await key.assertion('ada', audience=server.url)}\n")
            await robot.fetch(http)
    assert 2 == len(server.seen)
    assert robot.shareable


async def test_what_is_signed_is_the_credential(key: PrivateKeyJWT) -> None:
    """Another claim or another key is another credential; the order of the claims is not."""
    other = await started(pem_of(make_key("P-256", number=2)), key_id="robot-2")
    robot = bearer(key)
    assert robot == bearer(await started(PEM, key_id="robot-2"), claims=dict(reversed(ROBOT.items())))
    different = [
        bearer(other),
        bearer(key, claims={**ROBOT, "sub": "eve"}),
        bearer(key, claims={**ROBOT, "scope": "a"}),
    ]
    assert 4 == len({robot, *different})
    assert robot.shareable
    assert bearer(key, credential_id="k") == bearer(other, credential_id="k")
    assert PEM.splitlines()[1] not in repr(robot.identity())


async def test_claims_that_change_later_have_no_effect(key: PrivateKeyJWT) -> None:
    """The dict is the program's."""
    claims = dict(ROBOT)
    robot = bearer(key, claims=claims)
    before = robot.identity()
    claims["sub"] = "eve"
    assert before == robot.identity()


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"claims": None}, r'claims=…\) needs "iss".*or client_id'),
    ({"claims": {"sub": "ada"}}, r'needs "iss"'),
    ({"claims": ["iss"]}, r'must be a dict such as \{"iss": "…", "sub": "…"\}, not list'),
    ({"claims": {**ROBOT, "exp": 1}}, "has exp, which is made for each assertion: leave it out"),
    ({"claims": {**ROBOT, "jti": "1"}}, "has jti"),
    ({"claims": {"iss": ""}}, r'claims=…\): "iss" is empty'),
    ({"claims": {**ROBOT, "sub": None}}, '"sub" must be a str, not NoneType'),
    ({"claims": {**ROBOT, 1: "a"}}, "names that are str, not int"),
    ({"claims": {**ROBOT, "a": {1, 2}}}, "must be values of JSON"),
    ({"claims": {**ROBOT, "a": float("nan")}}, "must be values of JSON"),
    ({"claims": {**ROBOT, "a": "b" * 9000}}, "8192 characters in all at most"),
    ({"assertion": "a.b.c"}, r"claims=…\) is for assertion=PrivateKeyJWT\(…\), which signs them: give that"),
    ({"assertion": lambda: "a.b.c", "credential_id": "k"}, r"is for assertion=PrivateKeyJWT"),
    ({"assertion": None, "subject": SubjectToken()}, r"claims=…\) is for assertion=…, not for subject=…: leave it out"),
    ({"assertion": PEM}, r"is a key and not a signed JWT: give PrivateKeyJWT\(…\) of it"),
    ({"assertion": PEM.encode()}, "is a key and not a signed JWT"),
    ({"assertion": jwk_of(make_key("P-256"))}, "is a key and not a signed JWT"),
    ({"assertion": make_key("P-256")}, "is a key and not a signed JWT"),
    ({"assertion": PrivateKeyJWT}, "not the class PrivateKeyJWT"),
    ({"assertion": b"a.b.c"}, "must be a str with a signed JWT.*, not bytes"),
    ({"assertion": "/run/secrets/robot.pem"}, r"is a path .*: give PrivateKeyJWT\(file=…\) for a key, or FileSecret"),
    (
        {"assertion": {"type": "service_account", "private_key": PEM}},
        r'PrivateKeyJWT\(account\["private_key"\], key_id',
    ),
    ({"assertion": SubjectToken()}, r"this service's own: the caller's token is subject=SubjectToken\(\)"),
    ({"assertion": 7}, "must be a str with a signed JWT, a function that returns one, or a PrivateKeyJWT, not int"),
]


@pytest.mark.parametrize(("options", "text"), REFUSED)
async def test_options_that_cannot_work_are_refused(key: PrivateKeyJWT, options: dict[str, Any], text: str) -> None:
    """At construction, with the fix; no text has a part of a key."""
    with pytest.raises(ConfigurationError, match=text) as refused:
        bearer(key, **options)
    assert not any(line in str(refused.value) for line in PEM.splitlines()[1:-1])
    assert json.dumps(jwk_of(make_key("P-256"))["d"]) not in str(refused.value)


@pytest.mark.parametrize("given", [PEM, jwk_of(make_key("P-256")), make_key("P-256"), PrivateKeyJWT])
def test_a_key_is_no_assertion_of_a_client(given: Any) -> None:
    """`client_assertion` has the same texts."""
    with pytest.raises(
        ConfigurationError, match=r"client_assertion=…\) (is a key and not|must be a str with a signed JWT)"
    ):
        ClientCredentials(token_url=URL, client_id="c", client_assertion=given)
