"""Feishu and Lark: the tokens of a self-built app."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Final

from tokenmw.providers.body_codes import GrantCodes, RejectionCodes
from tokenmw.providers.construction import reuses_checks
from tokenmw.providers.platform import PlatformProvider
from tokenmw.redaction import without_locals

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tokenmw.providers.http import TokenHTTP
    from tokenmw.providers.secret_sources import Secret
    from tokenmw.values import Grant

__all__ = ["FEISHU_GRANT", "FeishuApp", "FeishuCredential", "FeishuTenant"]

_CREDENTIALS: Final = "check app_id and app_secret, and that base_url is the app's own cloud"
_APP: Final = "the app is disabled, or not installed for this tenant"
_SECRET_REFUSED: Final = frozenset({"10003", "10014", "99991543"})

FEISHU_GRANT: Final = GrantCodes(
    code_field="code",
    lifetime_field="expire",
    permanent={
        "10003": "check app_id and app_secret",
        "10014": _CREDENTIALS,
        "99991543": _CREDENTIALS,
        "99991662": _APP,
        "99991673": _APP,
    },
    address={"99991401": "add this machine's address to the app's allowed addresses"},
    retry_header="x-ogw-ratelimit-reset",
    # Feishu replaces a token with less than half an hour left before it issues it.
    default_lifetime=1800.0,
)


class FeishuCredential(PlatformProvider):
    """An app of Feishu or Lark, self-built or from the store: the base class of its tokens.

    A subclass sets `_path`, the last part of the token endpoint's path.
    """

    __slots__ = ()

    kind = "feishu"
    _path: ClassVar[str]
    _option_names = ("app_id", "app_secret")
    # 99991672, 99991676 and 99991679 are about permissions, 99991400 is about the rate.
    _rejections = RejectionCodes(
        code_field="code",
        codes=frozenset({"99991661", "99991663", "99991664", "99991671"}),
        statuses=frozenset({200, 400, 401}),
    )

    @property
    def _url(self) -> str:
        return f"{self.base_url}/open-apis/auth/v3/{self._path}"


@reuses_checks
class FeishuTenant(FeishuCredential):
    """The `tenant_access_token` of a self-built app of Feishu or Lark.

    >>> FeishuTenant(app_id="cli_a1", app_secret="…", base_url="https://open.larksuite.com")
    <FeishuTenant>

    For a self-built app, tenant token and app token are one value. So `FeishuTenant` and :class:`FeishuApp` of one app
    are equal, and one fetch serves both.

    Feishu issues the same token until it has 1800 s left, and then a second one beside it. A token lives at most
    7200 s (https://open.feishu.cn/document/server-docs/authentication-management/access-token/tenant_access_token_internal).

    Args:
        app_id: The app's id, `cli_…`.
        app_secret: The app's secret. While it is changed, a list: the new one and the old one. If Feishu refuses the
            first, the next one is tried.
        base_url: The root of the API. Default: Feishu's cloud; use `"https://open.larksuite.com"` for Lark, or the URL
            of a private deployment. No cloud knows the apps of another.
        refresh_before: Seconds before expiry at which a new token is fetched in the background, at most 1620. Default:
            1620 s for a token of 7200 s.
        hosts: Host names to which auth objects send the token; one that begins with a dot stands for every name below
            it. Default: the host of `base_url`; requests to other hosts go out without the token.
        allow_http: Allows a `base_url` without TLS on another machine. Default: False, it is refused, because the
            network would see secret and token.

    Raises:
        ConfigurationError: An option is missing or cannot work.
    """

    __slots__ = ()

    kind = "feishu"
    renewal_window = 1800.0
    _path = "tenant_access_token/internal"
    _token_fields: ClassVar[tuple[str, str]] = ("tenant_access_token", "app_access_token")

    @without_locals
    def __init__(
        self,
        *,
        app_id: str,
        app_secret: Secret,
        base_url: str = "https://open.feishu.cn",
        refresh_before: float | None = None,
        hosts: Iterable[str] | None = None,
        allow_http: bool = False,
    ) -> None:
        super().__init__(
            app_id, app_secret, base_url=base_url, hosts=hosts, allow_http=allow_http, refresh_before=refresh_before
        )

    @without_locals
    async def fetch(self, http: TokenHTTP) -> Grant:
        """Request a token.

        Raises:
            CredentialRejected: Feishu refuses the app, its secret, or this machine's address.
            TokenUnavailable: Feishu cannot be reached, is busy, or its response cannot be used.
        """

        async def request(secret: str) -> Grant:
            answer = await http.request("POST", self._url, json={"app_id": self._app_id, "app_secret": secret})
            return FEISHU_GRANT.grant(answer, *self._token_fields, app=self, other=self._token_fields[1])

        return await self._secrets.grant(request, codes=_SECRET_REFUSED)


@reuses_checks
class FeishuApp(FeishuTenant, same_credential=True):
    """The `app_access_token` of a self-built app of Feishu or Lark: the same token as :class:`FeishuTenant`'s.

    >>> FeishuApp(app_id="cli_a1", app_secret="…") == FeishuTenant(app_id="cli_a1", app_secret="…")
    True

    It takes the options of :class:`FeishuTenant`.
    """

    __slots__ = ()

    _path = "app_access_token/internal"
    _token_fields = ("app_access_token", "tenant_access_token")
