"""All providers with all their options, and a custom provider. Never executed: mypy and pyright check them.

A line that must be an error has a `type: ignore` with the error's name; the checkers report one that is not needed.
"""

# pyright: reportUnnecessaryTypeIgnoreComment=true

from __future__ import annotations

from collections.abc import Iterable, Mapping, MutableMapping
from typing import Any, assert_type

from tokenmw import ConfigurationError, CredentialRejected, Grant, Token, TokenBroker, TokenUnavailable
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
    FileSecret,
    ManagedIdentity,
    OutgoingAnswer,
    OutgoingRequest,
    PrivateKeyJWT,
    Provider,
    StaticToken,
    TokenHTTP,
    WeCom,
    credential_text,
    lifetime,
)


def assertion() -> str:
    """Sign an assertion."""
    return "…"


async def async_assertion() -> str:
    """Sign an assertion, asynchronously."""
    return "…"


async def async_grant() -> Grant:
    """Read a token with its lifetime."""
    return Grant("t", expires_in=60.0, token_type="Bearer", extra={"instance_url": "https://acme.example"})


BASE = "https://platform.example"
HOSTS = ["api.example", ".all.example"]

crm = ClientCredentials(
    token_url=f"{BASE}/token",
    client_id="crm",
    client_secret="…",
    scope="crm.read",
    audience="crm",
    resource=BASE,
    auth_method="client_secret_post",
    refresh_before=60,
    hosts=HOSTS,
    allow_http=False,
)
ClientCredentials(token_url=BASE, client_id="crm", auth_method="private_key_jwt", client_assertion=assertion)
ClientCredentials(token_url=BASE, client_id="crm", client_assertion=async_assertion, credential_id="key-1")
ClientCredentials(issuer=BASE, client_id="crm", client_secret="…")
KEY = PrivateKeyJWT("…", key_id="key-1", algorithm="ES256", certificate=b"-")
PrivateKeyJWT(file="key.pem")
PrivateKeyJWT({"kty": "EC"})
PrivateKeyJWT("…", algorithm="HS256")  # type: ignore[arg-type]
ClientCredentials(token_url=BASE, client_id="crm", auth_method="private_key_jwt", client_assertion=KEY)
ClientCredentials(token_url=BASE, client_id="crm", client_secret="…", auth_method="client_secret_jwt")
Entra(tenant="contoso.example", client_id="…", client_assertion=KEY)
BotFramework(app_id="…", client_assertion=KEY)
ClientCredentials(token_url=BASE, client_id="crm", client_secret=b"secret")  # type: ignore[arg-type]
ClientCredentials(token_url=BASE, client_id="crm", auth_method="basic")  # type: ignore[arg-type]
ClientCredentials(token_url=BASE, client_id="crm", client_secret="…", params={"org": "1"}, json=True, resource=[BASE])
ClientCredentials(token_url=BASE, client_id="crm", client_secret="…", grant_type="account_credentials")
ClientCredentials(token_url=BASE, client_id="crm", client_secret="…", params={"org": 1})  # type: ignore[dict-item]
ClientCredentials(token_url=BASE, client_id="crm", client_secret="…", grant_type="password")  # type: ignore[arg-type]
ClientCredentials(BASE, "crm", "…")  # type: ignore[call-arg]
FeishuTenant(app_id="cli_a1", app_secret="…", base_url=BASE, refresh_before=600.0, hosts=HOSTS, allow_http=True)
FeishuApp(app_id="cli_a1", app_secret="…", base_url=BASE, refresh_before=600.0, hosts={"api.example"})
FeishuTicket(app_id="cli_s1", app_secret="…", base_url=BASE)
FeishuStoreApp(app_id="cli_s1", app_secret="…", base_url=BASE, hosts=HOSTS)
FeishuStoreTenant(app_id="cli_s1", app_secret="…", tenant_key="…", base_url=BASE, hosts=HOSTS)
FeishuStoreTenant(app_id="cli_s1", app_secret="…")  # type: ignore[call-arg]
WeCom(corp_id="ww1", corp_secret="…", base_url=BASE, hosts=HOSTS, allow_http=False)
WeCom(corp_id="ww1", corp_secret="…", hosts=5)  # type: ignore[arg-type]
DingTalk(app_key="ding1", app_secret="…", corp_id="ding2", base_url=BASE, refresh_before=60, hosts=HOSTS)
DingTalkLegacy(app_key="ding1", app_secret="…", base_url=BASE, refresh_before=60, hosts=HOSTS)
Entra(tenant="contoso.example", client_id="…", client_secret="…", scope=f"{BASE}/.default", cloud="usgov")
Entra(tenant="contoso.example", client_id="…", client_assertion=async_assertion, credential_id="key-1", hosts=HOSTS)
Entra(tenant="contoso.example", client_id="…", client_secret="…", cloud="moon")  # type: ignore[arg-type]
BotFramework(app_id="…", app_secret="…", tenant="contoso.example", refresh_before=600, allow_http=False)
BotFramework(app_id="…", client_assertion=assertion, cloud="china", base_url=BASE)
ManagedIdentity(resource="https://graph.microsoft.com", client_id="…")
ManagedIdentity(resource=BASE, identity_endpoint=BASE, identity_header="…", hosts=HOSTS)
ManagedIdentity(resource=BASE, resource_id="/subscriptions/…", source="azure_arc", identity_endpoint=BASE)
ManagedIdentity(resource=BASE, source="aws")  # type: ignore[arg-type]
assert_type(ManagedIdentity.from_environment(resource=BASE, object_id="…", hosts=HOSTS), ManagedIdentity | Entra)
assert_type(Entra.from_environment(scope=f"{BASE}/.default", cloud="china"), Entra)
assert_type(BotFramework.from_environment(), BotFramework)
Entra(tenant="t", client_id="c", client_assertion=FileSecret("/run/secrets/token"))
StaticToken("t", expires_in=60, token_type="Token", hosts=HOSTS)
StaticToken(assertion, credential_id="assertions")
StaticToken(async_assertion)
StaticToken(async_grant)
StaticToken(lambda: 5)  # type: ignore[arg-type, return-value]


