"""What stands behind the names of a broker: credentials, or callables that choose one for each request."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, NamedTuple, cast

from starlette.requests import HTTPConnection

from tokenmw.errors import ConfigurationError
from tokenmw.options import checked_callback, checked_strings
from tokenmw.providers.base import Provider
from tokenmw.status import ProviderStatus
from tokenmw.tokens.entry import TokenEntry

if TYPE_CHECKING:
    from collections.abc import Generator
    from contextlib import AbstractContextManager

    from tokenmw.clock import Instant
    from tokenmw.tokens.cache import TokenCache
import asyncio
import inspect
from typing import TYPE_CHECKING, Any

from tokenmw.errors import TokenUnavailable

__all__ = ["Credentials", "ProviderOfRequest", "RequestCredential", "checked_names"]

ProviderOfRequest = Callable[[HTTPConnection], Provider | Awaitable[Provider]]

_MAX_NAME: Final = 100  # characters; names are in log lines, metrics and responses


class Credentials:
    """Names, each with the entry of its credential or with the user's callable.

    Attributes:
        per_request: Whether any credentials depend on the request.
    """

    __slots__ = ("_alone", "_by_name", "_entries", "_given", "_leases", "_overrides", "_own", "_sets", "per_request")

    def __init__(
        self, providers: Mapping[str, Provider | ProviderOfRequest], *, entries: TokenCache, leases: bool, alone: bool
    ) -> None:
        self._entries = entries
        self._leases = leases
        self._alone = alone
        given = checked_providers(providers)
        self._own = _Named(given, self._sources_of(given))
        self._overrides: list[_Named] = []
        self._given, self._by_name = self._own
        self._sets: dict[tuple[str, ...], Mapping[str, TokenEntry] | None] = {}
        self.per_request = self._depend()

    @property
    def names(self) -> tuple[str, ...]:
        """The providers' names."""
        return tuple(self._by_name)

    def source(self, name: str) -> TokenEntry | ProviderOfRequest:
        """Return what stands behind a name."""
        try:
            return self._by_name[name]
        except (KeyError, TypeError):
            known = ", ".join(sorted(self._by_name)) or "none"
            # Only text is shown: anything else might be a credential that was put in the wrong place.
            shown = repr(name) if isinstance(name, str) else f"of type {type(name).__name__}"
            raise ConfigurationError(f"There is no provider {shown}. The broker has: {known}.") from None

    def entries(self, names: tuple[str, ...]) -> Mapping[str, TokenEntry] | None:
        """Return the entries behind names that do not change from request to request; None if a credential does."""
        try:
            return self._sets[names]
        except KeyError:
            found = {name: self.source(name) for name in names}
            entries = {name: source for name, source in found.items() if isinstance(source, TokenEntry)}
            self._sets[names] = entries if len(entries) == len(found) else None
            return self._sets[names]

    def entry(self, provider: str | Provider) -> TokenEntry:
        """Return the entry of a credential that does not depend on a request."""
        if isinstance(provider, Provider):
            return self._entries.entry(provider, provider.kind)
        source = self.source(provider)
        if not isinstance(source, TokenEntry):
            raise ConfigurationError(
                f"The credentials of {provider!r} depend on the request: use request.state.tokens.resolve({provider!r})"
                f" and request.state.tokens.auth({provider!r})."
            )
        return source

    def provider(self, provider: str | Provider, entry: TokenEntry) -> Provider:
        """Return the provider that was given, by its name or itself, for the outgoing side of its entry's token.

        The entry may hold an equal credential that came first, for other hosts.
        """
        if isinstance(provider, Provider):
            return provider
        given = self._given.get(provider)
        # Another one, if an override has begun or ended since the entry was found.
        return given if isinstance(given, Provider) and self._by_name.get(provider) is entry else entry.provider

    def chosen(self, name: str, provider: object) -> TokenEntry:
        """Return the entry of what a user's callable chose."""
        if not isinstance(provider, Provider):
            given = type(provider).__name__
            del provider  # perhaps the secret itself; reports of errors show the variables of each frame
            raise ConfigurationError(f"The callable of provider {name!r} must return a Provider, not {given}.")
        return self._entries.entry(provider, name)

    def statuses(self, now: Instant) -> dict[str, ProviderStatus]:
        """Return what is known of each name."""
        return {
            name: _status_of(source, now) if isinstance(source, TokenEntry) else ProviderStatus("per request")
            for name, source in self._by_name.items()
        }

    def override(self, providers: Mapping[str, Provider | ProviderOfRequest]) -> AbstractContextManager[None]:
        """Return what puts other providers behind known names for a while."""
        chosen = checked_providers(providers, option="override")
        checked_names(chosen, option="override", known=self._own.given)
        return self._overridden(chosen)

    @contextmanager
    def _overridden(self, chosen: dict[str, Provider | ProviderOfRequest]) -> Generator[None]:
        ours = _Named(chosen, self._sources_of(chosen))
        self._overrides.append(ours)
        self._lay()
        try:
            yield
        finally:
            # Taken out wherever it is: two tasks may leave theirs in the order in which they entered.
            self._overrides = [override for override in self._overrides if override is not ours]
            self._lay()

    def _lay(self) -> None:
        layers = [*reversed(self._overrides), self._own]
        self._given = dict(ChainMap(*(layer.given for layer in layers)))
        self._by_name = dict(ChainMap(*(layer.sources for layer in layers)))
        self._sets = {}
        self.per_request = self._depend()

    def _depend(self) -> bool:
        return any(not isinstance(source, TokenEntry) for source in self._by_name.values())

    def _sources_of(
        self, providers: Mapping[str, Provider | ProviderOfRequest]
    ) -> dict[str, TokenEntry | ProviderOfRequest]:
        sources: dict[str, TokenEntry | ProviderOfRequest] = {}
        for name, provider in providers.items():
            if not isinstance(provider, Provider):
                sources[name] = provider
                continue
            if provider.exclusive and not self._alone and not (self._leases and provider.shareable):
                mend = "Give it credential_id=…" if self._leases else "Give redis=…"
                raise ConfigurationError(
                    f"providers[{name!r}]: each new token of {provider.kind} kills the one before, so two processes "
                    f"would take it from each other. {mend}, or single_process=True if there is only this one."
                )
            sources[name] = self._entries.name(provider, name)
        return sources


