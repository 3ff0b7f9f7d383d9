"""The slots of this process: one for each credential, however often and under however many names it is written."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from tokenmw.local import Recent
from tokenmw.providers.options import check_provider
from tokenmw.tokens.slot import Moment, Slot

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tokenmw.clock import Clock
    from tokenmw.limits import Limits
    from tokenmw.providers.base import Provider
    from tokenmw.shared.token_store import TokenKeys

__all__ = ["Slots"]

# Seconds after the pause: a tenant that asks seldom must find how often it has failed, or its pauses never grow, and
# each of its requests waits for a provider that hangs as if it were the first.
_FAILURE_KEPT: Final = 600.0


class Slots:
    """Keeps the slots used last, up to `Limits(tokens=…)`, and those of the named providers for ever.

    Args:
        limits: `tokens` is the bound.
        clock: For what has ended.
        keys_of: Gives a provider's Redis keys; None if its token is not shared.
        flying: Gives the slot that is being filled for a provider. It may have made room for others meanwhile, and is
            the one to be had again: a flight fills no second one.
    """

    __slots__ = ("_clock", "_flying", "_keys_of", "_named", "_recent")

    def __init__(
        self,
        *,
        limits: Limits,
        clock: Clock,
        keys_of: Callable[[Provider], TokenKeys | None],
        flying: Callable[[Provider], Slot | None],
    ) -> None:
        self._clock = clock
        self._keys_of = keys_of
        self._flying = flying
        self._recent: Recent[Provider, Slot] = Recent(limits.tokens)
        self._named: dict[Provider, Slot] = {}

    def __len__(self) -> int:
        return len(self._recent) + len(self._named)

    def __iter__(self) -> Iterator[Slot]:
        # A copy: the caller awaits between two of them, and requests change the caches meanwhile.
        return iter([*self._named.values(), *(slot for _, slot in self._recent.entries())])

    def slot(self, provider: Provider, name: str) -> Slot:
        """Return the slot of a credential; a new one gets this name."""
        try:
            return self._recent[provider]
        except KeyError:
            pass
        slot = self._named.get(provider)
        if slot is None:
            slot = self._flying(provider)
            if slot is None:
                check_provider(provider)
                slot = Slot(provider, name, keys=self._keys_of(provider))
            self._recent[provider] = slot
        return slot

    def name(self, provider: Provider, name: str) -> Slot:
        """Return the slot of a provider that the broker has by name; it stays."""
        slot = self.slot(provider, name)
        if slot.provider is not provider:
            check_provider(provider)  # equal as a credential, and of its own in where its token may go
        self._recent.pop(provider, None)
        self._named[provider] = slot
        return slot

    def purge(self, *, keep: Callable[[Slot], bool]) -> None:
        """Drop slots that hold nothing of use any more: a token or credential does not stay in memory for ever."""
        now = Moment(self._clock)
        for provider, slot in self._recent.entries():
            usable = slot.now is not None and slot.now.usable(now)
            if not usable:
                slot.now = None
            failed = 0.0 if slot.failure is None else slot.failure.until + _FAILURE_KEPT
            waiting = max(slot.dead_end, slot.deaf_until, failed)  # Redis may lose what it was told
            if not usable and waiting < now.mono and not keep(slot):
                self._recent.pop(provider, None)
