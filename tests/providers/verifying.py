"""A token endpoint that verifies assertions as real servers do, over real HTTP."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import httpx
import jwt

from tokenmw.clock import SYSTEM_CLOCK
from tokenmw.limits import Limits
from tokenmw.providers import TokenHTTP
from tokenmw.testing import ProviderServer
from tokenmw.testing.provider_server.oauth2 import OAuth2Endpoint

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

__all__ = ["Verifying", "verifying"]


class Verifying(OAuth2Endpoint):
    """`POST /verified/token`: accepts a client by an assertion that one of some keys verifies, and only once.

    Attributes:
        url: Its URL.
        keys: Secrets or public keys.
        algorithms: The algorithms that are accepted.
        audience: The audience that is required; None: the URL.
        seen: The header and the claims of each assertion that was verified.
    """

    name = "verified"
    path = "/verified/token"

    def __init__(self, server: ProviderServer) -> None:
        super().__init__(server, life=3600.0)
        self.url = ""
        self.keys: list[Any] = []
        self.algorithms: list[str] = []
        self.audience: str | None = None
        self.seen: list[tuple[dict[str, Any], dict[str, Any]]] = []

    def _is_client(self, client: str, *, basic: tuple[str, str] | None, form: dict[str, str]) -> bool:
        assertion = form.get("client_assertion", "")
        if basic is not None or not super()._is_client(client, basic=None, form=form):
            return False
        required: Any = {"require": ["iss", "sub", "aud", "exp", "iat", "nbf", "jti"]}
        for key in self.keys:
            with contextlib.suppress(jwt.InvalidTokenError, jwt.InvalidKeyError):
                claims = jwt.decode(
                    assertion,
                    key,
                    algorithms=self.algorithms,
                    audience=self.audience or self.url,
                    issuer=client,
                    subject=client,
                    options=required,
                )
                self.seen.append((jwt.get_unverified_header(assertion), claims))
                return True
        return False


@contextlib.asynccontextmanager
async def verifying(*keys: Any, algorithms: list[str]) -> AsyncGenerator[tuple[Verifying, TokenHTTP]]:
    """Serve the endpoint on this machine, with a `TokenHTTP` to reach it."""
    made: list[Verifying] = []

    def make(server: ProviderServer) -> Verifying:
        made.append(Verifying(server))
        return made[0]

    server = ProviderServer(endpoints=[make])
    with server.running() as base_url:
        (endpoint,) = made
        endpoint.url, endpoint.keys, endpoint.algorithms = f"{base_url}{endpoint.path}", list(keys), algorithms
        async with httpx.AsyncClient(trust_env=False) as client:
            yield endpoint, TokenHTTP(client, limits=Limits(), clock=SYSTEM_CLOCK)
