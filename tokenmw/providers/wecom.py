"""WeCom (企业微信): the token of one application of a corp."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from urllib.parse import urlencode

from tokenmw.providers.body_codes import GrantCodes, RejectionCodes
from tokenmw.providers.construction import reuses_checks
from tokenmw.providers.platform import PlatformProvider
from tokenmw.providers.quiet_http import with_query_token
from tokenmw.redaction import without_locals

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tokenmw.providers.base import OutgoingRequest
    from tokenmw.providers.http import TokenHTTP
    from tokenmw.providers.secret_sources import Secret
    from tokenmw.values import Grant, Token

__all__ = ["WeCom"]

_SECRET: Final = "check corp_secret: it is wrong, was reset, or its application is disabled"
_SECRET_REFUSED: Final = frozenset({"40001", "40091"})

_GRANT: Final = GrantCodes(
    code_field="errcode",
    lifetime_field="expires_in",
    permanent={
        "40001": _SECRET,
        "40013": "check corp_id",
        "40091": "check corp_secret: it belongs to another corp",
        "41002": "check corp_id",
        "41004": "check corp_secret",
    },
    default_lifetime=7200.0,  # as documented; some private deployments leave the field out
    address={"60020": "add this machine's address to the application's trusted addresses"},
)


@reuses_checks
class WeCom(PlatformProvider):
    """The access token of one application of a WeCom corp: an agent, contacts, customer contact, customer service.

    Each application has its own secret, and each secret its own token.

    >>> WeCom(corp_id="ww1", corp_secret="…")
    <WeCom>

    WeCom issues the same token until it expires, with the seconds that are left, and may withdraw it earlier. So
    requests wait for the token endpoint once per expiry. The token goes into the query of each API request; auth
    objects keep it out of the client's log (https://developer.work.weixin.qq.com/document/path/91039).

    Args:
        corp_id: The corp's id, `ww…`.
        corp_secret: The application's secret. While it is changed, a list: the new one and the old one. If WeCom
            refuses the first, the next one is tried.
        base_url: The root of the API. Default: WeCom's cloud; set it for a private deployment.
        hosts: Host names to which auth objects send the token; one that begins with a dot stands for every name below
            it. Default: the host of `base_url`; requests to other hosts go out without the token.
        allow_http: Allows a `base_url` without TLS on another machine. Default: False, it is refused, because the
            network would see secret and token.

    Raises:
        ConfigurationError: An option is missing or cannot work.
    """

    __slots__ = ()

    kind = "wecom"
    renewal_window = 0.0
    scheme = None
    _option_names = ("corp_id", "corp_secret")
    # 301002, 48002, 48009 and 60011: the token belongs to another application, or lacks a permission.
    _rejections = RejectionCodes(code_field="errcode", codes=frozenset({"40001", "40014", "42001"}))

    @without_locals
    def __init__(
        self,
        *,
        corp_id: str,
        corp_secret: Secret,
        base_url: str = "https://qyapi.weixin.qq.com",
        hosts: Iterable[str] | None = None,
        allow_http: bool = False,
    ) -> None:
        super().__init__(corp_id, corp_secret, base_url=base_url, hosts=hosts, allow_http=allow_http)

    @without_locals
    async def fetch(self, http: TokenHTTP) -> Grant:
        """Request a token.

        Raises:
            CredentialRejected: WeCom refuses the corp, the secret, or this machine's address.
            TokenUnavailable: WeCom cannot be reached, is busy, or its response cannot be used.
        """

        async def request(secret: str) -> Grant:
            query = urlencode({"corpid": self._app_id, "corpsecret": secret})
            answer = await http.request("GET", f"{self.base_url}/cgi-bin/gettoken?{query}")
            return _GRANT.grant(answer, "access_token", app=self)

        return await self._secrets.grant(request, codes=_SECRET_REFUSED)

    def authorize(self, request: OutgoingRequest, token: Token) -> None:
        """Put the token into the query as `access_token`."""
        request.url = with_query_token(request.url, "access_token", token.value)
