"""The secrets of the campaign and providers with them; they are the same in every process."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from tests.canary.canaries import canary
from tokenmw.providers import (
    BotFramework,
    ClientCredentials,
    DingTalk,
    DingTalkLegacy,
    Entra,
    FeishuApp,
    FeishuStoreTenant,
    FeishuTenant,
    FeishuTicket,
    ManagedIdentity,
    StaticToken,
    WeCom,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from tokenmw import Provider

__all__ = ["API_KEYS", "FAILING", "KINDS", "REDIS_PASSWORD", "SECRETS", "TICKET", "TOKENS", "providers_of", "ticket"]

REDIS_PASSWORD: Final = canary("redis password")
TICKET: Final = canary("app_ticket")
SECRETS: Final = {name: canary(name) for name in ("secret_key", "older secret_key", "foreign secret_key", "name_key")}
API_KEYS: Final = {
    name: canary(f"API key, {name}")
    for name in (
        "bearer",
        "x-api-key",
        "query",
        "cookie",
        "websocket",
        "refused",
        "failing",
        "broker",
        "plain",
        "reset",
    )
}


def _secret(kind: str) -> str:
    return canary(f"secret of {kind}")


KINDS: Final[dict[str, Callable[[str], Provider]]] = {
    "basic": lambda url: ClientCredentials(token_url=f"{url}/token", client_id="basic", client_secret=_secret("basic")),
    "post": lambda url: ClientCredentials(
        token_url=f"{url}/token", client_id="post", client_secret=_secret("post"), auth_method="client_secret_post"
    ),
    "jwt": lambda url: ClientCredentials(
        token_url=f"{url}/token",
        client_id="jwt",
        auth_method="private_key_jwt",
        client_assertion=lambda: _secret("jwt"),
        credential_id=url,
    ),
    "feishu_tenant": lambda url: FeishuTenant(app_id="cli_t", app_secret=_secret("feishu_tenant"), base_url=url),
    "feishu_app": lambda url: FeishuApp(app_id="cli_a", app_secret=_secret("feishu_app"), base_url=url),
    "feishu_store": lambda url: FeishuStoreTenant(
        app_id="cli_s", app_secret=_secret("feishu_store"), tenant_key="t-1", base_url=url
    ),
    "wecom": lambda url: WeCom(corp_id="ww1", corp_secret=_secret("wecom"), base_url=url),
    "dingtalk": lambda url: DingTalk(app_key="ding1", app_secret=_secret("dingtalk"), base_url=url),
    "dingtalk_corp": lambda url: DingTalk(
        app_key="ding2", app_secret=_secret("dingtalk_corp"), corp_id="corp", base_url=url
    ),
    "dingtalk_legacy": lambda url: DingTalkLegacy(app_key="ding3", app_secret=_secret("dingtalk_legacy"), base_url=url),
    "entra": lambda url: Entra(tenant="t.example", client_id="entra", client_secret=_secret("entra"), base_url=url),
    "bot": lambda url: BotFramework(app_id="bot", app_secret=_secret("bot"), tenant="t.example", base_url=url),
    "rotating": lambda url: ClientCredentials(
        token_url=f"{url}/token", client_id="rotating", client_secret=[_secret("rotating"), _secret("rotated out")]
    ),
    "wecom_rotating": lambda url: WeCom(
        corp_id="ww2", corp_secret=[_secret("wecom_rotating"), _secret("wecom_rotated_out")], base_url=url
    ),
    "managed": lambda url: ManagedIdentity(
        resource="https://api.example", identity_endpoint=url, identity_header=_secret("managed"), client_id="m"
    ),
    "static": lambda _url: StaticToken(_secret("static")),
    "function": lambda url: StaticToken(_function(url), credential_id=url),
}
"""Makes the provider of each kind for a base URL."""

for _kind in KINDS:
    # Registered in every process, so that `hits` recognises the kind.
    canary(f"token of {_kind}")
    _secret(_kind)
TOKENS: Final = frozenset({"app_ticket", *(f"token of {kind}" for kind in KINDS)})
FAILING: Final = (
    "refuses",
    "refuses-by-code",
    "is-busy",
    "fails",
    "fails-with-a-reason-phrase",
    "sends-a-page",
    "sends-garbage",
    "redirects",
    "grants-two-lines",
    "grants-no-lifetime",
    "sets-a-cookie",
    "breaks-http",
    "is-not-http",
    "is-truncated",
    "closes",
    "unreachable",
    "hangs",
)
"""The behaviours of a token endpoint that fails; the port of "unreachable" is closed."""


def providers_of(behaviour: str, *, port: int) -> dict[str, Provider]:
    """Make a provider of each kind whose token endpoint has this behaviour."""
    return {f"{kind}/{behaviour}": make(f"http://127.0.0.1:{port}/{behaviour}/{kind}") for kind, make in KINDS.items()}


def ticket(*, port: int) -> FeishuTicket:
    """Make the credential for which a store app's ticket is handed in."""
    return FeishuTicket(
        app_id="cli_s", app_secret=_secret("feishu_store"), base_url=f"http://127.0.0.1:{port}/grants/feishu_store"
    )


def _function(url: str) -> Callable[[], str]:
    def make() -> str:
        if "/grants/" not in url:
            raise RuntimeError(f"The vault refused {_secret('function')}.")
        return canary("token of function")

    return make
