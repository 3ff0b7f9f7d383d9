"""The credentials of a broker by name: providers, or callables that choose a provider for each request."""

from __future__ import annotations

import asyncio
import inspect
from collections import ChainMap
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, NamedTuple, cast
from weakref import WeakSet

from starlette.requests import HTTPConnection

from tokenmw.errors import ConfigurationError, TokenUnavailable, copy_of
from tokenmw.options import checked_callback, checked_strings, did_you_mean
from tokenmw.providers.base import Provider
from tokenmw.providers.http_client import check_client
from tokenmw.redaction import Unpicklable
from tokenmw.status import ProviderStatus
from tokenmw.tokens.entry import TokenEntry

if TYPE_CHECKING:
    from collections.abc import Generator
    from contextlib import AbstractContextManager
    from types import TracebackType

    from tokenmw.clock import Instant
    from tokenmw.providers.http_client import AsyncHTTPClient
    from tokenmw.providers.network.options import HTTPOptions
    from tokenmw.tokens.cache import TokenCache

__all__ = ["Credentials", "ProviderOfRequest", "RequestCredential", "checked_names", "no_provider"]

ProviderOfRequest = Callable[[HTTPConnection], Provider | Awaitable[Provider]]
_MAX_NAME: Final = 100  # characters; names are in log lines, metrics and responses


