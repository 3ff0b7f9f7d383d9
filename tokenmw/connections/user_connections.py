"""`broker.connections`: what a program does with the connections of its users outside of their requests."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from math import isfinite
from typing import TYPE_CHECKING, Any, Final, Literal, TypeVar

from tokenmw.connections.connections import Connections, checked_connections, checked_subject
from tokenmw.connections.device import begin_device
from tokenmw.connections.document import DISCONNECTED, ConnectionDocument
from tokenmw.connections.documents import Found, Unusable
from tokenmw.connections.flow_parts import FlowParts
from tokenmw.connections.options import checked_scope
from tokenmw.connections.store import StoreUnavailable
from tokenmw.errors import ConfigurationError, TokenUnavailable
from tokenmw.observe.events import ConnectionChanged
from tokenmw.options import did_you_mean, positive_seconds, secret_text
from tokenmw.redaction import Unpicklable, without_locals

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tokenmw.connections.device import DeviceFlow
    from tokenmw.connections.pair import TokenPair
    from tokenmw.connections.parts import OpenConnections
    from tokenmw.connections.store import ConnectionKey
    from tokenmw.connections.user_token import UserToken
    from tokenmw.providers.http import TokenHTTP
    from tokenmw.values import Token

__all__ = ["ConnectionState", "UserConnections", "checked_connections"]

T = TypeVar("T")

_TRIES: Final = 10  # writes that other processes may forestall
_STORE_TRIES: Final = 3  # of a pair that a browser has just brought: no other process has it
_STORE_BACKOFF: Final = 0.2  # seconds
_PAGE: Final = 100  # connections in one scan


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionState:
    """The state of one connection, without its tokens.

    Attributes:
        state: `ok`, `failing` (the last refresh failed; it is tried again when a request needs it) or `reconnect` (the
            user has to connect again).
        reason: Why it is not `ok`, such as `unavailable` or `invalid_grant`; "" if it is.
        since: Since when it is not `ok`, in seconds since 1970; None if it is.
        scope: The granted scopes, separated by spaces.
        connected_at: When the user connected, in seconds since 1970.
        refreshed_at: When its tokens were granted, in seconds since 1970.
        expires_at: When its access token expires, in seconds since 1970; None without one, or if it never does.
    """

    state: Literal["ok", "failing", "reconnect"]
    reason: str
    since: float | None
    scope: str
    connected_at: float
    refreshed_at: float
    expires_at: float | None


class UserConnections(Unpicklable):
    """The connections of a broker's users."""

    __slots__ = ("_config", "_opened")

    def __init__(self, config: Connections | None, *, opened: Callable[[], OpenConnections]) -> None:
        self._config = config
        self._opened = opened

    @property
    def config(self) -> Connections:
        """The apps, the store and the paths.

        Raises:
            ConfigurationError: The broker has no connections.
        """
        if self._config is None:
            raise ConfigurationError(
                "This TokenBroker has no connections of users: give it connections=Connections(…)."
            )
        return self._config

    def beside(self, providers: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the broker's names: its providers, and a callable for each app.

        Raises:
            ConfigurationError: A name is in both.
        """
        # Anything else than a mapping is reported by the check of `providers`.
        if self._config is None or not isinstance(providers, Mapping):
            return providers
        return {**providers, **self._config.of_requests(providers)}

    async def token(self, name: str, subject: str) -> Token:
        """Return a user's access token.

        Raises:
            ReconnectRequired: The user has to connect the account, or to connect it again.
            TokenUnavailable: There is no token now.
            CredentialRejected: The server refuses the client.
        """
        opened = self._opened()
        token = await opened.tokens.get(opened.entry(self._provider(name, subject)))
        return token._under(name)

    @without_locals
    async def save(
        self,
        name: str,
        subject: str,
        *,
        refresh_token: str | None,
        access_token: str | None = None,
        expires_in: float | None = None,
        scope: str | None = None,
    ) -> None:
        """Store the tokens that a user has given another program, in place of what is stored.

        A refresh token that was spent here for the one that is stored changes nothing.

        Args:
            name: The app's name.
            subject: The user.
            refresh_token: The refresh token; None if there is none, and the connection ends with the access token.
            access_token: The access token; None: the first request gets one.
            expires_in: Its lifetime in seconds.
            scope: The granted scopes, separated by spaces.

        Raises:
            TokenUnavailable: The store cannot take it.
        """
        if access_token is None and refresh_token is None:
            raise ConfigurationError("save needs a refresh_token or an access_token.")
        lifetime = 0.0
        if access_token is not None:
            secret_text(access_token, option="save(access_token=…)")
            if expires_in is None:
                raise ConfigurationError("save needs expires_in=… with access_token=…, in seconds.")
            lifetime = positive_seconds(expires_in, option="save(expires_in=…)")
        elif expires_in is not None:
            raise ConfigurationError("save needs access_token=… with expires_in=…, which is its lifetime.")
        if refresh_token is not None:
            secret_text(refresh_token, option="save(refresh_token=…)")
        now = self._opened().parts.clock.time()
        document = ConnectionDocument(
            refresh_token=refresh_token,
            access_token=access_token,
            expires_at=now + lifetime if access_token else 0.0,
            lifetime=lifetime,
            scope=checked_scope(scope or "", option="save(scope=…)"),
            granted_at=now,
            refreshed_at=now,
        )
        provider = self._provider(name, subject)
        await self._run(partial(self._replace, provider, lambda _found: document))

    @without_locals
    async def connect(
        self, name: str, subject: str, get_pair: Callable[[TokenHTTP], Awaitable[TokenPair]]
    ) -> TokenPair:
        """Get the first pair of a connection and store it, whether or not the caller is cancelled meanwhile.

        Args:
            name: The app's name.
            subject: The user.
            get_pair: Exchanges a code for the pair. Without a refresh token in it, the connection keeps the one that it
                has: some servers grant one only when the user consents for the first time.

        Raises:
            TokenUnavailable: The store cannot take it.
            Exception: What `get_pair` raised.
        """
        opened, provider = self._opened(), self._provider(name, subject)

        async def exchange() -> TokenPair:
            asked = opened.parts.clock.time()
            pair = await get_pair(opened.tokens.http)

            def made(found: Found | None) -> ConnectionDocument:
                before = None if found is None or found.document.reconnect else found.document
                new = ConnectionDocument.of_pair(pair, now=asked)
                if pair.refresh_token is None and before is not None and before.refresh_token is not None:
                    new = ConnectionDocument.of_pair(pair, now=asked, before=before)
                return new

            await self._replace(provider, made)
            return pair

        pair: TokenPair = await opened.parts.exchanges.run(exchange)
        return pair

    async def device(self, name: str, subject: str, *, scope: str | None = None) -> DeviceFlow:
        """Begin the flow of a program without a browser (RFC 8628): the user types a code at the app's server.

            flow = await broker.connections.device("google", "user-17")
            print(f"Open {flow.verification_uri} and type {flow.user_code}")
            await flow.done()

        Args:
            name: The app's name.
            subject: The user.
            scope: The scopes, separated by spaces. Default: those of the app.

        Raises:
            FlowProblem: The server refuses the request, or cannot be reached.
        """
        provider = self._provider(name, subject)
        return await begin_device(self, provider.app_name, provider.subject, scope=scope)

    def flow_parts(self) -> FlowParts:
        """Return what flows use, in the running event loop. For this package's own modules."""
        opened = self._opened()
        parts = opened.parts
        return FlowParts(opened.tokens.http, parts.sealer, parts.clock, parts.log, parts.used)

    async def state(self, name: str, subject: str) -> ConnectionState | None:
        """Return the state of a user's connection; None if there is none.

        Raises:
            TokenUnavailable: The store cannot answer.
        """
        provider = self._provider(name, subject)
        try:
            found = await self._load(self._key(provider))
        except Unusable as error:
            return ConnectionState(
                state="failing" if error.reason == "unknown-key" else "reconnect",
                reason=error.reason,
                since=None,
                scope="",
                connected_at=0.0,
                refreshed_at=0.0,
                expires_at=None,
            )
        return None if found is None else _state_of(found.document)

    async def list(self, subject: str) -> dict[str, ConnectionState]:
        """Return the states of a user's connections by the apps' names, without those that do not exist.

        Raises:
            TokenUnavailable: The store cannot answer.
        """
        states = {name: await self.state(name, subject) for name in self.config.apps}
        return {name: state for name, state in states.items() if state is not None}

    async def disconnect(self, name: str, subject: str) -> bool:
        """Delete a user's connection, on all instances, and revoke its tokens at the server.

        Return whether there was one. A server that fails to revoke is logged; the tokens are deleted in any case.

        Raises:
            TokenUnavailable: The store cannot answer.
        """
        provider = self._provider(name, subject)
        return await self._run(partial(self._disconnect, provider))

    async def reseal(self) -> int:
        """Seal the connections that are not sealed with the first `secret_key` again. Return how many there were.

        Call it once after each rotation, before the old secret is removed.

        Raises:
            TokenUnavailable: The store cannot answer.
        """
        documents, resealed = self._opened().parts.documents, 0
        after: ConnectionKey | None = None
        while True:
            page = await self._tried(partial(documents.scan, after=after, limit=_PAGE))
            for key, stored in page:
                resealed += await self._tried(partial(documents.reseal, key, stored))
                after = key
            if len(page) < _PAGE:
                return resealed

    def _provider(self, name: str, subject: str) -> UserToken:
        if not isinstance(name, str):
            raise ConfigurationError(f"The name of an app must be a str, not {type(name).__name__}.")
        if name not in self.config.apps:
            raise ConfigurationError(
                f"connections has no app {name[:100]!r}{did_you_mean(name, sorted(self.config.apps))}"
            )
        return self.config.provider(name, checked_subject(subject, option="subject"))

    def _key(self, provider: UserToken) -> ConnectionKey:
        return self._opened().parts.documents.key(provider.app_name, provider.subject)

    async def _run(self, work: Callable[[], Awaitable[T]]) -> T:
        result: T = await self._opened().parts.exchanges.run(work)
        return result

    async def _load(self, key: ConnectionKey) -> Found | None:
        parts = self._opened().parts
        found = await self._tried(lambda: parts.documents.load(key))
        if found is not None and found.document.reconnect == DISCONNECTED:
            parts.ended.note(key, found.version)
            return None
        return found

    async def _replace(self, provider: UserToken, made: Callable[[Found | None], ConnectionDocument]) -> None:
        documents, key = self._opened().parts.documents, self._key(provider)
        for attempt in range(_TRIES):
            version, found = 0, None
            try:
                found = await self._tried(lambda: documents.load(key))
                version = 0 if found is None else found.version
            except Unusable as error:
                version = error.version
            document = made(found)
            if found is not None:
                if found.document.replaces(document) and not found.document.reconnect:
                    if attempt:  # it was stored by a write whose reply was lost, and refreshed since
                        await self._changed(provider, ConnectionChanged(provider.app_name, "ok"), newest=document)
                    return  # it is spent, and the store has what came of it
                document = document.with_claim_of(found.document)
            if await self._tried(partial(documents.save, key, document, expected=version)):
                await self._changed(provider, ConnectionChanged(provider.app_name, "ok"), newest=document)
                return
        raise TokenUnavailable("the connection was changed by other processes again and again")

    async def _disconnect(self, provider: UserToken) -> bool:
        opened, key = self._opened(), self._key(provider)
        documents = opened.parts.documents
        for _ in range(_TRIES):
            document: ConnectionDocument | None = None
            try:
                found = await self._tried(lambda: documents.load(key))
                if found is None or found.document.reconnect == DISCONNECTED:
                    return False
                version, document = found
            except Unusable as error:
                version = error.version
            if await self._tried(partial(self._end, key, version)):
                break
        else:
            raise TokenUnavailable("the connection was changed by other processes again and again")
        await self._changed(provider, ConnectionChanged(provider.app_name, "disconnected"), newest=None)
        if document is not None:
            await opened.parts.refresher.revoke(provider, opened.tokens.http, document)
        return True

    async def _end(self, key: ConnectionKey, version: int) -> bool:
        parts = self._opened().parts
        ended = ConnectionDocument.ended(now=parts.clock.time())
        if not await parts.documents.save(key, ended, expected=version):
            return False
        parts.ended.note(key, version + 1)
        return True

    async def _changed(
        self, provider: UserToken, event: ConnectionChanged, *, newest: ConnectionDocument | None
    ) -> None:
        opened = self._opened()
        await opened.parts.storage.forget(self._key(provider), newest=newest)
        await opened.sync.invalidate_current(opened.entry(provider))
        opened.parts.observe(event)

    async def _tried(self, call: Callable[[], Awaitable[T]]) -> T:
        """Call the store up to three times."""
        clock = self._opened().parts.clock
        for remaining in reversed(range(_STORE_TRIES)):
            try:
                return await call()
            except StoreUnavailable as error:
                if not remaining:
                    raise TokenUnavailable(f"the store of connections cannot answer: {error}") from None
                await clock.sleep(_STORE_BACKOFF)
        raise AssertionError  # the loop returns or raises


def _state_of(document: ConnectionDocument) -> ConnectionState:
    reason = document.reconnect or document.failing
    since = document.reconnect_at if document.reconnect else document.failing_since
    return ConnectionState(
        state="reconnect" if document.reconnect else "failing" if document.failing else "ok",
        reason=reason,
        since=since if reason else None,
        scope=document.scope,
        connected_at=document.granted_at,
        refreshed_at=document.refreshed_at,
        expires_at=document.expires_at if document.access_token and isfinite(document.expires_at) else None,
    )
