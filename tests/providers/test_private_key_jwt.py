"""`PrivateKeyJWT`: assertions that are signed with a private key."""

from __future__ import annotations

import asyncio
import hashlib
import json
import ssl
import sys
import traceback
from base64 import urlsafe_b64decode
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import jwt
import pytest

from tests.providers.private_keys import (
    certificate_of,
    jwk_of,
    make_key,
    pem_of,
    public_jwk_of,
    public_pem_of,
    started,
)
from tests.providers.verifying import verifying
from tests.redaction.test_encoders import ENCODERS
from tokenmw.errors import ConfigurationError, CredentialRejected
from tokenmw.providers import BotFramework, ClientCredentials, Entra, PrivateKeyJWT

URL = "https://idp.example/token"
KEYS = {
    **dict.fromkeys(("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"), "RSA-2048"),
    "ES256": "P-256",
    "ES384": "P-384",
    "ES512": "P-521",
    "EdDSA": "Ed25519",
}
P256 = pem_of(make_key("P-256"))


def credentials(key: PrivateKeyJWT, **options: Any) -> ClientCredentials:
    """Make the credential of the client `crm`."""
    given: dict[str, Any] = {"token_url": URL, "client_id": "crm", "auth_method": "private_key_jwt"}
    return ClientCredentials(client_assertion=key, **(given | options))


@pytest.mark.parametrize("algorithm", KEYS)
@pytest.mark.parametrize("form", ["PEM", "JWK"])
async def test_a_server_verifies_each_algorithm(algorithm: Any, form: str) -> None:
    """A server with the public key grants a token for each request; the assertion is for its endpoint."""
    key = make_key(KEYS[algorithm])
    given: Any = pem_of(key) if form == "PEM" else jwk_of(key)
    async with verifying(key.public_key(), algorithms=[algorithm]) as (server, http):
        crm = credentials(PrivateKeyJWT(given, key_id="crm-2", algorithm=algorithm), token_url=server.url)
        assert (await crm.fetch(http)).value != (await crm.fetch(http)).value
    (header, claims), (_, others) = server.seen
    assert {"alg": algorithm, "kid": "crm-2", "typ": "JWT"} == header
    assert ("crm", "crm", server.url) == (claims["iss"], claims["sub"], claims["aud"])
    assert claims["jti"] != others["jti"]
    assert 70 == claims["exp"] - claims["iat"]


@pytest.mark.parametrize(
    ("sort", "form", "algorithm"),
    [
        ("RSA-2048", "pkcs8", "RS256"),
        ("RSA-2048", "traditional", "RS256"),
        ("P-256", "pkcs8", "ES256"),
        ("P-384", "traditional", "ES384"),
        ("P-521", "pkcs8", "ES512"),
        ("Ed25519", "pkcs8", "EdDSA"),
        ("Ed448", "pkcs8", "EdDSA"),
    ],
)
async def test_the_algorithm_follows_from_the_key(sort: str, form: str, algorithm: str, tmp_path: Path) -> None:
    """Each format of PEM is read, as text, as bytes and from a file, and the key alone decides the algorithm."""
    key = make_key(sort)
    pem = pem_of(key, form=form)
    path = tmp_path / "key.pem"
    path.write_text(f"some text of openssl\n{public_pem_of(key)}{pem}\n")
    made = [await started(one) for one in (pem, pem.encode(), path)]
    made += [await started(file=path), await started(file=str(path))]
    assert {f"<PrivateKeyJWT {algorithm}>"} == {repr(one) for one in made}
    assert 1 == len({one.identity() for one in made})
    signed = await made[0].assertion("crm", audience=URL)
    assert "crm" == jwt.decode(signed, key.public_key(), algorithms=[algorithm], audience=URL)["sub"]
    assert {"alg": algorithm, "typ": "JWT"} == jwt.get_unverified_header(signed)


def as_bytes(jwk: dict[str, Any]) -> bytes:
    """Return a JWK as in a file."""
    return f"\n {json.dumps(jwk)} ".encode()


