"""Fields of a token request beyond the standard ones, a JSON body, and several resources."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

import pytest

from tests.providers.wire import http_answer, wire
from tokenmw.errors import ConfigurationError, CredentialRejected, TokenUnavailable
from tokenmw.providers import ClientCredentials, TokenHTTP

if TYPE_CHECKING:
    from collections.abc import Mapping

GRANTED = b'{"access_token": "t-1", "token_type": "bearer", "expires_in": 60, "account_id": "abc123456"}'


def credentials(**options: Any) -> ClientCredentials:
    """Make the credential of the client `crm`."""
    given: dict[str, Any] = {"token_url": "https://idp.example/token", "client_id": "crm", "client_secret": "s"}
    return ClientCredentials(**(given | options))


async def request_of(http: TokenHTTP, **options: Any) -> tuple[dict[str, str], str]:
    """Return the headers and the body of the request that a credential sends."""
    async with wire(http_answer(200, body=GRANTED)) as server:
        grant = await credentials(token_url=f"{server.url}/t", **options).fetch(http)
    assert "t-1" == grant.value
    head, _, body = server.requests[0].decode().partition("\r\n\r\n")
    lines = (line.partition(": ") for line in head.split("\r\n")[1:])
    return {name.lower(): value for name, _, value in lines}, body


SERVERS: dict[str, tuple[dict[str, Any], Mapping[str, str]]] = {
    "Box": (
        {"params": {"box_subject_type": "enterprise", "box_subject_id": "42"}, "auth_method": "client_secret_post"},
        {
            "grant_type": "client_credentials",
            "box_subject_type": "enterprise",
            "box_subject_id": "42",
            "client_id": "crm",
            "client_secret": "s",
        },
    ),
    "Zoom": (
        {"grant_type": "account_credentials", "params": {"account_id": "abc123456"}},
        {"grant_type": "account_credentials", "account_id": "abc123456"},
    ),
}


@pytest.mark.parametrize("server", SERVERS)
async def test_servers_that_want_more_fields_get_them(http: TokenHTTP, server: str) -> None:
    """The fields of `params` are sent beside the standard ones, in a form."""
    options, fields = SERVERS[server]
    headers, body = await request_of(http, **options)
    assert "application/x-www-form-urlencoded" == headers["content-type"]
    assert sorted(fields.items()) == sorted(parse_qsl(body, keep_blank_values=True))


@pytest.mark.parametrize("method", ["client_secret_basic", "client_secret_post"])
async def test_json_has_the_same_fields(http: TokenHTTP, method: str) -> None:
    """With `json=True` the fields of the form are a JSON object; Basic credentials stay in their header."""
    headers, body = await request_of(
        http, json=True, scope="a b", resource=["urn:a", "urn:b"], params={"org": "ä"}, auth_method=method
    )
    client = {"client_id": "crm", "client_secret": "s"} if method == "client_secret_post" else {}
    fields = {"grant_type": "client_credentials", "scope": "a b", "resource": ["urn:a", "urn:b"], "org": "ä", **client}
    assert fields == json.loads(body)
    assert "application/json" == headers["content-type"]
    assert ("authorization" in headers) is (method == "client_secret_basic")


async def test_each_resource_is_a_field(http: TokenHTTP) -> None:
    """Several resources are repeated fields, in their order (RFC 8707 §2)."""
    resources = ["https://b.example/", "https://a.example/x?y=1", "00000002-0000-0000-c000-000000000000"]
    _, body = await request_of(http, resource=resources)
    assert [("grant_type", "client_credentials"), *(("resource", one) for one in resources)] == parse_qsl(body)


@pytest.mark.parametrize(
    ("field", "option"),
    [
        ("client_secret", "client_secret=…"),
        ("client_id", "client_id=…"),
        ("client_assertion", "client_assertion=…"),
        ("client_assertion_type", 'auth_method="private_key_jwt"'),
        ("grant_type", "grant_type=…"),
        ("scope", "scope=…"),
        ("audience", "audience=…"),
        ("resource", "resource=…"),
    ],
)
def test_a_field_of_an_option_is_refused(field: str, option: str) -> None:
    """The text names the option that sets it, and not the value."""
    with pytest.raises(ConfigurationError) as caught:
        credentials(params={field: "s3cr3t"})
    assert f"ClientCredentials(params=…) has the field {field}, which an option sets: use {option}." == str(
        caught.value
    )


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"params": "account_id=1"}, r"\(params=…\) must be a dict of fields, such as .*, not str"),
        ({"params": {"": "a"}}, "the name of a field must be text of 1 to 100"),
        ({"params": {"a b": "a"}}, "the name of a field must be text of 1 to 100"),
        ({"params": {5: "a"}}, "the name of a field must be text of 1 to 100"),
        ({"params": {"id": 5}}, r"\(params=…\): the field id must be a str, not int"),
        ({"params": {"id": ["a"]}}, r"\(params=…\): the field id must be a str, not list"),
        ({"params": {"id": ""}}, r"\(params=…\): the field id is empty"),
        ({"params": {"id": "a\n"}}, r"\(params=…\): the field id holds a control character"),
        ({"params": {str(number): "a" for number in range(33)}}, "has 33 fields: at most 32"),
        ({"json": 1}, r"\(json=…\) must be True or False"),
        ({"grant_type": "password"}, r"\(grant_type=…\) must be one of 'client_credentials', 'account_credentials'"),
        ({"resource": "api"}, r"\(resource=…\) must be an absolute URI.*audience=…"),
        ({"resource": "/api"}, r"\(resource=…\) must be an absolute URI"),
        ({"resource": "https://"}, r"\(resource=…\) must be an absolute URI"),
        ({"resource": "https://[a"}, r"\(resource=…\) must be an absolute URI"),
        ({"resource": "https://a.example/ä"}, r"\(resource=…\) must be an absolute URI"),
        ({"resource": "https://a.example/#x"}, r"\(resource=…\) has a fragment"),
        ({"resource": ["urn:a", "b"]}, r"\(resource=…\) must be an absolute URI"),
        ({"resource": []}, "a list of 2 to 16 different ones, not 0"),
        ({"resource": ["urn:a", "urn:a"]}, "a list of 2 to 16 different ones"),
        ({"resource": 5}, r"\(resource=…\) must be a str"),
        ({"auth_method": "basic"}, "must be one of .*: did you mean 'client_secret_basic'"),
        ({"auth_method": "client_secret_pos"}, "must be one of .*: did you mean 'client_secret_post'"),
    ],
)
def test_options_that_cannot_work_are_refused(options: dict[str, Any], text: str) -> None:
    """The text names the option and the fix."""
    with pytest.raises(ConfigurationError, match=text):
        credentials(**options)


@pytest.mark.parametrize(
    "options",
    [
        {"params": {"account_id": "1"}},
        {"params": {"account_id": "2"}},
        {"params": {"account_id": "1", "b": "1"}},
        {"json": True},
        {"grant_type": "account_credentials", "params": {"account_id": "1"}},
        {"resource": ["urn:a", "urn:b"]},
        {"resource": "urn:a"},
    ],
)
def test_an_option_that_changes_the_token_is_part_of_the_credential(options: dict[str, Any]) -> None:
    """A provider with it has a token of its own; with an equal option it shares the token."""
    assert credentials() != credentials(**options) == credentials(**options)
    assert credentials(**options) != credentials(**{**options, "resource": "urn:x"})


def test_options_at_their_defaults_leave_the_credential_as_it_was() -> None:
    """Instances of 0.1 and of this version share tokens, because they name the credential alike."""
    expected = (
        "oauth2",
        "https://idp.example/token",
        "crm",
        "client_secret_basic",
        "s",
        None,
        None,
        ("a",),
        None,
        None,
    )
    assert expected == credentials(scope="a").credential
    assert expected == credentials(scope="a", params={}, json=False, grant_type="client_credentials").credential
    assert credentials(resource="urn:a") == credentials(resource=["urn:a"])
    assert credentials(params={"a": "1", "b": "2"}) == credentials(params={"b": "2", "a": "1"})


async def test_a_field_with_the_name_of_a_secret_is_not_repeated(http: TokenHTTP) -> None:
    """Neither an error text nor the token's `extra` shows what the server repeats; other fields are kept."""
    options: dict[str, Any] = {"params": {"api_key": "k3y-of-the-crm", "account_id": "abc123456"}}
    refused = http_answer(400, body=b'{"error": "k3y-of-the-crm", "error_description": "no k3y-of-the-crm here"}')
    async with wire(refused) as server:
        with pytest.raises(CredentialRejected) as caught:
            await credentials(token_url=server.url, log_description=True, **options).fetch(http)
    assert "k3y" not in f"{caught.value} {caught.value.code}"
    granted = GRANTED.replace(b"{", b'{"api_key": "k3y-of-the-crm", ', 1)
    async with wire(http_answer(200, body=granted)) as server:
        grant = await credentials(token_url=server.url, **options).fetch(http)
    assert {"account_id": "abc123456"} == dict(grant.extra)


