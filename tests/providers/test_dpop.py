"""`DPoPKey`: proofs of the possession of a key (RFC 9449 §4)."""

from __future__ import annotations

import base64
import hashlib
import importlib
import json
import sys
import threading
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import httpx2
import jwt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.providers.private_keys import jwk_of, make_key, pem_of, public_jwk_of, public_pem_of
from tests.redaction.test_encoders import ENCODERS
from tokenmw import ConfigurationError
from tokenmw.providers import ClientCredentials, DPoPKey
from tokenmw.providers.signing_key import SigningKey
from tokenmw.testing import make_token

URL = "https://api.example/orders"
PEM = pem_of(make_key("P-256"))
# RFC 9449 §4.2 and §7.1 show proofs of this key, and RFC 9449 §6.1 has its thumbprint.
OF_RFC = {
    "kty": "EC",
    "crv": "P-256",
    "x": "l8tFrhx-34tV3hRICRDY9zCkDlpBhF42UQUfWVAWBFs",
    "y": "9VE4jf_Ok_o64zbTTlcuNJajHmt6v9TDVrU0CdvGRDA",
}
THUMBPRINT_OF_RFC = "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"


def claims_of(proof: str) -> dict[str, Any]:
    """Return the claims of a proof, verified with the key in its header."""
    header = jwt.get_unverified_header(proof)
    key = jwt.get_algorithm_by_name(header["alg"]).from_jwk(header["jwk"])
    claims: dict[str, Any] = jwt.decode(proof, key, algorithms=[header["alg"]])
    return claims


@pytest.mark.parametrize("sort", ["P-256", "P-384", "P-521", "Ed25519", "Ed448", "RSA-2048"])
def test_a_proof_has_the_public_key_and_what_it_is_for(sort: str) -> None:
    """The header has the type and the public key and nothing else; the key has signed method, URL and time."""
    key = DPoPKey(jwk_of(make_key(sort), kid="internal", use="sig"))
    proof = key.proof("post", URL)
    header = jwt.get_unverified_header(proof)
    assert {"typ", "alg", "jwk"} == header.keys()
    assert ("dpop+jwt", public_jwk_of(make_key(sort))) == (header["typ"], header["jwk"])
    claims = claims_of(proof)
    assert {"jti", "htm", "htu", "iat"} == claims.keys()
    assert ("POST", URL) == (claims["htm"], claims["htu"])
    assert abs(time.time() - claims["iat"]) < 5


def test_each_proof_has_an_id_of_its_own() -> None:
    """No server that remembers the ids of proofs refuses the second one."""
    key = DPoPKey(PEM)
    assert 100 == len({claims_of(key.proof("GET", URL))["jti"] for _ in range(100)})


def test_a_proof_names_the_token_and_the_nonce() -> None:
    """`ath` is the digest of the token, as text or as a `Token`; `nonce` is the given one."""
    expected = base64.urlsafe_b64encode(hashlib.sha256(b"t-1").digest()).decode().rstrip("=")
    for token in ("t-1", make_token("t-1")):
        claims = claims_of(DPoPKey(PEM).proof("GET", URL, token=token, nonce="n-1"))
        assert (expected, "n-1") == (claims["ath"], claims["nonce"])


def test_the_thumbprint_is_that_of_the_rfc(monkeypatch: pytest.MonkeyPatch) -> None:
    """The thumbprint of the key in RFC 9449 is the one that it has there (RFC 7638)."""

    def of_rfc(_key: SigningKey) -> dict[str, str]:
        return dict(OF_RFC)

    monkeypatch.setattr(SigningKey, "public_jwk", of_rfc)
    assert THUMBPRINT_OF_RFC == DPoPKey(PEM).thumbprint


