"""No part of a running program is pickled or encoded with a secret, whatever library encodes it."""

from __future__ import annotations

import asyncio
import base64
import dataclasses
import functools
import gc
import importlib
import json
import logging
import pickle
import pkgutil
import warnings
from collections.abc import Callable, Iterable
from contextvars import Context
from types import CodeType, FunctionType, ModuleType
from typing import Any, Final, is_typeddict

import httpx
import jsonpickle
import jsons
import msgspec
import orjson
import pytest
from fastapi.encoders import jsonable_encoder
from pydantic import TypeAdapter
from starlette.requests import HTTPConnection

import tokenmw
from tests.asgi_client import answering, call, scope_of, session_of
from tests.redaction.test_tracebacks import KEY, KINDS, SECRET
from tests.servers import RedisServer
from tokenmw import TokenBroker, TokenMiddleware
from tokenmw.credentials import RequestCredential
from tokenmw.observe.events import Event
from tokenmw.outgoing.request import OriginalRequest
from tokenmw.outgoing.url_tokens import RedirectGuard, forms_of
from tokenmw.providers import WeCom
from tokenmw.redaction import HiddenStr, Unpicklable
from tokenmw.redis.background_connect import BackgroundCluster
from tokenmw.redis.token_store import Found, TokenRecord

# The search stops at these: the whole process can be reached from them.
_BOUNDARIES: Final = (ModuleType, CodeType, asyncio.AbstractEventLoop, logging.Logger, Context)
# Classes with no secret in their instances; those of errors, events, options and statuses are public.
_WITHOUT_SECRETS: Final = frozenset(
    {
        "APIKeySource",  # the names of headers
        "Attempt",
        "Beat",  # what a heartbeat says
        "Backend",  # of connections, without them
        "Begun",  # a URL and cookies for the browser, the secrets in them sealed
        "Breaker",
        "Busy",
        "CallerCheck",  # names of headers
        "Cause",
        "Claim",  # a random text, and what wrote it
        "ClockMismatch",
        "CloudHosts",
        "CommandLimiter",
        "ConnectionKey",  # names of an app and a user
        "Connected",  # names
        "ConnectionState",
        "Deadline",
        "Dialect",  # names of fields
        "DeclaredName",
        "EpochMarkers",
        "Ended",  # names of an app and a user
        "FailureNoted",
        "Failure",
        "Finding",  # a line that is printed
        "FlowParts",  # each of its parts refuses
        "Found",  # its document refuses
        "Gauges",  # names of providers and addresses
        "GrantCodes",
        "LoadedCertificate",  # public dates and digests
        "GrantReader",  # a client id and texts
        "Happening",  # an event as the status page shows it
        "Heartbeat",  # numbers, and the name of a host
        "Hour",  # numbers
        "IdentityRequest",
        "InstanceStatus",
        "Instant",
        "KeyUsage",  # numbers
        "KnownApp",  # URLs
        "Leased",
        "Limits",
        "LoggingObserver",
        "Metric",
        "NewSessions",
        "NotConnected",  # names
        "Observers",  # functions of the program
        "OpenTelemetryObserver",
        "Output",  # lines that are printed
        "Parser",  # of a command line
        "PrometheusObserver",
        "Progress",  # a host and a port
        "ProviderStatus",
        "ServerStatus",
        "RejectionCodes",
        "Retry",  # the name of an operator
        "ScriptCheck",  # names of scripts, and a function
        "SeenClaim",
        "ServerFacts",  # what INFO says of a server
        "Resolver",  # names of hosts
        "Shared",  # its token entry refuses
        "Status",
        "TLSFacts",  # a public certificate
        "Unsaved",  # each of its parts refuses
        "_OfRequest",  # the apps refuse
        "Stored",
        "StructlogObserver",
        "StoredVersions",
        "SubjectToken",
        "SystemClock",
        "ThrottledLog",
        "TokenBucket",
        "TokenEndpoint",  # a URL
        "TokenKeys",  # names in Redis
        "Tombstoned",
        "Windows",
        "WithheldTokens",  # names of hosts
        "_Declared",  # a path and a name
        "_Found",  # an application, while it is searched
        "_AllLines",  # the headers of a user's request, which its library pickles
        "_DocumentedScheme",
        "_PinnedContext",  # a thumbprint; the standard library's refuses
        "_PinnedObject",
        "_Layer",  # a tuple of dicts whose values are providers, which refuse
        "_Failed",  # an error, as in _Refused
        "_Lookup",
        "_Problem",
        "_ProviderToken",  # a name
        "_Refused",
        "_Share",
        "_Spans",
        "_Workers",
        "_Replayed",  # the stream of a response of an API; what was read of it refuses
    }
)
ENCODERS: Final[dict[str, Callable[[Any], object]]] = {
    **{f"pickle {protocol}": functools.partial(pickle.dumps, protocol=protocol) for protocol in range(6)},
    "copyreg": lambda value: value.__reduce_ex__(4),
    "getstate": lambda value: value.__getstate__(),
    "jsonpickle": jsonpickle.encode,
    "jsonpickle, one way": functools.partial(jsonpickle.encode, unpicklable=False, include_properties=True),
    "jsons": jsons.dumps,
    "orjson": orjson.dumps,
    "orjson with repr": lambda value: orjson.dumps(value, default=repr),
    "msgspec": msgspec.json.encode,
    "msgspec.to_builtins": msgspec.to_builtins,
    "pydantic": TypeAdapter[Any](Any).dump_json,
    "pydantic with repr": lambda value: TypeAdapter[Any](Any).dump_json(value, serialize_as_any=True, fallback=repr),
    "pydantic, Python": lambda value: TypeAdapter[Any](Any).dump_python(value, mode="json", fallback=repr),
    "fastapi": jsonable_encoder,
    "json": json.dumps,
    "json with vars": lambda value: json.dumps(value, default=vars),
    "json with str": lambda value: json.dumps(value, default=str),
    "asdict": dataclasses.asdict,
    "repr": repr,
}


