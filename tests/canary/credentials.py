"""The secrets of the campaign, and the providers that have them: the same in each of its processes."""

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
    "basic": lambda at: ClientCredentials(token_url=f"{at}/token", client_id="basic", client_secret=_secret("basic")),
    "post": lambda at: ClientCredentials(
        token_url=f"{at}/token", client_id="post", client_secret=_secret("post"), auth_method="client_secret_post"
    ),
    "jwt": lambda at: ClientCredentials(
        token_url=f"{at}/token",
        client_id="jwt",
        auth_method="private_key_jwt",
        client_assertion=lambda: _secret("jwt"),
        credential_id=at,
    ),
    "feishu_tenant": lambda at: FeishuTenant(app_id="cli_t", app_secret=_secret("feishu_tenant"), base_url=at),
    "feishu_app": lambda at: FeishuApp(app_id="cli_a", app_secret=_secret("feishu_app"), base_url=at),
    "feishu_store": lambda at: FeishuStoreTenant(
        app_id="cli_s", app_secret=_secret("feishu_store"), tenant_key="t-1", base_url=at
    ),
    "wecom": lambda at: WeCom(corp_id="ww1", corp_secret=_secret("wecom"), base_url=at),
    "dingtalk": lambda at: DingTalk(app_key="ding1", app_secret=_secret("dingtalk"), base_url=at),
    "dingtalk_corp": lambda at: DingTalk(
        app_key="ding2", app_secret=_secret("dingtalk_corp"), corp_id="corp", base_url=at
    ),
    "dingtalk_legacy": lambda at: DingTalkLegacy(app_key="ding3", app_secret=_secret("dingtalk_legacy"), base_url=at),
    "entra": lambda at: Entra(tenant="t.example", client_id="entra", client_secret=_secret("entra"), base_url=at),
    "bot": lambda at: BotFramework(app_id="bot", app_secret=_secret("bot"), tenant="t.example", base_url=at),
    "managed": lambda at: ManagedIdentity(
        resource="https://api.example", identity_endpoint=at, identity_header=_secret("managed"), client_id="m"
    ),
    "static": lambda _at: StaticToken(_secret("static")),
    "function": lambda at: StaticToken(_function(at), credential_id=at),
}
"""How to make the provider of each kind, for a base URL."""

for _kind in KINDS:
    # So that each process can tell what it finds.
    canary(f"token of {_kind}")
    _secret(_kind)
TOKENS: Final = frozenset({"app_ticket", *(f"token of {kind}" for kind in KINDS)})
FAILING: Final = (
    "refuses",
    "refuses-by-code",
    "is-busy",
    "fails",
    "fails-in-words",
    "sends-a-page",
    "sends-garbage",
    "redirects",
    "grants-two-lines",
    "grants-no-life",
    "sets-a-cookie",
    "breaks-http",
    "is-no-http",
    "is-cut",
    "closes",
    "nobody",
    "hangs",
)
"""The ways in which a token endpoint fails; at "nobody" nobody listens."""


def providers_of(way: str, *, port: int) -> dict[str, Provider]:
    """Make a provider of each kind whose endpoint answers in one way."""
    return {f"{kind}/{way}": make(f"http://127.0.0.1:{port}/{way}/{kind}") for kind, make in KINDS.items()}


def ticket(*, port: int) -> FeishuTicket:
    """Make the credential under which a store app's ticket is handed in."""
    return FeishuTicket(
        app_id="cli_s", app_secret=_secret("feishu_store"), base_url=f"http://127.0.0.1:{port}/grants/feishu_store"
    )


def _function(at: str) -> Callable[[], str]:
    def make() -> str:
        if "/grants/" not in at:
            raise RuntimeError(f"The vault refuses {_secret('function')}.")
        return canary("token of function")

    return make
