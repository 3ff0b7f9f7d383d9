"""Providers that users write: what their classes get wrong is told when a broker is made."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import Any
from uuid import UUID

import httpx
import pytest

from tokenmw import ConfigurationError, Grant, Provider, TokenBroker
from tokenmw.providers import ClientCredentials
from tokenmw.redis.sealing import Sealer
from tokenmw.testing import make_token


def _not_async(_self: object, _http: object) -> None:
    pass


async def _async(_self: object, *_more: object) -> None:
    pass


def _giving(identity: object) -> Callable[[object], object]:
    return lambda _self: identity


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
        ("authorize", _async),
        ("is_rejected", _async),
        ("identity", _async),
        ("identity", _giving("abc")),
        ("identity", _giving((UUID(int=0),))),
        ("identity", _giving(("a", ("b", ["c"])))),
        ("identity", _giving(("a", Decimal(1)))),
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


@pytest.mark.parametrize("method", ["fetch", "identity"])
def test_a_class_without_a_method_that_it_needs_is_told(method: str) -> None:
    """And where the README shows one."""

    async def fetch(_self: object, _http: object) -> Grant:
        return Grant("t", expires_in=60)

    body: dict[str, object] = {"__slots__": (), "kind": "own", "identity": _nobody, "fetch": fetch}
    del body[method]
    lacking = type("Own", (Provider,), body)
    with pytest.raises(ConfigurationError, match=f"Own has no {method}.*Writing a provider"):
        TokenBroker({"own": lacking()})


def test_a_token_that_goes_elsewhere_needs_a_method_that_puts_it_there() -> None:
    """The text is for the author of the class, and not for who uses the auth object already."""

    class Elsewhere(Provider):
        __slots__ = ()
        kind = "elsewhere"
        scheme = None

    request = httpx.Request("GET", "https://api.example")
    with pytest.raises(ConfigurationError, match=r"Elsewhere has scheme = None.*authorize\(self, request, token\)"):
        Elsewhere().authorize(request, make_token("elsewhere"))
    assert "authorization" not in request.headers


def test_an_option_that_is_named_and_never_set_is_told() -> None:
    """A entry without a value is no default."""

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
    assert "<Sealer of 0 secrets>" == repr(Sealer.__new__(Sealer))
