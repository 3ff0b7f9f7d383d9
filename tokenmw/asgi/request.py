"""What one request remembers: who calls, its session id, its tokens."""

from __future__ import annotations

import asyncio
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from starlette.requests import HTTPConnection

from tokenmw.broker import STATE_KEY
from tokenmw.credentials import RequestCredential
from tokenmw.errors import ConfigurationError, TokenUnavailable
from tokenmw.outgoing import TokenAuth, token_auth
from tokenmw.redaction import Unpicklable
from tokenmw.tokens.entry import TokenEntry

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from starlette.types import Scope

    from tokenmw.broker import TokenBroker
    from tokenmw.callers.api_key import APIKeySource
    from tokenmw.providers.base import Provider
    from tokenmw.values import Token

__all__ = ["RequestTokens", "tokens_of"]

_OF_ONE_CONNECTION: Final = frozenset({"caller", "session_id", "tokens"})
_NOTHING: Final[Mapping[str, TokenEntry | None]] = MappingProxyType({})


def tokens_of(broker: TokenBroker, scope: Scope) -> RequestTokens:
    """Return the tokens of a connection, the same ones however often and wherever in the application it is asked.

    They are in the scope as well as in the state: a server that gives all connections one state (ASGI wants a copy
    for each) would otherwise give one caller's session id to the next.
    """
    tokens: RequestTokens | None = None
    if STATE_KEY in scope:
        tokens = scope[STATE_KEY]
        if tokens is not None and tokens.broker is broker:
            return tokens
    state: dict[str, Any] | None = scope.get("state")
    if state is None:
        state = scope["state"] = {}
    elif tokens is None and "tokens" in state and isinstance(state["tokens"], RequestTokens):
        state = scope["state"] = {name: value for name, value in state.items() if name not in _OF_ONE_CONNECTION}
    tokens = scope[STATE_KEY] = state["tokens"] = RequestTokens(broker, scope)
    state[STATE_KEY] = broker
    return tokens


