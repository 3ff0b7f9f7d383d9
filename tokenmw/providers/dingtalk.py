"""DingTalk: the token of an internal app, or of an app in one corp, for the API v1.0."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from tokenmw.errors import TokenUnavailable
from tokenmw.options import credential_text, optional_seconds
from tokenmw.providers.base import OutgoingAnswer, OutgoingRequest, Provider
from tokenmw.providers.base_url import checked_base_url, hosts_of
from tokenmw.providers.body_codes import BodyCodes, Refusals
from tokenmw.redaction import HiddenStr, without_locals

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tokenmw.providers.answer import Answer
    from tokenmw.providers.http import TokenHTTP
    from tokenmw.values import Grant, Token

__all__ = ["DingTalk", "check_ban"]

_CREDENTIALS: Final = "check app_key and app_secret"
_PERMANENT: Final = {
    "invalidclientidorsecret": _CREDENTIALS,
    "invalid.client": _CREDENTIALS,
    "unauthorized.client": "check corp_id, and that the app may be used in that corp",
}
_ADDRESS: Final = {
    "forbidden.accessdenied.ipnotinwhitelist": "the app's list of allowed addresses does not have this machine's"
}
_CODES: Final = BodyCodes(code="code", life="expireIn", permanent=_PERMANENT, address=_ADDRESS)
_CODES_OF_CORP: Final = BodyCodes(code="code", life="expires_in", permanent=_PERMANENT, address=_ADDRESS)

# A missing header, a missing permission and a rate that is too high have codes of their own.
_REFUSALS: Final = Refusals(
    code="code", codes=frozenset({"invalidauthentication", "accesstoken.expired"}), statuses=frozenset({400, 401})
)
_BAN_SECONDS: Final = 300.0


class DingTalk(Provider):
    """The access token of an internal app for DingTalk's API v1.0, or with `corp_id` of an app in one corp.

    >>> DingTalk(app_key="ding1", app_secret="…")
    <DingTalk>

    The platform gives out the same token again while it is valid, and extends its life. The token goes into the header
    `x-acs-dingtalk-access-token` (https://open.dingtalk.com/document/orgapp/obtain-the-access_token-of-an-internal-app).

    Args:
        app_key: The app's key; the newer pages call it client id.
        app_secret: Its secret.
        corp_id: The corp, for the token endpoint that there is for each corp.
        base_url: DingTalk, or a private deployment.
        refresh_before: Seconds before expiry at which a new token is fetched; None for the default.
        hosts: Host names to which an auth object may send the token; None: the base URL's.
        allow_http: Allows a `base_url` without TLS outside this machine.

    Raises:
        ConfigurationError: An option is missing or cannot work.
    """

    __slots__ = ("_app_key", "_app_secret", "_corp_id", "allow_http", "base_url", "hosts", "refresh_before")

    kind = "dingtalk"
    scheme = None
    base_url: str
    _corp_id: str | None

    @without_locals
    def __init__(
        self,
        *,
        app_key: str,
        app_secret: str,
        corp_id: str | None = None,
        base_url: str = "https://api.dingtalk.com",
        refresh_before: float | None = None,
        hosts: Iterable[str] | None = None,
        allow_http: bool = False,
    ) -> None:
        self._app_key = credential_text(app_key, option="DingTalk(app_key=…)")
        self._app_secret = HiddenStr(credential_text(app_secret, option="DingTalk(app_secret=…)"))
        self._corp_id = None if corp_id is None else credential_text(corp_id, option="DingTalk(corp_id=…)")
        self.base_url = checked_base_url(base_url, option="DingTalk(base_url=…)", allow_http=allow_http)
        self.hosts = hosts_of(hosts, base_url=self.base_url, option="DingTalk(hosts=…)")
        self.allow_http = allow_http
        self.refresh_before = optional_seconds(refresh_before, option="DingTalk(refresh_before=…)")

    def identity(self) -> tuple[object, ...]:
        """Return the deployment, the app, its secret, and the corp."""
        return (self.base_url, self._app_key, self._app_secret, self._corp_id)

    async def fetch(self, http: TokenHTTP) -> Grant:
        """Ask the platform for a token.

        Raises:
            CredentialRejected: It refuses the app, its secret, or this machine's address.
            TokenUnavailable: It cannot be reached, is busy, has banned this machine, or its answer makes no sense. An
                unknown corp is such an answer too: it is told as HTTP 500.
        """
        if self._corp_id is None:
            answer = await http.request(
                "POST",
                f"{self.base_url}/v1.0/oauth2/accessToken",
                json={"appKey": self._app_key, "appSecret": self._app_secret},
            )
            check_ban(answer)
            return _CODES.grant(answer, "accessToken")
        answer = await http.request(
            "POST",
            f"{self.base_url}/v1.0/oauth2/{quote(self._corp_id, safe='')}/token",
            json={
                "client_id": self._app_key,
                "client_secret": self._app_secret,
                "grant_type": "client_credentials",
            },
        )
        check_ban(answer)
        return _CODES_OF_CORP.grant(answer, "access_token")

    def authorize(self, request: OutgoingRequest, token: Token) -> None:
        """Put the token into DingTalk's own header."""
        request.headers["x-acs-dingtalk-access-token"] = token.value

    def is_rejected(self, answer: OutgoingAnswer) -> bool | None:
        """Return whether an API said that the token is not valid: a code in the body of a 400 or 401."""
        return _REFUSALS.tell(answer)


def check_ban(answer: Answer) -> None:
    """Raise if the answer says that this machine's address is banned: for five minutes, after 10 000 calls in 20 s.

    Raises:
        TokenUnavailable: It does. A ban that comes as a page is no JSON, and is found there.
    """
    if b'"punish"' in answer.body:
        raise TokenUnavailable(
            f"the platform has banned this machine's address for a while (HTTP {answer.status})",
            retry_after=_BAN_SECONDS,
        )
