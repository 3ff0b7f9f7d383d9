"""Whether a process may get traffic: it had each token that it needs once, or the program's own policy says so."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final, cast

from tokenmw.callers.answers import UndecidedAnswer
from tokenmw.clock import Instant
from tokenmw.credentials import checked_names
from tokenmw.observe.error_place import with_place
from tokenmw.options import checked_callback
from tokenmw.redaction import Unpicklable
from tokenmw.status_app.access import is_true
from tokenmw.tokens.entry import TokenEntry

if TYPE_CHECKING:
    from tokenmw.broker import TokenBroker

__all__ = ["Readiness", "Ready"]

Ready = Iterable[str] | Callable[..., object] | None
"""Names of providers, or the program's policy `(status) -> bool`."""

_OPTION: Final = "StatusApp(ready=…)"


class Readiness(Unpicklable):
    """Remembers which tokens this process had. A later failure, of a provider or of Redis, does not end readiness.

    Args:
        broker: The broker.
        ready: The option `ready` of `StatusApp`.
        seconds: How long the policy may take.
    """

    __slots__ = ("_broker", "_had", "_names", "_policy", "_seconds")

    def __init__(self, broker: TokenBroker, ready: Ready, *, seconds: float) -> None:
        self._broker = broker
        self._seconds = seconds
        self._had = set[str]()
        self._policy: Callable[..., object] | None = None
        self._names: tuple[str, ...] = ()
        if callable(ready):
            checked_callback(ready, option=_OPTION, takes="(status) -> object")
            self._policy = ready
        elif ready is None:
            find, names = broker._credentials.find, broker._credentials.names
            self._names = tuple(name for name in names if isinstance(find(name), TokenEntry))
        else:
            given = checked_names(ready, option=_OPTION, known=broker._credentials.names)
            for name in given:
                broker._credentials.entry(name)  # raises if its credentials depend on the request
            self._names = given

    async def is_ready(self) -> bool:
        """Return whether this process may get traffic. A missing token is fetched in the background, in its backoff."""
        broker, log = self._broker, self._broker._settings.log
        runtime = broker._runtime
        if runtime is None or not runtime.is_current:
            return False
        if self._policy is None:
            missing = [entry for name in self._names if (entry := self._missing(name)) is not None]
            for entry in missing:
                runtime.tokens.refresh_soon(entry)
            return not missing
        try:
            return await is_true(self._policy, broker.status(), seconds=self._seconds)
        except UndecidedAnswer as undecided:
            log.problem("ready", "StatusApp(ready=…) returned %s; /readyz is 503", str(undecided))
        except Exception as error:  # noqa: BLE001  whatever the program raises, the process is not ready
            place = with_place(error, called=cast("object", self._policy))
            log.problem("ready", "StatusApp(ready=…) raised %s; /readyz is 503", place)
        return False

    def _missing(self, name: str) -> TokenEntry | None:
        if name in self._had:
            return None
        entry = self._broker._credentials.entry(name)
        if entry.current is None or not entry.current.usable(Instant(self._broker._settings.clock)):
            return entry
        self._had.add(name)
        return None
