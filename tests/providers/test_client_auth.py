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
    """Make a client with the defaults of `ClientCredentials`."""
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
    """Id and secret are form-encoded (RFC 6749 §2.3.1), so the server reads colons and letters of every script back."""
    proof = await client_auth(client_id, secret=secret).prove()
    assert {} == proof.form
    scheme, _, encoded = proof.headers["authorization"].partition(" ")
    parts = base64.b64decode(encoded).decode("ascii").split(":")
    assert ("Basic", [client_id, secret]) == (scheme, [unquote_plus(part) for part in parts])


async def test_a_space_in_basic_is_read_by_servers_that_decode_only_percent_signs() -> None:
    """A space is sent as `%20` and not as `+`, which such servers leave as it is."""
    proof = await client_auth("a b", secret="c d+").prove()
    assert b"a%20b:c%20d%2B" == base64.b64decode(proof.headers["authorization"].removeprefix("Basic "))


async def test_basic_can_be_left_unencoded() -> None:
    """With `form_encode_basic=False`, id and secret are sent unencoded, for servers that do not decode them."""
    proof = await client_auth("crm", secret="a+b %:ä", form_encode_basic=False).prove()
    assert b"crm:a+b %:\xc3\xa4" == base64.b64decode(proof.headers["authorization"].removeprefix("Basic "))


async def test_post_puts_id_and_secret_into_the_form_only() -> None:
    """`client_secret_post` sends no header: a request has only one method (RFC 6749 §2.3)."""
    proof = await client_auth(secret="s", method="client_secret_post").prove()
    assert ({"client_id": "crm", "client_secret": "s"}, {}) == (proof.form, proof.headers)


async def asynchronous() -> str:
    """Return an assertion as from a key service."""
    return "a.b.c"


@pytest.mark.parametrize("assertion", ["a.b.c", lambda: "a.b.c", asynchronous])
async def test_assertion_may_be_text_or_any_function(assertion: Any) -> None:
    """The assertion goes into the form (RFC 7523 §2.2), given as text or returned by a function, sync or async."""
    proof = await client_auth(method="private_key_jwt", assertion=assertion).prove()
    expected = {"client_id": "crm", "client_assertion_type": ASSERTION_TYPE, "client_assertion": "a.b.c"}
    assert (expected, {}) == (proof.form, proof.headers)


async def test_assertion_is_made_anew_for_each_attempt() -> None:
    """The function is called for each attempt, because servers refuse an assertion that they have seen."""
    numbers = iter(range(9))
    auth = client_auth(method="private_key_jwt", assertion=lambda: f"a.{next(numbers)}")
    assert ["a.0", "a.1"] == [(await auth.prove()).form["client_assertion"] for _ in range(2)]


@pytest.mark.parametrize("result", ["", None, b"a.b.c", 5, "x" * 70_000])
async def test_function_that_returns_no_assertion_is_unavailability(result: object) -> None:
    """A result that is not a usable `str` raises before the request is sent."""
    auth = client_auth(method="private_key_jwt", assertion=lambda: result)
    with pytest.raises(TokenUnavailable, match="client_assertion did not return"):
        await auth.prove()


async def test_error_of_the_function_is_reported_without_its_text() -> None:
    """The text may quote the key, so the error has only the exception's type and how to see more."""

    def broken() -> str:
        raise ValueError("cannot read key s3cr3t")

    with pytest.raises(TokenUnavailable, match="client_assertion raised ValueError: call the function") as caught:
        await client_auth(method="private_key_jwt", assertion=broken).prove()
    assert caught.value.__context__ is None
    assert "s3cr3t" not in "".join(traceback.format_exception(caught.value))


async def test_function_may_raise_credential_rejected() -> None:
    """A function that knows that its key was withdrawn can report it."""

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
        ("crm", {"secret": "s", "method": "basic"}, r"client_secret_basic, client_secret_post, client_.*: did you"),
        ("crm", {"secret": "s", "method": ["client_secret_basic"]}, "one of client_secret_basic"),
        ("crm", {"method": "private_key_jwt"}, "needs client_assertion=…"),
        ("crm", {"method": "private_key_jwt", "secret": "s"}, "needs client_assertion=…"),
        ("crm", {"assertion": "a"}, 'needs auth_method="private_key_jwt"'),
        ("crm", {"method": "private_key_jwt", "assertion": b"a"}, r"client_assertion=…\) must be a str"),
        ("crm", {"secret": "s", "credential_id": 5}, r"credential_id=…\) must be a str"),
        ("crm", {"method": "client_secret_jwt"}, "needs client_secret=…"),
        ("crm", {"method": "client_secret_jwt", "assertion": "a"}, 'needs auth_method="private_key_jwt"'),
        ("crm", {"secret": "s", "audience": "a"}, r'assertion_audience=…\) is for .*auth_method="client_secret_jwt"'),
        (
            "crm",
            {"secret": "s", "algorithm": "HS256"},
            r'assertion_algorithm=…\) needs auth_method="client_secret_jwt"',
        ),
        ("crm", {"secret": "s", "method": "client_secret_jwt", "algorithm": "RS256"}, "one of 'HS256', 'HS384', 'HS51"),
        ("crm", {"secret": "s", "method": "client_secret_jwt", "audience": ""}, r"assertion_audience=…\) is empty"),
        ("a:b", {"secret": "s", "form_encode_basic": False}, "has a colon"),
    ],
)
def test_wrong_combinations_are_refused_at_construction(client_id: Any, options: dict[str, Any], text: str) -> None:
    """The text names the option and the fix."""
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
    """Two functions without a `credential_id` are never equal, because their keys cannot be compared."""
    one, other = (client_auth(**_with_method(options)) for options in (first, second))
    assert same is (one.identity() == other.identity())
    hash(one.identity())


@pytest.mark.parametrize(
    ("options", "shareable"),
    [({"secret": "s"}, True), ({"assertion": "a"}, True), ({"assertion": len}, False)],
)
def test_unnamed_function_is_not_shareable(options: dict[str, Any], *, shareable: bool) -> None:
    """A function without a `credential_id` is not shared, because other processes cannot know its key."""
    assert shareable is client_auth(**_with_method(options)).shareable
    if "assertion" in options:
        assert client_auth(**_with_method(options | {"credential_id": "k"})).shareable


async def test_repr_does_not_show_the_secret() -> None:
    """Neither `ClientAuth` nor `Proof` shows it."""
    auth = client_auth(secret="s3cr3t")
    proof = await auth.prove()
    assert "<ClientAuth client_secret_basic> <Proof>" == f"{auth!r} {proof!r}"
    assert proof.is_in("so s3cr3t it is")
    assert not proof.is_in("nothing")


@pytest.mark.parametrize("method", ["client_secret_basic", "client_secret_post"])
async def test_encoded_or_cut_secret_is_recognized(method: Any) -> None:
    """The secret as sent and its longer pieces are recognized, but not text that matches by chance."""
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
