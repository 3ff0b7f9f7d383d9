"""The base of platforms' token endpoints for users: it authenticates the app, and exchanges what it sends."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, final

from tokenmw.testing.provider_server.endpoint import TokenEndpoint, json_response
from tokenmw.testing.provider_server.families import RefusedError
from tokenmw.testing.provider_server.user_grants import CREDENTIALS, UserCredential, exchange, record

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from tokenmw.testing.provider_server.authorize import AuthorizationEndpoint
    from tokenmw.testing.provider_server.families import Pair
    from tokenmw.testing.provider_server.fault import Fault
    from tokenmw.testing.provider_server.server import ProviderServer

__all__ = ["Asked", "UserTokens"]


@final
@dataclass(frozen=True)
class Asked:
    """What an app sends, by OAuth's names whatever the platform's are.

    Attributes:
        secret: The app's secret, "" if it is missing; None for a grant that needs none.
        credential: The grant type, the code or refresh token, and the client.
    """

    secret: str | None
    credential: UserCredential


class UserTokens(TokenEndpoint):
    """A token endpoint for users in a platform's own shape. A subclass defines `read`, `granted` and `refusal`.

    `RefusedError.code` is `invalid_client` for an app that is not known or has another secret, and
    `unsupported_grant_type` for a grant that the server does not know.

    Attributes:
        authorize: The endpoint that issues the codes.
    """

    authorization: ClassVar[type[AuthorizationEndpoint]]
    """The authorization endpoint."""
    refusal_status: ClassVar[int] = 400
    """The HTTP status of a refusal."""

    def __init__(self, server: ProviderServer, *, life: float) -> None:
        super().__init__(server, life=life)
        self.authorize = self.authorization(server, self)

    async def read(self, request: Request) -> Asked:
        """Return what a request asks for; "" for what is missing."""
        raise NotImplementedError

    def granted(self, pair: Pair, *, grant: str) -> dict[str, Any]:
        """Return the fields of a successful answer to a grant."""
        raise NotImplementedError

    def refusal(self, refused: RefusedError, *, grant: str) -> dict[str, Any]:
        """Return the fields of the answer to a refused grant."""
        raise NotImplementedError

    async def caller(self, request: Request) -> str:
        """Return the app that a request names."""
        return (await self.read(request)).credential.client

    async def received(self, request: Request, caller: str) -> None:
        """Record a code or a refresh token."""
        credential = (await self.read(request)).credential
        if credential.grant in CREDENTIALS:
            record(self.server.users, request, grant=credential.grant, value=credential.value, client=caller)

    async def answer(self, request: Request, fault: Fault) -> Response:
        """Answer with a pair, or as the platform refuses."""
        asked = await self.read(request)
        credential = asked.credential
        try:
            if not self.server.knows(credential.client, asked.secret):
                raise RefusedError("invalid_client")
            if credential.grant not in CREDENTIALS:
                raise RefusedError("unsupported_grant_type")
            pair = exchange(self.server.users, self, request, credential)
        except RefusedError as refused:
            return self.respond(request, self.refusal(refused, grant=credential.grant), status=self.refusal_status)
        return self.respond(request, fault.change(self.granted(pair, grant=credential.grant)))

    def respond(self, request: Request, content: dict[str, Any], *, status: int = 200) -> Response:  # noqa: ARG002
        """Return an answer with these fields, in the format that the request asks for if there are several."""
        return json_response(content, status)
