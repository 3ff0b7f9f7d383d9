"""No local variable in a traceback of the package and its libraries has a secret, as an error tracker records them."""

from __future__ import annotations

import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import redis.asyncio as redis

from tests.canary.rendering import rendered
from tokenmw import CredentialRejected, Grant, Provider, Token, TokenBroker, TokenUnavailable
from tokenmw.clock import SYSTEM_CLOCK
from tokenmw.limits import Limits
from tokenmw.providers import (
    BotFramework,
    ClientCredentials,
    DingTalk,
    DingTalkLegacy,
    DPoPKey,
    Entra,
    EntraOnBehalfOf,
    FeishuStoreApp,
    FeishuStoreTenant,
    FeishuTenant,
    FeishuTicket,
    JWTBearer,
    ManagedIdentity,
    SecretSource,
    StaticToken,
    TokenExchange,
    TokenHTTP,
    WeCom,
    credential_text,
)
from tokenmw.providers.quiet_http import with_query_token
from tokenmw.testing import Fault, ProviderServer

if TYPE_CHECKING:
    from collections.abc import Callable

TESTS = Path(__file__).parents[1]
SECRET = "s3cr3t-of-this-test"
KEY = SECRET.encode()
IMDS = "http://127.0.0.1/metadata/identity/oauth2/token"
TOKEN_URL = "http://127.0.0.1/oauth2/token"
LOCAL: dict[str, Any] = {"base_url": "http://127.0.0.1"}


def report_of(error: BaseException) -> str:
    """Return what an error tracker shows of an error, with the local variables of the standard library's frames."""
    parts, waiting = [rendered(error)], [error]
    while waiting:
        current = waiting.pop()
        waiting += [chained for chained in (current.__cause__, current.__context__) if chained is not None]
        for frame, _ in traceback.walk_tb(current.__traceback__):
            path = Path(frame.f_code.co_filename)
            if "site-packages" not in path.parts and not path.is_relative_to(TESTS):
                parts.append(f"{frame.f_code.co_qualname}: {frame.f_locals!r}")
    return "\n".join(parts)


def make(kind: Callable[..., Provider], secret: str, **options: Any) -> Callable[..., Provider]:
    """Return a function that makes a provider with the secret in this option; it takes more options."""

    def construct(**more: Any) -> Provider:
        return kind(**{secret: SECRET, **options, **more})

    return construct


def rotating(kind: Callable[..., Provider], secret: str, **options: Any) -> Callable[..., Provider]:
    """Return a function that makes a provider with the secret and a part of it, as during a rotation."""

    def construct(**more: Any) -> Provider:
        return kind(**{secret: [SECRET, SECRET[:-1]], **options, **more})

    return construct


def source(kind: Callable[..., Provider], secret: str, **options: Any) -> Callable[..., Provider]:
    """Return a function that makes a provider whose secret a function returns."""

    def construct(**more: Any) -> Provider:
        return kind(**{secret: SecretSource(lambda: SECRET, credential_id="crm"), **options, **more})

    return construct


def static(**options: Any) -> Provider:
    """Make a provider with a fixed token."""
    return StaticToken(SECRET, **options)


