"""Feishu and Lark: the tokens of a self-built app."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Final

from tokenmw.options import credential_text, optional_seconds
from tokenmw.providers.base import OutgoingAnswer, Provider
from tokenmw.providers.base_url import checked_base_url, hosts_of
from tokenmw.providers.body_codes import BodyCodes, Refusals
from tokenmw.redaction import HiddenStr, without_locals

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tokenmw.providers.http import TokenHTTP
    from tokenmw.values import Grant

__all__ = ["CODES", "FeishuApp", "FeishuCredential", "FeishuTenant"]

_CREDENTIALS: Final = "check app_id and app_secret, and that base_url is of the app's own cloud"
_APP: Final = "the app is disabled, or not installed for this tenant"
_ADDRESS: Final = "the app's list of allowed addresses does not have this machine's"

CODES: Final = BodyCodes(
    code="code",
    life="expire",
    permanent={
        "10003": "check app_id and app_secret",
        "10014": _CREDENTIALS,
        "99991543": _CREDENTIALS,
        "99991662": _APP,
        "99991673": _APP,
    },
    address={"99991401": _ADDRESS},
    reset="x-ogw-ratelimit-reset",
    # What has less than half an hour left is replaced before it is handed out.
    floor=1800.0,
)
# 99991672, 99991676 and 99991679 are about permissions, 99991400 is about the rate.
_REFUSALS: Final = Refusals(
    code="code",
    codes=frozenset({"99991661", "99991663", "99991664", "99991671"}),
    statuses=frozenset({200, 400, 401}),
)


class FeishuCredential(Provider):
    """The name and secret of an app of either sort, in one of the clouds, and how its tokens are used."""

    __slots__ = ("_app_id", "_app_secret", "allow_http", "base_url", "hosts")

    kind = "feishu"
    base_url: str
    _path: ClassVar[str] = ""

    @without_locals
    def __init__(
        self,
        *,
        app_id: str,
        app_secret: str,
        base_url: str = "https://open.feishu.cn",
        hosts: Iterable[str] | None = None,
        allow_http: bool = False,
    ) -> None:
        name = type(self).__name__
        self._app_id = credential_text(app_id, option=f"{name}(app_id=…)")
        self._app_secret = HiddenStr(credential_text(app_secret, option=f"{name}(app_secret=…)"))
        self.base_url = checked_base_url(base_url, option=f"{name}(base_url=…)", allow_http=allow_http)
        self.hosts = hosts_of(hosts, base_url=self.base_url, option=f"{name}(hosts=…)")
        self.allow_http = allow_http

    def identity(self) -> tuple[object, ...]:
        """Return the cloud, the app and its secret."""
        return (self.base_url, self._app_id, self._app_secret)

    @property
    def _url(self) -> str:
        return f"{self.base_url}/open-apis/auth/v3/{self._path}"

    def is_rejected(self, answer: OutgoingAnswer) -> bool | None:
        """Return whether an API said that the token is not valid: its body tells, whatever the status."""
        return _REFUSALS.tell(answer)


class FeishuTenant(FeishuCredential):
    """The `tenant_access_token` of a self-built app of Feishu or Lark.

    >>> FeishuTenant(app_id="cli_a1", app_secret="…", base_url="https://open.larksuite.com")
    <FeishuTenant>

    For a self-built app, tenant and app token are one value. So `FeishuTenant` and :class:`FeishuApp` of one app are
    equal, and one fetch serves both.

    The platform gives out the same token until it has 1800 s left, and then another one beside it. A token lives two
    hours at most (https://open.feishu.cn/document/server-docs/authentication-management/access-token).

    Args:
        app_id: The app's name, `cli_…`.
        app_secret: Its secret.
        base_url: The cloud: Feishu, `"https://open.larksuite.com"` for Lark, or a private deployment. The clouds know
            nothing of each other's apps.
        refresh_before: Seconds before expiry at which a new token is fetched, 1620 at most; None for the default.
        hosts: Host names to which an auth object may send the token; None: the base URL's.
        allow_http: Allows a `base_url` without TLS outside this machine.

    Raises:
        ConfigurationError: An option is missing or cannot work.
    """

    __slots__ = ("refresh_before",)

    # One kind for both classes: equality is kind and identity.
    kind = "feishu"
    renewal_window = 1800.0
    _path = "tenant_access_token/internal"
    _tokens: ClassVar[tuple[str, str]] = ("tenant_access_token", "app_access_token")

    @without_locals
    def __init__(
        self,
        *,
        app_id: str,
        app_secret: str,
        base_url: str = "https://open.feishu.cn",
        refresh_before: float | None = None,
        hosts: Iterable[str] | None = None,
        allow_http: bool = False,
    ) -> None:
        super().__init__(app_id=app_id, app_secret=app_secret, base_url=base_url, hosts=hosts, allow_http=allow_http)
        self.refresh_before = optional_seconds(refresh_before, option=f"{type(self).__name__}(refresh_before=…)")

    async def fetch(self, http: TokenHTTP) -> Grant:
        """Ask the platform for a token.

        Raises:
            CredentialRejected: It refuses the app, its secret, or this machine's address.
            TokenUnavailable: It cannot be reached, is busy, or its answer makes no sense.
        """
        answer = await http.request("POST", self._url, json={"app_id": self._app_id, "app_secret": self._app_secret})
        return CODES.grant(answer, *self._tokens, other=self._tokens[1])


class FeishuApp(FeishuTenant):
    """The `app_access_token` of a self-built app of Feishu or Lark: the same token as :class:`FeishuTenant`'s.

    >>> FeishuApp(app_id="cli_a1", app_secret="…") == FeishuTenant(app_id="cli_a1", app_secret="…")
    True

    Options are those of :class:`FeishuTenant`.
    """

    __slots__ = ()

    _path = "app_access_token/internal"
    _tokens = ("app_access_token", "tenant_access_token")
