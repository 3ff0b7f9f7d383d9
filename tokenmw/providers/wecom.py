"""WeCom (企业微信): the token of one application of a corp."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from urllib.parse import urlencode

from tokenmw.options import credential_text
from tokenmw.providers.base import OutgoingAnswer, OutgoingRequest, Provider
from tokenmw.providers.base_url import checked_base_url, hosts_of
from tokenmw.providers.body_codes import BodyCodes, Refusals
from tokenmw.providers.unlogged_url import with_query_token
from tokenmw.redaction import HiddenStr, without_locals

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tokenmw.providers.http import TokenHTTP
    from tokenmw.values import Grant, Token

__all__ = ["WeCom"]

_SECRET: Final = "check corp_secret: it is wrong, was reset, or its application is disabled"

_CODES: Final = BodyCodes(
    code="errcode",
    life="expires_in",
    permanent={
        "40001": _SECRET,
        "40013": "check corp_id",
        "40091": "check corp_secret: it is of another corp",
        "41002": "check corp_id",
        "41004": "check corp_secret",
    },
    address={"60020": "the application's list of trusted addresses does not have this machine's"},
)
# 301002, 48002, 48009 and 60011 say that the token is of the wrong application, or lacks a permission.
_REFUSALS: Final = Refusals(code="errcode", codes=frozenset({"40001", "40014", "42001"}))


class WeCom(Provider):
    """The access token of one application of a corp: an agent, contacts, customer contact, customer service.

    Each application has a secret of its own, and each secret a token of its own.

    >>> WeCom(corp_id="ww1", corp_secret="…")
    <WeCom>

    The platform gives out the same token until it expires, with the life that is left, and may withdraw it before.
    So there is one wait per expiry. The token goes into the query of each request; an auth object keeps it out of the
    client's log (https://developer.work.weixin.qq.com/document/path/91039).

    Args:
        corp_id: The corp, `ww…`.
        corp_secret: The application's secret.
        base_url: WeCom, or a private deployment.
        hosts: Host names to which an auth object may send the token; None: the base URL's.
        allow_http: Allows a `base_url` without TLS outside this machine.

    Raises:
        ConfigurationError: An option is missing or cannot work.
    """

    __slots__ = ("_corp_id", "_corp_secret", "allow_http", "base_url", "hosts")

    kind = "wecom"
    renewal_window = 0.0
    scheme = None
    base_url: str

    @without_locals
    def __init__(
        self,
        *,
        corp_id: str,
        corp_secret: str,
        base_url: str = "https://qyapi.weixin.qq.com",
        hosts: Iterable[str] | None = None,
        allow_http: bool = False,
    ) -> None:
        self._corp_id = credential_text(corp_id, option="WeCom(corp_id=…)")
        self._corp_secret = HiddenStr(credential_text(corp_secret, option="WeCom(corp_secret=…)"))
        self.base_url = checked_base_url(base_url, option="WeCom(base_url=…)", allow_http=allow_http)
        self.hosts = hosts_of(hosts, base_url=self.base_url, option="WeCom(hosts=…)")
        self.allow_http = allow_http

    def identity(self) -> tuple[object, ...]:
        """Return the deployment, the corp and the application's secret."""
        return (self.base_url, self._corp_id, self._corp_secret)

    async def fetch(self, http: TokenHTTP) -> Grant:
        """Ask the platform for a token.

        Raises:
            CredentialRejected: It refuses the corp, the secret, or this machine's address.
            TokenUnavailable: It cannot be reached, is busy, or its answer makes no sense.
        """
        # In one expression: a URL that holds the secret stands in no frame of a traceback.
        answer = await http.request(
            "GET",
            f"{self.base_url}/cgi-bin/gettoken?"
            + urlencode({"corpid": self._corp_id, "corpsecret": self._corp_secret}),
        )
        return _CODES.grant(answer, "access_token")

    def authorize(self, request: OutgoingRequest, token: Token) -> None:
        """Put the token into the query as `access_token`."""
        request.url = with_query_token(request.url, "access_token", token.value)

    def is_rejected(self, answer: OutgoingAnswer) -> bool | None:
        """Return whether an API said that the token is not valid: its body tells, the status is 200."""
        return _REFUSALS.tell(answer)