KINDS: dict[str, Callable[..., Provider]] = {
    "oauth2": make(ClientCredentials, "client_secret", client_id="c", token_url="http://127.0.0.1/oauth2/token"),
    "oauth2 post": make(
        ClientCredentials,
        "client_secret",
        client_id="c",
        token_url="http://127.0.0.1/oauth2/token",
        auth_method="client_secret_post",
    ),
    "assertion": make(
        ClientCredentials,
        "client_assertion",
        client_id="c",
        token_url="http://127.0.0.1/oauth2/token",
        auth_method="private_key_jwt",
    ),
    "feishu": make(FeishuTenant, "app_secret", app_id="a", **LOCAL),
    "feishu ticket": make(FeishuTicket, "app_secret", app_id="a", **LOCAL),
    "feishu store": make(FeishuStoreApp, "app_secret", app_id="a", **LOCAL),
    "feishu store tenant": make(FeishuStoreTenant, "app_secret", app_id="a", tenant_key="t", **LOCAL),
    "wecom": make(WeCom, "corp_secret", corp_id="c", **LOCAL),
    "dingtalk": make(DingTalk, "app_secret", app_key="a", **LOCAL),
    "dingtalk corp": make(DingTalk, "app_secret", app_key="a", corp_id="c", **LOCAL),
    "dingtalk legacy": make(DingTalkLegacy, "app_secret", app_key="a", **LOCAL),
    "entra": make(Entra, "client_secret", client_id="c", tenant="t", **LOCAL),
    "bot": make(BotFramework, "app_secret", app_id="a", tenant="t", **LOCAL),
    "identity": make(ManagedIdentity, "identity_header", resource="r", identity_endpoint=IMDS),
    "exchange": make(TokenExchange, "client_secret", client_id="c", token_url=TOKEN_URL, subject="ab.cd.ef"),
    "exchange subject": make(TokenExchange, "subject", client_id="c", token_url=TOKEN_URL, client_secret="other"),
    "exchange actor": make(
        TokenExchange, "actor", client_id="c", token_url=TOKEN_URL, client_secret="other", subject="ab.cd.ef"
    ),
    "bearer": make(JWTBearer, "assertion", token_url=TOKEN_URL),
    "bearer subject": make(JWTBearer, "subject", token_url=TOKEN_URL),
    "entra on behalf of": make(EntraOnBehalfOf, "subject", client_id="c", tenant="t", client_secret="other", **LOCAL),
    "static": static,
    "oauth2 rotating": rotating(
        ClientCredentials, "client_secret", client_id="c", token_url="http://127.0.0.1/oauth2/token"
    ),
    "feishu rotating": rotating(FeishuTenant, "app_secret", app_id="a", **LOCAL),
    "oauth2 source": source(ClientCredentials, "client_secret", client_id="c", token_url=TOKEN_URL),
    "feishu source": source(FeishuTenant, "app_secret", app_id="a", **LOCAL),
    "wecom rotating": rotating(WeCom, "corp_secret", corp_id="c", **LOCAL),
    "dingtalk rotating": rotating(DingTalk, "app_secret", app_key="a", **LOCAL),
    "entra rotating": rotating(Entra, "client_secret", client_id="c", tenant="t", **LOCAL),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("options", [{"hosts": "one"}, {"allow_http": True, "hosts": 1}, {"unknown": 1}, {"secret": 1}])
def test_a_wrong_option_of_a_provider_shows_no_secret(kind: str, options: dict[str, Any]) -> None:
    """The error of a wrong option does not show the secret, which is an argument of the same call."""
    with pytest.raises((ValueError, TypeError)) as caught:
        KINDS[kind](**options)
    assert SECRET not in report_of(caught.value)


class WrongIdentity(Provider):
    """A provider of the program with an invalid identity."""

    __slots__ = ("secret",)
    kind = "wrong"

    def __init__(self) -> None:
        self.secret = SECRET

    def identity(self) -> tuple[object, ...]:
        """Return the secret, and a set."""
        return (self.secret, frozenset({1}))

    async def fetch(self, http: TokenHTTP) -> Grant:
        """Raise; the identity is refused before."""
        raise NotImplementedError


URL = f"redis://user:{SECRET}@127.0.0.1"
MISTAKES: dict[str, Callable[[], object]] = {
    "newline": lambda: credential_text(f"{SECRET}\n", option="x"),
    "newline in a provider": lambda: WeCom(corp_id="c", corp_secret=f"{SECRET}\n"),
    "password in a URL": lambda: WeCom(corp_id="c", corp_secret="s", base_url=f"https://u:{SECRET}@idp.example"),
    "password of Redis": lambda: TokenBroker({}, redis=f"{URL}:port/0"),
    "option of Redis": lambda: TokenBroker({}, redis=f"{URL}:6379/0?socket_timeout=x"),
    "scheme of Redis": lambda: TokenBroker({}, redis=URL.replace("redis", "http")),
    "client of Redis": lambda: TokenBroker({}, redis=redis.Redis(password=SECRET, decode_responses=True)),
    "secret_key": lambda: TokenBroker({}, redis=f"{URL}:6379", secret_key=[SECRET, "short"]),
    "secret_key twice": lambda: TokenBroker({}, secret_key=[SECRET, SECRET]),
    "name_key": lambda: TokenBroker({}, secret_key=SECRET, name_key=f"{SECRET}\n"),
    "another option": lambda: TokenBroker({}, redis=f"{URL}:6379", secret_key=SECRET, namespace="a b"),
    "unknown option": lambda: TokenBroker({}, redis=f"{URL}:6379", secret=SECRET),  # type: ignore[call-arg]
    "secret as provider": lambda: TokenBroker({"crm": SECRET}),  # type: ignore[dict-item]
    "override": lambda: TokenBroker({}).override({"crm": SECRET}).__enter__(),  # type: ignore[dict-item]
    "identity": lambda: TokenBroker({"crm": WrongIdentity()}, redis=f"{URL}:6379"),
    "identity of a provider given by value": lambda: TokenBroker({}).auth(WrongIdentity()),
    "grant": lambda: Grant(f"{SECRET} ", expires_in=1),
    "lifetime of a grant": lambda: Grant(SECRET, expires_in="soon"),  # type: ignore[arg-type]
    "extra of a grant": lambda: Grant("t", expires_in=1, extra={SECRET: {SECRET}}),
    "token": lambda: Token(SECRET, provider="crm", expires_at=1.0, extra=1),  # type: ignore[arg-type]
    "key of DPoP": lambda: DPoPKey(f"-----BEGIN PRIVATE KEY-----\n{SECRET}\n-----END PRIVATE KEY-----"),
    "JWK of DPoP": lambda: DPoPKey({"kty": "EC", "crv": "P-256", "x": SECRET, "y": SECRET, "d": SECRET}),
    "long URL": lambda: with_query_token(httpx.URL(f"https://h/?{'a' * 60_000}"), "t", SECRET * 1000),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_wrong_argument_shows_no_secret(mistake: str) -> None:
    """The error of a constructor or function, and the errors that it is chained to, do not show the secret."""
    with pytest.raises((ValueError, TypeError, TokenUnavailable, httpx.InvalidURL)) as caught:
        MISTAKES[mistake]()
    assert SECRET not in report_of(caught.value)


TOKENS = ("access_token", "accessToken", "tenant_access_token", "app_access_token")
LIFETIMES = ("expires_in", "expireIn", "expire")
ANSWERS: dict[str, Fault] = {
    "closed": Fault(close=True),
    "busy": Fault(status=503),
    "refused": Fault(status=400, body={"error": SECRET, "error_codes": [7000215], "code": SECRET, "errcode": SECRET}),
    "no JSON": Fault(status=200, body=f"<html>{SECRET}"),
    "a list": Fault(status=200, body=[SECRET]),
    "no lifetime": Fault(body=dict.fromkeys(TOKENS, SECRET) | dict.fromkeys(LIFETIMES, "x")),
    "no token": Fault(body=dict.fromkeys(TOKENS, f"{SECRET}\n") | dict.fromkeys(LIFETIMES, 60)),
}


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "static"])
@pytest.mark.parametrize("answer", ANSWERS)
async def test_a_failed_fetch_shows_no_secret(kind: str, answer: str) -> None:
    """The error shows neither the credential, nor what the server repeats, nor an unusable token."""
    server = ProviderServer()
    for endpoint in vars(server).values():
        if hasattr(endpoint, "script"):
            endpoint.script.always = ANSWERS[answer]
    async with httpx.AsyncClient(transport=server.transport()) as client:
        http = TokenHTTP(client, limits=Limits(), clock=SYSTEM_CLOCK)
        with pytest.raises((TokenUnavailable, CredentialRejected)) as caught:
            await KINDS[kind]().fetch(http)
    # A store app needs the tokens of a broker, so it sends no request here; all others do.
    assert server.calls or "store" in kind
    assert SECRET not in report_of(caught.value)


