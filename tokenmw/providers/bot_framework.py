"""Bots of Microsoft's Bot Framework, which are apps of Entra ID: Teams and other channels."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tokenmw.options import credential_text
from tokenmw.providers.client_secrets import ClientSecrets
from tokenmw.providers.construction import reuses_checks
from tokenmw.providers.entra import Entra
from tokenmw.providers.microsoft_clouds import Cloud, cloud_of
from tokenmw.redaction import without_locals

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from tokenmw.providers.private_key_jwt import PrivateKeyJWT
    from tokenmw.providers.secret_sources import Secret, SecretSource

__all__ = ["BotFramework"]


@reuses_checks
class BotFramework(Entra):
    """A bot of the Bot Framework, for its requests to the Bot Connector: Teams and other channels.

    >>> BotFramework(app_id="00000000-…", app_secret="…", tenant="contoso.onmicrosoft.com")
    <BotFramework>

    The token goes to the hosts of Microsoft's channels only, whatever `serviceUrl` an activity names
    (https://learn.microsoft.com/azure/bot-service/rest-api/bot-framework-rest-connector-authentication). For a bot with
    a managed identity, use `ManagedIdentity`.

    Args:
        app_id: The bot's app id.
        app_secret: The value of one of the app's secrets. While it is changed, a list: the new one and the old one.
            If Entra refuses the first, the next one is tried.
        tenant: The tenant of a single-tenant bot. Default: none, a multi-tenant bot.
        client_assertion: A `PrivateKeyJWT` instead of a secret, with the app's certificate, or a function, sync or
            async, that returns a signed JWT for each attempt, or one as text; also for federated credentials. A
            `FileSecret` or other source has a JWT that another program signs, and is read for each attempt.
        credential_id: A name for the key behind `client_assertion`; change it with the key. Default: none, and the
            tokens that a function obtains are not shared with other provider objects or through Redis, so every
            process fetches its own.
        cloud: The national cloud: `"public"`, `"usgov"`, `"usdod"` or `"china"`. Default: `"public"`.
        base_url: Another login host than the cloud's, such as a test server or a gateway. `cloud` still decides the
            default tenant, the scope and the hosts; the login host of another cloud is refused. Default: the cloud's.
        refresh_before: Seconds before expiry at which a new token is fetched in the background. Default: a quarter of
            the lifetime, at most 3600 s; or earlier, after the seconds that the server sends as `refresh_in`.
        hosts: Host names to which auth objects send the token; one that begins with a dot stands for every name below
            it. Default: the hosts of the cloud's channels, and the host of `base_url`.
        allow_http: Allows plain HTTP to other machines, for `base_url` and for requests of auth objects. Default:
            False, it is refused, because the network would see secret and token.
        log_description: Whether the log and `status()` show Microsoft's `error_description` of a refusal, with its
            trace id, at most 200 characters, and not if it repeats a part of the secret. Callers never see it.
            Default: False, only the codes.

    Raises:
        ConfigurationError: An option is missing, contradicts another one, or cannot work.
    """

    __slots__ = ()

    kind = "bot_framework"
    _option_names = ("app_id", "app_secret")

    @without_locals
    def __init__(
        self,
        *,
        app_id: str,
        app_secret: Secret | None = None,
        tenant: str | None = None,
        client_assertion: str | Callable[[], str | Awaitable[str]] | PrivateKeyJWT | SecretSource | None = None,
        credential_id: str | None = None,
        cloud: Cloud = "public",
        base_url: str | None = None,
        refresh_before: float | None = None,
        hosts: Iterable[str] | None = None,
        allow_http: bool = False,
        log_description: bool = False,
    ) -> None:
        chosen = cloud_of(cloud, option="BotFramework(cloud=…)")
        # Checked here, so that error texts use this class's option names.
        credential_text(app_id, option="BotFramework(app_id=…)")
        if client_assertion is None:
            ClientSecrets(app_secret, option="BotFramework(app_secret=…)")
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
            log_description=log_description,
        )
