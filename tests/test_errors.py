from __future__ import annotations

import copy
from typing import Any

import pytest
from starlette.exceptions import HTTPException

from tokenmw import errors
from tokenmw.errors import (
    APIKeyRefused,
    ConfigurationError,
    CredentialRejected,
    RequestError,
    SessionUnavailable,
    TokenmwError,
    TokenUnavailable,
)

REQUEST_ERRORS: list[tuple[type[RequestError], int, int]] = [
    (TokenUnavailable, 503, 1013),
    (CredentialRejected, 502, 1013),
    (SessionUnavailable, 503, 1013),
    (APIKeyRefused, 401, 1008),
]


@pytest.mark.parametrize(("kind", "status", "close_code"), REQUEST_ERRORS)
def test_request_error_is_ours_and_starlettes(kind: type[RequestError], status: int, close_code: int) -> None:
    """A user's handler for either catches it, and it carries its HTTP answer."""
    error = kind("what happened")
    assert isinstance(error, TokenmwError)
    assert isinstance(error, HTTPException)
    assert (status, "what happened", close_code) == (error.status_code, error.detail, error.close_code)
    assert "what happened" == str(error)


@pytest.mark.parametrize("kind", [TokenUnavailable, CredentialRejected, SessionUnavailable])
@pytest.mark.parametrize(("seconds", "header"), [(0.0, "1"), (0.2, "1"), (1.0, "1"), (1.01, "2"), (3600.0, "3600")])
def test_pause_becomes_a_header_that_is_never_too_short(kind: Any, seconds: float, header: str) -> None:
    """RFC 9110 §10.2.3 knows whole seconds only; rounded down, the next attempt would fail too."""
    error = kind("x", retry_after=seconds)
    assert seconds == error.retry_after
    assert {"Retry-After": header} == error.headers


@pytest.mark.parametrize("kind", [TokenUnavailable, CredentialRejected, SessionUnavailable])
def test_without_a_pause_there_is_no_header(kind: Any) -> None:
    """Nothing is made up."""
    error = kind("x")
    assert (None, None) == (error.retry_after, error.headers)


def test_refused_key_names_the_challenge() -> None:
    """RFC 9110 §11.6.1: a 401 must have one."""
    assert {"WWW-Authenticate": "Bearer"} == APIKeyRefused("x").headers
    assert {"WWW-Authenticate": "APIKey"} == APIKeyRefused("x", challenge="APIKey").headers


def test_defaults_say_who_has_said_it() -> None:
    """A network fault may be this machine's own; a refusal is the provider's word."""
    unavailable, rejected = TokenUnavailable("x"), CredentialRejected("x")
    assert ("", False) == (unavailable.provider, unavailable.said)
    assert ("", "", True) == (rejected.provider, rejected.code, rejected.said)


def test_configuration_error_is_a_value_error() -> None:
    """What a caller of a constructor would catch anyway; and never an answer to a request."""
    assert issubclass(ConfigurationError, ValueError)
    assert not issubclass(ConfigurationError, HTTPException)


def test_tree_in_the_docstring_is_the_tree() -> None:
    """Every public error is drawn, with its status."""
    drawn = errors.__doc__ or ""
    for name in errors.__all__:
        assert name in drawn
    for kind, status, _ in REQUEST_ERRORS:
        assert f"{kind.__name__:<18} {status}" in drawn


@pytest.mark.parametrize("kind", [kind for kind, _, _ in REQUEST_ERRORS])
def test_each_waiter_can_have_its_own_copy(kind: type[RequestError]) -> None:
    """One exception raised in many tasks would collect the tracebacks of all."""
    error = kind("what happened")
    other = copy.copy(error)
    assert other is not error
    assert (str(error), error.status_code, error.headers) == (str(other), other.status_code, other.headers)