FUNCTIONS: dict[str, Provider] = {
    "bytes": StaticToken(lambda: KEY),  # type: ignore[arg-type, return-value]
    "spaces": StaticToken(lambda: f"{SECRET} "),
    "raises": StaticToken(lambda: str(int(SECRET))),
    "long": ClientCredentials(
        client_id="c",
        token_url="https://idp.example",
        auth_method="private_key_jwt",
        client_assertion=lambda: SECRET * 10_000,
    ),
}


@pytest.mark.parametrize("function", FUNCTIONS)
async def test_a_value_returned_by_a_function_is_not_report_of(function: str) -> None:
    """The error shows nothing of what the function returned: it may be the token in a wrong form."""
    async with httpx.AsyncClient() as client:
        with pytest.raises(TokenUnavailable) as caught:
            await FUNCTIONS[function].fetch(TokenHTTP(client, limits=Limits(), clock=SYSTEM_CLOCK))
    assert SECRET not in report_of(caught.value)


@pytest.mark.parametrize("extra", [{SECRET: {SECRET}}, {"a": {SECRET: float("nan")}}, {"a": [{SECRET: object()}]}])
def test_an_extra_that_is_not_json_has_no_context(extra: dict[str, Any]) -> None:
    """The error of the JSON encoder is no context of ours: from Python 3.14 on, its notes have the keys."""
    with pytest.raises(TokenUnavailable, match="not JSON") as caught:
        Grant("t", expires_in=1, extra=extra)
    assert caught.value.__context__ is None