class Acme(Provider):
    """A provider that uses every feature of the base class."""

    __slots__ = ("_key", "_secret", "allow_http", "hosts", "refresh_before")

    kind = "acme"
    scheme = None
    exclusive = True
    renewal_window = 60.0
    _key: str
    _secret: str

    def __init__(self, *, key: str, secret: str, refresh_before: float | None = None, hosts: Iterable[str]) -> None:
        self._key = credential_text(key, option="Acme(key=…)")
        self._secret = credential_text(secret, option="Acme(secret=…)", empty=True)
        self.refresh_before = refresh_before
        self.hosts = frozenset(hosts)
        self.allow_http = False
        if not self._key:
            raise ConfigurationError("Acme(key=…) is empty.")

    def identity(self) -> tuple[object, ...]:
        """Return the key and its secret."""
        return (self._key, self._secret)

    async def fetch(self, http: TokenHTTP) -> Grant:
        """Request a token with another provider's token."""
        other = await http.token(crm)
        assert_type(other, Token)
        answer = await http.request(
            "POST", BASE, data={"key": self._key}, json=None, headers={"Authorization": other.authorization}
        )
        assert_type(answer, Answer)
        assert_type(answer.headers, Mapping[str, str])
        assert_type(answer.retry_after, float | None)
        answer.check_busy()
        if answer.status == 401:
            await http.invalidate(other)
            raise TokenUnavailable("Acme refuses the token", retry_after=answer.retry_after, said=True)
        if answer.status == 403:
            raise CredentialRejected("Acme refuses the key", code="403")
        fields = answer.json()
        assert_type(fields, dict[str, Any])
        return Grant(fields["token"], expires_in=lifetime(fields.get("ttl"), default=300))

    def authorize(self, request: OutgoingRequest, token: Token) -> None:
        """Put the token into Acme's own header."""
        assert_type(request.headers, MutableMapping[str, str])
        request.headers["X-Acme-Token"] = token.value
        request.url = request.url.copy_set_param("version", "2")

    def is_rejected(self, answer: OutgoingAnswer) -> bool | None:
        """Check the body of a 400."""
        assert_type(answer.status, int)
        assert_type(answer.headers, Mapping[str, str])
        assert_type(answer.body, bytes | None)
        if answer.status != 400:
            return False
        return None if answer.body is None else b"bad token" in answer.body


class Sync(Provider):
    """A provider whose methods have wrong signatures."""

    __slots__ = ()
    kind = "sync"

    def fetch(self, http: TokenHTTP) -> Grant:  # type: ignore[override]
        """Return a grant without being async."""
        return Grant("t", expires_in=5)

    def authorize(self, request: OutgoingRequest, token: str) -> None:  # type: ignore[override]
        """Take the token as text."""


acme = Acme(key="k", secret="s", hosts=HOSTS)
assert_type(acme.kind, str)
assert_type(acme.hosts, frozenset[str] | None)
assert_type(acme == crm, bool)
TokenBroker({"acme": acme, "crm": crm}, single_process=True)
TokenBroker({"acme": Acme})  # type: ignore[dict-item]
