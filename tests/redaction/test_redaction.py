"""Nothing that a program can get hold of gives its secrets away: not by `repr`, a pickle, a copy or a JSON encoder."""

from __future__ import annotations

import copy
import dataclasses
import importlib
import inspect
import json
import pickle
import pprint
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from fastapi.encoders import jsonable_encoder
from pydantic import ConfigDict, TypeAdapter, create_model

import tokenmw
from tests.asgi_client import answering, scope_of, session_of
from tests.redaction.test_redaction_tracebacks import KINDS, SECRET
from tokenmw import (
    APIKeyRefused,
    APIKeySource,
    ConfigurationError,
    CredentialRejected,
    Grant,
    Limits,
    RequestTokens,
    SessionUnavailable,
    Token,
    TokenBroker,
    TokenMiddleware,
    TokenmwError,
    TokenUnavailable,
)
from tokenmw.clock import SYSTEM_CLOCK
from tokenmw.fastapi import token_from
from tokenmw.observe import SharedStateChanged, TokenAdopted, TokenFetched, TokenInvalidated, ValueUnreadable
from tokenmw.outgoing.judging import _Answer
from tokenmw.providers import Answer, FeishuApp, FeishuTenant, TokenHTTP
from tokenmw.status import ProviderStatus
from tokenmw.testing import ManualClock, make_token

if TYPE_CHECKING:
    from collections.abc import Callable

MODULES = ("tokenmw", "tokenmw.providers", "tokenmw.fastapi", "tokenmw.testing", "tokenmw.observe")


def broker() -> TokenBroker:
    """Make a broker with every kind of secret."""
    providers = {name.replace(" ", "-"): make() for name, make in KINDS.items()}
    options: dict[str, Any] = {"redis": f"redis://u:{SECRET}@127.0.0.1/0", "secret_key": SECRET, "name_key": SECRET}
    return TokenBroker(providers, **options)


def of_request() -> RequestTokens:
    """Make the tokens of a request that has an API key."""
    return RequestTokens(broker(), scope_of("http", headers=[(b"x-api-key", SECRET.encode())]))


def middleware() -> TokenMiddleware:
    """Make a middleware."""
    return TokenMiddleware(answering(session_of), broker=broker())


# Frozen values with a secret.
VALUES: dict[str, Callable[[], Any]] = {
    **{f"provider: {name}": make for name, make in KINDS.items()},
    "Grant": lambda: Grant(SECRET, expires_in=60, extra={SECRET: SECRET}),
    "Token": lambda: make_token(SECRET, extra={SECRET: SECRET}),
    "Answer": lambda: Answer(200, headers={"x": SECRET}, body=SECRET.encode()),
}
# Parts of a running program, with secrets behind them.
BOUND: dict[str, Callable[[], Any]] = {
    "TokenBroker": broker,
    "RequestTokens": of_request,
    "TokenAuth": lambda: broker().auth("wecom"),
    "TokenAuth of a request": lambda: of_request().auth("wecom"),
    "TokenHTTP": lambda: TokenHTTP(httpx.AsyncClient(), limits=Limits(), clock=SYSTEM_CLOCK),
    "TokenMiddleware": middleware,
    "OutgoingAnswer": lambda: _Answer(httpx.Response(401, text=SECRET), body=SECRET.encode()),
    "token_from": lambda: token_from(broker().token),
}
# Without secrets: they may go wherever they like.
ERRORS: dict[str, TokenmwError] = {
    "TokenmwError": TokenmwError("any"),
    "ConfigurationError": ConfigurationError("a slip"),
    "TokenUnavailable": TokenUnavailable("away", provider="crm", retry_after=2.5, said=True).at("app:1"),
    "CredentialRejected": CredentialRejected("no", provider="crm", code="invalid_client", retry_after=3, said=False),
    "SessionUnavailable": SessionUnavailable("away", retry_after=1.0),
    "APIKeyRefused": APIKeyRefused("no", challenge="Basic"),
}
OPEN: dict[str, Callable[[], Any]] = {
    "Limits": Limits,
    "Status": lambda: broker().status(),
    "ProviderStatus": lambda: ProviderStatus("cold"),
    "SharedStateChanged": lambda: SharedStateChanged(up=False, error="timeout"),
    "TokenAdopted": lambda: TokenAdopted("crm"),
    "TokenFetched": lambda: TokenFetched("crm", "granted", 0.1),
    "TokenInvalidated": lambda: TokenInvalidated("crm"),
    "ValueUnreadable": lambda: ValueUnreadable("token", "damaged"),
    "provider_token": lambda: tokenmw.provider_token("crm"),
}
# What has no objects of its own, or none that lives outside of tests.
WITHOUT = {
    *("Provider", "RequestState", "OutgoingRequest", "Observer", "Event", "SessionID", "Tokens"),
    *("credential_text", "lifetime", "session_id", "request_tokens", "make_token"),
    *("Fault", "ManualClock", "ProviderServer"),
    "APIKeySource",  # names alone
}
CLOSED = VALUES | BOUND
ALL = CLOSED | OPEN | {name: lambda error=error: error for name, error in ERRORS.items()}


