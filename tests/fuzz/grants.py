"""Token endpoints: every kind of provider reads any response, through the real client."""

from __future__ import annotations

import json
import re
import sys
from base64 import b64encode
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from tests.fuzz.messages import LIMITS, Message, read_message, run, token_http
from tests.fuzz.oracles import SECRET, Target, check_grant, check_request_error, expected_lifetime, require
from tokenmw import Grant, Provider, Token
from tokenmw.errors import CredentialRejected, TokenUnavailable
from tokenmw.providers import (
    Answer,
    BotFramework,
    ClientCredentials,
    DingTalk,
    DingTalkLegacy,
    Entra,
    FeishuApp,
    FeishuStoreApp,
    FeishuStoreTenant,
    FeishuTenant,
    FeishuTicket,
    JWTBearer,
    ManagedIdentity,
    WeCom,
)
from tokenmw.testing import make_token

__all__ = ["TARGETS"]

_MOST_STEPS = 15_000
"""Calls of functions for one response; 64 fields whose names are compared with the secret take most of them."""

_WITH_TIMES = (ClientCredentials, Entra, JWTBearer, ManagedIdentity)
"""Providers whose responses may have the time of expiry in place of the lifetime."""

Fields = dict[str, Any]


@dataclass(frozen=True)
class Kind:
    """A kind of provider, and the format of its responses.

    Attributes:
        provider: A provider with the secret that no error may show.
        tokens: The fields that may have the token.
        lifetime: The field of the lifetime.
        default: The lifetime in seconds if the response has none.
        code: The field of an error code; with a code, a response has no token.
        refusals: Bodies of refusals that the provider recognises.
    """

    provider: Provider
    tokens: tuple[str, ...] = ("access_token",)
    lifetime: str = "expires_in"
    default: float | None = None
    code: str = "error"
    refusals: tuple[Fields, ...] = ()


class _Nested:
    """Returns tokens of other credentials, which a store app needs: its ticket and its app token."""

    async def token(self, provider: Provider) -> Token:
        """Return a token."""
        return make_token("ticket-1", provider=provider.kind)

    async def invalidate(self, token: Token) -> None:
        """Ignore a rejected token."""


