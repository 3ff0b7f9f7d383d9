"""A token endpoint that verifies assertions as real servers do, over real HTTP."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, TypeVar

import httpx
import jwt

from tokenmw.clock import SYSTEM_CLOCK
from tokenmw.limits import Limits
from tokenmw.providers import TokenHTTP
from tokenmw.testing import ProviderServer
from tokenmw.testing.provider_server.endpoint import json_response
from tokenmw.testing.provider_server.oauth2 import OAuth2Endpoint

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Generator

    from starlette.responses import Response

    from tokenmw.testing.provider_server.fault import Fault

__all__ = ["VerifiedGrants", "Verifying", "granting", "serving", "verifying"]

V = TypeVar("V", bound="Verifying")


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


class VerifiedGrants(Verifying):
    """`POST /verified/token`: grants a token for an assertion that one of some keys verifies, once (RFC 7523 §2.1).

    Attributes:
        users: The subjects that are known.
    """

    users: tuple[str, ...] = ("ada",)

    def _answer_for_user(
        self, form: dict[str, str], client: str, fault: Fault, thumbprint: str, bound: str
    ) -> Response:
        del bound
        user = self._user_of(form.get("assertion", ""))
        if user is None:
            return json_response({"error": "invalid_grant"}, 400)
        value, life = self.grant_for(user, client, scope=form.get("scope", ""), thumbprint=thumbprint)
        return json_response(fault.change({"access_token": value, "token_type": "Bearer", "expires_in": life}))

    def _user_of(self, assertion: str) -> str | None:
        required: Any = {"require": ["iss", "aud", "exp", "iat"]}
        for key in self.keys:
            with contextlib.suppress(jwt.InvalidTokenError, jwt.InvalidKeyError):
                audience = self.audience or self.url
                claims = jwt.decode(assertion, key, algorithms=self.algorithms, audience=audience, options=required)
                user = str(claims.get("sub", claims["iss"]))
                if assertion in self._assertions or user not in self.users:
                    return None
                self._assertions.add(assertion)
                self.seen.append((jwt.get_unverified_header(assertion), claims))
                return user
        return None


@contextlib.contextmanager
def serving(kind: type[V], *keys: Any, algorithms: list[str]) -> Generator[tuple[V, str]]:
    """Serve an endpoint on this machine; yield it and the base URL of its server."""
    made: list[V] = []

    def make(server: ProviderServer) -> V:
        made.append(kind(server))
        return made[0]

    server = ProviderServer(endpoints=[make])
    with server.running() as base_url:
        (endpoint,) = made
        endpoint.url, endpoint.keys, endpoint.algorithms = f"{base_url}{endpoint.path}", list(keys), algorithms
        yield endpoint, base_url


@contextlib.asynccontextmanager
async def verifying(*keys: Any, algorithms: list[str]) -> AsyncGenerator[tuple[Verifying, TokenHTTP]]:
    """Serve `Verifying` on this machine, with a `TokenHTTP` to reach it."""
    with serving(Verifying, *keys, algorithms=algorithms) as (endpoint, _):
        async with httpx.AsyncClient(trust_env=False) as client:
            yield endpoint, TokenHTTP(client, limits=Limits(), clock=SYSTEM_CLOCK)


@contextlib.asynccontextmanager
async def granting(*keys: Any, algorithms: list[str]) -> AsyncGenerator[tuple[VerifiedGrants, TokenHTTP]]:
    """Serve `VerifiedGrants` on this machine, with a `TokenHTTP` to reach it."""
    with serving(VerifiedGrants, *keys, algorithms=algorithms) as (endpoint, _):
        async with httpx.AsyncClient(trust_env=False) as client:
            yield endpoint, TokenHTTP(client, limits=Limits(), clock=SYSTEM_CLOCK)
