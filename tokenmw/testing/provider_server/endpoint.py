"""The base of all endpoints of the test server: it counts calls, applies faults and issues tokens."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, ClassVar, cast

from starlette.requests import Request
from starlette.responses import Response

from tokenmw.testing.provider_server.fault import ConnectionClosedError, Fault, Script

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

    from tokenmw.testing.provider_server.server import ProviderServer

__all__ = ["ABORT", "Endpoint", "TokenEndpoint", "json_fields", "json_response", "whole_seconds"]

ABORT = "tokenmw.abort"
"""The key, in the connection's state, of the function that closes the connection."""


class Endpoint:
    """An ASGI application for one path. A subclass defines `name`, `path`, `methods`, `caller` and `answer`.

    Attributes:
        name: The key of its calls in `ProviderServer.calls`.
        script: Its faults.
    """

    name: ClassVar[str]
    path: ClassVar[str]
    more_paths: ClassVar[tuple[str, ...]] = ()
    """Other paths with the same endpoint."""
    methods: ClassVar[tuple[str, ...]] = ("POST",)

    def __init__(self, server: ProviderServer) -> None:
        self.script = Script()
        self.server = server

    async def caller(self, request: Request) -> str:  # noqa: ARG002  some endpoints cannot know
        """Return the client that a request names, or "". The call is counted under that name too."""
        return ""

    async def received(self, request: Request, caller: str) -> None:
        """Record a request, before its fault. `caller` is the client that it names."""

    async def answer(self, request: Request, fault: Fault) -> Response:
        """Answer as the real endpoint does. Apply `fault.change` to a successful answer."""
        raise NotImplementedError

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Count the call, apply the fault of the script, and answer."""
        request = Request(scope, receive)
        await request.body()
        fault = self.script.take()
        self.server.calls[self.name] += 1
        caller = await self.caller(request)
        if caller:
            self.server.calls[self.name, caller] += 1
        await self.received(request, caller)
        try:
            done = await self.answer(request, fault) if fault.after else None
            await self._misbehave(fault)
            if fault.answers:
                response = fault.response()
            else:
                response = done or await self.answer(request, fault)
                response.headers.update(fault.headers)
        except ConnectionClosedError:
            await _close(scope, receive)
            return
        await response(scope, receive, send)

    async def _misbehave(self, fault: Fault) -> None:
        if fault.hang is not None:
            await self.server.hold(fault.hang)
        delay = self.server.delay + fault.delay
        if delay > 0:
            await self.server.closing.wait(delay)
        if fault.close or self.server.closing.is_set():
            raise ConnectionClosedError


class TokenEndpoint(Endpoint):
    """An endpoint that issues tokens.

    Attributes:
        life: The lifetime of a token, in seconds.
        renewal_window: Seconds before expiry from which a new token is issued. Before that, the same token is
            returned with its remaining lifetime. None: a new token for each request; 0: never before expiry.
        issuer: The prefix of each token. Endpoints with the same issuer give a client the same token; the default is
            the endpoint's name.
    """

    issuer: ClassVar[str] = ""
    revokes_old_tokens: ClassVar[bool] = False
    """Whether a refresh revokes the access tokens of its family that were issued before."""

    def __init__(self, server: ProviderServer, *, life: float, renewal_window: float | None = None) -> None:
        super().__init__(server)
        self.life = life
        self.renewal_window = renewal_window

    @property
    def prefix(self) -> str:
        """The prefix of each token, and what endpoints with the same tokens have in common."""
        return self.issuer or self.name

    def grant_for(self, user: str, client: str, *, scope: str = "", thumbprint: str = "") -> tuple[str, float]:
        """Return a new token for a client that acts for a user, and its lifetime in seconds."""
        issued = self.server.issued
        token = issued.issue(self.prefix, client, scope=scope, life=self.life, user=user, thumbprint=thumbprint)
        return token.value, whole_seconds(self.life)

    def grant(
        self, client: str, *, scope: str = "", resources: tuple[str, ...] = (), thumbprint: str = ""
    ) -> tuple[str, float]:
        """Return a token for a client, and its remaining lifetime in seconds."""
        issued, issuer = self.server.issued, self.prefix
        if self.renewal_window is not None:
            token = issued.current(issuer, client, scope=scope, resources=resources, thumbprint=thumbprint)
            if token is not None and issued.remaining(token) > self.renewal_window:
                return token.value, whole_seconds(issued.remaining(token))
        token = issued.issue(issuer, client, scope=scope, resources=resources, life=self.life, thumbprint=thumbprint)
        return token.value, whole_seconds(self.life)


def whole_seconds(seconds: float) -> float:
    """Return a lifetime as real servers send it, except one so short that rounding would matter to a test."""
    return int(seconds) if seconds > 60 else seconds


async def json_fields(request: Request, *, named: bool = True) -> dict[str, Any]:
    """Return the JSON object in a request's body, or {} if there is none.

    Args:
        request: The request.
        named: Whether the content type must be JSON; not all platforms check that.
    """
    if named and request.headers.get("content-type", "").partition(";")[0] != "application/json":
        return {}
    try:
        fields: Any = await request.json()
    except ValueError:
        return {}
    return cast("dict[str, Any]", fields) if isinstance(fields, dict) else {}


def json_response(content: Any, status: int = 200, **headers: str) -> Response:
    """Return a JSON answer with `Cache-Control: no-store` (RFC 6749 §5.1). Python's NaN is allowed."""
    lines = {
        "Cache-Control": "no-store",
        **{name.replace("_", "-"): value for name, value in headers.items()},
    }
    return Response(json.dumps(content), status, headers=lines, media_type="application/json")


async def _close(scope: Scope, receive: Receive) -> None:
    abort = scope.get("state", {}).get(ABORT)
    if abort is None:
        # In process: the transport converts it to the client's own error.
        raise ConnectionClosedError
    abort()
    while (await receive())["type"] != "http.disconnect":
        pass