@pytest.mark.parametrize(("form_encode", "fix"), [(True, "set form_encode_basic=False"), (False, "leave .*=True")])
@pytest.mark.parametrize("body", [b'{"error": "invalid_client"}', b'{"error": "unauthorized_client"}', b""])
async def test_a_refused_basic_names_the_option_that_may_be_wrong(
    http: TokenHTTP, body: bytes, fix: str, *, form_encode: bool
) -> None:
    """Servers differ in whether they form-decode Basic credentials; it matters to a secret that the form changes."""
    async with wire(http_answer(401, body=body)) as server:
        for secret, named in (("a+b/c=", True), ("abc", False)):
            crm = credentials(token_url=server.url, client_secret=secret, form_encode_basic=form_encode)
            with pytest.raises(CredentialRejected) as caught:
                await crm.fetch(http)
            assert named is (re.search(fix, str(caught.value)) is not None)


async def test_a_server_without_the_grant_is_named(http: TokenHTTP) -> None:
    """The text has the grant that was requested."""
    async with wire(http_answer(400, body=b'{"error": "unsupported_grant_type"}')) as server:
        zoom = credentials(token_url=server.url, grant_type="account_credentials", params={"account_id": "1"})
        with pytest.raises(CredentialRejected, match="does not offer the grant type account_credentials"):
            await zoom.fetch(http)
        with pytest.raises((CredentialRejected, TokenUnavailable), match="grant type client_credentials"):
            await credentials(token_url=server.url).fetch(http)