def test_no_public_name_is_forgotten() -> None:
    """A new one has a line here that says what may become of it."""
    names = {name for module in MODULES for name in importlib.import_module(module).__all__}
    kinds = {type(make()).__name__ for make in KINDS.values()}
    unknown = names - set(ALL) - WITHOUT - kinds
    assert unknown - {"FeishuApp"} == set()  # is a FeishuTenant by another name
    assert issubclass(FeishuApp, FeishuTenant)


@pytest.mark.parametrize("name", ALL)
def test_no_rendering_shows_a_secret(name: str) -> None:
    """Nor that of what holds it."""
    one = ALL[name]()
    held = dataclasses.make_dataclass("Held", ["one"])(one)
    shown = [repr(one), f"{one}", pprint.pformat([one]), repr(held), repr(dataclasses.asdict(held))]
    shown += [json.dumps(one, default=str), json.dumps({"one": [one]}, default=repr)]
    assert SECRET not in "".join(shown)


@pytest.mark.parametrize("name", CLOSED)
def test_no_encoder_looks_into_it(name: str) -> None:
    """It refuses, or writes nothing of what is inside."""
    one: Any = CLOSED[name]()
    kind: Any = one.__class__
    holder: Any = create_model("Holder", __config__=ConfigDict(arbitrary_types_allowed=True), one=(kind, ...))
    held = holder(one=one)
    written = [repr(held), repr(held.model_dump()), held.model_dump_json(fallback=repr)]
    encoders: tuple[Callable[[], str], ...] = (
        lambda: json.dumps(one),
        lambda: json.dumps(one, default=vars),
        lambda: repr(dataclasses.asdict(one)),
        lambda: repr(jsonable_encoder(one)),
        held.model_dump_json,
        lambda: held.model_dump_json(serialize_as_any=True),
        lambda: repr(TypeAdapter[Any](Any).dump_json({"one": one})),
        lambda: json.dumps(holder.model_json_schema()),
    )
    for encode in encoders:
        try:
            written.append(encode())
        except Exception as error:  # noqa: BLE001  each encoder refuses in its own way
            written.append(f"{error!r} {error}")
    assert SECRET not in "".join(written)


@pytest.mark.parametrize("name", [*BOUND, *(name for name in VALUES if name.startswith("provider"))])
def test_members_are_redacted(name: str) -> None:
    """As inspectors list them. A `Token` has a value, which is there to be read; what makes it has none."""
    one = CLOSED[name]()
    members = dict(inspect.getmembers(one))
    # An answer has a body. The request of a request's tokens is bare: each warm request would pay for what hides it.
    members.pop({"OutgoingAnswer": "body", "RequestTokens": "_scope"}.get(name, ""), None)
    if isinstance(one, TokenBroker):
        members |= {name: getattr(part, name) for part in (one._settings, one._data) for name in part.__slots__}
    assert SECRET not in repr(members)


@pytest.mark.parametrize("name", CLOSED)
def test_what_has_a_secret_is_not_pickled(name: str) -> None:
    """It would be on a disk or in a queue, unsealed. The text says so, and the mend."""
    one = CLOSED[name]()
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        with pytest.raises(TypeError, match=r"is not pickled: it holds secrets\. \w+ it where it is used\."):
            pickle.dumps([one], protocol)


@pytest.mark.parametrize("name", CLOSED)
def test_copies(name: str) -> None:
    """It is its own copy: what is frozen as a number is, and a part of the program as a function is."""
    one = CLOSED[name]()
    assert one is copy.copy(one) is copy.deepcopy(one) is copy.deepcopy([one])[0]


@pytest.mark.parametrize("name", ERRORS)
def test_errors_go_through_pickles(name: str) -> None:
    """As those of process pools and task queues do; what is behind an error stays where it was."""
    error = ERRORS[name]
    error.add_note("a note")
    error.__cause__ = LookupError(SECRET)
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        pickled = pickle.dumps(error, protocol)
        assert SECRET.encode() not in pickled
        for other in (pickle.loads(pickled), copy.copy(error), copy.deepcopy(error)):
            assert type(error) is type(other)
            assert (str(error), vars(error)) == (str(other), vars(other))
            assert (None, None) == (other.__cause__, other.__traceback__)


@pytest.mark.parametrize("name", OPEN)
def test_what_has_no_secret_goes_anywhere(name: str) -> None:
    """It can be pickled, copied and, if it is a record, encoded and returned from a route."""
    one = OPEN[name]()
    assert one == pickle.loads(pickle.dumps(one)) == copy.deepcopy(one)
    if dataclasses.is_dataclass(one):
        fields = json.loads(TypeAdapter(type(one)).dump_json(one))
        assert not isinstance(one, type)
        assert fields == jsonable_encoder(one) == dataclasses.asdict(one)
        assert SECRET not in json.dumps(fields)


def test_secret_of_a_provider_is_sent_as_it_is() -> None:
    """It is text as any other, and a token is plain text, whatever it was made from."""
    assert SECRET in {part for part in KINDS["wecom"]().identity() if isinstance(part, str)}
    source = APIKeySource(["x-api-key"])
    assert source.headers == copy.deepcopy(source).headers == pickle.loads(pickle.dumps(source)).headers


async def test_token_is_plain_text() -> None:
    """Not every library takes a `str` of another class."""
    async with TokenBroker({"static": KINDS["static"]()}, clock=ManualClock()) as broker:
        token: Token = await broker.token("static")
    assert (str, SECRET) == (type(token.value), token.value)
