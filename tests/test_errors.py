"""The errors: their HTTP response, their attributes, and the tree in the docstring."""

from __future__ import annotations

import copy
import pickle
from typing import TYPE_CHECKING, Any

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
    copy_of,
)

if TYPE_CHECKING:
    from collections.abc import Callable


def _raised_again(error: Exception) -> Any:
    return copy_of(error, None)


def _pickled(error: Exception) -> Any:
    return pickle.loads(pickle.dumps(error))


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
    assert (status, close_code) == (error.status_code, error.close_code)


FIXED = [TokenUnavailable, CredentialRejected, SessionUnavailable]


@pytest.mark.parametrize("kind", FIXED)
def test_an_error_has_a_text_for_operators_and_one_for_callers(kind: Any) -> None:
    """`str` and `repr` show the text that was given; `detail` is the same for each error of the class."""
    error = kind("idp.example:443 refuses connections", retry_after=3.0)
    assert "idp.example:443 refuses connections" == str(error)
    assert f"{kind.__name__}('idp.example:443 refuses connections')" == repr(error)
    assert error.detail == kind("another text").detail == kind.fixed_detail
    assert error.detail.endswith(".")


@pytest.mark.parametrize("kind", [RequestError, APIKeyRefused])
def test_some_classes_show_their_text_to_callers(kind: type[RequestError]) -> None:
    """A refusal's text is the program's own, and so is that of its own class of errors."""
    error = kind("This key expired on 1 May.")
    assert ("This key expired on 1 May.",) * 2 == (str(error), error.detail)


@pytest.mark.parametrize("kind", [kind for kind, _, _ in REQUEST_ERRORS])
def test_a_program_can_give_the_callers_text(kind: type[RequestError]) -> None:
    """With `detail=` alone, both texts are the same."""
    error = kind("idp.example:443 is down", detail="The CRM is down until noon.")
    assert ("idp.example:443 is down", "The CRM is down until noon.") == (str(error), error.detail)
    error = kind(detail="The CRM is down until noon.")
    assert ("The CRM is down until noon.",) * 2 == (str(error), error.detail)


@pytest.mark.parametrize("kind", [kind for kind, _, _ in REQUEST_ERRORS])
def test_an_error_without_a_text_has_both(kind: type[RequestError]) -> None:
    """A sentence of the class, and not the phrase of the status."""
    error = kind()
    assert (error.fixed_detail or "The API key is not accepted.",) * 2 == (str(error), error.detail)


class Down(TokenUnavailable):
    """A program's error with a text of its own for callers, and a constructor of its own."""

    fixed_detail = "The CRM is down."

    def __init__(self, host: str) -> None:
        super().__init__(f"{host} is down", provider="crm", retry_after=7.0)


ERRORS: list[Callable[[], RequestError]] = [
    lambda: TokenUnavailable("idp.example is down", provider="crm", retry_after=7.0, said=True),
    lambda: CredentialRejected("wrong secret", provider="crm", code="invalid_client", detail="The CRM is down."),
    lambda: SessionUnavailable("Redis is unavailable", retry_after=1.0),
    lambda: APIKeyRefused("expired", challenge="APIKey"),
    lambda: Down("idp.example"),
]


@pytest.mark.parametrize("make", ERRORS, ids=lambda make: type(make()).__name__)
@pytest.mark.parametrize("copied", [copy.copy, _raised_again, _pickled])
def test_a_copy_has_both_texts(make: Any, copied: Any) -> None:
    """A copy, one that is raised again, and one from another process: with attributes, notes and headers, too."""
    error = make().at("app:1")
    other = copied(error)
    assert other is not error
    assert type(other) is type(error)
    assert (str(error), error.detail, error.headers) == (str(other), other.detail, other.headers)
    assert ["Raised at app:1."] == other.__notes__
    assert vars(error) == vars(other)


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
