"""The session manager of a broker that has observers: it counts where session ids come from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tokenmw.errors import SessionUnavailable
from tokenmw.observe.events import (
    CallerRefused,
    SessionReset,
    SessionResolved,
    SessionsMade,
    SessionsReplaced,
    Uploaded,
)
from tokenmw.sessions.cache import local_key
from tokenmw.sessions.manager import SessionManager

if TYPE_CHECKING:
    from tokenmw.observe.observers import Observers

__all__ = ["ObservedSessionManager", "session_manager"]


class ObservedSessionManager(SessionManager):
    """Returns session ids as `SessionManager` does.

    Args:
        observe: Gets the events.
        options: Those of `SessionManager`.
    """

    __slots__ = ("_local", "_made", "_observe", "_replaced", "_uploaded")

    def __init__(self, *, observe: Observers, **options: Any) -> None:
        super().__init__(**options)
        self._observe = observe
        self._local = self._made = self._replaced = self._uploaded = 0

    def flush(self) -> None:
        """Hand over what was counted since the last call."""
        self._observe.count(SessionResolved, "local", by=self._local)
        self._local = 0
        if self._first_sights is not None:
            made, self._made = self._made, self._first_sights.made
            self._observe.count(SessionsMade, by=self._made - made)
        if self._sync is not None:
            replaced, self._replaced = self._replaced, self._sync.replaced
            self._observe.count(SessionsReplaced, by=self._replaced - replaced)
            uploaded, self._uploaded = self._uploaded, self._sync.uploaded
            self._observe.count(Uploaded, "session", by=self._uploaded - uploaded)

    def cached(self, api_key: bytes) -> str | None:
        """Return the id of a key from the local cache, without waiting, and count it."""
        # The usual case as in the base class, whose call would cost more than what it does.
        try:
            session = self._sessions[api_key]
        except KeyError:
            pass
        else:
            now = self._monotonic()
            if now <= session.touch_after:
                session.used = now
                self._local += 1
                return session.id
        session_id = super().cached(api_key)
        if session_id is not None:
            self._local += 1
        return session_id

    async def get(self, api_key: bytes) -> str:
        """Return the session id of an API key."""
        session_id = self.cached(api_key)
        if session_id is not None:
            return session_id
        try:
            session_id = await super().get(api_key)
        except SessionUnavailable:
            self._observe.count(CallerRefused, "no_session")
            raise
        session = self._cache.get(local_key(api_key))
        if session is not None and session.shared:
            self._observe.count(SessionResolved, "redis")
        else:
            self._observe.count(SessionResolved, "derived" if self._ids.derivable else "random")
        return session_id

    async def reset(self, api_key: bytes) -> str:
        """Give an API key a new session id."""
        session_id = await super().reset(api_key)
        self._observe(SessionReset())
        return session_id


def session_manager(observe: Observers, **options: Any) -> SessionManager:
    """Return the session manager of a broker, with the options of `SessionManager`."""
    return ObservedSessionManager(observe=observe, **options) if observe.active else SessionManager(**options)
