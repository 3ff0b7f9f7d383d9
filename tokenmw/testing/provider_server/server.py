"""A token server for tests: the endpoints of real providers, with faults on demand."""

from __future__ import annotations

import contextlib
import importlib
from collections import Counter
from typing import TYPE_CHECKING, Any

from starlette.applications import Starlette
from starlette.routing import Route

from tokenmw.clock import SYSTEM_CLOCK, Clock
from tokenmw.testing.provider_server.authorize import AuthorizationEndpoint
from tokenmw.testing.provider_server.bearer_api import BearerAPI
from tokenmw.testing.provider_server.device import DeviceAuthorization, DevicePage
from tokenmw.testing.provider_server.dingtalk import DingTalkAPI, DingTalkCorpTokens, DingTalkTokens
from tokenmw.testing.provider_server.dingtalk_legacy import DingTalkLegacyAPI, DingTalkLegacyTokens
from tokenmw.testing.provider_server.dingtalk_user import DingTalkUserTokens
from tokenmw.testing.provider_server.fault import ConnectionClosedError, Hang
from tokenmw.testing.provider_server.feishu import FeishuAPI, FeishuAppTokens, FeishuTenantTokens
from tokenmw.testing.provider_server.feishu_store import (
    FeishuStoreAppTokens,
    FeishuStoreTenantTokens,
    FeishuTicketRequests,
)
from tokenmw.testing.provider_server.feishu_user import FeishuUserTokens
from tokenmw.testing.provider_server.github import GitHubUserTokens
from tokenmw.testing.provider_server.issued import IssuedTokens
from tokenmw.testing.provider_server.latch import Latch
from tokenmw.testing.provider_server.managed_identity import ManagedIdentityTokens
from tokenmw.testing.provider_server.metadata import EntraMetadata, OAuth2Keys, OAuth2Metadata, OpenIDMetadata
from tokenmw.testing.provider_server.microsoft import BotConnector, EntraTokens
from tokenmw.testing.provider_server.oauth2 import OAuth2Endpoint
from tokenmw.testing.provider_server.revocation import RevocationEndpoint
from tokenmw.testing.provider_server.running import running_app
from tokenmw.testing.provider_server.slack import SlackAPI, SlackUserTokens
from tokenmw.testing.provider_server.subjects import Subjects
from tokenmw.testing.provider_server.tls import make_tls_files
from tokenmw.testing.provider_server.users import Users
from tokenmw.testing.provider_server.wecom import WeComAPI, WeComTokens

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Mapping

    from starlette.types import Receive, Scope, Send

    from tokenmw.testing.provider_server.endpoint import Endpoint
    from tokenmw.values import Token

__all__ = ["ProviderServer"]


