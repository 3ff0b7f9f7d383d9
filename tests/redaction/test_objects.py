"""No object that a program can reach shows its secrets: not by `repr`, a pickle, a copy or a JSON encoder."""

from __future__ import annotations

import copy
import dataclasses
import functools
import importlib
import inspect
import json
import os
import pickle
import pprint
import tempfile
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import httpx
import pytest
from fastapi.encoders import jsonable_encoder
from pydantic import ConfigDict, TypeAdapter, create_model

import tokenmw
from tests.asgi_client import answering, scope_of, session_of
from tests.connections.memory_store import MemoryStore
from tests.observe.test_events import EVENTS
from tests.providers.mtls import Files
from tests.providers.private_keys import make_key, pem_of
from tests.redaction.test_tracebacks import KINDS, SECRET
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
from tokenmw.connections import (
    ConnectApp,
    Connected,
    Connections,
    ConnectionState,
    DeviceFlow,
    FlowProblem,
    NotConnected,
    OAuthApp,
    ReconnectRequired,
    RedisStore,
    SQLStore,
    StoredConnection,
    TokenPair,
)
from tokenmw.connections.device_codes import DeviceCodes
from tokenmw.connections.document import ConnectionDocument
from tokenmw.fastapi import token_from
from tokenmw.observe import BrokerClosed
from tokenmw.outgoing.response import _Answer
from tokenmw.providers import (
    Answer,
    ClientCertificate,
    DPoPKey,
    EnvSecret,
    FeishuApp,
    FeishuTenant,
    FileSecret,
    HTTPOptions,
    PrivateKeyJWT,
    SecretSource,
    SubjectToken,
    TokenHTTP,
)
from tokenmw.status import ProviderStatus, ServerStatus
from tokenmw.status_app import StatusApp
from tokenmw.testing import ManualClock, make_token

if TYPE_CHECKING:
    from collections.abc import Callable

MODULES = (
    "tokenmw",
    "tokenmw.connections",
    "tokenmw.providers",
    "tokenmw.fastapi",
    "tokenmw.testing",
    "tokenmw.observe",
    "tokenmw.status_app",
)


def broker() -> TokenBroker:
    """Make a broker with every kind of secret."""
    providers = {name.replace(" ", "-"): make() for name, make in KINDS.items()}
    options: dict[str, Any] = {"redis": f"redis://u:{SECRET}@127.0.0.1/0", "secret_key": SECRET, "name_key": SECRET}
    return TokenBroker(providers, **options)


def request_tokens() -> RequestTokens:
    """Make the tokens of a request that has an API key."""
    return RequestTokens(broker(), scope_of("http", headers=[(b"x-api-key", SECRET.encode())]))


def middleware() -> TokenMiddleware:
    """Make a middleware."""
    return TokenMiddleware(answering(session_of), broker=broker())


def oauth_app() -> OAuthApp:
    """Make an app with a secret."""
    return OAuthApp(
        authorize_url="https://idp.example/a", token_url="https://idp.example/t", client_id="crm", client_secret=SECRET
    )


def connections() -> Connections:
    """Make connections with a secret."""
    return Connections({"crm": oauth_app()}, store=MemoryStore(), subject=lambda _: "user-1")


def broker_of_users() -> TokenBroker:
    """Make a broker with connections."""
    return TokenBroker({}, connections=connections(), secret_key=SECRET)


def device_flow() -> DeviceFlow:
    """Make a flow that waits for its user."""
    fields = {"device_code": SECRET, "user_code": "A-B", "verification_uri": "https://idp.example/d", "expires_in": 9}
    codes = DeviceCodes(Answer(200), fields)
    return DeviceFlow(broker_of_users().connections, "crm", "user-1", codes, ends=0.0)


def http_options() -> HTTPOptions:
    """Make options with the password of a proxy."""
    with patch.dict(os.environ, {"HTTPS_PROXY": f"http://u:{SECRET}@127.0.0.1:9"}):
        return HTTPOptions(trust_env=True)


def client_certificate() -> ClientCertificate:
    """Make a client certificate whose key has a password."""
    with tempfile.TemporaryDirectory() as directory:
        files = Files(Path(directory))
        files.key.write_text(pem_of(make_key("P-256"), password=SECRET.encode()))
        return files.load(password=SECRET)


