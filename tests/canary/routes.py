"""The routes of the program: each uses a broker in another way and prints the result."""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import AsyncGenerator, Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import httpx
import httpx2
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.websockets import WebSocket

from tests.canary.credentials import API_KEYS, KINDS, TICKET, providers_of, ticket
from tests.canary.program import INJECTED, Program
from tokenmw import TokenBroker, TokenMiddleware, TokenmwError
from tokenmw.providers import FeishuTicket
from tokenmw.status_app import StatusApp

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message

__all__ = ["application"]


def application(program: Program) -> ASGIApp:
    """Make the application: it uses the broker `sealed`, and `plain` under "/plain"."""
    plain = Starlette(routes=Routes(program, program.plain).all())
    mounted = TokenMiddleware(plain, broker=program.plain, inject=INJECTED)
    routes = [*Routes(program, program.sealed).all(), Mount("/plain", mounted)]
    app = Starlette(routes=routes, lifespan=program.running)
    return TokenMiddleware(app, broker=program.sealed, inject=INJECTED, missing_key="reject")


class Routes:
    """The routes that use one broker."""

    def __init__(self, program: Program, broker: TokenBroker) -> None:
        self._program = program
        self._broker = broker

    def all(self) -> list[Any]:
        """Return the routes."""
        return [
            Route("/tokens/{behaviour}", self.tokens),
            Route("/raise/{name}", self.raise_),
            Route("/raise-after-start/{name}", self.raise_after_start),
            Route("/injected", self.injected),
            Route("/api/{kind}/{behaviour}", self.api),
            Route("/operations", self.operations),
            Route("/operations/all", self.operations_of_all_brokers),
            Route("/operations/new-brokers", self.operations_of_new_brokers),
            Route("/report", self.report),
            Mount("/status", StatusApp(self._broker, allow_all=True)),
            WebSocketRoute("/{phase}", self.websocket),
        ]

    async def tokens(self, request: Request) -> Response:
        """Resolve the tokens of all kinds at endpoints with one behaviour."""
        resolve, behaviour = request.state.tokens.resolve, request.path_params["behaviour"]
        results = await asyncio.gather(*(resolve(f"{kind}/{behaviour}") for kind in KINDS), return_exceptions=True)
        self._program.write(request.state.tokens, *results)
        return JSONResponse([str(result) for result in results])

    async def raise_(self, request: Request) -> Response:
        """Raise the error of a token before the response has started."""
        await request.state.tokens.resolve(request.path_params["name"].replace(":", "/"))
        return Response()

    async def raise_after_start(self, request: Request) -> Response:
        """Raise the error of a token after the response has started."""

        async def body() -> AsyncGenerator[str]:
            yield "begin"
            await request.state.tokens.resolve(request.path_params["name"].replace(":", "/"))

        return StreamingResponse(body())

    async def injected(self, request: Request) -> Response:
        """Read injected tokens, one that is not injected, and one that does not exist."""
        for name in (*INJECTED, "jwt/grants", "unknown"):
            try:
                self._program.write(request.state.tokens[name])
            except (TokenmwError, KeyError) as error:
                self._program.write(error)
        return JSONResponse({"session": request.state.session_id, "state": str(request.state._state)})

    async def api(self, request: Request) -> Response:
        """Send a request with a token to an API, with an httpx and an httpx2 client."""
        kind, behaviour = request.path_params["kind"], request.path_params["behaviour"]
        url = f"http://127.0.0.1:{self._program.ports['grants']}/{behaviour}/{kind}/send?to=all"
        for http in self._program.clients:
            try:
                response = await http.get(url, auth=self._broker.auth(f"{kind}/grants"), follow_redirects=True)
                self._program.write(f"{response!r} {response.request!r}")
            except TokenmwError as error:
                self._program.write(error)
            except (httpx.HTTPError, httpx2.HTTPError) as error:
                # An error of the HTTP client: its frames hold the request and are not the package's.
                self._program.write(*traceback.format_exception(error))
        return Response()

    async def operations(self, _request: Request) -> Response:
        """Call every method of the broker."""
        await self._operate(self._broker)
        return Response()

    async def operations_of_all_brokers(self, _request: Request) -> Response:
        """Call every method of all brokers."""
        for broker in self._program.brokers:
            await self._operate(broker)
        await asyncio.to_thread(asyncio.run, self._start_in_another_loop())
        return Response()

    async def operations_of_new_brokers(self, _request: Request) -> Response:
        """Call every method of brokers that know nothing but the contents of Redis."""
        for broker in self._program.new_brokers():
            async with broker:
                await self._operate(broker)
        return Response()

    async def _start_in_another_loop(self) -> None:
        """Start the broker, which runs in this event loop, in another one."""

        async def receive() -> Message:
            return {"type": "lifespan.startup"}

        async def send(message: Message) -> None:
            self._program.write(message)

        try:
            app = TokenMiddleware(Starlette(), broker=self._broker)
            await app({"type": "lifespan", "asgi": {"version": "3.0"}}, receive, send)
        except TokenmwError as error:
            self._program.write(error)

    async def _operate(self, broker: TokenBroker) -> None:
        for call in self._calls(broker):
            try:
                self._program.write(await call())
            except Exception as error:  # noqa: BLE001  every kind of exception is rendered and searched
                self._program.write(error)

    def _calls(self, broker: TokenBroker) -> list[Callable[[], Awaitable[object]]]:
        store = ticket(port=self._program.ports["grants"])
        wrong: Any = broker
        return [
            lambda: broker.hand_in(store, FeishuTicket.grant(TICKET)),
            *(partial(broker.token, f"{kind}/grants") for kind in KINDS),
            *(
                partial(broker.token, provider)
                for provider in providers_of("grants", port=self._program.ports["grants"]).values()
            ),
            lambda: broker.session_id(API_KEYS["broker"]),
            lambda: broker.reset_session(API_KEYS["reset"].encode()),
            self._invalidate_all(broker),
            lambda: broker.invalidate_provider("wecom/grants"),
            lambda: broker.token("basic/refuses"),
            # Arguments of a wrong type or encoding.
            lambda: wrong.session_id([API_KEYS["broker"]]),
            lambda: wrong.session_id(API_KEYS["broker"] + "\udc80"),
            lambda: wrong.invalidate(API_KEYS["broker"]),
            lambda: wrong.hand_in(store, TICKET),
        ]

    def _invalidate_all(self, broker: TokenBroker) -> Callable[[], Awaitable[object]]:
        async def invalidate() -> object:
            return [await broker.invalidate(await broker.token(f"{kind}/grants")) for kind in KINDS]

        return invalidate

    async def report(self, _request: Request) -> Response:
        """Print the state of the broker and return its status."""
        self._program.write_state(self._broker)
        return JSONResponse({"status": str(self._broker.status())})

    async def websocket(self, websocket: WebSocket) -> None:
        """Raise the error of a token before or after accepting the WebSocket."""
        if websocket.path_params["phase"] == "after-accept":
            await websocket.accept()
        await websocket.state.tokens.resolve("basic/refuses")
