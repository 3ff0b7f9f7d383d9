"""Invalid options that contain a secret, or are passed together with one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.canary.canaries import canary
from tests.canary.credentials import REDIS_PASSWORD, SECRETS
from tokenmw import APIKeySource, TokenBroker, TokenMiddleware
from tokenmw.providers import BotFramework, ClientCredentials, DingTalk, Entra, FeishuTenant, StaticToken, WeCom

__all__ = ["errors_of_wrong_options"]

_SECRET = canary("secret of basic")
_URL = "https://idp.example/token"


def errors_of_wrong_options() -> list[Exception]:
    """Construct an object with each invalid option, and return the exceptions."""
    raised: list[Exception] = []
    for construct in _CONSTRUCTORS:
        try:
            construct()
        except Exception as error:  # noqa: BLE001  every kind of exception is rendered and searched
            raised.append(error)
    return raised


def _broker(**options: Any) -> Callable[[], object]:
    return _call(TokenBroker, **{"providers": {}, **options})


def _client(**options: Any) -> Callable[[], object]:
    return _call(ClientCredentials, **{"token_url": _URL, "client_id": "c", "client_secret": _SECRET, **options})


def _call(constructor: Any, *values: Any, **options: Any) -> Callable[[], object]:
    return lambda: constructor(*values, **options)


_REDIS = f"redis://:{REDIS_PASSWORD}@"
_CONSTRUCTORS: tuple[Callable[[], object], ...] = (
    # The password has a "/" and a "%", so it makes even the first of these URLs invalid.
    *(
        _broker(redis=f"{_REDIS}{rest}")
        for rest in ("host:6379/0", "host:port/0", "host/zero", "[host/0", "host/0?x=y")
    ),
    *(_broker(redis=url) for url in (REDIS_PASSWORD, f"http://{REDIS_PASSWORD}@host", f"redis://h?{REDIS_PASSWORD}=1")),
    _broker(redis=f"redis://host?password={REDIS_PASSWORD}&socket_timeout=soon"),
    _broker(redis=f"redis://host?socket_timeout={REDIS_PASSWORD}"),
    _broker(redis=[REDIS_PASSWORD]),
    _broker(secret_key=SECRETS["secret_key"].encode()),
    _broker(secret_key=[SECRETS["secret_key"], SECRETS["secret_key"]]),
    _broker(secret_key=[SECRETS["secret_key"], SECRETS["name_key"] + "\n"]),
    _broker(secret_key={SECRETS["secret_key"]: 1}),
    _broker(name_key=SECRETS["name_key"] + "\n"),
    _broker(name_key=[SECRETS["name_key"]]),
    _broker(secret_key=SECRETS["secret_key"], seal=SECRETS["secret_key"]),
    _broker(namespace=SECRETS["name_key"]),
    _broker(secret_key=SECRETS["secret_key"], redis=f"{_REDIS}host:6379/0", providers={"crm": _SECRET}),
    _broker(providers={"crm": ClientCredentials}, name_key=SECRETS["name_key"]),
    _broker(providers={_SECRET.encode(): StaticToken("t")}),
    _broker(providers=_SECRET),
    _broker(http=_SECRET),
    _broker(observers=[_SECRET]),
    _broker(limits=_SECRET),
    _client(client_secret=_SECRET + "\n"),
    _client(client_secret=_SECRET.encode()),
    _client(client_secret=[_SECRET, _SECRET]),
    _client(client_secret=[[_SECRET]]),
    _client(client_secret={_SECRET: "new"}),
    _client(client_secret=[_SECRET, "old\n"]),
    _client(token_url=f"https://crm:{_SECRET}@idp.example/token"),
    _client(token_url=f"http://idp.example/token?secret={_SECRET}"),
    _client(token_url=f"{_URL}#{_SECRET}"),
    _client(token_url=_SECRET),
    _client(auth_method=_SECRET),
    _client(client_assertion=_SECRET),
    _client(hosts=_SECRET),
    _client(hosts=[_SECRET]),
    _client(refresh_before=_SECRET),
    _client(allow_http=_SECRET),
    _call(WeCom, corp_id="ww1", corp_secret=_SECRET, base_url=f"https://u:{_SECRET}@host"),
    _call(FeishuTenant, app_id="cli", app_secret=_SECRET, base_url=f"https://host?{_SECRET}"),
    _call(DingTalk, app_key="ding", app_secret=_SECRET, refresh_before=_SECRET),
    _call(Entra, tenant="common", client_id="e", client_secret=_SECRET),
    _call(Entra, tenant="t.example", client_id="e", client_secret=_SECRET, scope=f"a {_SECRET}"),
    _call(BotFramework, app_id="b", app_secret=_SECRET, cloud="none"),
    _call(StaticToken, f"{_SECRET} {_SECRET}"),
    _call(StaticToken, _SECRET, token_type="two words"),
    _call(StaticToken, _SECRET, credential_id=_SECRET + "\n"),
    _call(APIKeySource, headers=["a b"], query=[]),
    lambda: TokenMiddleware(_app, broker=TokenBroker({}, name_key=SECRETS["name_key"]), inject=["crm"]),
)


async def _app(*_: Any) -> None: ...
