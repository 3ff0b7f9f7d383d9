"""The bot platforms, each with the facts that its tests need."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tokenmw.providers import DingTalk, DingTalkLegacy, FeishuApp, FeishuTenant, Provider, WeCom

if TYPE_CHECKING:
    from collections.abc import Callable

    from tokenmw.testing import ProviderServer
    from tokenmw.testing.provider_server import TokenEndpoint

CLIENT, SECRET = "client-1", "s3cr3t & more/ä=%"
BASE = "https://platform.example"


@dataclass(frozen=True, kw_only=True)
class Platform:
    """One provider, with its endpoint and API in `ProviderServer`."""

    name: str
    kind: Callable[..., Provider]
    client: str
    secret: str
    token: str
    lifetime: str
    api: str
    api_name: str
    options: dict[str, Any] = field(default_factory=dict[str, Any])

    def make(self, base_url: str = BASE, **options: Any) -> Provider:
        """Make the provider of the only client."""
        given = {self.client: CLIENT, self.secret: SECRET, "base_url": base_url, **self.options, **options}
        return self.kind(**given)

    def endpoint(self, server: ProviderServer) -> TokenEndpoint:
        """Return its token endpoint."""
        endpoint: TokenEndpoint = getattr(server, self.name)
        return endpoint

    def __str__(self) -> str:
        return self.name


_FEISHU: dict[str, Any] = {"client": "app_id", "secret": "app_secret", "lifetime": "expire"}
_FEISHU_API: dict[str, Any] = {"api": "/open-apis/im/v1/messages", "api_name": "feishu_api"}
_DINGTALK: dict[str, Any] = {
    "client": "app_key",
    "secret": "app_secret",
    "api": "/v1.0/robot/send",
    "api_name": "dingtalk_api",
}
PLATFORMS = [
    Platform(name="feishu_tenant", kind=FeishuTenant, token="tenant_access_token", **_FEISHU, **_FEISHU_API),
    Platform(name="feishu_app", kind=FeishuApp, token="app_access_token", **_FEISHU, **_FEISHU_API),
    Platform(
        name="wecom",
        kind=WeCom,
        client="corp_id",
        secret="corp_secret",
        token="access_token",
        lifetime="expires_in",
        api="/cgi-bin/message/send",
        api_name="wecom_api",
    ),
    Platform(name="dingtalk", kind=DingTalk, token="accessToken", lifetime="expireIn", **_DINGTALK),
    Platform(
        name="dingtalk_corp",
        kind=DingTalk,
        token="access_token",
        lifetime="expires_in",
        options={"corp_id": "ding 1?"},
        **_DINGTALK,
    ),
    Platform(
        name="dingtalk_legacy",
        kind=DingTalkLegacy,
        client="app_key",
        secret="app_secret",
        token="access_token",
        lifetime="expires_in",
        api="/topapi/message/send",
        api_name="dingtalk_legacy_api",
    ),
]
