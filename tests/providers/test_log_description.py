"""`log_description`: a server's `error_description` in the log, never with a piece of the secret."""

from __future__ import annotations

import base64
import random
import string
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import httpx
import pytest

from tokenmw.clock import SYSTEM_CLOCK
from tokenmw.errors import ConfigurationError, CredentialRejected
from tokenmw.limits import Limits
from tokenmw.providers import BotFramework, ClientCredentials, Entra, TokenHTTP
from tokenmw.providers.proof import Proof
from tokenmw.testing import Fault, ProviderServer

if TYPE_CHECKING:
    from tokenmw.providers import Provider

SECRET = "Kq7~d8Q_x.Pz5mT/s3cr3t+R2vW"
HIDDEN = "; its error_description repeats the secret and is not shown"


def provider(kind: str = "oauth2", **options: Any) -> Provider:
    """Make a provider of each kind that has the option."""
    if kind == "oauth2":
        url = "https://idp.example/oauth2/token"
        return ClientCredentials(token_url=url, client_id="crm", client_secret=SECRET, **options)
    if kind == "entra":
        return Entra(tenant="a.example", client_id="crm", client_secret=SECRET, **options)
    return BotFramework(app_id="crm", app_secret=SECRET, **options)


async def refusal(one: Provider, description: object) -> str:
    """Return the text of a refusal with a description."""
    server = ProviderServer()
    fault = Fault(status=400, body={"error": "invalid_client", "error_description": description})
    (server.oauth2 if isinstance(one, ClientCredentials) else server.entra).script.then(fault)
    async with httpx.AsyncClient(transport=server.transport()) as client:
        with pytest.raises(CredentialRejected) as caught:
            await one.fetch(TokenHTTP(client, limits=Limits(), clock=SYSTEM_CLOCK))
    # What callers see is one sentence, without the description, the host and the client.
    assert CredentialRejected.fixed_detail == caught.value.detail
    return str(caught.value)


@pytest.mark.parametrize("kind", ["oauth2", "entra", "bot"])
async def test_description_is_shown_only_with_the_option(kind: str) -> None:
    """By default the text has only the server's `error` code."""
    text = "AADSTS7000215: Invalid client secret provided. Trace ID: 7f3a"
    assert text not in await refusal(provider(kind), text)
    assert f'; error_description: "{text}"' in await refusal(provider(kind, log_description=True), text)


@pytest.mark.parametrize(
    ("description", "shown"),
    [
        ("a\nb\r\n\tc", "a b c"),
        ('say "no"', "say 'no'"),
        ("\x1b[2Jcleared\u202e\ud800", "[2Jcleared"),
        ("\u5bc6\u94a5\u9519\u8bef", "\u5bc6\u94a5\u9519\u8bef"),
        ("x" * 60_000, "x" * 200),
        ("you sent the wrong secret", "you sent the wrong secret"),
    ],
)
async def test_description_is_one_short_printable_line(description: str, shown: str) -> None:
    """It cannot forge a log line, and is cut to 200 characters."""
    assert (await refusal(provider(log_description=True), description)).endswith(f'; error_description: "{shown}"')


@pytest.mark.parametrize("description", ["", None, 5, ["a"], {"a": "b"}])
async def test_other_values_are_no_description(description: object) -> None:
    """Only text that is not empty is shown."""
    assert "error_description" not in await refusal(provider(log_description=True), description)


@pytest.mark.parametrize(
    "repeated",
    [
        SECRET,
        SECRET[5:13],
        SECRET.lower(),
        quote(SECRET, safe=""),
        base64.b64encode(f"crm:{SECRET}".encode()).decode(),
        base64.b64encode(f"crm:{quote(SECRET, safe='')}".encode()).decode(),
        base64.urlsafe_b64encode(SECRET.encode()).decode(),
    ],
)
@pytest.mark.parametrize("before", [0, 180, 195])
async def test_description_that_repeats_the_secret_is_dropped(repeated: str, before: int) -> None:
    """Whole or in part, encoded or not, and where the text is cut."""
    text = await refusal(provider(log_description=True), "x" * before + f" {repeated} is wrong")
    assert text.endswith(HIDDEN)
    assert SECRET[5:13] not in text


@pytest.mark.parametrize("kind", ["oauth2", "entra", "bot"])
def test_the_option_is_a_flag(kind: str) -> None:
    """The text "false" of an environment variable would be true."""
    with pytest.raises(ConfigurationError, match=r"log_description=…\) must be True or False"):
        provider(kind, log_description="false")
    assert provider(kind, log_description=True) == provider(kind)


def test_a_piece_of_an_encoded_secret_is_found() -> None:
    """Eight characters of it, in any case, percent-encoded, or in base64 behind any number of bytes."""
    source = random.Random(1)
    secret = "".join(source.choice(f"{string.ascii_letters}{string.digits}/+\u00e4&") for _ in range(40))
    proof = Proof(secret, form={}, headers={})
    found = [secret[3:11], secret.upper(), quote(secret), quote(secret).lower()[5:20]]
    for before in range(4):
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            text = encode(b"x" * before + secret.encode() + b"yy").decode()
            found += [text, text[12:24]]
    for text in found:
        assert proof.has_piece_in(f"you sent {text}, which is wrong"), text
    for text in ("", "Client not found", "AADSTS7000215: Invalid client secret provided.", secret[:5]):
        assert not proof.has_piece_in(text)
    assert Proof("cr", form={}, headers={}).has_piece_in("a crm")


def test_each_secret_of_a_request_is_found_in_base64() -> None:
    """A request may have several: a client's, an assertion, the caller's token."""
    proof = Proof("", form={}, headers={}).with_secret("the assertion").with_secret("another secret")
    for secret in ("the assertion", "another secret"):
        for before in (b"", b"a:", b"ab:"):
            assert proof.has_piece_in(f"you sent {base64.b64encode(before + secret.encode()).decode()}")
    assert not proof.has_piece_in("nothing of them")