def classes() -> list[type[object]]:
    """Return the classes of the package; those of the demo and the test server have made-up secrets only."""
    found: list[type[object]] = []
    for info in pkgutil.walk_packages(tokenmw.__path__, "tokenmw."):
        if not info.name.startswith(("tokenmw.testing", "tokenmw.demo", "tokenmw.cli", "tokenmw.__main__")):
            module = importlib.import_module(info.name)
            found += [
                one for one in vars(module).values() if isinstance(one, type) and one.__module__ == module.__name__
            ]
    return found


def parts_of(*roots: object) -> dict[type[object], list[object]]:
    """Return the package's objects that can be reached from some objects, by class."""
    gc.collect()
    seen: dict[int, object] = {}
    waiting = [*roots]
    while waiting:
        one = waiting.pop()
        if id(one) in seen or isinstance(one, _BOUNDARIES):
            continue
        seen[id(one)] = one
        if isinstance(one, FunctionType):
            waiting += [*(one.__closure__ or ()), *(one.__defaults__ or ())]
        elif not isinstance(one, type):
            waiting += gc.get_referents(one)
    parts: dict[type[object], list[object]] = {}
    for one in seen.values():
        if type(one).__module__.partition(".")[0] == "tokenmw":
            parts.setdefault(type(one), []).append(one)
    return parts


def secrets_in(value: object) -> list[str]:
    """Return the encoders that write a secret of an object, or show it in their error."""
    # jsons follows every reference of an object that does not refuse, until the interpreter's stack is full.
    left_out: set[str] = set() if isinstance(_innermost(value), Unpicklable | str) else {"jsons"}
    return [name for name, encode in ENCODERS.items() if name not in left_out and _shows_secret(encode, value)]


def _innermost(value: Any) -> object:
    if isinstance(value, (list, tuple, dict)):
        items: Any = value.values() if isinstance(value, dict) else value  # pyright: ignore[reportUnknownVariableType]
        parts: list[Any] = list(items)
        return parts[0] if parts else None
    return value


def _shows_secret(encode: Callable[[Any], object], value: object) -> bool:
    try:
        with warnings.catch_warnings(action="ignore"):  # as errors they would end an encoder before it has encoded
            result = encode(value)
    except Exception as error:  # noqa: BLE001  each encoder refuses in its own way
        result = f"{error!r} {error} {error.__context__!r}"
    text = result.decode("latin-1") if isinstance(result, bytes) else str(result)
    # The last characters in base64 encode bytes after the secret, too.
    return SECRET in text or base64.b64encode(KEY).decode()[:-4] in text


