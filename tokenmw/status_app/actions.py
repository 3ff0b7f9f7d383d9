"""What an operator may do: try a provider again, invalidate its token, give an API key another session id."""

from __future__ import annotations

from html import escape
from http import HTTPStatus
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qsl

from starlette.responses import PlainTextResponse, RedirectResponse, Response

from tokenmw.connections.origin import is_from_same_origin
from tokenmw.errors import ConfigurationError, SessionUnavailable
from tokenmw.observe.state_events import OperatorActed
from tokenmw.redaction import Unpicklable
from tokenmw.tokens.entry import TokenEntry

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from starlette.requests import Request

    from tokenmw.broker import TokenBroker
    from tokenmw.status_app.report import Reporter

__all__ = ["NOTICES", "Actions"]

NOTICES: Final = {
    "retry": "The provider is asked again.",
    "invalidate": "The token was invalidated.",
    "reset-session": "The API key has another session id.",
    "unavailable": "Nothing was changed, because Redis is unavailable.",
}
"""What the page shows after each action, by a word of its query."""

_MAX_BODY: Final = 16 << 10  # bytes, more than the longest API key
_REFUSED: Final = "Only a page of the same origin may send this. Behind a proxy, set StatusApp(public_url=…)."


class Actions(Unpicklable):
    """Performs actions, each with a line in the log.

    Args:
        broker: The broker.
        reporter: Makes the reports that show what an action has changed.
    """

    __slots__ = ("_broker", "_reporter")

    def __init__(self, broker: TokenBroker, reporter: Reporter) -> None:
        self._broker = broker
        self._reporter = reporter

    def forms(self, *, base: str) -> str:
        """Return the forms as HTML. They are not in the live part of the page, so that no update moves the focus."""
        names = [name for name in self._broker._credentials.names if self._entry(name) is not None]
        options = "".join(f"<option>{escape(name)}</option>" for name in names)
        at = escape(base)
        of_provider = (
            f'<form method="post" action="{at}/retry"><div><label for="provider">Provider</label>'
            f'<select id="provider" name="provider" required>{options}</select></div>'
            f'<button>Retry now</button><button formaction="{at}/invalidate">Invalidate its token</button></form>'
        )
        return (
            f'<section aria-label="Actions"><h2>Actions</h2>{of_provider if names else ""}'
            f'<form method="post" action="{at}/reset-session" autocomplete="off"><div><label for="key">API key</label>'
            f'<input id="key" name="api_key" type="password" required autocomplete="off"></div>'
            f"<button>Reset its session</button></form></section>"
        )

    async def perform(self, action: str, request: Request, *, base: str, origin: str) -> Response:
        """Perform the action of a form, and return a redirect to the page.

        Args:
            action: `retry`, `invalidate` or `reset-session`.
            request: The request.
            base: The path at which the application is mounted.
            origin: Its URL as browsers see it.
        """
        if not is_from_same_origin(request, origin):
            return PlainTextResponse(_REFUSED, HTTPStatus.FORBIDDEN)
        fields = await _form(request)
        if fields is None:
            return PlainTextResponse("Too long.", HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
        address = request.client.host if request.client is not None else "?"
        handlers: dict[str, Callable[[dict[str, str], str], Awaitable[str | None]]] = {
            "retry": self._retry,
            "invalidate": self._invalidate,
            "reset-session": self._reset,
        }
        try:
            name = await handlers[action](fields, address)
        except SessionUnavailable:
            return RedirectResponse(f"{base}/?done=unavailable", HTTPStatus.SEE_OTHER)
        except ConfigurationError:  # an API key that is none, of which nothing may be shown
            name = None
        if name is None:
            return PlainTextResponse("There is no such provider or API key.", HTTPStatus.BAD_REQUEST)
        self._reporter.forget()
        log = self._broker._settings.log
        self._broker._settings.observe(OperatorActed(action, name))
        changed = name or "an API key"
        log.event("action", "An operator at %s requested %s of %s", address, action, changed, provider=name)
        return RedirectResponse(f"{base}/?done={action}", HTTPStatus.SEE_OTHER)

    async def _retry(self, fields: dict[str, str], address: str) -> str | None:
        broker, entry = self._broker, self._entry(fields.get("provider", ""))
        if entry is None:
            return None
        runtime = broker._open()
        await runtime.token_sync.retry(entry, by=address)
        runtime.tokens.refresh_soon(entry)
        return entry.name

    async def _invalidate(self, fields: dict[str, str], _address: str) -> str | None:
        name = fields.get("provider", "")
        if self._entry(name) is None:
            return None
        await self._broker.invalidate_provider(name)
        return name

    async def _reset(self, fields: dict[str, str], _address: str) -> str | None:
        await self._broker.reset_session(fields.get("api_key", ""))
        return ""

    def _entry(self, name: str) -> TokenEntry | None:
        credentials = self._broker._credentials
        found = credentials.find(name) if name in credentials.names else None
        return found if isinstance(found, TokenEntry) else None


async def _form(request: Request) -> dict[str, str] | None:
    """Return the fields of a form; None if it is too long. Starlette would need another library to read it."""
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > _MAX_BODY:
            return None
    try:
        return dict(parse_qsl(body.decode("utf-8", "replace"), keep_blank_values=True, max_num_fields=10))
    except ValueError:  # more fields
        return {}
