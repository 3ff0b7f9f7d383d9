from __future__ import annotations

import base64
import traceback
from typing import Any
from urllib.parse import quote, quote_plus, unquote_plus

import pytest

from tokenmw.errors import ConfigurationError, CredentialRejected, TokenUnavailable
from tokenmw.providers.client_auth import ClientAuth

ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"


def client_auth(client_id: Any = "crm", **options: Any) -> ClientAuth:
    """Make one with the defaults of `ClientCredentials`."""
    defaults: dict[str, Any] = {
        "method": "client_secret_basic",
        "secret": None,
        "assertion": None,
        "credential_id": None,
    }
    return ClientAuth(client_id, provider="P", **(defaults | options))


@pytest.mark.parametrize(
    ("client_id", "secret"),
    [("crm", "s"), ("a:b", "c:d"), ("ä", "密 +&%=ß"), ("spaces in", "s~*'()!"), ("a" * 500, "b" * 5000)],
)
async def test_basic_is_form_encoded_first(client_id: str, secret: str) -> None:
    """RFC 6749 §2.3.1: a colon or letter of any language comes out as it went in."""
    proof = await client_auth(client_id, secret=secret).prove()
    assert {} == proof.form
    scheme, _, encoded = proof.headers["authorization"].partition(" ")
    parts = base64.b64decode(encoded).decode("ascii").split(":")
    assert ("Basic", [client_id, secret]) == (scheme, [unquote_plus(part) for part in parts])


async def test_basic_can_be_left_unencoded() -> None:
    """For the servers that do not decode."""
    proof = await client_auth("crm", secret="a+b %:ä", form_encode_basic=False).prove()
    assert b"crm:a+b %:\xc3\xa4" == base64.b64decode(proof.headers["authorization"].removeprefix("Basic "))


async def test_post_puts_id_and_secret_into_the_form_only() -> None:
    """Never two methods in one request (RFC 6749 §2.3)."""
    proof = await client_auth(secret="s", method="client_secret_post").prove()
    assert ({"client_id": "crm", "client_secret": "s"}, {}) == (proof.form, proof.headers)


async def asynchronous() -> str:
    """Return an assertion as a key service would."""
    return "a.b.c"


@pytest.mark.parametrize("assertion", ["a.b.c", lambda: "a.b.c", asynchronous])
async def test_assertion_may_be_text_or_any_function(assertion: Any) -> None:
    """RFC 7523 §2.2."""
    proof = await client_auth(method="private_key_jwt", assertion=assertion).prove()
    expected = {"client_id": "crm", "client_assertion_type": ASSERTION_TYPE, "client_assertion": "a.b.c"}
    assert (expected, {}) == (proof.form, proof.headers)


async def test_assertion_is_made_anew_for_each_attempt() -> None:
    """Servers refuse an assertion that they have seen."""
    numbers = iter(range(9))
    auth = client_auth(method="private_key_jwt", assertion=lambda: f"a.{next(numbers)}")
    assert ["a.0", "a.1"] == [(await auth.prove()).form["client_assertion"] for _ in range(2)]


@pytest.mark.parametrize("result", ["", None, b"a.b.c", 5, "x" * 70_000])
async def test_function_that_returns_no_assertion_is_unavailability(result: object) -> None:
    """The request is not sent."""
    auth = client_auth(method="private_key_jwt", assertion=lambda: result)
    with pytest.raises(TokenUnavailable, match="client_assertion did not return"):
        await auth.prove()


async def test_error_in_the_function_is_told_without_its_secrets() -> None:
    """It may quote the key; the kind is told, and how to see more."""

    def broken() -> str:
        raise ValueError("cannot read key s3cr3t")

    with pytest.raises(TokenUnavailable, match="client_assertion raised ValueError: call the function") as caught:
        await client_auth(method="private_key_jwt", assertion=broken).prove()
    assert caught.value.__context__ is None
    assert "s3cr3t" not in "".join(traceback.format_exception(caught.value))


async def test_functions_own_verdict_passes() -> None:
    """A function that knows that its key was withdrawn may say so."""

    async def withdrawn() -> str:
        raise CredentialRejected("the key was withdrawn")

    with pytest.raises(CredentialRejected, match="withdrawn"):
        await client_auth(method="private_key_jwt", assertion=withdrawn).prove()