# Immutable values with a secret.
VALUES: dict[str, Callable[[], Any]] = {
    **{f"provider: {name}": make for name, make in KINDS.items()},
    "Grant": lambda: Grant(SECRET, expires_in=60, extra={SECRET: SECRET}),
    "Token": lambda: make_token(SECRET, extra={SECRET: SECRET}),
    "HTTPOptions": http_options,
    "EnvSecret": lambda: EnvSecret("CRM_SECRET"),
    "ClientCertificate": client_certificate,
    "FileSecret": lambda: FileSecret("/run/secrets/crm"),
    "SecretSource": lambda: SecretSource(lambda: SECRET, credential_id="crm"),
    "DPoPKey": lambda: DPoPKey(pem_of(make_key("P-256"))),
    "PrivateKeyJWT": lambda: PrivateKeyJWT(pem_of(make_key("P-256")), key_id=SECRET),
    "OAuthApp": oauth_app,
    "Connections": connections,
    "UserToken": lambda: connections().provider("crm", "user-1"),
    "TokenPair": lambda: TokenPair(access_token=SECRET, refresh_token=SECRET, expires_in=60),
    "StoredConnection": lambda: StoredConnection(1, SECRET.encode()),
    "ConnectionDocument": lambda: ConnectionDocument.of_pair(
        TokenPair(access_token=SECRET, refresh_token=SECRET, expires_in=60, extra={SECRET: SECRET}), now=0.0
    ),
    "SQLStore": lambda: SQLStore(f"postgresql+asyncpg://u:{SECRET}@127.0.0.1/x"),
    "Answer": lambda: Answer(200, headers={"x": SECRET}, body=SECRET.encode()),
}
# Parts of a running program that refer to secrets.
LIVE: dict[str, Callable[[], Any]] = {
    "RedisStore": lambda: RedisStore(f"redis://u:{SECRET}@127.0.0.1/0"),
    "SQLStore": lambda: SQLStore(f"postgresql+asyncpg://u:{SECRET}@127.0.0.1/name"),
    "TokenBroker": broker,
    "RequestTokens": request_tokens,
    "UserConnections": lambda: broker_of_users().connections,
    "DeviceFlow": device_flow,
    "ConnectApp": lambda: ConnectApp(broker_of_users(), allow=lambda _: True),
    "TokenAuth": lambda: broker().auth("wecom"),
    "TokenAuth of a request": lambda: request_tokens().auth("wecom"),
    "TokenHTTP": lambda: TokenHTTP(httpx.AsyncClient(), limits=Limits(), clock=SYSTEM_CLOCK),
    "TokenMiddleware": middleware,
    "StatusApp": lambda: StatusApp(broker(), allow_all=True),
    "OutgoingAnswer": lambda: _Answer(httpx.Response(401, text=SECRET), body=SECRET.encode()),
    "token_from": lambda: token_from(broker().token),
}
# Errors have no secrets, so they can be pickled.
ERRORS: dict[str, TokenmwError] = {
    "TokenmwError": TokenmwError("any"),
    "ConfigurationError": ConfigurationError("wrong"),
    "TokenUnavailable": TokenUnavailable("unavailable", provider="crm", retry_after=2.5, said=True).at("app:1"),
    "CredentialRejected": CredentialRejected("no", provider="crm", code="invalid_client", retry_after=3, said=False),
    "SessionUnavailable": SessionUnavailable("unavailable", retry_after=1.0),
    "APIKeyRefused": APIKeyRefused("no", challenge="Basic"),
    "ReconnectRequired": ReconnectRequired("expired", provider="crm", connect_url="/connect/crm", reason="expired"),
    "FlowProblem": FlowProblem("denied", "the user has denied"),
    "ReconnectRequired without a user": ReconnectRequired("none", provider="crm", reason="not signed in"),
}
# Objects without secrets.
PUBLIC: dict[str, Callable[[], Any]] = {
    "SubjectToken": SubjectToken,
    "Limits": Limits,
    "Connected": lambda: Connected("crm", "user-1", "read", "/settings"),
    "NotConnected": lambda: NotConnected("crm", "denied", 403, "No.", "/settings"),
    "ConnectionState": lambda: ConnectionState(
        state="ok", reason="", since=None, scope="", connected_at=0.0, refreshed_at=0.0, expires_at=None
    ),
    "Status": lambda: broker().status(),
    "ProviderStatus": lambda: ProviderStatus("cold"),
    "ServerStatus": lambda: ServerStatus("up", 0.0),
    "BrokerClosed": lambda: BrokerClosed(1),
    **{type(event).__name__: functools.partial(copy.copy, event) for event in EVENTS},
    "provider_token": lambda: tokenmw.provider_token("crm"),
}
# Names that are protocols, aliases, functions or only for tests.
NOT_TESTED = {
    *("Provider", "RequestState", "OutgoingRequest", "Observer", "Event", "SessionID", "Tokens"),
    *("credential_text", "lifetime", "session_id", "request_tokens", "make_token"),
    *("Fault", "ManualClock", "ProviderServer"),
    *("ConnectionKey", "ConnectionStore", "StoreUnavailable"),
    "APIKeySource",  # it has the names of headers, and no key
    "Dialect",  # it has names of fields
}
SECRET_OBJECTS = VALUES | LIVE
ALL_OBJECTS = SECRET_OBJECTS | PUBLIC | {name: lambda error=error: error for name, error in ERRORS.items()}


def test_all_public_names_are_listed() -> None:
    """Every public name is in one of the lists above."""
    names = {name for module in MODULES for name in importlib.import_module(module).__all__}
    kinds = {type(make()).__name__ for make in KINDS.values()}
    unknown = names - set(ALL_OBJECTS) - NOT_TESTED - kinds
    assert unknown - {"FeishuApp"} == set()  # a subclass of FeishuTenant
    assert issubclass(FeishuApp, FeishuTenant)


