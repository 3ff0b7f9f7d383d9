"""The broker: the one object that a program makes. It owns the parts and gives them a life."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final, Literal, Self

from tokenmw.callers.api_key import APIKeySource
from tokenmw.clock import SYSTEM_CLOCK, Clock, Instant
from tokenmw.credentials import Credentials
from tokenmw.life import Life
from tokenmw.limits import Limits
from tokenmw.options import checked_api_key, checked_choice, checked_instance, checked_lifespan
from tokenmw.outgoing import TokenAuth, token_auth
from tokenmw.parts import Parts
from tokenmw.redaction import Unpicklable, without_locals
from tokenmw.status import Status
from tokenmw.tokens.entry import TokenEntry
from tokenmw.values import Grant, Token

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
    from contextlib import AbstractAsyncContextManager, AbstractContextManager

    from tokenmw.callers.authenticate import Authenticate
    from tokenmw.credentials import ProviderOfRequest
    from tokenmw.observe.events import Observer
    from tokenmw.providers.base import Provider
    from tokenmw.redis.client import AnyClient
    from tokenmw.sessions.manager import SessionPolicy

__all__ = ["STATE_KEY", "MissingKey", "TokenBroker"]

MissingKey = Literal["random", "reject"]
STATE_KEY: Final = "tokenmw"  # where dependencies find the broker in a connection's state


class TokenBroker(Unpicklable):
    """Provider tokens and session ids for one program, shared with all its other workers through Redis.

        broker = TokenBroker({"crm": ClientCredentials(...)}, redis="redis://localhost:6379/0", secret_key="...")

    Use it as `async with broker:`, as an application's `lifespan=broker.lifespan`, or through `TokenMiddleware`, which
    does the same. README, "Options", tells what each option's default costs.

    Args:
        providers: Names to providers, or to callables `(connection) -> Provider`, sync or async, for credentials that
            depend on the request.
        redis: A URL (redis://, rediss://, unix://, redis+cluster://), a ready client of `redis.asyncio`, or None: then
            tokens and ids are this process's own.
        secret_key: Seals what goes into Redis and hides names there; a list during rotation: the first seals, all open.
        name_key: Hides names and derives session ids; the last `secret_key` if not given. It does not rotate.
        seal: False: values stay readable although there is a `secret_key`.
        namespace: In front of all Redis keys.
        session_ttl: Seconds after which an idle API key gets a new session id.
        session_policy: `"available"`: while Redis is away, ids are derived; `"required"`: `SessionUnavailable`.
        api_key: Where callers' API keys are found.
        missing_key: Without a key: `"random"`, an id for the one request, or `"reject"`, 401.
        authenticate: `(connection, key) -> object | None`, sync or async: who the caller is; None is 401.
        http: An `httpx.AsyncClient` or `httpx2.AsyncClient` for token requests; it is never closed here.
        limits: All bounds.
        observers: Called with each event.
        single_process: This is the only process that uses these credentials, so `exclusive` providers need no Redis.
        clock: Time, for tests.

    Raises:
        ConfigurationError: An option cannot work; the text names it and the mend.
    """

    # With a __dict__, a JSON encoder that meets a broker would walk down to its secrets.
    __slots__ = ("__weakref__", "_life", "api_key", "missing_key", "parts", "sources")

    @without_locals
    def __init__(
        self,
        providers: Mapping[str, Provider | ProviderOfRequest],
        *,
        redis: str | AnyClient | None = None,
        secret_key: str | Sequence[str] | None = None,
        name_key: str | None = None,
        seal: bool | None = None,
        namespace: str = "tokenmw",
        session_ttl: float = 3600.0,
        session_policy: SessionPolicy = "available",
        api_key: APIKeySource = APIKeySource(),  # noqa: B008  frozen
        missing_key: MissingKey = "random",
        authenticate: Authenticate | None = None,
        http: Any = None,
        limits: Limits = Limits(),  # noqa: B008  frozen
        observers: Iterable[Observer] = (),
        single_process: bool = False,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        checked_choice(missing_key, option="missing_key", choices=("random", "reject"))
        self.api_key = checked_instance(
            api_key, APIKeySource, option="api_key", example='APIKeySource(headers=["x-api-key"])'
        )
        self.missing_key: MissingKey = missing_key
        self.parts = Parts(
            redis=redis,
            secret_key=secret_key,
            name_key=name_key,
            seal=seal,
            namespace=namespace,
            session_ttl=session_ttl,
            session_policy=session_policy,
            authenticate=authenticate,
            http=http,
            limits=limits,
            observers=observers,
            single_process=single_process,
            clock=clock,
        )
        self.sources = Credentials(
            providers, entries=self.parts.entries, leases=redis is not None, alone=single_process
        )
        self._life = Life(self.parts)

    async def token(self, provider: str | Provider) -> Token:
        """Return a valid token, by the provider's name or by its value.

        Raises:
            TokenUnavailable: There is none now.
            CredentialRejected: The provider refuses the credential.
            ConfigurationError: The name is unknown, or its credentials depend on a request.
        """
        entry = self.sources.entry(provider)
        token = self.parts.tokens.fresh(entry) or await self.token_of(entry)
        return token.under(provider if isinstance(provider, str) else provider.kind)

    @without_locals
    async def invalidate(self, token: Token) -> bool:
        """Drop a token that an API refused, here and on all instances, if it is still the current one.

        Return whether it was dropped. Reports about older tokens, about one younger than 5 s, and repeated ones cause
        nothing, so it may be called for every refused request. Raises `ConfigurationError` for what is no `Token`.
        """
        checked_instance(token, Token, option="invalidate(token)", example="broker.token(…) returned")
        return await self.ensure_open().coherence.invalidate(token)

    @without_locals
    async def hand_in(self, provider: str | Provider, grant: Grant) -> None:
        """Give all instances a token that came by itself, such as Feishu's `app_ticket`, in place of an older one."""
        checked_instance(grant, Grant, option="hand_in(grant)", example="Grant(token, expires_in=3600)")
        await self.ensure_open().coherence.hand_in(self.sources.entry(provider), grant)

    async def invalidate_provider(self, provider: str | Provider) -> None:
        """Drop whatever token a provider has, here and on all instances; the next request fetches a new one."""
        await self.ensure_open().coherence.invalidate_current(self.sources.entry(provider))

    def auth(self, provider: str | Provider) -> TokenAuth:
        """Return an auth object for an httpx or httpx2 client: it places the token, and replaces a refused one once."""
        self.sources.entry(provider)

        async def find() -> tuple[Provider, TokenEntry]:
            entry = self.sources.entry(provider)
            return self.sources.provider(provider, entry), entry

        return token_auth(find, get_token=self.token_of, invalidate=self.invalidate)

    @without_locals
    async def session_id(self, api_key: str | bytes) -> str:
        """Return the session id of an API key, the same on all instances until it is idle for `session_ttl`.

        Raises:
            SessionUnavailable: `session_policy="required"`, and Redis is away.
        """
        return await self.ensure_open().sessions.get(checked_api_key(api_key))

    @without_locals
    async def reset_session(self, api_key: str | bytes) -> str:
        """Give an API key a new session id, and return it. Other instances take it over within `session_ttl` / 20.

        Raises `SessionUnavailable` under `session_policy="required"` while Redis is away; the id stays what it was.
        """
        return await self.ensure_open().sessions.reset(checked_api_key(api_key))

    async def __aenter__(self) -> Self:
        """Open the broker in the running event loop; entering again only counts."""
        await self._life.enter()
        return self

    async def __aexit__(self, *_exc: object) -> None:
        """Close it when the last one leaves."""
        await self._life.leave()

    @asynccontextmanager
    async def lifespan(self, _app: Any) -> AsyncGenerator[dict[str, Any]]:
        """Be an application's lifespan: `Starlette(lifespan=broker.lifespan)`."""
        async with self:
            yield {STATE_KEY: self}

    def lifespan_with(self, lifespan: Any) -> Any:
        """Return a lifespan around another one: `FastAPI(lifespan=broker.lifespan_with(mine))`; its state is kept."""
        checked_lifespan(lifespan)

        @asynccontextmanager
        async def both(app: Any) -> AsyncGenerator[dict[str, Any]]:
            inner: AbstractAsyncContextManager[Mapping[str, Any] | None] = lifespan(app)
            async with self, inner as state:
                yield {**(state or {}), STATE_KEY: self}

        return both

    def status(self) -> Status:
        """Return what the broker says of itself; no secrets, no I/O."""
        parts, runtime = self.parts, self._life.runtime
        shared, touches = (None, None) if runtime is None else (runtime.shared, runtime.touches)
        entries, now = list(parts.entries), Instant(parts.clock)
        return Status(
            shared="off" if shared is None else shared.state,
            shared_since=None if shared is None else shared.since,
            shared_error="" if shared is None else shared.error,
            providers=self.sources.statuses(now),
            tokens=sum(entry.current is not None for entry in entries),
            sessions=len(parts.sessions),
            unshared_tokens=sum(entry.token_unshared(now) for entry in entries),
            unshared_invalidations=sum(entry.tombstone_unshared(now) for entry in entries),
            unshared_sessions=0 if runtime is None else runtime.unshared_sessions,
            touches=0 if touches is None else len(touches),
            unreadable=parts.unreadable,
            sealed=parts.seals.sealing,
        )

    @without_locals
    def override(self, providers: Mapping[str, Provider | ProviderOfRequest]) -> AbstractContextManager[None]:
        """Use other providers under known names for a while, in all threads and tasks; for tests.

        with broker.override({"crm": StaticToken("test")}): ...
        """
        return self.sources.override(providers)

    async def token_of(self, entry: TokenEntry, *, injected: bool = False) -> Token:
        """Return a valid token of a entry. For this package's own modules."""
        if (token := self.parts.tokens.fresh(entry)) is not None:
            return token
        self._life.ensure()
        return await (self.parts.tokens.get_for_injection(entry) if injected else self.parts.tokens.get(entry))

    def ensure_open(self) -> Parts:
        """Open in the running event loop if nobody has, and warn; return the parts. For this package's own modules."""
        self._life.ensure()
        return self.parts

    async def warm(self, names: Iterable[str]) -> None:
        """Get tokens before the first request needs them, for `Limits(inject_seconds=…)` at most; failures are kept."""
        entries = [source for source in map(self.sources.source, names) if isinstance(source, TokenEntry)]
        await asyncio.gather(*map(self.parts.tokens.get_for_injection, entries), return_exceptions=True)

    def __repr__(self) -> str:
        return f"<TokenBroker of {', '.join(getattr(getattr(self, 'sources', None), 'names', ())) or 'no providers'}>"
