"""DingTalk: the tokens of an internal app, for the API v1.0 and for the older API at oapi.dingtalk.com."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final
from urllib.parse import quote, urlencode

from tokenmw.errors import TokenUnavailable
from tokenmw.options import credential_text
from tokenmw.providers.body_codes import GrantCodes, RejectionCodes
from tokenmw.providers.construction import reuses_checks
from tokenmw.providers.platform import PlatformProvider
from tokenmw.providers.quiet_http import with_query_token
from tokenmw.redaction import without_locals

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tokenmw.providers.answer import Answer
    from tokenmw.providers.base import OutgoingRequest
    from tokenmw.providers.http import TokenHTTP
    from tokenmw.providers.secret_sources import Secret
    from tokenmw.values import Grant, Token

__all__ = ["DingTalk", "DingTalkLegacy"]

_CREDENTIALS: Final = "check app_key and app_secret"
_ALLOWED_ADDRESSES: Final = "add this machine's address to the app's allowed addresses"
_PERMANENT: Final = {
    "invalidclientidorsecret": _CREDENTIALS,
    "invalid.client": _CREDENTIALS,
    "unauthorized.client": "check corp_id, and that the app may be used in that corp",
}
_ADDRESS: Final = {"forbidden.accessdenied.ipnotinwhitelist": _ALLOWED_ADDRESSES}
_LIFETIME: Final = 7200.0  # seconds, as documented, for responses that do not say
_GRANT: Final = GrantCodes(
    code_field="code",
    lifetime_field="expireIn",
    permanent=_PERMANENT,
    address=_ADDRESS,
    default_lifetime=_LIFETIME,
)
_CORP_GRANT: Final = replace(_GRANT, lifetime_field="expires_in")
_LEGACY_GRANT: Final = GrantCodes(
    code_field="errcode",
    lifetime_field="expires_in",
    permanent=dict.fromkeys(("40035", "40089", "40096", "900103"), _CREDENTIALS),
    address={"60020": _ALLOWED_ADDRESSES},
    default_lifetime=_LIFETIME,
)
_SECRET_REFUSED: Final = frozenset({"invalidclientidorsecret", "invalid.client"})
_LEGACY_SECRET_REFUSED: Final = frozenset({"40035", "40089", "40096", "900103"})
_BAN_SECONDS: Final = 300.0


@reuses_checks
class DingTalk(PlatformProvider):
    """The access token of an internal app for DingTalk's API v1.0; with `corp_id`, of an app in one corp.

    >>> DingTalk(app_key="ding1", app_secret="…")
    <DingTalk>

    The endpoint of internal apps returns the same token while it is valid, and extends its lifetime. The token goes
    into the header `x-acs-dingtalk-access-token` (https://open.dingtalk.com/document/orgapp/obtain-the-access_token-of-an-internal-app).

    Args:
        app_key: The app's key; newer pages call it client id.
        app_secret: The app's secret. While it is changed, a list: the new one and the old one. If DingTalk refuses the
            first, the next one is tried.
        corp_id: The corp whose token endpoint is used. Default: none, the endpoint of internal apps.
        base_url: The root of the API. Default: DingTalk's cloud; set it for a private deployment.
        refresh_before: Seconds before expiry at which a new token is fetched in the background. Default: a quarter of
            the lifetime, at most 3600 s.
        hosts: Host names to which auth objects send the token; one that begins with a dot stands for every name below
            it. Default: the host of `base_url`; requests to other hosts go out without the token.
        allow_http: Allows a `base_url` without TLS on another machine. Default: False, it is refused, because the
            network would see secret and token.

    Raises:
        ConfigurationError: An option is missing or cannot work.
    """

    __slots__ = ("_corp_id",)

    kind = "dingtalk"
    scheme = None
    _corp_id: str | None
    _option_names = ("app_key", "app_secret")
    # A missing header, a missing permission and a rate limit have other codes.
    _rejections = RejectionCodes(
        code_field="code",
        codes=frozenset({"invalidauthentication", "accesstoken.expired"}),
        statuses=frozenset({400, 401}),
    )

    @without_locals
    def __init__(
        self,
        *,
        app_key: str,
        app_secret: Secret,
        corp_id: str | None = None,
        base_url: str = "https://api.dingtalk.com",
        refresh_before: float | None = None,
        hosts: Iterable[str] | None = None,
        allow_http: bool = False,
    ) -> None:
        self._corp_id = None if corp_id is None else credential_text(corp_id, option="DingTalk(corp_id=…)")
        super().__init__(
            app_key, app_secret, base_url=base_url, hosts=hosts, allow_http=allow_http, refresh_before=refresh_before
        )

    def identity(self) -> tuple[object, ...]:
        """Return the deployment, the app, its secret, and the corp."""
        return (*super().identity(), self._corp_id)

    @without_locals
    async def fetch(self, http: TokenHTTP) -> Grant:
        """Request a token.

        Raises:
            CredentialRejected: DingTalk refuses the app, its secret, or this machine's address.
            TokenUnavailable: DingTalk cannot be reached, is busy, has banned this machine, or its response cannot be
                used. An unknown corp is one of these: DingTalk answers HTTP 500.
        """

        async def request(secret: str) -> Grant:
            if self._corp_id is None:
                answer = await http.request(
                    "POST",
                    f"{self.base_url}/v1.0/oauth2/accessToken",
                    json={"appKey": self._app_id, "appSecret": secret},
                )
                _check_ban(answer)
                return _GRANT.grant(answer, "accessToken", app=self)
            answer = await http.request(
                "POST",
                f"{self.base_url}/v1.0/oauth2/{quote(self._corp_id, safe='')}/token",
                json={
                    "client_id": self._app_id,
                    "client_secret": secret,
                    "grant_type": "client_credentials",
                },
            )
            _check_ban(answer)
            return _CORP_GRANT.grant(answer, "access_token", app=self)

        return await self._secrets.grant(request, codes=_SECRET_REFUSED)

    def authorize(self, request: OutgoingRequest, token: Token) -> None:
        """Put the token into DingTalk's own header."""
        request.headers["x-acs-dingtalk-access-token"] = token.value


@reuses_checks
class DingTalkLegacy(PlatformProvider):
    """The access token of an internal app for DingTalk's older API at oapi.dingtalk.com.

    >>> DingTalkLegacy(app_key="ding1", app_secret="…")
    <DingTalkLegacy>

    DingTalk issues the same token again while it is valid, and extends its lifetime. The token goes into the query of
    each API request; auth objects keep it out of the client's log
    (https://open.dingtalk.com/document/orgapp/obtain-orgapp-token).

    Args:
        app_key: The app's key; newer pages call it client id.
        app_secret: The app's secret. While it is changed, a list: the new one and the old one. If DingTalk refuses the
            first, the next one is tried.
        base_url: The root of the API. Default: DingTalk's cloud; set it for a private deployment.
        refresh_before: Seconds before expiry at which a new token is fetched in the background. Default: a quarter of
            the lifetime, at most 3600 s.
        hosts: Host names to which auth objects send the token; one that begins with a dot stands for every name below
            it. Default: the host of `base_url`; requests to other hosts go out without the token.
        allow_http: Allows a `base_url` without TLS on another machine. Default: False, it is refused, because the
            network would see secret and token.

    Raises:
        ConfigurationError: An option is missing or cannot work.
    """

    __slots__ = ()

    kind = "dingtalk_legacy"
    scheme = None
    _option_names = ("app_key", "app_secret")
    _rejections = RejectionCodes(
        code_field="errcode", codes=frozenset({"33001", "40001", "40014", "42001"}), sub_codes={"88": "sub_code"}
    )

    @without_locals
    def __init__(
        self,
        *,
        app_key: str,
        app_secret: Secret,
        base_url: str = "https://oapi.dingtalk.com",
        refresh_before: float | None = None,
        hosts: Iterable[str] | None = None,
        allow_http: bool = False,
    ) -> None:
        super().__init__(
            app_key, app_secret, base_url=base_url, hosts=hosts, allow_http=allow_http, refresh_before=refresh_before
        )

    @without_locals
    async def fetch(self, http: TokenHTTP) -> Grant:
        """Request a token.

        Raises:
            CredentialRejected: DingTalk refuses the app, its secret, or this machine's address.
            TokenUnavailable: DingTalk cannot be reached, is busy, has banned this machine, or its response cannot be
                used.
        """

        async def request(secret: str) -> Grant:
            query = urlencode({"appkey": self._app_id, "appsecret": secret})
            answer = await http.request("GET", f"{self.base_url}/gettoken?{query}")
            _check_ban(answer)
            return _LEGACY_GRANT.grant(answer, "access_token", app=self)

        return await self._secrets.grant(request, codes=_LEGACY_SECRET_REFUSED)

    def authorize(self, request: OutgoingRequest, token: Token) -> None:
        """Put the token into the query as `access_token`."""
        request.url = with_query_token(request.url, "access_token", token.value)


def _check_ban(answer: Answer) -> None:
    # After 10 000 calls in 20 s DingTalk bans the address for five minutes. A ban that comes as an HTML page is refused
    # later, because it is not JSON.
    if b'"punish"' in answer.body:
        raise TokenUnavailable(
            f"{answer.endpoint} has banned this machine's address for a while (HTTP {answer.status}): DingTalk does so "
            f"after 10 000 calls in 20 s",
            retry_after=_BAN_SECONDS,
        )