@pytest.mark.parametrize("name", ALL_OBJECTS)
def test_no_repr_shows_a_secret(name: str) -> None:
    """The text of an object, and of a container with it, has no secret."""
    value = ALL_OBJECTS[name]()
    container = dataclasses.make_dataclass("Container", ["value"])(value)
    texts = [repr(value), pprint.pformat([value]), repr(container), repr(dataclasses.asdict(container))]
    texts += [json.dumps({"value": [value]}, default=repr)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # str(token) warns
        texts += [str(value), json.dumps(value, default=str)]
    assert SECRET not in "".join(texts)


@pytest.mark.parametrize("name", SECRET_OBJECTS)
def test_no_encoder_writes_a_secret(name: str) -> None:
    """An encoder refuses the object, or writes nothing of its contents."""
    value: Any = SECRET_OBJECTS[name]()
    kind: Any = value.__class__
    holder: Any = create_model("Holder", __config__=ConfigDict(arbitrary_types_allowed=True), value=(kind, ...))
    held = holder(value=value)
    texts = [repr(held), repr(held.model_dump()), held.model_dump_json(fallback=repr)]
    encoders: tuple[Callable[[], str], ...] = (
        lambda: json.dumps(value),
        lambda: json.dumps(value, default=vars),
        lambda: repr(dataclasses.asdict(value)),
        lambda: repr(jsonable_encoder(value)),
        held.model_dump_json,
        lambda: held.model_dump_json(serialize_as_any=True),
        lambda: repr(TypeAdapter[Any](Any).dump_json({"value": value})),
        lambda: json.dumps(holder.model_json_schema()),
    )
    for encode in encoders:
        try:
            texts.append(encode())
        except Exception as error:  # noqa: BLE001  each encoder refuses in its own way
            texts.append(f"{error!r} {error}")
    assert SECRET not in "".join(texts)


@pytest.mark.parametrize("name", [*LIVE, *(name for name in VALUES if name.startswith("provider"))])
def test_members_are_redacted(name: str) -> None:
    """The attributes of an object, as debuggers list them, have no secret. A `Token` has a public value instead."""
    value = SECRET_OBJECTS[name]()
    members = dict(inspect.getmembers(value))
    # An answer has a public body. The scope of `RequestTokens` is not hidden: every warm request would pay for that.
    members.pop({"OutgoingAnswer": "body", "RequestTokens": "_scope"}.get(name, ""), None)
    if isinstance(value, TokenBroker):
        members |= {name: getattr(part, name) for part in (value._settings, value._data) for name in part.__slots__}
    assert SECRET not in repr(members)


@pytest.mark.parametrize("name", SECRET_OBJECTS)
def test_an_object_with_a_secret_is_not_pickled(name: str) -> None:
    """Pickling is refused, because a pickle is not encrypted; the text of the error has the reason and the fix."""
    value = SECRET_OBJECTS[name]()
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        with pytest.raises(TypeError, match=r"is not pickled: it holds secrets\. \w+ it where it is used\."):
            pickle.dumps([value], protocol)


@pytest.mark.parametrize("name", SECRET_OBJECTS)
def test_a_copy_is_the_same_object(name: str) -> None:
    """Copying returns the same object, as for numbers and functions."""
    value = SECRET_OBJECTS[name]()
    assert value is copy.copy(value) is copy.deepcopy(value) is copy.deepcopy([value])[0]


@pytest.mark.parametrize("name", ERRORS)
def test_errors_can_be_pickled(name: str) -> None:
    """An error can be sent to another process, without its chained errors and its traceback."""
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


@pytest.mark.parametrize("name", PUBLIC)
def test_an_object_without_secrets_can_be_pickled_and_encoded(name: str) -> None:
    """It can be pickled and copied; a dataclass can be encoded and returned from a route."""
    value = PUBLIC[name]()
    assert value == pickle.loads(pickle.dumps(value)) == copy.deepcopy(value)
    if dataclasses.is_dataclass(value):
        fields = json.loads(TypeAdapter(type(value)).dump_json(value))
        assert not isinstance(value, type)
        # A tuple is a list in JSON.
        assert fields == jsonable_encoder(value) == json.loads(json.dumps(dataclasses.asdict(value)))
        assert SECRET not in json.dumps(fields)


def test_the_identity_has_the_plain_secret() -> None:
    """The identity of a provider has the secret as plain text; an `APIKeySource` can be copied and pickled."""
    assert SECRET in {part for part in KINDS["wecom"]().identity() if isinstance(part, str)}
    source = APIKeySource(["x-api-key"])
    assert source.headers == copy.deepcopy(source).headers == pickle.loads(pickle.dumps(source)).headers


async def test_a_token_value_is_a_plain_str() -> None:
    """A token's value is an instance of `str` itself, because some libraries refuse subclasses."""
    async with TokenBroker({"static": KINDS["static"]()}, clock=ManualClock()) as broker:
        token: Token = await broker.token("static")
    assert (str, SECRET) == (type(token.value), token.value)
