"""Feishu and Lark: the tokens of a store app, which is installed by many tenants."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from tokenmw.errors import TokenUnavailable
from tokenmw.options import credential_text
from tokenmw.providers.body_codes import code_in
from tokenmw.providers.feishu import CODES, FeishuCredential
from tokenmw.redaction import without_locals
from tokenmw.values import Grant

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tokenmw.providers.http import TokenHTTP

__all__ = ["FeishuStoreApp", "FeishuStoreTenant", "FeishuTicket"]

_TICKET_REFUSED: Final = "10012"
_APP_TOKEN_REFUSED: Final = "99991664"
_TICKET_LIFE: Final = 86_400.0  # seconds; the platform sends another one about every hour


class FeishuTicket(FeishuCredential):
    """The `app_ticket` of a store app, which the platform sends as an event, about every hour.

    Whichever process gets the event hands it in, and all instances have it through Redis::

        ticket = FeishuTicket(app_id="cli_a1", app_secret="…")
        await broker.hand_in(ticket, FeishuTicket.grant(event["app_ticket"]))

    While there is none, the platform is asked to send it. Options are those of :class:`FeishuStoreApp`.
    """

    __slots__ = ()

    kind = "feishu_ticket"
    scheme = None
    _path = "app_ticket/resend"

    @staticmethod
    def grant(app_ticket: str) -> Grant:
        """Return what is handed in for a ticket; it is kept for a day, or until the next one."""
        return Grant(app_ticket, expires_in=_TICKET_LIFE)

    async def fetch(self, http: TokenHTTP) -> Grant:
        """Ask the platform to send the ticket; it never is in the answer.

        Raises:
            CredentialRejected: It refuses the app, its secret, or this machine's address.
            TokenUnavailable: The ticket is on its way, or the platform cannot be reached.
        """
        answer = await http.request("POST", self._url, json={"app_id": self._app_id, "app_secret": self._app_secret})
        CODES.check(answer)
        raise TokenUnavailable(
            "the platform was asked for the app_ticket, which comes as an event: "
            "hand it in with broker.hand_in(ticket, FeishuTicket.grant(event[…]))"
        )


class FeishuStoreApp(FeishuCredential):
    """The `app_access_token` of a store app of Feishu or Lark. It needs the app's :class:`FeishuTicket`.

    >>> FeishuStoreApp(app_id="cli_a1", app_secret="…")
    <FeishuStoreApp>

    Args:
        app_id: The app's name, `cli_…`.
        app_secret: Its secret.
        base_url: The cloud: Feishu, or `"https://open.larksuite.com"` for Lark.
        hosts: Host names to which an auth object may send the token; None: the base URL's.
        allow_http: Allows a `base_url` without TLS outside this machine.

    Raises:
        ConfigurationError: An option is missing or cannot work.
    """

    __slots__ = ()

    kind = "feishu_store_app"
    renewal_window = 1800.0
    _path = "app_access_token"

    async def fetch(self, http: TokenHTTP) -> Grant:
        """Get the ticket that is held, and the token for it.

        Raises:
            CredentialRejected: The platform refuses the app, its secret, or this machine's address.
            TokenUnavailable: There is no ticket, it was refused, or the platform cannot be reached or is busy.
        """
        ticket = await http.token(
            FeishuTicket(
                app_id=self._app_id, app_secret=self._app_secret, base_url=self.base_url, allow_http=self.allow_http
            )
        )
        answer = await http.request(
            "POST",
            self._url,
            json={"app_id": self._app_id, "app_secret": self._app_secret, "app_ticket": ticket.value},
        )
        if code_in(answer, "code") == _TICKET_REFUSED:
            await http.invalidate(ticket)
            raise TokenUnavailable(f"the platform refuses the app_ticket ({_TICKET_REFUSED}); another one is asked for")
        return CODES.grant(answer, "app_access_token")


class FeishuStoreTenant(FeishuCredential):
    """The `tenant_access_token` of a store app in one tenant. One app token serves all tenants.

    >>> FeishuStoreTenant(app_id="cli_a1", app_secret="…", tenant_key="2ed263bf32cf1651")
    <FeishuStoreTenant>

    Options are those of :class:`FeishuStoreApp`, and `tenant_key`, the tenant's name in the platform's events.
    """

    __slots__ = ("_tenant_key",)

    kind = "feishu_store_tenant"
    renewal_window = 1800.0
    _path = "tenant_access_token"

    @without_locals
    def __init__(
        self,
        *,
        app_id: str,
        app_secret: str,
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

    async def fetch(self, http: TokenHTTP) -> Grant:
        """Get the app's token, and the tenant's for it.

        Raises:
            CredentialRejected: The platform refuses the app, its secret, or this machine's address.
            TokenUnavailable: The app's token cannot be had or was refused, or the platform is busy.
        """
        app = await http.token(
            FeishuStoreApp(
                app_id=self._app_id, app_secret=self._app_secret, base_url=self.base_url, allow_http=self.allow_http
            )
        )
        answer = await http.request(
            "POST", self._url, json={"app_access_token": app.value, "tenant_key": self._tenant_key}
        )
        if code_in(answer, "code") == _APP_TOKEN_REFUSED:
            await http.invalidate(app)
            raise TokenUnavailable(f"the platform refuses the app's token ({_APP_TOKEN_REFUSED}); another one is got")
        return CODES.grant(answer, "tenant_access_token")