class Credentials(Unpicklable):
    """The broker's names, each with the token entry of its provider or with the program's callable.

    Attributes:
        callables: How many of them are callables.
        depend_on_request: Whether any of them is.
    """

    __slots__ = (
        "__weakref__",
        "_by_name",
        "_cache",
        "_has_leases",
        "_http",
        "_overrides",
        "_own",
        "_providers",
        "_single_process",
        "_static",
        "callables",
        "depend_on_request",
    )

    def __init__(
        self,
        providers: Mapping[str, Provider | ProviderOfRequest],
        *,
        cache: TokenCache,
        has_leases: bool,
        single_process: bool,
        http: AsyncHTTPClient | HTTPOptions | None,
    ) -> None:
        self._cache = cache
        self._has_leases = has_leases
        self._http = http
        self._single_process = single_process
        given = _checked_providers(providers, option="providers")
        self._own = _Layer(given, self._named(given))
        self._overrides: list[_Layer] = []
        self._apply()
        _OF_ALL_BROKERS.add(self)

    @property
    def names(self) -> tuple[str, ...]:
        """The providers' names."""
        return tuple(self._by_name)

    @property
    def names_of_all_brokers(self) -> tuple[str, ...]:
        """The providers' names of all brokers of the program, this one's included."""
        return tuple(name for credentials in _OF_ALL_BROKERS for name in credentials.names)

    def find(self, name: str) -> TokenEntry | ProviderOfRequest:
        """Return the entry of a name's provider, or its callable.

        Raises:
            ConfigurationError: There is no such name.
        """
        try:
            return self._by_name[name]
        except (KeyError, TypeError):
            # Only text is shown: anything else might be a credential in the wrong place.
            given: object = name
            if isinstance(given, str):
                raise ConfigurationError(f"There is {no_provider(given, self._by_name)}") from None
            shown = f"of type {type(given).__name__}"
            if type(given).__name__ == "Request":  # of httpx or httpx2, which call any callable given as `auth`
                raise ConfigurationError(
                    "auth=broker.auth was given to an HTTP client without a call: pass a provider's name, such as "
                    'auth=broker.auth("crm").'
                ) from None
            if isinstance(given, type) and issubclass(given, Provider):
                shown = f"{given.__name__}: it is a class, so make an object of it"
            raise ConfigurationError(f"There is no provider {shown}. {_has(self._by_name)}") from None

    def static_entries(self, names: tuple[str, ...]) -> Mapping[str, TokenEntry] | None:
        """Return the entries of names; None if any of them is a callable."""
        try:
            return self._static[names]
        except KeyError:
            found = {name: self.find(name) for name in names}
            entries = {name: entry for name, entry in found.items() if isinstance(entry, TokenEntry)}
            self._static[names] = entries if len(entries) == len(found) else None
            return self._static[names]

    def entry(self, provider: str | Provider) -> TokenEntry:
        """Return the entry of a provider.

        Raises:
            ConfigurationError: There is no such name, or it is a callable, whose result depends on the request.
        """
        if isinstance(provider, Provider):
            return self._cache.entry(provider, provider.kind)
        found = self.find(provider)
        if not isinstance(found, TokenEntry):
            raise ConfigurationError(
                f"The credentials of {provider!r} depend on the request: use request.state.tokens.resolve({provider!r})"
                f" and request.state.tokens.auth({provider!r}){getattr(found, 'outside', '')}."
            )
        return found

    def provider(self, provider: str | Provider, entry: TokenEntry) -> Provider:
        """Return the provider itself, for outgoing requests.

        `entry.provider` can be another one with the same credential, but for other hosts.
        """
        if isinstance(provider, Provider):
            return provider
        given = self._providers.get(provider)
        # The name has another provider if an override has begun or ended since the entry was found.
        return given if isinstance(given, Provider) and self._by_name.get(provider) is entry else entry.provider

    def find_for_auth(self, provider: str | Provider) -> tuple[Provider, TokenEntry]:
        """Return a provider and its entry, for an auth object."""
        if isinstance(provider, str):
            found, given = self._by_name.get(provider), self._providers.get(provider)
            if isinstance(found, TokenEntry) and found.provider is given:
                return found.provider, found  # usual; what follows takes three times as long
        entry = self.entry(provider)
        return self.provider(provider, entry), entry

    def entry_of_result(self, name: str, provider: object) -> TokenEntry:
        """Return the entry of the provider that a callable has returned.

        Raises:
            ConfigurationError: It is not a provider.
        """
        if not isinstance(provider, Provider):
            returned = type(provider).__name__
            del provider  # perhaps the secret itself; error reports show the variables of each frame
            raise ConfigurationError(f"The callable of provider {name!r} must return a Provider, not {returned}.")
        return self._cache.entry(provider, name)

    def statuses(self, now: Instant) -> dict[str, ProviderStatus]:
        """Return the status of each name."""
        return {
            name: _status_of(found, now) if isinstance(found, TokenEntry) else self._status_per_request(name, now)
            for name, found in self._by_name.items()
        }

    def _status_per_request(self, name: str, now: Instant) -> ProviderStatus:
        given = self._providers.get(name)
        client = self._cache.client(given, name) if isinstance(given, Provider) else None
        if client is None or not (client.failure or client.suspicion):
            return ProviderStatus("per request")
        detail = client.suspicion if client.failure is None else client.failure.detail
        return ProviderStatus("failing", None, detail, client.retry_in(now))

    def override(self, providers: Mapping[str, Provider | ProviderOfRequest]) -> AbstractContextManager[None]:
        """Return a context manager that replaces the providers of some names.

        Raises:
            ConfigurationError: A provider is not one, or there is no such name.
        """
        given = _checked_providers(providers, option="override")
        checked_names(given, option="override", known=self._own.providers)
        return self._overridden(given)

    @contextmanager
    def _overridden(self, given: dict[str, Provider | ProviderOfRequest]) -> Generator[None]:
        layer = _Layer(given, self._named(given))
        self._overrides.append(layer)
        self._apply()
        try:
            yield
        finally:
            # Not the last one necessarily: two tasks may leave their overrides in the order in which they entered.
            self._overrides = [override for override in self._overrides if override is not layer]
            self._apply()

    def _apply(self) -> None:
        layers = [*reversed(self._overrides), self._own]
        self._providers = dict(ChainMap(*(layer.providers for layer in layers)))
        self._by_name = dict(ChainMap(*(layer.by_name for layer in layers)))
        self._static: dict[tuple[str, ...], Mapping[str, TokenEntry] | None] = {}
        self.callables = sum(not isinstance(found, TokenEntry) for found in self._by_name.values())
        self.depend_on_request = self.callables > 0

    def _named(
        self, providers: Mapping[str, Provider | ProviderOfRequest]
    ) -> dict[str, TokenEntry | ProviderOfRequest]:
        by_name: dict[str, TokenEntry | ProviderOfRequest] = {}
        for name, provider in providers.items():
            if not isinstance(provider, Provider):
                by_name[name] = provider
                continue
            if provider.exclusive and not self._single_process and not (self._has_leases and provider.shareable):
                fix = "Give it credential_id=…" if self._has_leases else "Give redis=…"
                raise ConfigurationError(
                    f"providers[{name!r}]: each new token of {provider.kind} invalidates the one before, so two "
                    f"processes would take it from each other. {fix}, or single_process=True if there is only this one."
                )
            check_client(provider, http=self._http, option=f"providers[{name!r}]")
            if provider.depends_on_request:
                by_name[name] = provider.for_request
                self._cache.add_named_client(provider, name)
                continue
            by_name[name] = self._cache.add_named(provider, name)
        return by_name


_OF_ALL_BROKERS: Final[WeakSet[Credentials]] = WeakSet()


class _Layer(NamedTuple):
    providers: dict[str, Provider | ProviderOfRequest]
    by_name: dict[str, TokenEntry | ProviderOfRequest]


