"""Providers that users write: mistakes in their classes are reported when the broker is made."""

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
def test_mistake_in_a_custom_class_is_reported_when_the_broker_is_made(attribute: str, value: object) -> None:
    """The text names class and attribute; otherwise a request would fail, or the token would go to the wrong place."""

    async def fetch(_self: object, _http: object) -> Grant:
        return Grant("t", expires_in=60)

    body: dict[str, object] = {"__slots__": (), "kind": "own", "identity": _nobody, "fetch": fetch, attribute: value}
    mistaken = type("Own", (Provider,), body)
    with pytest.raises(ConfigurationError, match=f"Own.{attribute}"):
        TokenBroker({"own": mistaken()})


@pytest.mark.parametrize("method", ["fetch", "identity"])
def test_class_without_a_required_method_is_refused(method: str) -> None:
    """The text names the method and the guide that shows one."""

    async def fetch(_self: object, _http: object) -> Grant:
        return Grant("t", expires_in=60)

    body: dict[str, object] = {"__slots__": (), "kind": "own", "identity": _nobody, "fetch": fetch}
    del body[method]
    lacking = type("Own", (Provider,), body)
    with pytest.raises(ConfigurationError, match=f"Own has no {method}.*Writing a provider"):
        TokenBroker({"own": lacking()})


def test_class_without_a_scheme_needs_authorize() -> None:
    """With `scheme = None` and no `authorize`, the text names the method to add."""

    class Elsewhere(Provider):
        __slots__ = ()
        kind = "elsewhere"
        scheme = None

    request = httpx.Request("GET", "https://api.example")
    with pytest.raises(ConfigurationError, match=r"Elsewhere has scheme = None.*authorize\(self, request, token\)"):
        Elsewhere().authorize(request, make_token("elsewhere"))
    assert "authorization" not in request.headers


def test_attribute_that_is_named_and_never_set_is_refused() -> None:
    """An empty slot hides the default of the base class, so the class is refused."""

    class Unset(Provider):
        __slots__ = ("refresh_before",)
        kind = "unset"

        def identity(self) -> tuple[object, ...]:
            return ()

        async def fetch(self, http: object) -> Grant:
            return Grant("t", expires_in=60)

    with pytest.raises(ConfigurationError, match=r"Unset.*refresh_before"):
        TokenBroker({"unset": Unset()})


def test_text_does_not_allow_plain_http() -> None:
    """`allow_http="false"`, as read from the environment, does not count as true."""
    text: Any = "false"
    with pytest.raises(ConfigurationError, match="allow_http"):
        ClientCredentials(token_url="http://idp.example/token", client_id="a", client_secret="b", allow_http=text)


def test_half_made_broker_has_a_repr() -> None:
    """An error reporter that shows variables can call `repr` on a broker whose `__init__` has failed."""
    assert "<TokenBroker of no providers>" == repr(TokenBroker.__new__(TokenBroker))
    assert "<Sealer of 0 secrets>" == repr(Sealer.__new__(Sealer))