def test_a_key_is_read_from_text_bytes_a_jwk_and_a_file(tmp_path: Path) -> None:
    """Each way gives the same key, which other processes can have; a new key is another each time."""
    file = tmp_path / "key.pem"
    file.write_text(PEM)
    jwk = jwk_of(make_key("P-256"))
    keys = [DPoPKey(PEM), DPoPKey(PEM.encode()), DPoPKey(jwk), DPoPKey(json.dumps(jwk)), DPoPKey(file)]
    keys += [DPoPKey(file=file), DPoPKey(file=str(file))]
    assert 1 == len({key.thumbprint for key in keys})
    assert all(key.shareable for key in keys)
    made = [DPoPKey(), DPoPKey()]
    assert made[0].thumbprint != made[1].thumbprint
    assert [False, False] == [key.shareable for key in made]


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"key": public_pem_of(make_key("P-256"))}, "give the private key"),
        ({"key": public_jwk_of(make_key("P-256"))}, "without d: give the private key"),
        ({"key": pem_of(make_key("P-256"), password=b"pw")}, "is encrypted"),
        ({"key": {"kty": "oct", "k": "c2VjcmV0"}}, "is a shared secret .*: give a private key"),
        ({"key": pem_of(make_key("P-256k"))}, "is of another sort"),
        ({"key": pem_of(make_key("RSA-4096"))}, "takes milliseconds for each request: give a key on P-256"),
        ({"key": ""}, "is empty"),
        ({"key": 7}, r"DPoPKey\(…\) must be PEM or a JWK"),
        ({"key": PEM, "file": "key.pem"}, "key=… or file=…, and not both"),
        ({"file": "/nonexistent/key.pem"}, "cannot read its file .*No such file.*/nonexistent/key.pem"),
        ({"file": "/dev/zero"}, r"DPoPKey\(/dev/zero\) has more than 65536 bytes"),
        ({"file": PEM.encode()}, "must be a path"),
    ],
)
def test_a_key_that_cannot_prove_anything_is_refused(given: dict[str, Any], text: str) -> None:
    """The error is raised at construction, names the class and the fix, and has no part of the key."""
    with pytest.raises(ConfigurationError, match=text) as raised:
        DPoPKey(**given)
    assert str(raised.value).startswith("DPoPKey")
    assert PEM.splitlines()[1] not in str(raised.value)


@pytest.mark.parametrize("missing", ["jwt", "cryptography"])
@pytest.mark.parametrize("arguments", [(), (PEM,)])
def test_a_missing_extra_is_named_with_the_install_line(
    monkeypatch: pytest.MonkeyPatch, missing: str, arguments: tuple[str, ...]
) -> None:
    """Without PyJWT or cryptography the error has the command that installs them."""
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(ConfigurationError, match=r'^DPoPKey needs .*: pip install "tokenmw\[jwt\]"\.$'):
        DPoPKey(*arguments)


HOSTS = st.from_regex(r"[A-Za-z][A-Za-z0-9-]{0,8}(\.[A-Za-z]{2,5}){1,2}", fullmatch=True).filter(
    lambda host: "xn--" not in host.lower() and "-." not in host
)
PATHS = st.lists(st.text("abcXYZ019-._~!$&'()*+,;=:@ é%2F", max_size=6), max_size=4).map("/".join)
ANY_TEXT = st.text("abc=&?/ é%23", max_size=10)


@given(
    scheme=st.sampled_from(["http", "https", "HTTPS"]),
    host=HOSTS,
    port=st.sampled_from(["", ":80", ":443", ":8443"]),
    path=PATHS,
    query=st.none() | ANY_TEXT,
    fragment=st.none() | ANY_TEXT,
)
def test_the_proof_is_for_the_url_that_is_sent(
    *, scheme: str, host: str, port: str, path: str, query: str | None, fragment: str | None
) -> None:
    """`htu` has the host in lower case, no default port, no query and no fragment, and the path as it is sent."""
    url = f"{scheme}://{host}{port}/{path}"
    url += ("" if query is None else f"?{query}") + ("" if fragment is None else f"#{fragment}")
    sent = httpx.Request("GET", url).url
    found = {claims_of(KEY.proof("GET", one))["htu"] for one in (url, sent, httpx2.URL(str(sent)))}
    assert 1 == len(found)
    parts = urlsplit(str(found.pop()))
    default = {"http": ":80", "https": ":443"}[scheme.lower()]
    assert scheme.lower() == parts.scheme
    assert f"{host.lower()}{'' if port == default else port}" == parts.netloc
    assert sent.raw_path.decode().partition("?")[0] == parts.path
    assert ("", "") == (parts.query, parts.fragment)


KEY = DPoPKey(PEM)


@pytest.mark.parametrize(
    ("url", "target"),
    [
        ("https://api.example", "https://api.example/"),
        ("https://API.example:443?a=1", "https://api.example/"),
        ("https://u:p@api.example/a", "https://api.example/a"),
        ("http://[::1]:8000/a?b#c", "http://[::1]:8000/a"),
        ("https://bücher.example/ä", "https://xn--bcher-kva.example/%C3%A4"),
    ],
)
@pytest.mark.parametrize("library", ["httpx", "httpx2"])
def test_urls_are_normalised(library: str, url: str, target: str) -> None:
    """Text and a client's URL give the same `htu`; a user in the URL is no part of it."""
    parsed = importlib.import_module(library).URL(url)
    assert [target, target] == [claims_of(KEY.proof("GET", one))["htu"] for one in (url, parsed)]


