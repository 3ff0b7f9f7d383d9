"""Microsoft Entra ID, and the bots of the Bot Framework, which are apps of it: Teams and other channels."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from tokenmw.errors import ConfigurationError
from tokenmw.options import credential_text, positive_seconds
from tokenmw.providers.base import OutgoingAnswer, Provider
from tokenmw.providers.base_url import checked_base_url
from tokenmw.providers.client_auth import ClientAuth
from tokenmw.providers.microsoft_answer import entra_grant
from tokenmw.providers.microsoft_clouds import Cloud, checked_tenant, cloud_of, hosts_of_resource
from tokenmw.providers.oauth2_answer import bearer_rejected
from tokenmw.providers.options import host_names
from tokenmw.redaction import without_locals

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from tokenmw.providers.http import TokenHTTP
    from tokenmw.values import Grant

__all__ = ["BotFramework", "Entra"]


class Entra(Provider):
    """An app of Microsoft Entra ID that calls an API in its own name.

    >>> Entra(tenant="contoso.onmicrosoft.com", client_id="00000000-…", client_secret="…")
    <Entra>

    The endpoint gives out another token each time, and earlier ones stay valid
    (https://learn.microsoft.com/entra/identity-platform/v2-oauth2-client-creds-grant-flow).

    Args:
        tenant: The tenant's id, or one of its domains.
        client_id: The app's id.
        client_secret: The value of one of its secrets.
        client_assertion: Instead of a secret: a signed JWT, or a function, sync or async, that returns a new one; also
            for federated credentials.
        credential_id: A name for the key behind `client_assertion`, to be changed with the key. Without it, the tokens
            that a function got are shared neither with other objects nor with Redis.
        scope: One resource with `/.default` behind it; None: Microsoft Graph of the cloud.
        cloud: `"public"`, `"usgov"`, `"usdod"` or `"china"`.
        base_url: Another login host than the cloud's, such as a test server's.
        refresh_before: Seconds before expiry at which a new token is fetched; None for the default.
        hosts: Host names to which an auth object may send the token, one that begins with a dot standing for all below
            it; None: those of Graph if the scope is Graph's, else wherever it is used.
        allow_http: Allows to do without TLS outside this machine.

    Raises:
        ConfigurationError: Options are missing, contradict each other, or cannot work; so `tenant="common"`.
    """

    __slots__ = (
        "_auth",
        "_scope",
        "allow_http",
        "hosts",
        "refresh_before",
        "shareable",
        "tenant",
        "token_url",
    )

    kind = "entra"
    tenant: str
    token_url: str

    @without_locals
    def __init__(
        self,
        *,
        tenant: str,
        client_id: str,
        client_secret: str | None = None,
        client_assertion: str | Callable[[], str | Awaitable[str]] | None = None,
        credential_id: str | None = None,
        scope: str | None = None,
        cloud: Cloud = "public",
        base_url: str | None = None,
        refresh_before: float | None = None,
        hosts: Iterable[str] | None = None,
        allow_http: bool = False,
    ) -> None:
        name = type(self).__name__
        chosen = cloud_of(cloud, option=f"{name}(cloud=…)")
        self.tenant = checked_tenant(tenant, option=f"{name}(tenant=…)")
        login = checked_base_url(
            f"https://{chosen.login}" if base_url is None else base_url,
            option=f"{name}(base_url=…)",
            allow_http=allow_http,
        )
        self.token_url = f"{login}/{self.tenant}/oauth2/v2.0/token"
        self._auth = ClientAuth(
            client_id,
            provider=name,
            method="client_secret_post" if client_assertion is None else "private_key_jwt",
            secret=client_secret,
            assertion=client_assertion,
            credential_id=credential_id,
        )
        self.shareable = self._auth.shareable
        self._scope = _resource_scope(scope or f"https://{chosen.graph}/.default", option=f"{name}(scope=…)")
        allowed = host_names(hosts, option=f"{name}(hosts=…)") or hosts_of_resource(self._scope)
        # A test server has both, the login and the API.
        own = (
            frozenset({urlsplit(login).hostname or ""}) if base_url is not None and hosts is None else frozenset[str]()
        )
        self.hosts = None if allowed is None else allowed | own
        self.allow_http = allow_http
        if refresh_before is not None:
            refresh_before = positive_seconds(refresh_before, option=f"{name}(refresh_before=…)")
        self.refresh_before = refresh_before

    def identity(self) -> tuple[object, ...]:
        """Return the endpoint with its cloud and tenant, the app, its secret or key, and the scope."""
        return (self.token_url, *self._auth.identity(), self._scope)

    async def fetch(self, http: TokenHTTP) -> Grant:
        """Ask the tenant's token endpoint for a token.

        Raises:
            CredentialRejected: It refuses the app, its secret, the tenant or the scope.
            TokenUnavailable: It cannot be reached, is busy, or its answer makes no sense; or `client_assertion` failed.
        """
        proof = await self._auth.prove()
        answer = await http.request(
            "POST",
            self.token_url,
            data={"grant_type": "client_credentials", "scope": self._scope, **proof.form},
            headers=proof.headers,
        )
        return entra_grant(answer, repeats_secret=proof.is_in)

    def is_rejected(self, answer: OutgoingAnswer) -> bool:
        """Return whether an API said that the token is not valid: 401.

        Not so if it wants a token with more claims (`insufficient_claims`, continuous access evaluation): another one
        of the same kind would be refused as well.
        """
        return bearer_rejected(answer)


class BotFramework(Entra):
    """A bot of the Bot Framework, for what it sends to the Bot Connector: Teams and other channels.

    >>> BotFramework(app_id="00000000-…", app_secret="…", tenant="contoso.onmicrosoft.com")
    <BotFramework>

    The token goes to the hosts of Microsoft's channels only, whatever `serviceUrl` an activity names
    (https://learn.microsoft.com/azure/bot-service/rest-api/bot-framework-rest-connector-authentication). For a bot with
    a managed identity, see `ManagedIdentity`.

    Args:
        app_id: The bot's app id.
        app_secret: The value of one of its secrets.
        tenant: The tenant of a single-tenant bot; None: the bot is a multi-tenant one.
        client_assertion: Instead of a secret; see `Entra`.
        credential_id: A name for the key behind `client_assertion`; see `Entra`.
        cloud: `"public"`, `"usgov"`, `"usdod"` or `"china"`.
        base_url: Another login host than the cloud's, such as a test server's.
        refresh_before: Seconds before expiry at which a new token is fetched; None for the default.
        hosts: Host names to which an auth object may send the token; None: those of the cloud's channels.
        allow_http: Allows to do without TLS outside this machine.

    Raises:
        ConfigurationError: Options are missing, contradict each other, or cannot work.
    """

    __slots__ = ()

    kind = "bot_framework"

    @without_locals
    def __init__(
        self,
        *,
        app_id: str,
        app_secret: str | None = None,
        tenant: str | None = None,
        client_assertion: str | Callable[[], str | Awaitable[str]] | None = None,
        credential_id: str | None = None,
        cloud: Cloud = "public",
        base_url: str | None = None,
        refresh_before: float | None = None,
        hosts: Iterable[str] | None = None,
        allow_http: bool = False,
    ) -> None:
        chosen = cloud_of(cloud, option="BotFramework(cloud=…)")
        credential_text(app_id, option="BotFramework(app_id=…)")
        if client_assertion is None:
            credential_text(app_secret, option="BotFramework(app_secret=…)")
        super().__init__(
            tenant=chosen.bot_tenant if tenant is None else tenant,
            client_id=app_id,
            client_secret=app_secret,
            client_assertion=client_assertion,
            credential_id=credential_id,
            scope=chosen.bot_scope,
            cloud=cloud,
            base_url=base_url,
            refresh_before=refresh_before,
            hosts=chosen.bot_hosts if hosts is None and base_url is None else hosts,
            allow_http=allow_http,
        )


def _resource_scope(scope: str, *, option: str) -> str:
    credential_text(scope, option=option)
    if len(scope.split()) != 1 or not scope.strip().endswith("/.default"):
        raise ConfigurationError(
            f'{option} must be one resource with "/.default" behind it, such as '
            f'"https://graph.microsoft.com/.default": '
            f"an app without a user gets all that it has been granted there (AADSTS1002012)."
        )
    return scope.strip()
