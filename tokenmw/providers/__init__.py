"""Providers: credentials that fetch tokens, and the building blocks for providers of your own.

- `base`: the class `Provider`, its checks. `http`: `TokenHTTP`, which with `network` is all here that imports httpx;
  `http_client`: whose client it uses.
  `answer`: a token endpoint's response. `urls`: URLs and host names as options. `quiet_http`: keeps secrets out of HTTP
  logs. `network`: the HTTP client of our own.
- OAuth 2.0: `oauth2`, `jwt_bearer`, `token_exchange`, over `oauth_client`, which sends every token request,
  `discovery`, `request_fields` and `grant_reader`. How a client authenticates: `proof`, `public_client`, `client_auth`,
  `client_certificate` with `x509_dates`, `jwt_assertion`, `private_key_jwt`, `signing_key`. `dpop`, `dpop_requests`:
  tokens that are bound to a key. `subject`: tokens that are made from the caller's own. Microsoft: `entra`,
  `entra_on_behalf_of`, `bot_framework`, `microsoft_clouds`, `workload_identity`; `managed_identity` over
  `identity_environment`, `identity_sources` and `arc_challenge`.
- Bot platforms: `feishu`, `feishu_store`, `wecom`, `dingtalk`, over `platform` and `body_codes`.
- `static`: tokens that the program provides. `secret_sources`: secrets in files, variables and vaults.

Modules here know nothing of brokers, caches and Redis; they import `errors`, `options`, `values`, `redaction`, `clock`,
`limits` and `observe` only. A platform's module is imported at the first use of one of its names, because a service
uses one or two of them.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from tokenmw.options import credential_text
from tokenmw.providers.answer import Answer, lifetime
from tokenmw.providers.base import OutgoingAnswer, OutgoingRequest, Provider
from tokenmw.providers.http import TokenHTTP
from tokenmw.values import Grant

if TYPE_CHECKING:
    from tokenmw.providers.bot_framework import BotFramework
    from tokenmw.providers.client_certificate import ClientCertificate
    from tokenmw.providers.dingtalk import DingTalk, DingTalkLegacy
    from tokenmw.providers.dpop import DPoPKey
    from tokenmw.providers.entra import Entra
    from tokenmw.providers.entra_on_behalf_of import EntraOnBehalfOf
    from tokenmw.providers.feishu import FeishuApp, FeishuTenant
    from tokenmw.providers.feishu_store import FeishuStoreApp, FeishuStoreTenant, FeishuTicket
    from tokenmw.providers.jwt_bearer import JWTBearer
    from tokenmw.providers.managed_identity import ManagedIdentity
    from tokenmw.providers.network.options import HTTPOptions
    from tokenmw.providers.oauth2 import ClientCredentials
    from tokenmw.providers.private_key_jwt import PrivateKeyJWT
    from tokenmw.providers.secret_sources import EnvSecret, FileSecret, SecretSource
    from tokenmw.providers.static import StaticToken
    from tokenmw.providers.subject import SubjectToken
    from tokenmw.providers.token_exchange import TokenExchange
    from tokenmw.providers.wecom import WeCom

__all__ = [
    "Answer",
    "BotFramework",
    "ClientCertificate",
    "ClientCredentials",
    "DPoPKey",
    "DingTalk",
    "DingTalkLegacy",
    "Entra",
    "EntraOnBehalfOf",
    "EnvSecret",
    "FeishuApp",
    "FeishuStoreApp",
    "FeishuStoreTenant",
    "FeishuTenant",
    "FeishuTicket",
    "FileSecret",
    "Grant",
    "HTTPOptions",
    "JWTBearer",
    "ManagedIdentity",
    "OutgoingAnswer",
    "OutgoingRequest",
    "PrivateKeyJWT",
    "Provider",
    "SecretSource",
    "StaticToken",
    "SubjectToken",
    "TokenExchange",
    "TokenHTTP",
    "WeCom",
    "credential_text",
    "lifetime",
]

_MODULES: Final = {
    "BotFramework": "bot_framework",
    "ClientCertificate": "client_certificate",
    "ClientCredentials": "oauth2",
    "DPoPKey": "dpop",
    "DingTalk": "dingtalk",
    "DingTalkLegacy": "dingtalk",
    "Entra": "entra",
    "EntraOnBehalfOf": "entra_on_behalf_of",
    "EnvSecret": "secret_sources",
    "FeishuApp": "feishu",
    "FeishuStoreApp": "feishu_store",
    "FeishuStoreTenant": "feishu_store",
    "FeishuTenant": "feishu",
    "FeishuTicket": "feishu_store",
    "FileSecret": "secret_sources",
    "HTTPOptions": "network.options",
    "JWTBearer": "jwt_bearer",
    "ManagedIdentity": "managed_identity",
    "SecretSource": "secret_sources",
    "PrivateKeyJWT": "private_key_jwt",
    "StaticToken": "static",
    "SubjectToken": "subject",
    "TokenExchange": "token_exchange",
    "WeCom": "wecom",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value = getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULES})