_DESCRIBED: tuple[Fields, ...] = (
    {"error": "invalid_client", "error_description": f"you sent {SECRET}"},
    {"error": "invalid_client", "error_description": f"you sent {SECRET[2:10]}"},
    {"error": "invalid_client", "error_description": "x" * 195 + SECRET},
    {"error": "invalid_client", "error_description": b64encode(f"crm:{SECRET}".encode()).decode()},
    {"error": "invalid_client", "error_description": "not\r\nknown \u202e \ud800"},
    {"error": f"a{SECRET[:9]}", "error_description": ["x"]},
)
_FEISHU: Fields = {"app_id": "cli_a1", "app_secret": SECRET}
_DINGTALK: Fields = {"app_key": "ding1", "app_secret": SECRET}
_STORE = Kind(FeishuStoreApp(**_FEISHU), ("app_access_token",), "expire", 1800.0, "code", ({"code": 10012},))
KINDS = {
    "oauth2": Kind(
        ClientCredentials(token_url="https://idp.example/token", client_id="crm", client_secret=SECRET),
        default=600.0,
        refusals=({"error": "invalid_client", "error_description": SECRET}, {"error": SECRET}),
    ),
    "oauth2_described": Kind(
        ClientCredentials(
            token_url="https://idp.example/token", client_id="crm", client_secret=SECRET, log_description=True
        ),
        default=600.0,
        refusals=_DESCRIBED,
    ),
    "oauth2_assertion": Kind(
        ClientCredentials(
            token_url="https://idp.example/token",
            client_id="crm",
            auth_method="private_key_jwt",
            client_assertion=SECRET,
            log_description=True,
        ),
        default=600.0,
        refusals=_DESCRIBED,
    ),
    "oauth2_scheme": Kind(
        ClientCredentials(
            token_url="https://idp.example/token", client_id="crm", client_secret=SECRET, scheme="Acme-token"
        ),
        default=600.0,
    ),
    "jwt_bearer": Kind(
        JWTBearer(token_url="https://idp.example/token", assertion=SECRET, log_description=True),
        default=600.0,
        refusals=_DESCRIBED,
    ),
    "bot_framework": Kind(
        BotFramework(app_id="app", app_secret=SECRET, log_description=True), default=600.0, refusals=_DESCRIBED
    ),
    "entra": Kind(
        Entra(tenant="contoso.example", client_id="app", client_secret=SECRET),
        default=600.0,
        refusals=({"error": "invalid_client", "error_codes": [7000215, 50196]}, {"error": "x", "error_codes": [-1]}),
    ),
    "feishu": Kind(
        FeishuTenant(**_FEISHU),
        ("tenant_access_token", "app_access_token"),
        "expire",
        1800.0,
        "code",
        ({"code": 10003},),
    ),
    "feishu_app": Kind(FeishuApp(**_FEISHU), ("app_access_token", "tenant_access_token"), "expire", 1800.0, "code"),
    "feishu_store_app": _STORE,
    "feishu_store_tenant": Kind(
        FeishuStoreTenant(**_FEISHU, tenant_key="t1"), ("tenant_access_token",), "expire", 1800.0, "code"
    ),
    "feishu_ticket": Kind(FeishuTicket(**_FEISHU), (), "expire", None, "code", ({"code": "99991401"},)),
    "wecom": Kind(
        WeCom(corp_id="ww1", corp_secret=SECRET),
        default=7200.0,
        code="errcode",
        refusals=({"errcode": 40001, "errmsg": SECRET}, {"errcode": SECRET}),
    ),
    "dingtalk": Kind(
        DingTalk(**_DINGTALK), ("accessToken",), "expireIn", 7200.0, "code", ({"code": "invalidClientIdOrSecret"},)
    ),
    "dingtalk_corp": Kind(
        DingTalk(**_DINGTALK, corp_id="ding 1?"), default=7200.0, code="code", refusals=({"punish": 1},)
    ),
    "dingtalk_legacy": Kind(
        DingTalkLegacy(**_DINGTALK), default=7200.0, code="errcode", refusals=({"errcode": "40089"},)
    ),
    "managed_identity": Kind(
        ManagedIdentity(
            resource="https://graph.example", identity_endpoint="http://127.0.0.1:4/", identity_header=SECRET
        ),
        code="",
        refusals=({"access_token": "t", "expires_on": "1795168177"}, {"access_token": "t", "expires_on": 10**400}),
    ),
}


def _fetch(kind: Kind, data: bytes) -> None:
    message = read_message(data)
    http = token_http(message, nested=_Nested())
    _check_steps(kind, message)
    try:
        grant = run(kind.provider.fetch(http))
    except (CredentialRejected, TokenUnavailable) as error:
        check_request_error(error)
    else:
        check_grant(grant)
        require(grant.token_type == (kind.provider.scheme or "Bearer"), "a token of another type")
        require(SECRET not in json.dumps(dict(grant.extra)), "an extra with the secret")
        if not any(name.lower() == b"content-encoding" for name, _ in message.headers):
            _check_origin(grant, kind, message)


