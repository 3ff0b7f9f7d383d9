"""Providers: credentials that can be turned into tokens, and what a new one is written with.

A platform's module is imported when one of its names is first asked for: a service uses one or two of them.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from tokenmw.options import credential_text
from tokenmw.providers.answer import Answer
from tokenmw.providers.base import OutgoingAnswer, OutgoingRequest, Provider, lifetime
from tokenmw.providers.http import TokenHTTP
from tokenmw.values import Grant

if TYPE_CHECKING:
    from tokenmw.providers.dingtalk import DingTalk
    from tokenmw.providers.dingtalk_legacy import DingTalkLegacy
    from tokenmw.providers.feishu import FeishuApp, FeishuTenant
    from tokenmw.providers.feishu_store import FeishuStoreApp, FeishuStoreTenant, FeishuTicket
    from tokenmw.providers.managed_identity import ManagedIdentity
    from tokenmw.providers.microsoft import BotFramework, Entra
    from tokenmw.providers.oauth2 import ClientCredentials
    from tokenmw.providers.static import StaticToken
    from tokenmw.providers.wecom import WeCom

__all__ = [
    "Answer",
    "BotFramework",
    "ClientCredentials",
    "DingTalk",
    "DingTalkLegacy",
    "Entra",
    "FeishuApp",
    "FeishuStoreApp",
    "FeishuStoreTenant",
    "FeishuTenant",
    "FeishuTicket",
    "Grant",
    "ManagedIdentity",
    "OutgoingAnswer",
    "OutgoingRequest",
    "Provider",
    "StaticToken",
    "TokenHTTP",
    "WeCom",
    "credential_text",
    "lifetime",
]

_MODULES: Final = {
    "BotFramework": "microsoft",
    "ClientCredentials": "oauth2",
    "DingTalk": "dingtalk",
    "DingTalkLegacy": "dingtalk_legacy",
    "Entra": "microsoft",
    "FeishuApp": "feishu",
    "FeishuStoreApp": "feishu_store",
    "FeishuStoreTenant": "feishu_store",
    "FeishuTenant": "feishu",
    "FeishuTicket": "feishu_store",
    "ManagedIdentity": "managed_identity",
    "StaticToken": "static",
    "WeCom": "wecom",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value = getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULES})
