"""Options that providers share: credentials that are text, and durations."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest

from tokenmw import TokenBroker
from tokenmw.errors import ConfigurationError, TokenUnavailable
from tokenmw.options import credential_text, positive_seconds
from tokenmw.providers import (
    BotFramework,
    ClientCredentials,
    DingTalk,
    Entra,
    FeishuApp,
    FeishuTenant,
    StaticToken,
    WeCom,
)


@pytest.mark.parametrize("value", [0, -1, math.nan, math.inf, True, "60", None, [60]])
def test_duration_must_be_a_positive_number(value: object) -> None:
    """A duration that is not positive and finite is refused, and the text names the option."""
    with pytest.raises(ConfigurationError, match=r"^P\(refresh_before=…\) must be a positive, finite number"):
        positive_seconds(value, option="P(refresh_before=…)")


@pytest.mark.parametrize("value", [1, 0.5, 1e9])
def test_positive_duration_comes_back(value: float) -> None:
    """A valid duration is returned as it is."""
    assert value == positive_seconds(value, option="o")


SECRETS: dict[str, Callable[[str], object]] = {
    "StaticToken(…)": StaticToken,
    "ClientCredentials(client_secret=…)": lambda text: ClientCredentials(
        token_url="https://idp.example/token", client_id="c", client_secret=text
    ),
    "ClientCredentials(client_assertion=…)": lambda text: ClientCredentials(
        token_url="https://idp.example/token", client_id="c", client_assertion=text, auth_method="private_key_jwt"
    ),
    "Entra(client_secret=…)": lambda text: Entra(
        tenant="t.example", client_id="c", client_secret=text, scope="https://x.example/.default"
    ),
    "BotFramework(app_secret=…)": lambda text: BotFramework(app_id="a", app_secret=text),
    "FeishuTenant(app_secret=…)": lambda text: FeishuTenant(app_id="a", app_secret=text),
    "WeCom(corp_secret=…)": lambda text: WeCom(corp_id="a", corp_secret=text),
    "DingTalk(app_secret=…)": lambda text: DingTalk(app_key="a", app_secret=text),
}


@pytest.mark.parametrize("option", SECRETS)
@pytest.mark.parametrize("value", ["Bearer s3cr3t-1", "bearer s3cr3t-1", "BEARER  s3cr3t-1"])
def test_a_secret_with_the_scheme_of_a_header_is_refused(option: str, value: str) -> None:
    """It was copied from an `Authorization` header; sent so, it would be refused without a reason."""
    with pytest.raises(ConfigurationError) as caught:
        SECRETS[option](value)
    assert f"{option} begins with the word of an Authorization header: leave out `Bearer `." == str(caught.value)


@pytest.mark.parametrize("value", ["Bearer-s3cr3t-1", "bearers3cr3t", "Bearer", "tokenBearer"])
@pytest.mark.parametrize("option", SECRETS)
def test_other_secrets_with_these_letters_are_accepted(option: str, value: str) -> None:
    """Only the whole word with a space behind it is a scheme."""
    assert SECRETS[option](value) is not None


def test_an_id_may_begin_with_the_word() -> None:
    """A `credential_id` is a name of the program's."""
    assert "Bearer token of the CRM" in StaticToken(lambda: "t", credential_id="Bearer token of the CRM").identity()


async def test_a_functions_token_with_the_scheme_of_a_header_is_refused() -> None:
    """The text says what to leave out."""
    async with TokenBroker({"crm": StaticToken(lambda: "Bearer s3cr3t-1")}) as broker:
        with pytest.raises(TokenUnavailable, match=r"the token begins with the word `Bearer `: leave it out$"):
            await broker.token("crm")


class Masked:
    """A stand-in for pydantic's `SecretStr`."""

    def get_secret_value(self) -> str:
        return "s3cr3t"


@pytest.mark.parametrize(
    ("value", "fix"),
    [
        (Masked(), r"pass its \.get_secret_value\(\)"),
        (b"s3cr3t", "must be a str, not bytes"),
        (None, "must be a str, not NoneType"),
        ("", "is empty"),
        ("s3cr3t\n", r"strip\(\) it"),
        ("s3\x00cr3t", "control character"),
        ("s3cr3t\x7f", "control character"),
        ("s3cr3t\udcff", "bytes that are not UTF-8"),
    ],
)
def test_unusable_credential_is_refused_without_showing_it(value: Any, fix: str) -> None:
    """The text names the option and the fix, never the value."""
    with pytest.raises(ConfigurationError, match=fix) as caught:
        credential_text(value, option="Hand(secret=…)")
    assert str(caught.value).startswith("Hand(secret=…) ")
    assert "s3" not in str(caught.value)


def test_usable_credential_is_returned_unchanged() -> None:
    """Spaces, colons and letters of every script are allowed."""
    assert " ä:密 " == credential_text(" ä:密 ", option="o")
    assert "" == credential_text("", option="o", empty=True)


@pytest.mark.parametrize("provider", [FeishuTenant, FeishuApp])
def test_a_refresh_that_has_no_effect_is_refused(provider: type[FeishuTenant]) -> None:
    """Before the renewal window the platform repeats the old token, so the rest of the time would be ignored."""
    assert 1620.0 == provider(app_id="a", app_secret="s", refresh_before=1620).refresh_before
    with pytest.raises(ConfigurationError, match=r"\(refresh_before=…\) must be at most 1620: until 1800 s before"):
        provider(app_id="a", app_secret="s", refresh_before=3600)
    assert 7200.0 == DingTalk(app_key="k", app_secret="s", corp_id="c", refresh_before=7200).refresh_before