class _Answered:
    """Answers every request with one message, without a client, whose steps would count."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer

    async def request(self, *_: object, **__: object) -> Answer:
        """Return the answer."""
        return self._answer

    token, invalidate = _Nested.token, _Nested.invalidate


def _check_steps(kind: Kind, message: Message) -> None:
    """Require that reading a response takes a bounded number of steps, whatever its size."""
    body = message.body[: LIMITS.answer_bytes]
    headers = {name.decode(): value.decode("latin-1") for name, value in message.headers}
    http: Any = _Answered(Answer(message.status, headers=headers, body=body))
    steps = 0

    def count(_frame: object, _event: str, _argument: object) -> None:
        nonlocal steps
        steps += 1

    work = kind.provider.fetch(http)
    before = sys.getprofile()
    sys.setprofile(count)
    try:
        work.send(None)
    except (StopIteration, CredentialRejected, TokenUnavailable):
        pass
    finally:
        sys.setprofile(before)
        work.close()
    require(steps <= _MOST_STEPS, f"{steps} steps for one response")


def _check_origin(grant: Grant, kind: Kind, message: Message) -> None:
    """Require that the grant has the token and lifetime of the response."""
    fields = json.loads(message.body)
    require(200 <= message.status < 300, "a grant for a failed response")
    require(not fields.get(kind.code) or fields[kind.code] == "0", "a grant for a response with an error code")
    named = [fields[name] for name in kind.tokens if fields.get(name)]
    require(named and grant.value == named[0], "a token that is not in the response")
    given = fields.get(kind.lifetime)
    times = [fields.get(name) for name in ("expires_on", "expires_at", "expires")]
    if isinstance(kind.provider, _WITH_TIMES) and (given in (None, "") or expected_lifetime(given) is None):
        # By the time of its expiry, or, if none can be read, the default.
        readable = any(re.search("[0-9]", str(time)) for time in times)
        require(readable or (given is None and grant.expires_in == kind.default), "a lifetime from nowhere")
        return
    require(
        grant.expires_in == expected_lifetime(given, default=kind.default), "another lifetime than that in the response"
    )


def _seeds(kind: Kind) -> tuple[bytes, ...]:
    good: Fields = {**dict.fromkeys(kind.tokens, "t-1"), kind.lifetime: 7200, "token_type": "bearer", "scope": "a b"}
    odd = ["7200", " 7200 ", "1_000", "\uff11\uff12", 1e400, -1, True, None, 7199.5, 10**400, "1e3", float("nan"), "0"]
    bodies: list[object] = [good, *({**good, kind.lifetime: value} for value in odd), *kind.refusals]
    bodies += [{**good, name: bad} for name in kind.tokens for bad in ("a\r\nx: y", "", 7, "t" * 20_000, ["t"], SECRET)]
    bodies += [
        {**good, kind.lifetime: None, "expires_at": at} for at in (4e9, "2100-01-01T00:00:00Z", "1/2/2100 5:0:0 PM", 1)
    ]
    many: Fields = {f"field{n}": [] for n in range(3_000)}
    bodies += [
        {**good, "token_type": odd}
        for odd in ("MAC", "JWT", "N_A", "DPoP", 0, "x" * 65, SECRET, "Application Access Token")
    ]
    bodies += [{**many, **good}, {**good, **{f"f{n}": "\u4e2d" * 600 for n in range(12)}}, {"token": "t-1"}]
    bodies += [[], "t", {**good, kind.code or "error": {"a": [1]}}, {**good, "token_type": [["x"]]}]
    whole = [b"200\ncontent-type: application/json\n\n" + json.dumps(body).encode() for body in bodies]
    heads = (
        b"404\ncontent-type: text/html",
        b"407\n",
        b"409\ncontent-type: a/" + SECRET.encode(),
        b"401\nwww-authenticate: Basic",
        b"429\nretry-after: 120",
        b"503\nretry-after: Fri, 20 Nov 2026 08:50:07 GMT\ndate: Fri, 20 Nov 2026 08:49:37 GMT",
        b"302\nlocation: https://evil.example/" + SECRET.encode(),
        b"403\ncontent-type: text/html",
        b"200\ncontent-encoding: gzip",
        b"400\nset-cookie: a=" + SECRET.encode(),
    )
    refused = json.dumps(kind.refusals[0] if kind.refusals else {kind.code: 1}).encode()
    return (*whole, *(head + b"\n\n" + refused for head in heads), b"400\n\n" + SECRET.encode())


def _words(kind: Kind) -> tuple[bytes, ...]:
    names = (
        *kind.tokens,
        kind.lifetime,
        kind.code,
        "token_type",
        "error_codes",
        "expires_on",
        "expires_at",
        "sub_code",
    )
    return (
        *(f'"{name}":'.encode() for name in names if name),
        *(b"200\n", b"400\n", b"401\n", b"503\n", b"\n\n", b"retry-after: ", b"content-encoding: gzip\n"),
        *(b"\\u0000", b"\\r\\n", b"\\ud800", b"1e400", b"NaN", b"-0", b'"1_0"', SECRET.encode()),
    )


def _target(name: str, kind: Kind) -> Target:
    fetch: Callable[[bytes], None] = partial(_fetch, kind)
    field = kind.tokens[0] if kind.tokens else "code"
    openings = (b'200\n\n{"%s": "' % field.encode(), b'200\n\n{"%s": ' % kind.lifetime.encode(), b"429\nretry-after: ")
    # Two kinds are enough for the longest inputs, because all of them share the code that reads long values.
    max_bytes = 1 << (20 if name in ("oauth2", "wecom") else 16)
    return Target(f"grant.{name}", fetch, _seeds(kind), _words(kind), max_bytes, openings)


TARGETS = tuple(_target(name, kind) for name, kind in KINDS.items())
