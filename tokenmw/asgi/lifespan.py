"""The application's lifespan, with the broker opened before it and closed after it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, cast

from tokenmw.broker import STATE_KEY, TokenBroker
from tokenmw.errors import TokenmwError
from tokenmw.observe.throttle import warn
from tokenmw.redaction import Unpicklable
from tokenmw.startup.declared_names import check_declared_names
from tokenmw.startup.lifespan import remove_hint
from tokenmw.startup.parts import has_middleware_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["run_lifespan"]

_TWO_BROKERS: Final = (
    "Two TokenMiddlewares with two brokers are around one application, {outer} outside and {inner} inside: "
    "request.state and the dependencies have the session id and the tokens of the inner one only. Give all providers "
    "to one broker, or mount an application for each."
)


_OTHER_LIFESPAN: Final = (
    "TokenMiddleware has {middleware} and the lifespan has {lifespan}: requests get the session id and the tokens of "
    "the middleware's broker only. Give all providers to one broker, or leave the lifespan out: the middleware opens "
    "its broker."
)


async def run_lifespan(
    app: ASGIApp, scope: Scope, receive: Receive, send: Send, *, broker: TokenBroker, warm: Sequence[str]
) -> None:
    """Open the broker, run the application's lifespan, close the broker.

    For an application without a lifespan, the server's events are answered here. If the broker cannot be opened, the
    server gets `lifespan.startup.failed`.

    Args:
        app: The application.
        scope: The lifespan's scope.
        receive: The server's channel of events.
        send: The server's channel of replies.
        broker: The broker.
        warm: Names of providers whose tokens are resolved before the application starts.
    """
    given: object = scope.get("state")
    state = cast("dict[str, Any]", given) if isinstance(given, dict) else None
    channels = _Channels(receive, send, app=scope.get("app", app), state=state, broker=broker, warm=warm)
    if state is not None:
        outer = state.get(STATE_KEY)
        if isinstance(outer, TokenBroker) and outer is not broker:
            warn("two-brokers", _TWO_BROKERS.format(outer=outer, inner=broker))
        state[STATE_KEY] = broker
    try:
        try:
            await app(scope, channels.receive, channels.send)
        except Exception:
            # An application that raises before it receives an event has no lifespan (ASGI, "Lifespan Protocol").
            if channels.replied or (channels.received and not channels.sent_http):
                raise
        if not channels.replied:
            await channels.reply_for_application()
    finally:
        await channels.close_broker()


class _Channels(Unpicklable):
    """A lifespan's two channels; the broker is opened and closed when the events pass through them.

    Attributes:
        received: Whether the application has received an event.
        replied: Whether the server has a reply.
        sent_http: Whether the application has tried to send an HTTP response.
    """

    def __init__(
        self,
        receive: Receive,
        send: Send,
        *,
        app: object,
        state: dict[str, Any] | None,
        broker: TokenBroker,
        warm: Sequence[str],
    ) -> None:
        self._receive = receive
        self._send = send
        self._app = app
        self._state = state
        self._broker = broker
        self._warm = warm
        self._entered = False
        self.received = False
        self.replied = False
        self.sent_http = False

    async def receive(self) -> Message:
        message = await self._receive()
        self.received = True
        if message["type"] == "lifespan.startup":
            await self._open_broker()
        return message

    async def _open_broker(self) -> None:
        try:
            names = self._broker._credentials
            check_declared_names(self._app, names=names.names, other_names=names.names_of_all_brokers)
            await self._broker.__aenter__()
            self._entered = True
            await self._broker._warm_up(self._warm)
        except Exception as error:
            # Without this reply, the server would assume an application without a lifespan, and start to serve.
            self.replied = True
            reason = str(error) if isinstance(error, TokenmwError) else type(error).__name__
            await self._send({"type": "lifespan.startup.failed", "message": f"The TokenBroker cannot open: {reason}"})
            raise

    async def send(self, message: Message) -> None:
        if not message["type"].startswith("lifespan."):
            # A small application sends a page in every scope.
            self.sent_http = True
            raise RuntimeError("An HTTP response was sent in a lifespan scope, which takes lifespan events only.")
        self.replied = True
        if message["type"] != "lifespan.startup.complete":
            await self.close_broker()
        elif self._state is not None:
            self._check_lifespan(self._state)
        await self._send(message)

    def _check_lifespan(self, state: dict[str, Any]) -> None:
        """Check what the application's own lifespan has put into the state."""
        remove_hint(state)
        other = state.get(STATE_KEY)
        if isinstance(other, TokenBroker) and other is not self._broker and not has_middleware_of(self._app, other):
            warn("two-brokers", _OTHER_LIFESPAN.format(middleware=self._broker, lifespan=other))
            state[STATE_KEY] = self._broker  # so that an outer middleware does not report it again

    async def close_broker(self) -> None:
        if self._entered:
            self._entered = False
            await self._broker.__aexit__(None, None, None)

    async def reply_for_application(self) -> None:
        if not self.received:
            await self.receive()
        await self.send({"type": "lifespan.startup.complete"})
        await self.receive()
        await self.send({"type": "lifespan.shutdown.complete"})