class RequestTokens(Unpicklable):
    """The tokens of one request: `request.state.tokens`.

        request.state.tokens["feishu"].value               # injected by the middleware
        await request.state.tokens.resolve("crm")          # on demand
        await http.post(url, auth=request.state.tokens.auth("wecom"))

    Looking up looks at the local cache anew, so that a WebSocket that lives for hours has no old token.

    Attributes:
        broker: The broker behind it.
        authenticated_by: The source whose API key was checked; None if none was checked.
        identified_by: The source that gave the connection's session id; None if none has been asked yet.
        anonymous: Whether that source found no API key.
    """

    __slots__ = (
        "_choices",
        "_errors",
        "_injected",
        "_scope",
        "anonymous",
        "authenticated_by",
        "broker",
        "identified_by",
    )

    def __init__(self, broker: TokenBroker, scope: Scope) -> None:
        self.broker = broker
        self._scope: Scope | None = scope
        # Never changed, only replaced: all requests whose tokens are known have the same one.
        self._injected: Mapping[str, TokenEntry | None] = _NOTHING
        # Most requests need neither of the two.
        self._errors: dict[str, Exception] | None = None
        self._choices: dict[str, RequestCredential] | None = None
        self.authenticated_by: APIKeySource | None = None
        self.identified_by: APIKeySource | None = None
        self.anonymous = False

    def __getitem__(self, name: str) -> Token:
        """Return an injected token.

        Raises:
            KeyError: The name is not injected; the text tells the mend.
            TokenUnavailable: There is no valid token now, or
            CredentialRejected: the provider refuses the credential.
        """
        try:
            entry = self._injected[name]
        except KeyError:
            raise KeyError(self._hint(name)) from None
        token = None if entry is None else self.broker.parts.tokens.fresh(entry)
        if token is not None:
            return token if token.provider == name else token.under(name)
        if entry is not None:
            # Else a connection that was silent for longer than a token lives would never have one again.
            self.broker.parts.tokens.refresh_soon(entry)
        if entry is not None and entry.failure is not None:
            raise entry.failure.error(name, now=self.broker.parts.clock.monotonic())
        if self._errors is not None and name in self._errors:
            raise self._errors[name]
        raise TokenUnavailable(
            f"{name}: the token has ended since it was injected, and a new one is being fetched; "
            f"`await request.state.tokens.resolve({name!r})` waits for it.",
            provider=name,
            retry_after=1.0,
        )

    def __contains__(self, name: object) -> bool:
        return name in self._injected

    def __len__(self) -> int:
        return len(self._injected)

    def __iter__(self) -> Iterator[str]:
        return iter(tuple(self._injected))

    async def resolve(self, name: str) -> Token:
        """Return a valid token of any of the broker's providers, waiting for it if need be.

        Raises:
            TokenUnavailable: There is none now.
            CredentialRejected: The provider refuses the credential.
            ConfigurationError: The broker has no provider of this name.
        """
        entry = self.broker.sources.source(name)
        if not isinstance(entry, TokenEntry):
            entry = await self._entry(name)
        token = self.broker.parts.tokens.fresh(entry) or await self.broker.token_of(entry)
        return token if token.provider == name else token.under(name)

    def auth(self, name: str) -> TokenAuth:
        """Return an auth object for an httpx or httpx2 request, with this request's credentials."""
        self.broker.sources.source(name)
        return token_auth(partial(self._find, name), get_token=self.broker.token_of, invalidate=self.broker.invalidate)

    async def inject(self, names: Sequence[str]) -> None:
        """Resolve tokens before the handler runs, all at once. Whatever goes wrong is kept, and raised on use."""
        if len(names) == 1:
            await self._inject(names[0])
        else:
            await asyncio.gather(*map(self._inject, names))

    async def _inject(self, name: str) -> None:
        entry = None
        try:
            entry = await self._entry(name)
            self._injected = {**self._injected, name: entry}
            await self.broker.token_of(entry, injected=True)
        except Exception as error:  # noqa: BLE001  a route that does not need the token must not fail
            self._injected = {**self._injected, name: entry}
            self._errors = {**(self._errors or {}), name: error}

    def inject_from_cache(self, names: tuple[str, ...]) -> bool:
        """Inject tokens if all of them are there already. Return whether they are; this is the warm path."""
        entries = self.broker.sources.entries(names)
        if entries is None or self._injected:
            return not self.inject_fresh(names)
        fresh = self.broker.parts.tokens.fresh
        for entry in entries.values():
            if fresh(entry) is None:
                return False
        self._injected = entries
        return True

    def inject_fresh(self, names: Sequence[str]) -> tuple[str, ...]:
        """Inject the tokens that are there already. Return the other names."""
        fresh, sources = self.broker.parts.tokens.fresh, {name: self.broker.sources.source(name) for name in names}
        there = {
            name: entry for name, entry in sources.items() if isinstance(entry, TokenEntry) and fresh(entry) is not None
        }
        self._injected = {**self._injected, **there}
        return tuple(name for name in names if name not in there)

    def release(self) -> None:
        """Let go of a connection that has ended: it holds these tokens, and only the garbage collector ends a cycle."""
        if not self.broker.sources.per_request:
            self._scope = None

    async def _entry(self, name: str) -> TokenEntry:
        source = self.broker.sources.source(name)
        if isinstance(source, TokenEntry):
            return source
        # The user's callable runs once in a request, however many ask, one after the other or at the same time.
        self._choices = self._choices or {}
        choice = self._choices.get(name)
        if choice is None or choice.callable is not source or choice.given_up:
            if self._scope is None:
                raise ConfigurationError(f"{name!r} was overridden with a callable after the request had ended.")
            choice = self._choices[name] = RequestCredential(source, HTTPConnection(self._scope))
        return self.broker.sources.chosen(name, await choice.provider())

    async def _find(self, name: str) -> tuple[Provider, TokenEntry]:
        entry = await self._entry(name)
        choice = None if self._choices is None else self._choices.get(name)
        # An equal credential may have been there before, to be used in another way.
        if choice is not None and choice.callable is self.broker.sources.source(name):
            return await choice.provider(), entry
        return self.broker.sources.provider(name, entry), entry

    def _hint(self, name: str) -> str:
        if name in self.broker.sources.names:
            return (
                f"{name!r} is not injected: add it to TokenMiddleware(inject=[…]), "
                f"or use `await request.state.tokens.resolve({name!r})`."
            )
        return f"There is no provider {name!r}. The broker has: {', '.join(self.broker.sources.names) or 'none'}."

    def __repr__(self) -> str:
        return f"<RequestTokens of {', '.join(self._injected) or 'nothing yet'}>"
