"""DingTalk's older API at oapi.dingtalk.com, with its own kind of token."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from urllib.parse import urlencode

from tokenmw.options import credential_text, optional_seconds
from tokenmw.providers.base import OutgoingAnswer, OutgoingRequest, Provider
from tokenmw.providers.base_url import checked_base_url, hosts_of
from tokenmw.providers.body_codes import BodyCodes, Refusals
from tokenmw.providers.dingtalk import check_ban
from tokenmw.providers.unlogged_url import with_query_token
from tokenmw.redaction import HiddenStr, without_locals

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tokenmw.providers.http import TokenHTTP
    from tokenmw.values import Grant, Token

__all__ = ["DingTalkLegacy"]

_CREDENTIALS: Final = "check app_key and app_secret"

_CODES: Final = BodyCodes(
    code="errcode",
    life="expires_in",
    permanent=dict.fromkeys(("40035", "40089", "40096", "900103"), _CREDENTIALS),
    address={"60020": "the app's list of allowed addresses does not have this machine's"},
)
_REFUSALS: Final = Refusals(
    code="errcode", codes=frozenset({"33001", "40001", "40014", "42001"}), elsewhere={"88": "sub_code"}
)


class DingTalkLegacy(Provider):
    """The access token of an internal app, for DingTalk's older API.

    >>> DingTalkLegacy(app_key="ding1", app_secret="…")
    <DingTalkLegacy>

    The platform gives out the same token again while it is valid, and extends its life. The token goes into the query
    of each request; an auth object keeps it out of the client's log
    (https://open.dingtalk.com/document/orgapp/obtain-orgapp-token).

    Args:
        app_key: The app's key; the newer pages call it client id.
        app_secret: Its secret.
        base_url: DingTalk, or a private deployment.
        refresh_before: Seconds before expiry at which a new token is fetched; None for the default.
        hosts: Host names to which an auth object may send the token; None: the base URL's.
        allow_http: Allows a `base_url` without TLS outside this machine.

    Raises:
        ConfigurationError: An option is missing or cannot work.
    """

    __slots__ = ("_app_key", "_app_secret", "allow_http", "base_url", "hosts", "refresh_before")

    kind = "dingtalk_legacy"
    scheme = None
    base_url: str

    @without_locals
    def __init__(
        self,
        *,
        app_key: str,
        app_secret: str,
        base_url: str = "https://oapi.dingtalk.com",
        refresh_before: float | None = None,
        hosts: Iterable[str] | None = None,
        allow_http: bool = False,
    ) -> None:
        self._app_key = credential_text(app_key, option="DingTalkLegacy(app_key=…)")
        self._app_secret = HiddenStr(credential_text(app_secret, option="DingTalkLegacy(app_secret=…)"))
        self.base_url = checked_base_url(base_url, option="DingTalkLegacy(base_url=…)", allow_http=allow_http)
        self.hosts = hosts_of(hosts, base_url=self.base_url, option="DingTalkLegacy(hosts=…)")
        self.allow_http = allow_http
        self.refresh_before = optional_seconds(refresh_before, option="DingTalkLegacy(refresh_before=…)")

    def identity(self) -> tuple[object, ...]:
        """Return the deployment, the app and its secret."""
        return (self.base_url, self._app_key, self._app_secret)

    async def fetch(self, http: TokenHTTP) -> Grant:
        """Ask the platform for a token.

        Raises:
            CredentialRejected: It refuses the app, its secret, or this machine's address.
            TokenUnavailable: It cannot be reached, is busy, has banned this machine, or its answer makes no sense.
        """
        # In one expression: a URL that holds the secret stands in no frame of a traceback.
        answer = await http.request(
            "GET", f"{self.base_url}/gettoken?" + urlencode({"appkey": self._app_key, "appsecret": self._app_secret})
        )
        check_ban(answer)
        return _CODES.grant(answer, "access_token")

    def authorize(self, request: OutgoingRequest, token: Token) -> None:
        """Put the token into the query as `access_token`."""
        request.url = with_query_token(request.url, "access_token", token.value)

    def is_rejected(self, answer: OutgoingAnswer) -> bool | None:
        """Return whether an API said that the token is not valid: its body tells, the status is 200."""
        return _REFUSALS.tell(answer)