class RequestCredential(Unpicklable):
    """The credential of one request: the result of one call of a callable, for all tasks of the request that need it.

    Attributes:
        callable: The program's callable.
        cancelled: Whether the call was cancelled because all tasks that waited for it were.
    """

    __slots__ = ("_call", "_result", "_traceback", "_waiters", "callable", "cancelled")

    def __init__(self, function: ProviderOfRequest, connection: HTTPConnection) -> None:
        self.callable = function
        self.cancelled = False
        self._waiters = 0
        self._call: asyncio.Future[Any] | None = None
        self._result: Any = None
        self._traceback: TracebackType | None = None
        try:
            result: Any = function(connection)
            if isinstance(result, Provider):  # usual, and `isawaitable` takes longer than all the rest
                self._result = result.for_request(connection) if result.per_subject else result
            # A task of its own, with the request's context variables: the first waiter may be cancelled before others.
            elif inspect.isawaitable(result):
                self._call = asyncio.ensure_future(_for_request(result, connection))
            else:
                self._result = result
        except Exception as error:  # noqa: BLE001  raised to every caller of `provider`
            del connection  # error reports show the variables of this frame, and walk into the mapping
            self._keep(error)

    @property
    def provider_at_once(self) -> Provider | None:
        """The provider that the callable has returned; None if it is async, has failed, or returned something else."""
        return self._result if isinstance(self._result, Provider) else None

    async def provider(self) -> Any:
        """Return the callable's result; the caller checks that it is a provider.

        Raises:
            TokenUnavailable: The callable's own code was cancelled.
            Exception: A copy of the callable's exception.
        """
        if self._call is not None:
            await self._wait(self._call)
        if isinstance(self._result, Exception):
            raise copy_of(self._result, self._traceback)
        return self._result

    async def _wait(self, call: asyncio.Future[Any]) -> None:
        self._waiters += 1
        try:
            await asyncio.wait([call])
        except asyncio.CancelledError:
            if self._waiters == 1:
                self.cancelled = call.cancel()
                call.add_done_callback(_retrieve)
            raise
        finally:
            self._waiters -= 1
        if call.cancelled():
            self._keep(TokenUnavailable("The callable for this request's credentials was cancelled by its own code."))
        else:
            error = call.exception()
            self._keep(error if error is not None else call.result())
        self._call = None

    def _keep(self, result: Any) -> None:
        self._result = result
        self._traceback = result.__traceback__ if isinstance(result, BaseException) else None


async def _for_request(result: Awaitable[Any], connection: HTTPConnection) -> Any:
    try:
        provider = await result
        return provider.for_request(connection) if isinstance(provider, Provider) else provider
    except BaseException:
        del connection, result  # as above
        raise


def _retrieve(call: asyncio.Future[Any]) -> None:
    if not call.cancelled():
        call.exception()  # so that the event loop does not report it as never retrieved


def _status_of(entry: TokenEntry, now: Instant) -> ProviderStatus:
    failure, current = entry.failure, entry.current
    detail = "" if failure is None else failure.detail
    retry_in = entry.retry_in(now)
    if current is not None and current.usable(now):
        return ProviderStatus("fresh" if current.fresh(now) else "aging", current.left(now), detail, retry_in)
    return ProviderStatus("cold" if failure is None else "failing", None, detail, retry_in)


def checked_names(names: object, *, option: str, known: Iterable[str]) -> tuple[str, ...]:
    """Return a list of provider names as a tuple without duplicates.

    Raises:
        ConfigurationError: It is not a list, or the broker has no provider of one of the names.
    """
    chosen: tuple[str, ...] = checked_strings(names, option=option, of="provider names")
    known = set(known)
    for name in chosen:
        if name not in known:
            if isinstance(name, str):
                raise ConfigurationError(f"{option}: there is {no_provider(name, known)}")
            raise ConfigurationError(f"{option}: there is no provider {name!r}. {_has(known)}")
    return tuple(dict.fromkeys(chosen))


def no_provider(name: str, known: Iterable[str]) -> str:
    """Return the end of a sentence about a name that no provider has, with the names that there are."""
    return f"no provider {name[:_MAX_NAME]!r}{did_you_mean(name, sorted(known))} {_has(known)}"


def _has(known: Iterable[str]) -> str:
    return f"The broker has: {', '.join(sorted(known)) or 'none'}."


def _checked_providers(providers: object, *, option: str) -> dict[str, Provider | ProviderOfRequest]:
    if not isinstance(providers, Mapping):
        raise ConfigurationError(
            f'{option} must be a dict of names to providers, such as {{"crm": ClientCredentials(…)}}, '
            f"not {type(providers).__name__}."
        )
    given = dict(cast("Mapping[object, object]", providers))
    for name, provider in given.items():
        _check_name(name, option=option)
        if isinstance(provider, Provider):
            continue
        if not callable(provider):
            kind = type(provider).__name__ + ": give it to connections=Connections(…)" * hasattr(provider, "revoke")
            raise ConfigurationError(
                f"{option}[{name!r}] must be a Provider or a callable (connection) -> Provider, not {kind}."
            )
        if isinstance(provider, type) and issubclass(cast("type[object]", provider), Provider):
            raise ConfigurationError(f"{option}[{name!r}] is a class, not a provider: make an object of it.")
        checked_callback(provider, option=f"{option}[{name!r}]", takes="(connection) -> Provider")
    return cast("dict[str, Provider | ProviderOfRequest]", given)


def _check_name(name: object, *, option: str) -> None:
    if isinstance(name, bytes):  # not shown: it may be a credential that was put in the wrong place
        raise ConfigurationError(f"{option}: a name must be text, not bytes.")
    if name == "":
        raise ConfigurationError(f"{option}: '' is not a name: give the provider one, such as 'crm'.")
    if not isinstance(name, str):
        raise ConfigurationError(f"{option}: {name!r} is not a name: a name is text.")
    if not name.isprintable() or len(name) > _MAX_NAME:
        raise ConfigurationError(
            f"{option}: {name[:_MAX_NAME]!r} is not a name: it has a control character, or more than "
            f"{_MAX_NAME} characters."
        )
