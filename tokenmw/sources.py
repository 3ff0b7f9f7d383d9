"""What stands behind the names of a broker: credentials, or callables that choose one for each request."""

from __future__ import annotations

from collections import ChainMap
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

from tokenmw.errors import ConfigurationError
from tokenmw.options import checked_names, checked_providers
from tokenmw.providers.base import Provider
from tokenmw.snapshot import ProviderStatus
from tokenmw.tokens.slot import Slot

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping
    from contextlib import AbstractContextManager

    from tokenmw.options import ProviderOfRequest
    from tokenmw.tokens.slot import Moment
    from tokenmw.tokens.slots import Slots

__all__ = ["Sources"]


class Sources:
    """Names, each with the slot of its credential or with the user's callable.

    Attributes:
        per_request: Whether any credentials depend on the request.
    """

    __slots__ = ("_alone", "_by_name", "_given", "_leases", "_overrides", "_own", "_sets", "_slots", "per_request")

    def __init__(
        self, providers: Mapping[str, Provider | ProviderOfRequest], *, slots: Slots, leases: bool, alone: bool
    ) -> None:
        self._slots = slots
        self._leases = leases
        self._alone = alone
        given = checked_providers(providers)
        self._own = _Named(given, self._sources_of(given))
        self._overrides: list[_Named] = []
        self._given, self._by_name = self._own
        self._sets: dict[tuple[str, ...], Mapping[str, Slot] | None] = {}
        self.per_request = self._depend()

    @property
    def names(self) -> tuple[str, ...]:
        """The providers' names."""
        return tuple(self._by_name)

    def source(self, name: str) -> Slot | ProviderOfRequest:
        """Return what stands behind a name."""
        try:
            return self._by_name[name]
        except (KeyError, TypeError):
            known = ", ".join(sorted(self._by_name)) or "none"
            # Only text is shown: anything else might be a credential that was put in the wrong place.
            shown = repr(name) if isinstance(name, str) else f"of type {type(name).__name__}"
            raise ConfigurationError(f"There is no provider {shown}. The broker has: {known}.") from None

    def slots(self, names: tuple[str, ...]) -> Mapping[str, Slot] | None:
        """Return the slots behind names that do not change from request to request; None if a credential does."""
        try:
            return self._sets[names]
        except KeyError:
            found = {name: self.source(name) for name in names}
            slots = {name: source for name, source in found.items() if isinstance(source, Slot)}
            self._sets[names] = slots if len(slots) == len(found) else None
            return self._sets[names]

    def slot(self, provider: str | Provider) -> Slot:
        """Return the slot of a credential that does not depend on a request."""
        if isinstance(provider, Provider):
            return self._slots.slot(provider, provider.kind)
        source = self.source(provider)
        if not isinstance(source, Slot):
            raise ConfigurationError(
                f"The credentials of {provider!r} depend on the request: use request.state.tokens.resolve({provider!r})"
                f" and request.state.tokens.auth({provider!r})."
            )
        return source

    def provider(self, provider: str | Provider, slot: Slot) -> Provider:
        """Return the provider that was given, by its name or itself, for the outgoing side of its slot's token.

        The slot may hold an equal credential that came first, for other hosts.
        """
        if isinstance(provider, Provider):
            return provider
        given = self._given.get(provider)
        # Another one, if an override has begun or ended since the slot was found.
        return given if isinstance(given, Provider) and self._by_name.get(provider) is slot else slot.provider

    def chosen(self, name: str, provider: object) -> Slot:
        """Return the slot of what a user's callable chose."""
        if not isinstance(provider, Provider):
            given = type(provider).__name__
            del provider  # perhaps the secret itself; reports of errors show the variables of each frame
            raise ConfigurationError(f"The callable of provider {name!r} must return a Provider, not {given}.")
        return self._slots.slot(provider, name)

    def statuses(self, now: Moment) -> dict[str, ProviderStatus]:
        """Return what is known of each name."""
        return {
            name: _status_of(source, now) if isinstance(source, Slot) else ProviderStatus("per request")
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
        return any(not isinstance(source, Slot) for source in self._by_name.values())

    def _sources_of(self, providers: Mapping[str, Provider | ProviderOfRequest]) -> dict[str, Slot | ProviderOfRequest]:
        sources: dict[str, Slot | ProviderOfRequest] = {}
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
            sources[name] = self._slots.name(provider, name)
        return sources


class _Named(NamedTuple):
    given: dict[str, Provider | ProviderOfRequest]
    sources: dict[str, Slot | ProviderOfRequest]


def _status_of(slot: Slot, now: Moment) -> ProviderStatus:
    failure, current = slot.failure, slot.now
    detail = "" if failure is None else failure.detail
    retry_in = None if failure is None else max(0.0, failure.until - now.mono)
    if current is not None and current.usable(now):
        fresh = now.mono < current.refresh_mono and now.wall < current.refresh_wall
        return ProviderStatus("fresh" if fresh else "aging", current.left(now), detail, retry_in)
    return ProviderStatus("cold" if failure is None else "failing", None, detail, retry_in)