class ProviderServer:
    """Token endpoints of real providers, and APIs that accept their tokens, for tests without a network.

    In the same process, through a client's transport::

        server = ProviderServer()
        async with httpx.AsyncClient(transport=server.transport()) as http: ...
        assert 1 == server.calls["oauth2"]

    Over real HTTP, in its own thread::

        with server.running() as base_url:
            crm = ClientCredentials(token_url=f"{base_url}/oauth2/token", client_id="crm", client_secret="…")

    Over TLS, for what plain HTTP refuses, such as an issuer of a tenant::

        server = ProviderServer(tls=True)
        broker = TokenBroker({"crm": crm}, http=HTTPOptions(ca_file=server.ca_file))

    With faults::

        server.oauth2.script.then(Fault(status=503, headers={"Retry-After": "2"}), Fault(close=True))
        server.revoke(token)

    Args:
        clients: The known clients and their secrets, "" for a public client; None for any client with any secret.
        token_life: The lifetime in seconds of the tokens of `oauth2`, `entra` and `managed_identity`. Those of
            Feishu, WeCom and DingTalk live 7200 s, unless `life` of the endpoint is set.
        renewal_window: Seconds before expiry from which `oauth2` issues a new token. Before that, the same token is
            returned. None: a new token for each request; 0: never before expiry.
        delay: Seconds of real time that each answer takes.
        clock: The clock by which tokens expire.
        tls: Whether `running` serves over TLS, with a certificate of an authority of this server alone. It needs the
            extra `crypto`.
        endpoints: Additional endpoints: functions that take this server and return an `Endpoint`. One with the path of
            another endpoint replaces it.

    Attributes:
        calls: The number of calls by endpoint (`calls["oauth2"]`), and by endpoint and client
            (`calls["oauth2", "crm"]`).
        issued: All issued tokens.
        subjects: Tokens of users, for token exchange, the JWT bearer grant and Entra on behalf of.
        users: Consents of users and their refresh tokens, with the options of these grants.
        oauth2: `POST /oauth2/token`; its `dpop`, as that of `api`, verifies DPoP proofs.
        authorize: `GET /oauth2/authorize`, for browsers.
        device: `POST /oauth2/device`, for programs without a browser.
        device_page: `GET /oauth2/device/verify`, for their users.
        revocation: `POST /oauth2/revoke`.
        oauth2_metadata, openid_metadata: Its discovery documents, `GET /.well-known/oauth-authorization-server` and
            `GET /.well-known/openid-configuration`.
        api: `/api/…`.
        feishu_tenant, feishu_app: Feishu's token endpoints; both give a client the same token.
        feishu_ticket, feishu_store_app, feishu_store_tenant: The token endpoints of store apps.
        feishu_user: Tokens of users, `POST /open-apis/authen/v2/oauth/token`; its `authorize` is
            `GET /open-apis/authen/v1/authorize`.
        feishu_api: `/open-apis/…`.
        wecom: `GET /cgi-bin/gettoken`.
        wecom_api: `/cgi-bin/…`.
        dingtalk, dingtalk_corp: `POST /v1.0/oauth2/accessToken` and `POST /v1.0/oauth2/{corp}/token`.
        dingtalk_user: Tokens of users, `POST /v1.0/oauth2/userAccessToken`; its `authorize` is `GET /oauth2/auth`.
        dingtalk_api: `/v1.0/…`.
        dingtalk_legacy: `GET /gettoken`.
        dingtalk_legacy_api: `/topapi/…`.
        slack: `POST /api/oauth.v2.access`; its `authorize` is `GET /oauth/v2/authorize`.
        slack_api: `/api/auth.test`.
        github: `POST /login/oauth/access_token`; its `authorize` is `GET /login/oauth/authorize`, its `device`
            `POST /login/device/code`.
        entra: `POST /{tenant}/oauth2/v2.0/token`, for Entra and for bots.
        entra_metadata: `GET /{tenant}/v2.0/.well-known/openid-configuration`.
        managed_identity: `/metadata/identity/oauth2/token`, as IMDS; its `platform` makes it another one.
        bot_connector: `POST /v3/conversations/{id}/activities`.
        app: The server as a Starlette application.
        ca_file: The file of the authority that clients have to trust; None without `tls`.
    """

    def __init__(
        self,
        *,
        clients: Mapping[str, str] | None = None,
        token_life: float = 3600.0,
        renewal_window: float | None = None,
        delay: float = 0.0,
        clock: Clock = SYSTEM_CLOCK,
        endpoints: Iterable[Callable[[ProviderServer], Endpoint]] = (),
        tls: bool = False,
    ) -> None:
        self._tls = make_tls_files() if tls else None
        self.ca_file = None if self._tls is None else self._tls.ca_file
        self.clients = None if clients is None else dict(clients)
        self.delay = delay
        self.calls: Counter[str | tuple[str, str]] = Counter()
        self.issued = IssuedTokens(clock=clock)
        self.subjects = Subjects(self.issued, clock=clock)
        self.users = Users(self, clock=clock)
        self.closing = Latch()
        self._hanging: set[Hang] = set()
        self.oauth2 = OAuth2Endpoint(self, life=token_life, renewal_window=renewal_window)
        self.authorize = AuthorizationEndpoint(self, self.oauth2)
        self.device = DeviceAuthorization(self)
        self.device_page = DevicePage(self)
        self.revocation = RevocationEndpoint(self)
        self.api = BearerAPI(self)
        self.feishu_tenant = FeishuTenantTokens(self)
        self.feishu_app = FeishuAppTokens(self)
        self.feishu_ticket = FeishuTicketRequests(self)
        self.feishu_store_app = FeishuStoreAppTokens(self)
        self.feishu_store_tenant = FeishuStoreTenantTokens(self)
        self.feishu_user = FeishuUserTokens(self)
        self.feishu_api = FeishuAPI(self)
        self.wecom = WeComTokens(self)
        self.wecom_api = WeComAPI(self)
        self.dingtalk = DingTalkTokens(self)
        self.dingtalk_corp = DingTalkCorpTokens(self)
        self.dingtalk_user = DingTalkUserTokens(self)
        self.dingtalk_api = DingTalkAPI(self)
        self.dingtalk_legacy = DingTalkLegacyTokens(self)
        self.dingtalk_legacy_api = DingTalkLegacyAPI(self)
        self.slack = SlackUserTokens(self)
        self.slack_api = SlackAPI(self)
        self.github = GitHubUserTokens(self)
        self.entra = EntraTokens(self, life=token_life)
        self.managed_identity = ManagedIdentityTokens(self, life=token_life)
        self.bot_connector = BotConnector(self)
        self.oauth2_metadata = OAuth2Metadata(self)
        self.openid_metadata = OpenIDMetadata(self)
        self.entra_metadata = EntraMetadata(self)
        # An API matches every path below its own, so its token endpoints must come first.
        feishu = (
            self.feishu_tenant,
            self.feishu_app,
            self.feishu_ticket,
            self.feishu_store_app,
            self.feishu_store_tenant,
            self.feishu_user.authorize,
            self.feishu_user,
            self.feishu_api,
        )
        dingtalk = (
            self.dingtalk,
            self.dingtalk_corp,
            self.dingtalk_user.authorize,
            self.dingtalk_user,
            self.dingtalk_api,
        )
        legacy = (self.dingtalk_legacy, self.dingtalk_legacy_api)
        microsoft = (self.entra, self.managed_identity, self.bot_connector)
        platforms = (*feishu, self.wecom, self.wecom_api, *dingtalk, *legacy, *microsoft)
        # A test's own endpoints first. The paths of Entra's documents are below those of any issuer.
        documents = (self.entra_metadata, self.oauth2_metadata, self.openid_metadata, OAuth2Keys(self))
        products = (
            self.slack.authorize,
            self.slack,
            self.slack_api,
            self.github.authorize,
            self.github.device,
            self.github,
        )
        consents = (self.authorize, self.device, self.device_page, self.revocation)
        served = [
            *(make(self) for make in endpoints),
            self.oauth2,
            *consents,
            *products,
            self.api,
            *documents,
            *platforms,
        ]
        self.app = Starlette(
            routes=[
                Route(path, one, methods=list(one.methods)) for one in served for path in (one.path, *one.more_paths)
            ]
        )

    def revoke(self, token: str | Token) -> None:
        """Revoke an issued token before it expires, as a provider may at any time.

        Raises:
            KeyError: This server did not issue it.
        """
        self.issued.revoke(token if isinstance(token, str) else token.value)

    def knows(self, client: str, secret: str | None) -> bool:
        """Return whether client and secret are known; with `secret=None`, whether the client is known."""
        if self.clients is None:
            return bool(client)
        return client in self.clients and secret in (None, self.clients[client])

    async def hold(self, hang: Hang) -> None:
        """Hold back a caller until it is released or this server stops. For endpoints."""
        self._hanging.add(hang)
        hang.arrived.set()
        await hang.released.wait()
        self._hanging.discard(hang)

    def transport(self, library: str = "httpx") -> Any:
        """Return a transport for a client of `httpx` or `httpx2` that calls this server without a socket.

        A closed connection is the library's `RemoteProtocolError`, as over a network.
        """
        client_library: Any = importlib.import_module(library)

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            try:
                await self.app(scope, receive, send)
            except ConnectionClosedError:
                raise client_library.RemoteProtocolError("Server disconnected.") from None

        return client_library.ASGITransport(app=app)

    @contextlib.contextmanager
    def running(self) -> Generator[str]:
        """Serve over real HTTP, or TLS, on a free port of this machine, and yield the base URL.

        Raises:
            ConfigurationError: uvicorn is not installed.
        """
        self.closing = Latch()
        with running_app(self.app, tls=self._tls) as base_url:
            try:
                yield base_url
            finally:
                # A call that is still held back would keep the thread from ending.
                self.closing.set()
                for hang in tuple(self._hanging):
                    hang.release()