@pytest.mark.parametrize("given", [dict, json.dumps, as_bytes])
async def test_a_jwk_brings_its_key_id_and_algorithm(given: Any) -> None:
    """`kid` and `alg` of the JWK are used; an option replaces them."""
    jwk = jwk_of(make_key("RSA-2048"), kid="from-jwk", alg="PS384", use="sig")
    header = jwt.get_unverified_header(await PrivateKeyJWT(given(jwk)).assertion("crm", audience=URL))
    assert ("from-jwk", "PS384") == (header["kid"], header["alg"])
    other = PrivateKeyJWT(given(jwk), key_id="k", algorithm="RS512")
    header = jwt.get_unverified_header(await other.assertion("crm", audience=URL))
    assert ("k", "RS512") == (header["kid"], header["alg"])


async def test_a_jwk_may_leave_out_its_primes() -> None:
    """RFC 7518 §6.3.2 allows an RSA key with `n`, `e` and `d` alone."""
    key = make_key("RSA-2048")
    jwk = {name: value for name, value in jwk_of(key).items() if name in ("kty", "n", "e", "d")}
    signed = await PrivateKeyJWT(jwk).assertion("crm", audience=URL)
    assert jwt.decode(signed, key.public_key(), algorithms=["RS256"], audience=URL)


async def test_a_certificates_thumbprint_is_in_the_header() -> None:
    """Entra finds the certificate by `x5t#S256`, and wants PS256 with it."""
    key = make_key("RSA-2048")
    certificate = certificate_of(key)
    header = jwt.get_unverified_header(
        await PrivateKeyJWT(pem_of(key), certificate=certificate).assertion("crm", audience=URL)
    )
    digest = hashlib.sha256(ssl.PEM_cert_to_DER_cert(certificate)).digest()
    assert ("PS256", digest) == (header["alg"], urlsafe_b64decode(header["x5t#S256"] + "=="))
    other = PrivateKeyJWT(pem_of(make_key("P-256")), certificate=certificate_of(make_key("P-256")).encode())
    assert "<PrivateKeyJWT ES256>" == repr(other)


@pytest.mark.parametrize("make", [Entra, BotFramework])
async def test_microsoft_takes_a_key(make: Any) -> None:
    """`Entra` and `BotFramework` sign for the tenant's token endpoint."""
    key = make_key("RSA-2048")
    name = "app_id" if make is BotFramework else "client_id"
    signer = PrivateKeyJWT(pem_of(key), certificate=certificate_of(key))
    options: dict[str, Any] = {"tenant": "contoso.example", "client_assertion": signer, name: "app-1"}
    app: Any = make(**options)
    proof = await app._client.auth.prove(token_url=app.token_url)
    claims = jwt.decode(proof.form["client_assertion"], key.public_key(), algorithms=["PS256"], audience=app.token_url)
    assert ("app-1", "https://login.microsoftonline.com/contoso.example/oauth2/v2.0/token") == (
        claims["sub"],
        claims["aud"],
    )
    assert app.shareable


async def test_a_server_may_want_another_audience() -> None:
    """`assertion_audience` replaces the token endpoint; a refusal names what to check."""
    key = make_key("P-256")
    async with verifying(key.public_key(), algorithms=["ES256"]) as (server, http):
        server.audience = "https://idp.example"
        signer = PrivateKeyJWT(P256)
        with pytest.raises(CredentialRejected, match="the server has the public key of PrivateKeyJWT, its key_id"):
            await credentials(signer, token_url=server.url).fetch(http)
        await credentials(signer, token_url=server.url, assertion_audience="https://idp.example").fetch(http)


