"""Feishu and Lark: the tokens of a store app, which is installed by many tenants.

A tenant's token needs the app's token, and the app's token needs a ticket that the platform sends by itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from tokenmw.errors import TokenUnavailable
from tokenmw.options import credential_text
from tokenmw.providers.body_codes import code_in
from tokenmw.providers.construction import reuses_checks
from tokenmw.providers.feishu import FEISHU_GRANT, FeishuCredential
from tokenmw.providers.secret_sources import SecretSource
from tokenmw.redaction import without_locals
from tokenmw.values import Grant

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tokenmw.providers.http import TokenHTTP

__all__ = ["FeishuStoreApp", "FeishuStoreTenant", "FeishuTicket"]

_TICKET_REFUSED: Final = "10012"
_APP_TOKEN_REFUSED: Final = "99991664"
_ASK_AGAIN_AFTER: Final = 30.0  # seconds; a ticket that is handed in meanwhile is used immediately
_TICKET_LIFETIME: Final = 86_400.0  # seconds; the platform sends a new ticket about every hour


class _StoreCredential(FeishuCredential):
    __slots__ = ()

    kind = "feishu_store"

    @without_locals
    def __init__(
        self,
        *,
        app_id: str,
        app_secret: str | SecretSource,
        base_url: str = "https://open.feishu.cn",
        hosts: Iterable[str] | None = None,
        allow_http: bool = False,
    ) -> None:
        option = f"{type(self).__name__}(app_secret=…)"  # one secret: the ticket and the app's token belong to it
        secret = app_secret if isinstance(app_secret, SecretSource) else credential_text(app_secret, option=option)
        super().__init__(app_id, secret, base_url=base_url, hosts=hosts, allow_http=allow_http)


@reuses_checks
class FeishuTicket(_StoreCredential):
    """The `app_ticket` of a store app, which the platform sends as an event about every hour.

    The process that receives the event hands it in; all instances then get it through Redis::

        ticket = FeishuTicket(app_id="cli_a1", app_secret="…")
        await broker.hand_in(ticket, FeishuTicket.grant(event["app_ticket"]))

    While there is no ticket, the platform is asked to send one
    (https://open.feishu.cn/document/server-docs/authentication-management/access-token/app_ticket_resend). It takes the
    options of :class:`FeishuStoreApp`.
    """

    __slots__ = ()

    kind = "feishu_ticket"
    scheme = None
    _path = "app_ticket/resend"

    @staticmethod
    def grant(app_ticket: str) -> Grant:
        """Return the grant to hand in for a ticket; it is kept for 86 400 s, or until the next one."""
        return Grant(app_ticket, expires_in=_TICKET_LIFETIME)

    @without_locals
    async def fetch(self, http: TokenHTTP) -> Grant:
        """Ask the platform to send the ticket, which is never in the response.

        Raises:
            CredentialRejected: The platform refuses the app, its secret, or this machine's address.
            TokenUnavailable: The platform will send the ticket as an event, or it cannot be reached.
        """
        answer = await http.request(
            "POST", self._url, json={"app_id": self._app_id, "app_secret": await self._secrets.accepted()}
        )
        FEISHU_GRANT.check(answer, app=self)
        raise TokenUnavailable(
            f"{answer.endpoint} was asked for the app_ticket of {self.shown}, which comes as an event: hand it in with "
            f'broker.hand_in(ticket, FeishuTicket.grant(event["app_ticket"])), in the process that receives events',
            retry_after=_ASK_AGAIN_AFTER,
            said=True,
        )


@reuses_checks
class FeishuStoreApp(_StoreCredential):
    """The `app_access_token` of a store app of Feishu or Lark. It needs the app's :class:`FeishuTicket`.

    >>> FeishuStoreApp(app_id="cli_a1", app_secret="…")
    <FeishuStoreApp>

    See https://open.feishu.cn/document/server-docs/authentication-management/access-token/app_access_token.

    Args:
        app_id: The app's id, `cli_…`.
        app_secret: The app's secret.
        base_url: The root of the API. Default: Feishu's cloud; use `"https://open.larksuite.com"` for Lark.
        hosts: Host names to which auth objects send the token; one that begins with a dot stands for every name below
            it. Default: the host of `base_url`; requests to other hosts go out without the token.
        allow_http: Allows a `base_url` without TLS on another machine. Default: False, it is refused, because the
            network would see secret and token.

    Raises:
        ConfigurationError: An option is missing or cannot work.
    """

    __slots__ = ()

    kind = "feishu_store_app"
    renewal_window = 1800.0
    _path = "app_access_token"

    @without_locals
    async def fetch(self, http: TokenHTTP) -> Grant:
        """Get the current ticket, and request the token with it.

        Raises:
            CredentialRejected: The platform refuses the app, its secret, or this machine's address.
            TokenUnavailable: There is no ticket, the platform refuses it, cannot be reached, or is busy.
        """
        ticket = await http.token(
            FeishuTicket(
                app_id=self._app_id,
                app_secret=self._secrets.given,
                base_url=self.base_url,
                allow_http=self.allow_http,
            )
        )
        answer = await http.request(
            "POST",
            self._url,
            json={"app_id": self._app_id, "app_secret": await self._secrets.accepted(), "app_ticket": ticket.value},
        )
        if code_in(answer, "code") == _TICKET_REFUSED:
            await http.invalidate(ticket)
            raise TokenUnavailable(
                f"{answer.endpoint} refuses the app_ticket of {self.shown} ({_TICKET_REFUSED}): "
                f"the next attempt asks for a new one"
            )
        return FEISHU_GRANT.grant(answer, "app_access_token", app=self)


@reuses_checks
class FeishuStoreTenant(_StoreCredential):
    """The `tenant_access_token` of a store app in one tenant. All tenants share one app token.

    >>> FeishuStoreTenant(app_id="cli_a1", app_secret="…", tenant_key="2ed263bf32cf1651")
    <FeishuStoreTenant>

    See https://open.feishu.cn/document/server-docs/authentication-management/access-token/tenant_access_token.

    Args:
        app_id: The app's id, `cli_…`.
        app_secret: The app's secret.
        tenant_key: The tenant's key, as in the platform's events.
        base_url: The root of the API. Default: Feishu's cloud; use `"https://open.larksuite.com"` for Lark.
        hosts: Host names to which auth objects send the token; one that begins with a dot stands for every name below
            it. Default: the host of `base_url`; requests to other hosts go out without the token.
        allow_http: Allows a `base_url` without TLS on another machine. Default: False, it is refused, because the
            network would see secret and token.

    Raises:
        ConfigurationError: An option is missing or cannot work.
    """

    __slots__ = ("_tenant_key",)

    kind = "feishu_store_tenant"
    renewal_window = 1800.0
    _path = "tenant_access_token"
    _tenant_key: str

    @without_locals
    def __init__(
        self,
        *,
        app_id: str,
        app_secret: str | SecretSource,
        tenant_key: str,
        base_url: str = "https://open.feishu.cn",
        hosts: Iterable[str] | None = None,
        allow_http: bool = False,
    ) -> None:
        super().__init__(app_id=app_id, app_secret=app_secret, base_url=base_url, hosts=hosts, allow_http=allow_http)
        self._tenant_key = credential_text(tenant_key, option="FeishuStoreTenant(tenant_key=…)")

    def identity(self) -> tuple[object, ...]:
        """Return the cloud, the app, its secret, and the tenant."""
        return (*super().identity(), self._tenant_key)

    @without_locals
    async def fetch(self, http: TokenHTTP) -> Grant:
        """Get the app's token, and request the tenant's token with it.

        Raises:
            CredentialRejected: The platform refuses the app, its secret, or this machine's address.
            TokenUnavailable: There is no app token, the platform refuses it, cannot be reached, or is busy.
        """
        app = await http.token(
            FeishuStoreApp(
                app_id=self._app_id,
                app_secret=self._secrets.given,
                base_url=self.base_url,
                allow_http=self.allow_http,
            )
        )
        answer = await http.request(
            "POST", self._url, json={"app_access_token": app.value, "tenant_key": self._tenant_key}
        )
        if code_in(answer, "code") == _APP_TOKEN_REFUSED:
            await http.invalidate(app)
            raise TokenUnavailable(
                f"{answer.endpoint} refuses the app token of {self.shown} ({_APP_TOKEN_REFUSED}): "
                f"the next attempt asks for a new one"
            )
        return FEISHU_GRANT.grant(answer, "tenant_access_token", app=self)