@pytest.mark.parametrize("url", ["", "/orders", "api.example/orders", "https://"])
def test_a_url_without_a_host_is_refused(url: str) -> None:
    """The error says what is missing."""
    with pytest.raises(ConfigurationError, match="the whole URL"):
        KEY.proof("GET", url)


def test_nonces_are_kept_for_each_origin() -> None:
    """A nonce is used for the origin that sent it, whatever the path, and replaced by the next one.

    A token endpoint and an API of one origin have nonces of their own.
    """
    key = DPoPKey(PEM)
    assert key.take_nonce("https://api.example/a", {"dpop-nonce": "n-1"}, of_api=True)
    assert key.take_nonce(httpx.URL("https://other.example"), httpx.Headers({"DPoP-Nonce": "n-2"}), of_api=True)
    nonces = [
        claims_of(key.proof("GET", url, token="t")).get("nonce")
        for url in ("https://API.example:443/b", "https://other.example/", "http://api.example/a", URL.upper())
    ]
    assert ["n-1", "n-2", None, "n-1"] == nonces
    assert "nonce" not in claims_of(key.proof("POST", URL))
    assert key.take_nonce(URL, {"dpop-nonce": "n-4"}, of_api=False)
    assert "n-4" == claims_of(key.proof("POST", URL))["nonce"]
    assert key.take_nonce(URL, {"dpop-nonce": "n-3"}, of_api=True)
    assert "n-3" == claims_of(key.proof("GET", URL, token="t"))["nonce"]


@pytest.mark.parametrize("nonce", [None, "", "a b", 'a"b', "a\\b", "ä", "a\n", "x" * 1025])
def test_a_malformed_nonce_is_not_kept(nonce: str | None) -> None:
    """A nonce is 1 to 1024 visible characters, and no quotation mark or backslash (RFC 9449 §8.1)."""
    key = DPoPKey(PEM)
    assert not key.take_nonce(URL, {} if nonce is None else {"dpop-nonce": nonce}, of_api=True)
    assert "nonce" not in claims_of(key.proof("GET", URL, token="t"))


def test_nonces_are_bounded_and_may_come_from_several_threads() -> None:
    """256 origins are kept, the latest ones, also if brokers in several threads use one key."""
    key = DPoPKey(PEM)

    def fill(number: int) -> None:
        for count in range(1_000):
            key.take_nonce(f"https://host-{number}-{count}.example", {"dpop-nonce": "n"}, of_api=True)

    threads = [threading.Thread(target=fill, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    key.take_nonce(URL, {"dpop-nonce": "last"}, of_api=True)
    assert 256 == len(key._nonces._last)
    assert "last" == claims_of(key.proof("GET", URL, token="t"))["nonce"]


@pytest.mark.parametrize("encoder", ENCODERS)
def test_no_encoder_writes_the_key(encoder: str) -> None:
    """The number of the private key is in no text that an encoder writes, and neither is a nonce."""
    key = DPoPKey(PEM)
    key.take_nonce(URL, {"dpop-nonce": "canary-of-a-nonce"}, of_api=True)
    try:
        text = str(ENCODERS[encoder](key))
    except Exception as error:  # noqa: BLE001  each encoder refuses in its own way
        text = f"{error!r} {error}"
    for secret in (jwk_of(make_key("P-256"))["d"], PEM.splitlines()[1], "canary-of-a-nonce"):
        assert secret not in text
    assert "<DPoPKey ES256>" == repr(key)


def test_the_key_is_a_part_of_the_credential() -> None:
    """Providers with the same key are equal, with another key or without one they are not; a new key is not shared."""
    options: dict[str, Any] = {"token_url": "https://idp.example/token", "client_id": "crm", "client_secret": "s"}
    bound = ClientCredentials(**options, dpop=DPoPKey(PEM))
    assert ClientCredentials(**options, dpop=DPoPKey(PEM)) == bound
    assert ClientCredentials(**options, dpop=DPoPKey(pem_of(make_key("P-256", number=2)))) != bound
    assert ClientCredentials(**options) != bound
    made = ClientCredentials(**options, dpop=DPoPKey())
    assert (True, False) == (bound.shareable, made.shareable)


@pytest.mark.parametrize(
    ("options", "text"),
    [({"dpop": PEM}, r"dpop=…\) must be DPoPKey"), ({"dpop": KEY, "scheme": "DPoP"}, "leave scheme out")],
)
def test_options_that_contradict_the_key_are_refused(options: dict[str, Any], text: str) -> None:
    """The error names the option and the fix."""
    with pytest.raises(ConfigurationError, match=text):
        ClientCredentials(token_url="https://idp.example/token", client_id="crm", client_secret="s", **options)
