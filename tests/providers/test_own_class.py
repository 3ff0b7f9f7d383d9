"""Providers that users write: what their classes get wrong is told when a broker is made."""

from __future__ import annotations

from typing import Any

import pytest

from tokenmw import ConfigurationError, Grant, Provider, TokenBroker
from tokenmw.providers import ClientCredentials
from tokenmw.shared.sealing import Seals


def _not_async(_self: object, _http: object) -> None:
    pass


def _nobody(_self: object) -> tuple[object, ...]:
    return ()


@pytest.mark.parametrize(
    ("attribute", "value"),
    [
        ("allow_http", "false"),
        ("hosts", "crm.example"),
        ("refresh_before", -5),
        ("refresh_before", float("nan")),
        ("renewal_window", "5"),
        ("scheme", 5),
        ("scheme", "Bearer\r\nX-Evil: 1"),
        ("fetch", _not_async),
    ],
)
def test_a_slip_in_a_class_of_ones_own_is_told_when_the_broker_is_made(attribute: str, value: object) -> None:
    """Each would otherwise show on a request, or put the token where it does not belong."""

    async def fetch(_self: object, _http: object) -> Grant:
        return Grant("t", expires_in=60)

    body: dict[str, object] = {"__slots__": (), "kind": "own", "identity": _nobody, "fetch": fetch, attribute: value}
    slipped = type("Own", (Provider,), body)
    with pytest.raises(ConfigurationError, match=f"Own.{attribute}"):
        TokenBroker({"own": slipped()})


def test_an_option_that_is_named_and_never_set_is_told() -> None:
    """A slot without a value is no default."""

    class Slipped(Provider):
        __slots__ = ("refresh_before",)
        kind = "slipped"

        def identity(self) -> tuple[object, ...]:
            return ()

        async def fetch(self, http: object) -> Grant:
            return Grant("t", expires_in=60)

    with pytest.raises(ConfigurationError, match=r"Slipped.*refresh_before"):
        TokenBroker({"slipped": Slipped()})


def test_text_does_not_allow_plain_http() -> None:
    """`allow_http="false"`, as it comes out of the environment, is true as a condition."""
    text: Any = "false"
    with pytest.raises(ConfigurationError, match="allow_http"):
        ClientCredentials(token_url="http://idp.example/token", client_id="a", client_secret="b", allow_http=text)


def test_a_half_made_broker_has_a_repr() -> None:
    """An error reporter that shows locals meets one when its options are wrong."""
    assert "<TokenBroker of no providers>" == repr(TokenBroker.__new__(TokenBroker))
    assert "<Seals of 0 secrets>" == repr(Seals.__new__(Seals))