@pytest.mark.parametrize(
    ("client_id", "options", "text"),
    [
        ("crm", {}, "needs client_secret=…"),
        ("crm", {"secret": ""}, r"client_secret=…\) is empty"),
        ("", {"secret": "s"}, r"client_id=…\) is empty"),
        (None, {"secret": "s"}, r"client_id=…\) must be a str"),
        ("crm", {"secret": "s", "assertion": "a"}, "not both"),
        ("crm", {"secret": "s", "method": "basic"}, "one of client_secret_basic, client_secret_post, private_key_jwt"),
        ("crm", {"secret": "s", "method": ["client_secret_basic"]}, "one of client_secret_basic"),
        ("crm", {"method": "private_key_jwt"}, "needs client_assertion=…"),
        ("crm", {"method": "private_key_jwt", "secret": "s"}, "needs client_assertion=…"),
        ("crm", {"assertion": "a"}, 'needs auth_method="private_key_jwt"'),
        ("crm", {"method": "private_key_jwt", "assertion": b"a"}, r"client_assertion=…\) must be a str"),
        ("crm", {"secret": "s", "credential_id": 5}, r"credential_id=…\) must be a str"),
        ("a:b", {"secret": "s", "form_encode_basic": False}, "holds a colon"),
    ],
)
def test_wrong_combinations_are_refused_at_once(client_id: Any, options: dict[str, Any], text: str) -> None:
    """The text names the option and the mend, and nothing is sent first."""
    with pytest.raises(ConfigurationError, match=text) as caught:
        client_auth(client_id, **options)
    assert str(caught.value).startswith("P")


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        ({"secret": "s"}, {"secret": "s"}, True),
        ({"secret": "s"}, {"secret": "t"}, False),
        ({"secret": "s"}, {"secret": "s", "method": "client_secret_post"}, False),
        ({"assertion": "a"}, {"assertion": "a"}, True),
        ({"assertion": "a"}, {"assertion": "b"}, False),
        ({"assertion": "a", "credential_id": "k"}, {"assertion": "b", "credential_id": "k"}, True),
        ({"assertion": len, "credential_id": "k"}, {"assertion": max, "credential_id": "k"}, True),
        ({"assertion": len, "credential_id": "k"}, {"assertion": len, "credential_id": "l"}, False),
        ({"assertion": len}, {"assertion": len}, False),
    ],
)
def test_identity_is_the_credential(first: dict[str, Any], second: dict[str, Any], *, same: bool) -> None:
    """A function tells nothing about its key, so without a name two of them are never taken for one."""
    one, other = (client_auth(**_with_method(options)) for options in (first, second))
    assert same is (one.identity() == other.identity())
    hash(one.identity())


@pytest.mark.parametrize(
    ("options", "shareable"),
    [({"secret": "s"}, True), ({"assertion": "a"}, True), ({"assertion": len}, False)],
)
def test_unnamed_function_is_not_shareable(options: dict[str, Any], *, shareable: bool) -> None:
    """Another process cannot know that its function is the same."""
    assert shareable is client_auth(**_with_method(options)).shareable
    assert client_auth(**_with_method(options | {"credential_id": "k"})).shareable


async def test_nothing_shows_the_secret() -> None:
    """Neither the client nor what it sends."""
    auth = client_auth(secret="s3cr3t")
    proof = await auth.prove()
    assert "<ClientAuth client_secret_basic> <Proof>" == f"{auth!r} {proof!r}"
    assert proof.is_in("so s3cr3t it is")
    assert not proof.is_in("nothing")


@pytest.mark.parametrize("method", ["client_secret_basic", "client_secret_post"])
async def test_a_coded_or_cut_secret_is_recognized(method: Any) -> None:
    """As it goes over the wire, and its longer pieces; but not what is in any text by chance."""
    secret = "s3cr3t/of+the client"
    proof = await client_auth(secret=secret, method=method).prove()
    for repeated in (secret, secret[:8], quote(secret, safe=""), quote_plus(secret), secret[-6:]):
        assert proof.is_in(repeated)
    assert (method == "client_secret_basic") is proof.is_in(proof.headers.get("authorization", "Basic -")[6:])
    assert not proof.is_in("client_id")
    assert not proof.is_in("the")
    short = await client_auth(secret="cr", method=method).prove()
    assert short.is_in("cr")
    assert not short.is_in("https://crm.example")


def _with_method(options: dict[str, Any]) -> dict[str, Any]:
    return ({"method": "private_key_jwt"} if "assertion" in options else {}) | options