def nested(values: Iterable[object]) -> list[object]:
    """Return the objects, each alone and in the containers that encoders walk through."""
    return [form for value in values for form in (value, [value], {"value": value}, (value,))]


async def test_no_encoder_writes_a_secret_of_a_running_program() -> None:
    """No encoder writes a secret of any object that a broker, its middleware, a request and its tokens reach."""
    providers = {name.replace(" ", "-"): make() for name, make in KINDS.items()}
    options: dict[str, Any] = {"secret_key": SECRET, "name_key": SECRET, "authenticate": authenticate}
    with RedisServer("--requirepass", SECRET) as server:
        async with TokenBroker(providers, redis=server.url, **options) as broker:
            app = TokenMiddleware(answering(session_of), broker=broker, inject=["static"])
            exchange = await call(app, headers=[(b"x-api-key", KEY)])
            assert exchange.status == 200
            auth = broker.auth("static")
            found = parts_of(broker, app, auth, exchange)
            names = {one.__name__ for one in found}
            assert {
                "Runtime",
                "RedisConnection",
                "_TCP",
                "SessionCache",
                "TokenRecord",
                "ClientAuth",
                "_Calls",
            } <= names
            leaks = {
                kind.__qualname__: shown
                for kind, objects in found.items()
                # A JSON encoder takes a HiddenStr for any other str: what holds one refuses.
                if kind is not HiddenStr
                for value in nested(objects[:3])
                if (shown := secrets_in(value))
            }
    assert {} == leaks


REQUEST = httpx.Request("GET", "https://api.example")
RECORD = TokenRecord(SECRET, "Bearer", 60.0, None, {SECRET: SECRET})
# Objects that live for one call only.
SHORT_LIVED: dict[str, Callable[[], object]] = {
    "Found": lambda: Found(RECORD, 1, 60.0),
    "OriginalRequest": lambda: OriginalRequest(httpx.Request("GET", "https://api.example", headers={"x": SECRET})),
    "RedirectGuard": lambda: RedirectGuard(
        REQUEST, url=httpx.URL(f"https://api.example/?key={SECRET}"), forms=forms_of(SECRET), library=httpx, inner=None
    ),
    "RequestCredential": lambda: RequestCredential(
        lambda _connection: WeCom(corp_id="c", corp_secret=SECRET), HTTPConnection(scope_of("http"))
    ),
}


@pytest.mark.parametrize("name", SHORT_LIVED)
def test_no_encoder_writes_a_secret_of_a_call(name: str) -> None:
    """No encoder writes a secret of an object that holds one during one call."""
    assert [] == [shown for value in nested([SHORT_LIVED[name]()]) for shown in secrets_in(value)]


def test_every_class_refuses_encoders_or_has_no_secret() -> None:
    """Each class of the package has the base class that refuses, or is listed as one without secrets."""
    refusing = {one for one in classes() if issubclass(one, (Unpicklable, BaseException, Event))}
    types_only = {one for one in classes() if is_typeddict(one) or getattr(one, "_is_protocol", False)}
    assert set(_WITHOUT_SECRETS) == {one.__name__ for one in {*classes()} - refusing - types_only}


def test_an_encoder_that_reads_every_attribute_stops_at_the_first() -> None:
    """The first attribute in the order of `dir` raises, so that no secret was read before."""
    for one in classes():
        if issubclass(one, Unpicklable) and one is not BackgroundCluster:  # the library's has constants before it
            first = next(name for name in dir(one) if not name.startswith("__"))
            assert "_0_not_encoded" == first, one


def test_the_search_finds_a_secret() -> None:
    """Each encoder but `asdict` writes the secret of a plain object that it can encode."""
    plain = {"secret": SECRET}
    assert set(ENCODERS) - {"asdict", "getstate", "copyreg"} == set(secrets_in(plain))


def authenticate(_connection: HTTPConnection, _key: str) -> object:
    """Accept every key."""
    return "caller"