class _Named(NamedTuple):
    given: dict[str, Provider | ProviderOfRequest]
    sources: dict[str, TokenEntry | ProviderOfRequest]


def _status_of(entry: TokenEntry, now: Instant) -> ProviderStatus:
    failure, current = entry.failure, entry.current
    detail = "" if failure is None else failure.detail
    retry_in = None if failure is None else max(0.0, failure.until - now.mono)
    if current is not None and current.usable(now):
        fresh = now.mono < current.refresh_mono and now.wall < current.refresh_wall
        return ProviderStatus("fresh" if fresh else "aging", current.left(now), detail, retry_in)
    return ProviderStatus("cold" if failure is None else "failing", None, detail, retry_in)


class RequestCredential:
    """One call of a user's callable, sync or async, for as many as wait for it in one request.

    Attributes:
        callable: What was called.
        given_up: Whether everybody who waited was cancelled; what was under way is cancelled then, too.
    """

    __slots__ = ("_result", "_running", "_waiting", "callable", "given_up")

    def __init__(self, choose: ProviderOfRequest, connection: HTTPConnection) -> None:
        self.callable = choose
        self.given_up = False
        self._waiting = 0
        self._running: asyncio.Future[Any] | None = None
        self._result: Any = None
        try:
            result = choose(connection)
            # A task of its own, in the request's context: who asked first may be cancelled while others still wait.
            if inspect.isawaitable(result):
                self._running = asyncio.ensure_future(result)
            else:
                self._result = result
        except Exception as error:  # noqa: BLE001  raised to everybody who asks
            self._result = error

    async def provider(self) -> Any:
        """Return what was chosen; whether it is a provider is checked by the caller.

        Raises:
            TokenUnavailable: The callable's own code was cancelled.
            Exception: Whatever the callable raised.
        """
        if self._running is not None:
            await self._wait(self._running)
        if isinstance(self._result, Exception):
            raise self._result
        return self._result

    async def _wait(self, running: asyncio.Future[Any]) -> None:
        self._waiting += 1
        try:
            await asyncio.wait([running])
        except asyncio.CancelledError:
            if self._waiting == 1:
                self.given_up = running.cancel()
                running.add_done_callback(_look_at)
            raise
        finally:
            self._waiting -= 1
        if running.cancelled():
            self._result = TokenUnavailable("The choice of this request's credentials was cancelled.")
        else:
            self._result = running.exception() or running.result()
        self._running = None


def _look_at(ended: asyncio.Future[Any]) -> None:
    if not ended.cancelled():
        ended.exception()  # so that the loop never reports it as not retrieved


def checked_providers(providers: object, *, option: str = "providers") -> dict[str, Provider | ProviderOfRequest]:
    """Return the named providers, each a provider or a callable that gives one for a connection."""
    if not isinstance(providers, Mapping):
        raise ConfigurationError(
            f'{option} must be a dict of names to providers, such as {{"crm": ClientCredentials(…)}}, '
            f"not {type(providers).__name__}."
        )
    given = dict(cast("Mapping[object, object]", providers))
    for name, provider in given.items():
        if isinstance(name, bytes):  # not shown: it may be a credential that was put in the wrong place
            raise ConfigurationError(f"{option}: a name is text, not bytes.")
        if not isinstance(name, str) or not name:
            raise ConfigurationError(f"{option}: {name!r} is no name; names are text.")
        # It is in log lines, metrics and answers.
        if not name.isprintable() or len(name) > _MAX_NAME:
            raise ConfigurationError(
                f"{option}: {name[:_MAX_NAME]!r} is no name: it has a control character, or more than "
                f"{_MAX_NAME} characters."
            )
        if _is_provider_class(provider):
            raise ConfigurationError(f"{option}[{name!r}] is a class, not a provider: make an object of it.")
        if not isinstance(provider, Provider):
            if not callable(provider):
                raise ConfigurationError(
                    f"{option}[{name!r}] must be a Provider or a callable (connection) -> Provider, "
                    f"not {type(provider).__name__}."
                )
            checked_callback(provider, option=f"{option}[{name!r}]", takes="(connection) -> Provider")
    return cast("dict[str, Provider | ProviderOfRequest]", given)


def _is_provider_class(given: object) -> bool:
    return isinstance(given, type) and issubclass(given, Provider)


def checked_names(names: Iterable[str], *, option: str, known: Iterable[str]) -> tuple[str, ...]:
    """Return provider names that the broker has."""
    chosen: tuple[str, ...] = checked_strings(names, option=option, of="provider names")
    known = sorted(known)
    for name in chosen:
        if name not in known:
            raise ConfigurationError(
                f"{option}: there is no provider {name!r}. The broker has: {', '.join(known) or 'none'}."
            )
    return tuple(dict.fromkeys(chosen))
