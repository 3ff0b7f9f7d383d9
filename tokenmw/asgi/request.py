"""The state of one request: `request.state.session_id`, `request.state.caller` and `request.state.tokens`."""

from __future__ import annotations

import asyncio
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, TypedDict

from starlette.requests import HTTPConnection

from tokenmw.broker import STATE_KEY
from tokenmw.credentials import RequestCredential, no_provider
from tokenmw.errors import ConfigurationError, RequestError, TokenUnavailable, copy_of
from tokenmw.outgoing import TokenAuth, token_auth
from tokenmw.redaction import Unpicklable
from tokenmw.tokens.entry import TokenEntry

if TYPE_CHECKING:
    from collections.abc import Awaitable, Iterator, Mapping, Sequence
    from types import TracebackType

    from starlette.types import Scope

    from tokenmw.broker import TokenBroker
    from tokenmw.callers.api_key import APIKeySource
    from tokenmw.credentials import ProviderOfRequest
    from tokenmw.providers.base import Provider
    from tokenmw.values import Token

__all__ = ["RequestState", "RequestTokens", "tokens_of"]

_OF_ONE_CONNECTION: Final = frozenset({"caller", "session_id", "tokens"})
_NOTHING: Final[Mapping[str, TokenEntry | None]] = MappingProxyType({})


class RequestState(TypedDict):
    """The keys that the middleware adds to a request's state, for starlette's typed requests.

        async def handler(request: Request[RequestState]) -> Response:
            session_id = request.state["session_id"]    # str
            token = request.state["tokens"]["feishu"]   # Token

    A program's own state derives from it: `class State(RequestState): database: Database`. FastAPI takes only a plain
    `Request` as a parameter's annotation.

    Attributes:
        session_id: The session id of the API key. Missing with `TokenMiddleware(sessions=False)`.
        caller: What `authenticate` returned; None for a request without a key. Missing without `authenticate`.
        tokens: The tokens of the request.
    """

    session_id: str
    caller: Any
    tokens: RequestTokens


def tokens_of(broker: TokenBroker, scope: Scope) -> RequestTokens:
    """Return the tokens of a connection: one object for all middlewares and dependencies of a broker.

    They are in the scope as well as in the state. ASGI requires a copy of the state for each connection; with a server
    that gives all connections the same one, a caller would otherwise get another caller's session id.
    """
    tokens: RequestTokens | None = None
    if STATE_KEY in scope:
        tokens = scope[STATE_KEY]
        if tokens is not None and tokens._broker is broker:
            return tokens
    state: dict[str, Any] | None = scope.get("state")
    if state is None:
        state = scope["state"] = {}
    elif "tokens" in state and tokens is None and isinstance(state["tokens"], RequestTokens):
        state = scope["state"] = {name: value for name, value in state.items() if name not in _OF_ONE_CONNECTION}
    tokens = scope[STATE_KEY] = state["tokens"] = RequestTokens(broker, scope)
    state[STATE_KEY] = broker
    return tokens


