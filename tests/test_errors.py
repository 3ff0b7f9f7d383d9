"""The errors: their HTTP response, their attributes, and the tree in the docstring."""

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
def test_a_request_error_is_ours_and_starlettes(kind: type[RequestError], status: int, close_code: int) -> None:
    """An exception handler for either catches it, and it has its HTTP status."""
    error = kind("what happened")
    assert isinstance(error, TokenmwError)
    assert isinstance(error, HTTPException)
    assert (status, "what happened", close_code) == (error.status_code, error.detail, error.close_code)
    assert "what happened" == str(error)


@pytest.mark.parametrize("kind", [TokenUnavailable, CredentialRejected, SessionUnavailable])
@pytest.mark.parametrize(("seconds", "header"), [(0.0, "1"), (0.2, "1"), (1.0, "1"), (1.01, "2"), (3600.0, "3600")])
def test_retry_after_is_rounded_up_in_the_header(kind: Any, seconds: float, header: str) -> None:
    """RFC 9110 §10.2.3 has whole seconds only; rounded down, the next attempt would fail too."""
    error = kind("x", retry_after=seconds)
    assert seconds == error.retry_after
    assert {"Retry-After": header} == error.headers


@pytest.mark.parametrize("kind", [TokenUnavailable, CredentialRejected, SessionUnavailable])
def test_without_retry_after_there_is_no_header(kind: Any) -> None:
    """Both are None."""
    error = kind("x")
    assert (None, None) == (error.retry_after, error.headers)


def test_a_refused_key_has_a_challenge() -> None:
    """RFC 9110 §11.6.1 requires one in a 401."""
    assert {"WWW-Authenticate": "Bearer"} == APIKeyRefused("x").headers
    assert {"WWW-Authenticate": "APIKey"} == APIKeyRefused("x", challenge="APIKey").headers


def test_a_rejection_is_shared_by_default_and_a_failure_is_not() -> None:
    """A failure may be a network fault of this machine; a rejection is the provider's answer."""
    unavailable, rejected = TokenUnavailable("x"), CredentialRejected("x")
    assert ("", False) == (unavailable.provider, unavailable.said)
    assert ("", "", True) == (rejected.provider, rejected.code, rejected.said)


def test_configuration_error_is_a_value_error() -> None:
    """A caller of a constructor may catch it as such; it is never a response to a request."""
    assert issubclass(ConfigurationError, ValueError)
    assert not issubclass(ConfigurationError, HTTPException)


def test_the_tree_in_the_docstring_is_complete() -> None:
    """It has every public error, with its status."""
    tree = errors.__doc__ or ""
    for name in errors.__all__:
        assert name in tree
    for kind, status, _ in REQUEST_ERRORS:
        assert f"{kind.__name__:<18} {status}" in tree


@pytest.mark.parametrize("kind", [kind for kind, _, _ in REQUEST_ERRORS])
def test_a_request_error_can_be_copied(kind: type[RequestError]) -> None:
    """Each waiter gets its own copy: one exception that many tasks raise would collect the tracebacks of all."""
    error = kind("what happened")
    other = copy.copy(error)
    assert other is not error
    assert (str(error), error.status_code, error.headers) == (str(other), other.status_code, other.headers)