WRONG: dict[str, Callable[[], tuple[Any, dict[str, Any], str]]] = {
    "no key": lambda: (None, {}, "needs key=… or file=…, and not both"),
    "two keys": lambda: (P256, {"file": "key.pem"}, "needs key=… or file=…, and not both"),
    "empty": lambda: ("", {}, r"PrivateKeyJWT\(key=…\) is empty"),
    "a number": lambda: (5, {}, "must be PEM or a JWK as text, bytes or a dict, or a pathlib.Path, not int"),
    "a path as text": lambda: (
        "/run/secrets/crm.pem",
        {},
        "neither PEM nor a JWK. The path of a file is given as file=…",
    ),
    "no such file": lambda: (
        Path("/nowhere/key.pem"),
        {},
        r"cannot read its file \(No such file or directory: /nowhere/key",
    ),
    "a directory": lambda: (Path("/"), {}, r"cannot read its file \(Is a directory"),
    "file as a number": lambda: (None, {"file": 5}, r"\(file=…\) must be a path as a str or a pathlib.Path, not int"),
    "public PEM": lambda: (public_pem_of(make_key("P-256")), {}, "is a public key: give the private key"),
    "certificate": lambda: (certificate_of(make_key("P-256")), {}, "is a certificate: give the private key"),
    "public JWK": lambda: (
        public_jwk_of(make_key("P-256")),
        {},
        "is a public key, a JWK without d: give the private key",
    ),
    "encrypted": lambda: (
        pem_of(make_key("P-256"), password=b"pw"),
        {},
        "is encrypted: decrypt it before, with `openssl pkey",
    ),
    "encrypted, old": lambda: (
        pem_of(make_key("RSA-2048"), form="traditional", password=b"pw"),
        {},
        "is encrypted: decrypt it before",
    ),
    "OpenSSH": lambda: (pem_of(make_key("P-256"), form="openssh"), {}, "format of OpenSSH: convert a copy of it"),
    "escaped": lambda: (P256.replace("\n", "\\n"), {}, r'has "\\n" as two characters'),
    "cut off": lambda: (P256[:-20], {}, "has no whole block with a private key"),
    "broken PEM": lambda: (P256.replace(P256[60:100], ""), {}, "is PEM that cannot be read"),
    "broken JSON": lambda: ('{"kty": "EC"', {}, "begins like a JWK and is not JSON"),
    "JWKS": lambda: ({"keys": [jwk_of(make_key("P-256"))]}, {}, r"is a set of keys \(JWKS\): give the one key"),
    "symmetric": lambda: ({"kty": "oct", "k": "c2VjcmV0"}, {}, r'shared secret .* use auth_method="client_secret_jwt"'),
    "no kty": lambda: ({"d": "x"}, {}, "is not a JWK with a kty of"),
    "broken JWK": lambda: (jwk_of(make_key("P-256")) | {"d": "-"}, {}, "is a JWK that cannot be read"),
    "broken RSA JWK": lambda: (jwk_of(make_key("RSA-2048")) | {"q": "AQAB"}, {}, "is a JWK that cannot be read"),
    "huge JWK": lambda: (
        jwk_of(make_key("RSA-2048")) | {"n": "A" * 2_000 + "B" * 2_000},
        {},
        "is a JWK that cannot be read",
    ),
    "for encryption": lambda: (jwk_of(make_key("P-256"), use="enc"), {}, "is a JWK that is not for signatures"),
    "alg of encryption": lambda: (jwk_of(make_key("RSA-2048"), alg="RSA-OAEP"), {}, "and not for what its alg says"),
    "short RSA": lambda: (pem_of(make_key("RSA-1024")), {}, "an RSA key of 1024 bits: give one of 2048 to 4096 bits"),
    "another curve": lambda: (pem_of(make_key("P-256k")), {}, "is of another sort: give an RSA key, or one on P-256"),
    "DSA": lambda: (pem_of(make_key("DSA-2048")), {}, "is of another sort"),
    "X25519": lambda: (pem_of(make_key("X25519")), {}, "is of another sort"),
    "wrong algorithm": lambda: (
        P256,
        {"algorithm": "RS256"},
        "is a key for ES256, and not for RS256: leave algorithm out",
    ),
    "wrong curve": lambda: (P256, {"algorithm": "ES384"}, "is a key for ES256, and not for ES384"),
    "no algorithm": lambda: (P256, {"algorithm": "HS256"}, r"\(algorithm=…\) must be one of 'RS256'"),
    "key_id": lambda: (P256, {"key_id": 5}, r"\(key_id=…\) must be a str"),
    "kid": lambda: (jwk_of(make_key("P-256"), kid=5), {}, r"\(key=…\): kid must be a str"),
    "other certificate": lambda: (
        P256,
        {"certificate": certificate_of(make_key("P-384"))},
        "certificate of another key",
    ),
    "no certificate": lambda: (P256, {"certificate": P256}, r"\(certificate=…\) must be PEM \(-----BEGIN CERTIFICATE"),
    "certificate's path": lambda: (
        P256,
        {"certificate": "/run/c.pem"},
        r"\(certificate=…\) must be PEM .*pathlib.Path",
    ),
    "certificate's type": lambda: (P256, {"certificate": 5}, r"\(certificate=…\) must be PEM as text or bytes"),
    "broken certificate": lambda: (
        P256,
        {"certificate": "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----"},
        "is PEM that cannot be read",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_key_that_cannot_sign_is_refused_at_construction(name: str) -> None:
    """The text names the fix, and no part of the key; nor does a report with the variables of all frames."""
    key, options, text = WRONG[name]()
    with pytest.raises(ConfigurationError, match=text) as caught:
        PrivateKeyJWT(key, **options)
    trace = traceback.TracebackException.from_exception(caught.value, capture_locals=True)
    trace.stack = traceback.StackSummary.from_list(trace.stack[1:])
    shown = "".join(trace.format())
    is_jwk = isinstance(key, dict)
    secrets = [str(cast("dict[str, Any]", key).get("d", ""))] if is_jwk else str(cast("object", key)).split("\n")[1:-1]
    assert [] == [secret for secret in secrets if len(secret) > 20 and secret in shown]


def test_without_the_extra_the_error_names_the_install_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """PyJWT and cryptography are imported when a key is made, not before."""
    for name in ("jwt", "cryptography"):
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, name, None)
            with pytest.raises(ConfigurationError, match=r'pip install "tokenmw\[jwt\]"'):
                PrivateKeyJWT(P256)


def test_the_key_is_the_credential() -> None:
    """Equal keys share a token, also between processes; a changed key, id or algorithm is another credential."""
    rsa = pem_of(make_key("RSA-2048"))
    base = credentials(PrivateKeyJWT(rsa))
    assert base == credentials(PrivateKeyJWT(jwk_of(make_key("RSA-2048"))))
    assert base.shareable
    others: list[PrivateKeyJWT] = [
        PrivateKeyJWT(P256),
        PrivateKeyJWT(rsa, key_id="k"),
        PrivateKeyJWT(rsa, algorithm="PS256"),
        PrivateKeyJWT(rsa, certificate=certificate_of(make_key("RSA-2048"))),
    ]
    assert len(others) + 1 == len({base, *map(credentials, others)})
    assert base != credentials(PrivateKeyJWT(rsa), assertion_audience="https://idp.example")
    assert credentials(others[0], credential_id="k") == credentials(others[1], credential_id="k")
    assert "PRIVATE" not in str(base.credential)


async def test_a_slow_key_signs_in_a_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """RSA of 4096 bits takes 4 ms; the others sign in the event loop."""
    threads: list[str] = []
    original = asyncio.to_thread

    async def count(function: Any, *args: Any) -> Any:
        threads.append(function.__name__)
        return await original(function, *args)

    monkeypatch.setattr(asyncio, "to_thread", count)
    for sort in ("RSA-2048", "RSA-4096"):
        signed = await PrivateKeyJWT(pem_of(make_key(sort))).assertion("crm", audience=URL)
        assert jwt.decode(signed, make_key(sort).public_key(), algorithms=["RS256"], audience=URL)
    assert ["sign"] == threads


@pytest.mark.parametrize("name", sorted({*ENCODERS} - {"jsons"}))
@pytest.mark.parametrize("form", ["PEM", "JWK"])
def test_no_encoder_writes_the_key(name: str, form: str) -> None:
    """Pickle and the encoders of the web refuse, and their errors do not show it either."""
    key = make_key("P-256")
    signer = PrivateKeyJWT(pem_of(key) if form == "PEM" else jwk_of(key))
    for one in (signer, signer._source, signer._source.key, credentials(signer)):
        try:
            result = ENCODERS[name]([one])
        except Exception as error:  # noqa: BLE001  each encoder refuses in its own way
            result = f"{error!r} {error.__context__!r}"
        text = result.decode("latin-1") if isinstance(result, bytes) else str(result)
        assert pem_of(key).split("\n")[1] not in text
        assert jwk_of(key)["d"] not in text