class RequestTokens(Unpicklable):
    """The tokens of one request: `request.state.tokens`.

        request.state.tokens["feishu"].value               # injected by the middleware
        await request.state.tokens.resolve("crm")          # on demand
        await http.post(url, auth=request.state.tokens.auth("wecom"))

    Each lookup reads the local cache again, so that a WebSocket never has an expired token, however long it is open.
    """

    # _authenticated_by: the source whose API key was checked; _identified_by: the source that gave the session id.
    __slots__ = (
        "_authenticated_by",
        "_broker",
        "_credentials",
        "_errors",
        "_identified_by",
        "_injected",
        "_scope",
    )

    def __init__(self, broker: TokenBroker, scope: Scope) -> None:
        self._broker = broker
        self._scope: Scope | None = scope
        # Never changed, only replaced: requests whose tokens are cached share one mapping.
        self._injected: Mapping[str, TokenEntry | None] = _NOTHING
        # Most requests need neither of the two.
        self._errors: dict[str, tuple[Exception, TracebackType | None]] | None = None
        self._credentials: dict[str, RequestCredential] | None = None
        self._authenticated_by: APIKeySource | None = None
        self._identified_by: APIKeySource | None = None

    def __getitem__(self, name: str) -> Token:
        """Return an injected token.

        Raises:
            KeyError: The name is not injected; the text has the fix.
            TokenUnavailable: There is no valid token now.
            CredentialRejected: The provider rejects the credential.
        """
        try:
            entry = self._injected[name]
        except KeyError:
            raise KeyError(self._hint(name)) from None
        if entry is not None:
            runtime = self._broker._runtime
            token = self._broker._while_closed(entry) if runtime is None else runtime.tokens.fresh(entry)
            if token is not None:
                return token if token.provider == name else token._under(name)
        raise self._error(name, entry)

    def __contains__(self, name: object) -> bool:
        return name in self._injected

    def __len__(self) -> int:
        return len(self._injected)

    def __iter__(self) -> Iterator[str]:
        return iter(tuple(self._injected))

    async def resolve(self, name: str) -> Token:
        """Return a valid token of any of the broker's providers, waiting for it if necessary.

        Raises:
            TokenUnavailable: There is none now.
            CredentialRejected: The provider rejects the credential.
            ConfigurationError: The broker has no provider of this name.
        """
        entry = self._broker._credentials.find(name)
        if not isinstance(entry, TokenEntry):
            entry = await self._entry(name)
        runtime = self._broker._runtime
        token = self._broker._while_closed(entry) if runtime is None else runtime.tokens.fresh(entry)
        if token is None:
            token = await self._labelled(self._broker._open().tokens.get(entry), entry)
        return token if token.provider == name else token._under(name)

    def auth(self, name: str) -> TokenAuth:
        """Return an auth object for an httpx or httpx2 request, with this request's credentials."""
        broker = self._broker
        broker._credentials.find(name)
        find, withheld = partial(self._find, name), broker._data.withheld.of(name)
        get_token = broker._token_of if broker._settings.labels is None else self._token_of
        return token_auth(find, get_token=get_token, invalidate=broker.invalidate, withheld=withheld)

    async def _inject(self, names: Sequence[str]) -> None:
        """Resolve tokens before the handler runs, concurrently. An exception is kept, and raised when it is used."""
        if len(names) == 1:
            await self._inject_one(names[0])
        else:
            await asyncio.gather(*map(self._inject_one, names))

    async def _inject_one(self, name: str) -> None:
        entry = None
        try:
            entry = await self._entry(name)
            self._injected = {**self._injected, name: entry}
            await self._broker._open().tokens.get_for_injection(entry)
        except Exception as error:  # noqa: BLE001  a route that does not need the token must not fail
            if entry is not None:
                self._label(entry)
            self._injected = {**self._injected, name: entry}
            self._errors = {**(self._errors or {}), name: (error, error.__traceback__)}

    def _inject_from_cache(self, names: tuple[str, ...]) -> bool:
        """Inject tokens if all of them are cached, and return whether they are. This is the warm path."""
        broker = self._broker
        runtime, entries = broker._runtime, broker._credentials.static_entries(names)
        if runtime is None or entries is None or self._injected:
            return not self._inject_fresh(names)
        fresh = runtime.tokens.fresh
        for entry in entries.values():
            if fresh(entry) is None:
                return False
        self._injected = entries
        return True

    def _inject_fresh(self, names: Sequence[str]) -> tuple[str, ...]:
        """Inject the tokens that are cached, and return the other names."""
        broker, runtime = self._broker, self._broker._runtime
        fresh = broker._while_closed if runtime is None else runtime.tokens.fresh
        cached: dict[str, TokenEntry] = {}
        missing: list[str] = []
        for name in names:
            entry = self._entry_without_waiting(name)
            if entry is not None and fresh(entry) is not None:
                cached[name] = entry
            else:
                missing.append(name)
        self._injected = {**self._injected, **cached} if self._injected else cached
        return tuple(missing)

    def _release(self) -> None:
        """Drop the scope of a finished connection: it refers to these tokens, and only the collector frees cycles.

        It stays as long as a callable of the program may still need it.
        """
        credentials = self._broker._credentials
        if not credentials.depend_on_request:
            self._scope = None
        elif self._credentials is not None and len(self._credentials) == credentials.callables:
            for credential in self._credentials.values():
                if credential.provider_at_once is None:
                    return
            self._scope = None

    async def _entry(self, name: str) -> TokenEntry:
        found = self._broker._credentials.find(name)
        if isinstance(found, TokenEntry):
            return found
        credential = self._credential(name, found)
        return self._broker._credentials.entry_of_result(name, await credential.provider())

    def _entry_without_waiting(self, name: str) -> TokenEntry | None:
        """Return the entry of a name; None if its callable is async, or has failed."""
        found = self._broker._credentials.find(name)
        if isinstance(found, TokenEntry):
            return found
        try:
            provider = self._credential(name, found).provider_at_once
            return None if provider is None else self._broker._credentials.entry_of_result(name, provider)
        except Exception:  # noqa: BLE001  `_inject_one` gets it again, and keeps it
            return None

    def _credential(self, name: str, function: ProviderOfRequest) -> RequestCredential:
        # The program's callable runs once in a request, however many tasks of it need the credential.
        self._credentials = self._credentials or {}
        credential = self._credentials.get(name)
        if credential is None or credential.callable is not function or credential.cancelled:
            if self._scope is None:
                raise ConfigurationError(f"{name!r} was overridden with a callable after the request had finished.")
            credential = self._credentials[name] = RequestCredential(function, HTTPConnection(self._scope))
        return credential

    async def _find(self, name: str) -> tuple[Provider, TokenEntry]:
        entry = await self._entry(name)
        credential = None if self._credentials is None else self._credentials.get(name)
        # The entry may have been made for an equal credential with other hosts.
        if credential is not None and credential.callable is self._broker._credentials.find(name):
            return await credential.provider(), entry
        return self._broker._credentials.provider(name, entry), entry

    async def _token_of(self, entry: TokenEntry) -> Token:
        return await self._labelled(self._broker._token_of(entry), entry)

    async def _labelled(self, waiting: Awaitable[Token], entry: TokenEntry) -> Token:
        try:
            return await waiting
        except RequestError:
            self._label(entry)
            raise

    def _label(self, entry: TokenEntry) -> None:
        """Note what the program calls this request's credential, which has failed."""
        labels = self._broker._settings.labels
        if labels is not None and self._scope is not None and not (entry.named or entry.given_label):
            entry.given_label = labels.of(HTTPConnection(self._scope))

    def _error(self, name: str, entry: TokenEntry | None) -> Exception:
        """Return why an injected token is not valid, and start a refresh in the background."""
        runtime = self._broker._runtime
        if entry is not None and runtime is not None:
            # Else a connection that was idle for longer than a token's lifetime would never get one again.
            runtime.tokens.refresh_soon(entry)
        if entry is not None and entry.failure is not None:
            return entry.failure.to_error(name, now=self._broker._settings.clock.monotonic())
        if self._errors is not None and name in self._errors:
            return copy_of(*self._errors[name])
        state = "the broker is closed" if runtime is None else "a new one is being fetched"
        return TokenUnavailable(
            f"{name}: the token has expired since it was injected, and {state}; {_resolve(name)} waits for it.",
            provider=name,
            retry_after=1.0,
        )

    def _hint(self, name: str) -> str:
        names = self._broker._credentials.names
        if name in names:
            return f"{name!r} is not injected: add it to TokenMiddleware(inject=[…]), or use {_resolve(name)}."
        return f"There is {no_provider(name, names)}"

    def __repr__(self) -> str:
        return f"<RequestTokens of {', '.join(self._injected) or 'nothing yet'}>"


def _resolve(name: str) -> str:
    return (
        f"`await request.state.tokens.resolve({name!r})` (in a sync handler "
        f"`anyio.from_thread.run(request.state.tokens.resolve, {name!r})`)"
    )
