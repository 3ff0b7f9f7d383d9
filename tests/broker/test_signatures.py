"""The public names and signatures: parameters may be added to them, but none may change."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, Final

import pytest

import tokenmw.fastapi
import tokenmw.providers
import tokenmw.testing
from tokenmw import APIKeySource, Grant, Limits, Provider, RequestTokens, Token, TokenBroker, TokenMiddleware
from tokenmw.asgi.problems import problem_response
from tokenmw.clock import SYSTEM_CLOCK
from tokenmw.providers import Answer, ClientCredentials, TokenHTTP

BROKER = """providers * redis=None secret_key=None name_key=None seal=None namespace='tokenmw' session_ttl=3600.0
    session_policy='available' session_ids='derived' api_key missing_key='random' authenticate=None http=None
    limits observers=() single_process=False clock"""
CREDENTIALS = """* token_url=None client_id client_secret=None scope='' audience=None resource=None
    auth_method=None client_assertion=None credential_id=None allow_http=False refresh_before=None
    hosts=None"""
HEADERS = "('authorization','x-api-key','x-goog-api-key')"

# Defaults that are objects of this package are compared below.
SIGNATURES: Final[list[tuple[Callable[..., Any], str]]] = [
    (TokenBroker, BROKER),
    (TokenMiddleware, "app * broker inject=() sessions=True on_error api_key=None missing_key=None exempt=()"),
    (APIKeySource, f"headers={HEADERS} * query=() cookies=() max_bytes=4096"),
    (ClientCredentials, CREDENTIALS),
    (TokenBroker.token, "self provider"),
    (TokenBroker.session_id, "self api_key"),
    (TokenBroker.reset_session, "self api_key"),
    (TokenBroker.invalidate, "self token"),
    (TokenBroker.invalidate_provider, "self provider"),
    (TokenBroker.auth, "self provider"),
    (TokenBroker.override, "self providers"),
    (TokenBroker.status, "self"),
    (TokenBroker.lifespan_with, "self lifespan"),
    (RequestTokens.resolve, "self name"),
    (RequestTokens.auth, "self name"),
    (Provider.identity, "self"),
    (Provider.fetch, "self http"),
    (Provider.authorize, "self request token"),
    (Provider.is_rejected, "self answer"),
    (TokenHTTP.request, "self method url * data=None json=None headers=None"),
    (Grant, "value * expires_in"),
    (tokenmw.provider_token, "name"),
    (tokenmw.session_id, "connection"),
    (tokenmw.request_tokens, "connection"),
    (tokenmw.fastapi.token_from, "provider"),
]
MODULES = [
    (
        tokenmw.providers,
        "ClientCredentials FeishuTenant FeishuApp WeCom DingTalk DingTalkLegacy BotFramework Entra StaticToken",
    ),
    (tokenmw.fastapi, "SessionID Tokens token_from"),
    (tokenmw.testing, "ProviderServer ManualClock make_token"),
]


def parameters_of(function: Callable[..., Any]) -> list[str]:
    """Return the parameters of a function in the form that is used above."""
    words: list[str] = []
    for one in inspect.signature(function).parameters.values():
        if one.kind is one.KEYWORD_ONLY and "*" not in words:
            words.append("*")
        plain = one.default is None or isinstance(one.default, (bool, str, int, float, tuple))
        words.append(f"{one.name}={one.default!r}".replace(" ", "") if plain else one.name)
    return words


@pytest.mark.parametrize(("function", "signature"), SIGNATURES, ids=lambda one: getattr(one, "__qualname__", ""))
def test_a_signature_is_kept(function: Callable[..., Any], signature: str) -> None:
    """The parameters have this order and these defaults; added ones follow, by keyword and with a default."""
    expected, actual = signature.split(), parameters_of(function)
    assert expected == actual[: len(expected)]
    added = [inspect.signature(function).parameters[word.partition("=")[0]] for word in actual[len(expected) :]]
    assert all(one.kind is one.KEYWORD_ONLY and one.default is not one.empty for one in added)


def test_defaults_that_are_objects_are_public_ones() -> None:
    """A program can write each default itself."""
    defaults = {name: one.default for name, one in inspect.signature(TokenBroker).parameters.items()}
    assert (repr(APIKeySource()), Limits(), SYSTEM_CLOCK) == (
        repr(defaults["api_key"]),
        defaults["limits"],
        defaults["clock"],
    )
    assert problem_response is inspect.signature(TokenMiddleware).parameters["on_error"].default


@pytest.mark.parametrize(("module", "names"), MODULES, ids=lambda one: getattr(one, "__name__", ""))
def test_each_module_has_its_names(module: Any, names: str) -> None:
    """`__all__` has them, too."""
    assert set() == set(names.split()) - set(module.__all__)
    assert [] == [name for name in names.split() if not hasattr(module, name)]


def test_values_have_their_attributes() -> None:
    """A token, a grant, an answer, a provider and a status do."""
    token = tokenmw.testing.make_token("t")
    assert "Bearer t" == token.authorization
    for one, names in (
        (token, "value provider expires_at token_type extra authorization"),
        (Grant("t", expires_in=1), "value expires_in token_type extra"),
        (Answer(200), "status headers body"),
        (Provider, "kind renewal_window hosts exclusive identity fetch authorize is_rejected"),
        (TokenBroker({}).status(), "shared"),
    ):
        assert [] == [name for name in names.split() if not hasattr(one, name)]
    assert not [kind for kind in (Token, Grant) if hasattr(kind, "__dataclass_fields__")]
