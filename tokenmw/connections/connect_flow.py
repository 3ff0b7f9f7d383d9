"""The two halves of a flow: the redirect to the app's server, and the redirect back with a code."""

from __future__ import annotations

import hashlib
from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple, cast

from tokenmw.caches import LRUCache
from tokenmw.connections.authorize import PendingFlow, code_in
from tokenmw.connections.browser_cookie import FlowCookies
from tokenmw.connections.flow_problem import FlowProblem, ProblemKind
from tokenmw.connections.id_token import checked_claims
from tokenmw.connections.origin import is_secure
from tokenmw.connections.outcome import Connected
from tokenmw.connections.pair import GrantRefused
from tokenmw.errors import CredentialRejected, TokenUnavailable
from tokenmw.redaction import Unpicklable
from tokenmw.redis.errors import RedisUnavailable

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from tokenmw.connections.app import OAuthApp
    from tokenmw.connections.flow_parts import UsersConnections
    from tokenmw.connections.pair import TokenPair
    from tokenmw.connections.scopes import AllowedScopes
    from tokenmw.providers.http import TokenHTTP

__all__ = ["Begun", "ConnectFlows", "problem_of"]

# Flows that were completed here, each of 32 bytes. A browser forgets its own; this is for one that repeats a request.
_MAX_USED: Final = 4096


class Begun(NamedTuple):
    """A flow that has begun.

    Attributes:
        url: Where the browser is sent.
        cookies: `Set-Cookie` lines.
    """

    url: str
    cookies: list[str]


class ConnectFlows(Unpicklable):
    """The flows of one `ConnectApp`.

    Args:
        connections: The broker's connections.
        scopes: The scopes that requests may ask for.
    """

    __slots__ = ("_connections", "_scopes", "_used")

    def __init__(self, connections: UsersConnections, *, scopes: AllowedScopes) -> None:
        self._connections = connections
        self._scopes = scopes
        # The code of a flow is sent once: a second request with it makes servers revoke what the first one got.
        self._used: LRUCache[bytes, None] = LRUCache(_MAX_USED)

    def app(self, name: str) -> OAuthApp:
        """Return an app; `ConnectApp` has checked that it is one that can be connected by a browser."""
        return cast("OAuthApp", self._connections.config.apps[name])

    def cookies(self, base: str) -> FlowCookies:
        """Return what reads and writes the cookies, for a browser that reaches this program at a URL."""
        return FlowCookies(self._connections.flow_parts().sealer, secure=is_secure(base))

    def find(self, cookies: Mapping[str, str], state: str, *, base: str) -> PendingFlow | None:
        """Return the flow that a browser has kept for a `state`; None if it has none, or one that is too old.

        Raises:
            Unreadable: It is sealed with a secret that this instance does not have.
        """
        return self.cookies(base).find(cookies, state, now=self._connections.flow_parts().clock.time())

    async def begin(
        self,
        name: str,
        subject: str,
        *,
        base: str,
        redirect_uri: str,
        return_to: str,
        scopes: Iterable[str],
        cookies: Mapping[str, str],
    ) -> Begun:
        """Begin a flow.

        Args:
            name: The app's name.
            subject: The user.
            base: The URL at which browsers reach the `ConnectApp`.
            redirect_uri: Where the server sends the browser back.
            return_to: The path to which the user returns, checked.
            scopes: Names of further scopes, from the request.
            cookies: The cookies that the browser has.

        Raises:
            FlowProblem: The request asks for an unknown scope, or the server cannot be reached.
        """
        parts, app = self._connections.flow_parts(), self.app(name)
        asked = self._scopes.asked(name, scopes)
        flow = PendingFlow.begin(
            name,
            subject,
            redirect_uri=redirect_uri,
            scope=self._scopes.joined(name, app.scope, asked, await self._granted(name, subject)),
            return_to=return_to,
            has_id_token=app.dialect.has_id_token,
            now=parts.clock.time(),
        )
        try:
            url = await app.authorization_url(
                parts.http,
                redirect_uri=flow.redirect_uri,
                state=flow.state,
                challenge=flow.challenge,
                nonce=flow.nonce,
                scope=flow.scope,
            )
        except (TokenUnavailable, CredentialRejected) as error:
            raise problem_of(error) from None
        kept = self.cookies(base).kept(flow)
        if kept is None:
            raise FlowProblem("invalid", "scope and return_to are too long for a cookie")
        return Begun(url, [*self.cookies(base).surplus(cookies, kept=kept), kept])

    async def finish(
        self, flow: PendingFlow | None, query: Sequence[tuple[str, str]], *, name: str, subject: str, redirect_uri: str
    ) -> Connected:
        """Complete a flow: compare everything, exchange the code, and store the pair.

        Args:
            flow: What the browser has kept.
            query: The parameters of the redirect back.
            name: The app at whose redirect URI it has arrived.
            subject: The user who is signed in now.
            redirect_uri: That redirect URI.

        Raises:
            FlowProblem: The flow ended without a connection.
        """
        if flow is None:
            raise FlowProblem("expired", "the browser has no cookie of this flow")
        if flow.app != name or flow.redirect_uri != redirect_uri:
            raise FlowProblem("foreign", "the redirect leads to another app than the one that was to be connected")
        if flow.subject != subject:
            raise FlowProblem("other_user", "another user is signed in than at the beginning")
        app = self.app(name)
        # By any response, also an error: the browser forgets the cookie then, and so does this program.
        await self._use_once(flow)
        try:
            sends_issuer = await app.sends_issuer(self._connections.flow_parts().http)
            code = code_in(query, flow, app=app, sends_issuer=sends_issuer)
            pair = await self._connections.connect(name, subject, partial(self._exchange, app, flow, code))
        except (GrantRefused, CredentialRejected, TokenUnavailable) as error:
            raise problem_of(error) from None
        return Connected(name, subject, flow.scope if pair.scope is None else pair.scope, flow.return_to)

    async def _granted(self, name: str, subject: str) -> str:
        """Return the scopes that the user has granted, if requests may ask for more than those of the app."""
        if not self._scopes.has(name):
            return ""
        try:
            state = await self._connections.state(name, subject)
        except TokenUnavailable as error:
            raise problem_of(error) from None
        return "" if state is None else state.scope

    async def _exchange(self, app: OAuthApp, flow: PendingFlow, code: str, http: TokenHTTP) -> TokenPair:
        pair = await app.exchange_code(http, code, verifier=flow.verifier, redirect_uri=flow.redirect_uri)
        if flow.nonce:
            # A pair whose ID token differs is not revoked: at some servers that ends the user's other grants, too.
            checked_claims(
                pair.id_token,
                issuer=app.dialect.openid_issuer or app.issuer,
                client_id=app.client_id,
                nonce=flow.nonce,
                now=self._connections.flow_parts().clock.time(),
            )
        return pair

    async def _use_once(self, flow: PendingFlow) -> None:
        digest = hashlib.sha256(flow.state.encode()).digest()
        if digest in self._used:
            raise FlowProblem("expired", "the flow was completed before")
        self._used[digest] = None
        used = self._connections.flow_parts().used
        try:
            first = used is None or await used.use(flow.state)
        except RedisUnavailable:
            # The cookie and the code have one use of their own, and users connect accounts while Redis is unavailable.
            return
        if not first:
            raise FlowProblem("expired", "the flow was completed before, in another process")


def problem_of(error: Exception) -> FlowProblem:
    """Return the problem behind an error of a token request or of the store."""
    kind: ProblemKind = "refused" if isinstance(error, (GrantRefused, CredentialRejected)) else "unavailable"
    return FlowProblem(kind, str(error))
