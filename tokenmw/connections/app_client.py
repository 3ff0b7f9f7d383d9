"""The token requests of an app, and those to the other endpoints at which its client authenticates."""

from __future__ import annotations

from dataclasses import replace
from functools import reduce
from typing import TYPE_CHECKING, Any, cast

from tokenmw.connections.pair_reader import read_pair
from tokenmw.errors import TokenUnavailable
from tokenmw.providers.client_auth import Proof
from tokenmw.providers.discovery import METHODS_FOUND, TokenEndpoint, request_at_issuer
from tokenmw.redaction import FrozenValue, without_locals

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from tokenmw.connections.dialect import Dialect
    from tokenmw.connections.endpoints import Endpoints
    from tokenmw.connections.pair import TokenPair
    from tokenmw.providers.answer import Answer
    from tokenmw.providers.client_auth import AuthMethod, ClientAuth
    from tokenmw.providers.grant_reader import GrantReader
    from tokenmw.providers.http import TokenHTTP

__all__ = ["AppClient"]


class AppClient(FrozenValue):
    """An app's client at its server.

    Args:
        auth: How it authenticates.
        endpoints: Where the endpoints are.
        reader: Reads responses.
        dialect: What the platform does otherwise.
        as_json: Whether token requests are JSON objects.
        params: More fields of each token request.

    Attributes:
        endpoints: Where the endpoints are.
    """

    __slots__ = ("_as_json", "_auth", "_dialect", "_params", "_reader", "endpoints")

    endpoints: Endpoints
    _as_json: bool
    _auth: ClientAuth
    _dialect: Dialect
    _params: Mapping[str, str]
    _reader: GrantReader

    def __init__(
        self,
        auth: ClientAuth,
        *,
        endpoints: Endpoints,
        reader: GrantReader,
        dialect: Dialect,
        as_json: bool,
        params: Mapping[str, str],
    ) -> None:
        put = object.__setattr__
        put(self, "_auth", auth)
        put(self, "endpoints", endpoints)
        put(self, "_reader", reader)
        put(self, "_dialect", dialect)
        put(self, "_as_json", as_json)
        put(self, "_params", params)

    @property
    def name(self) -> str:
        """The client for an error text."""
        return self._auth.client()

    def reach(self, http: TokenHTTP) -> TokenHTTP:
        """Return what sends requests to where the server may be."""
        return http if self.endpoints.allow_private else http.public_only()

    @without_locals
    async def grant(
        self,
        http: TokenHTTP,
        fields: Mapping[str, str],
        *,
        secret: str,
        read: Callable[..., TokenPair] = read_pair,
    ) -> TokenPair:
        """Send a token request, and return what `read` makes of the response.

        Args:
            http: Sends it.
            fields: Its fields.
            secret: The secret among them, which no text may repeat.
            read: Reads the response.

        Raises:
            Exception: As `read` raises it.
            TokenUnavailable: The server cannot be reached, or is not known now.
        """
        http = self.reach(http)
        metadata = self.endpoints.metadata

        async def request(endpoint: TokenEndpoint, statuses: list[int]) -> TokenPair:
            reader = replace(self._reader, url=endpoint.url)

            async def send(proof: Proof) -> TokenPair:
                body = self._dialect.fields({**fields, **self._params, **proof.form})
                sent: dict[str, Any] = {"json" if self._as_json else "data": body}
                answer: Answer = await http.request("POST", endpoint.url, headers=proof.headers, **sent)
                statuses.append(answer.status)
                whole = reduce(Proof.with_secret, (secret, *self._params.values()), proof)
                return read(answer, whole, reader=reader, dialect=self._dialect)

            if endpoint.method is None and metadata is not None and self._auth.chooses_method:
                raise TokenUnavailable(
                    f"the server of issuer accepts neither {' nor '.join(METHODS_FOUND)}: set auth_method to one that "
                    f"it does accept"
                )
            grant = cast("Any", self._auth.grant)
            pair: TokenPair = await grant(send, token_url=endpoint.url, method=endpoint.method or METHODS_FOUND[0])
            return pair

        if metadata is None:
            return await request(TokenEndpoint(self.endpoints.token_url), [])
        return await request_at_issuer(http, metadata, request)

    @without_locals
    async def post(self, http: TokenHTTP, option: str, fields: Mapping[str, str], *, secret: str) -> Answer | None:
        """Send a form to another endpoint; return its response, or None if there is no such endpoint.

        Raises:
            CredentialRejected: The endpoint refuses the client or the request.
            TokenUnavailable: The server cannot be reached, or is busy.
        """
        http = self.reach(http)
        url = await self.endpoints.url(http, option)
        if not url:
            return None

        async def send(proof: Proof) -> Any:
            answer = await http.request("POST", url, headers=proof.headers, data={**fields, **proof.form})
            answer.check_busy()
            if not 200 <= answer.status < 300:
                raise self._reader.refusal(answer, proof.with_secret(secret) if secret else proof)
            return answer

        if option == "revoke_url" and not self._dialect.revoke_client:
            return cast("Answer", await send(Proof(secret, form={}, headers={})))
        answer: Any = await self._auth.grant(send, token_url=url, method=await self._method(http))
        return cast("Answer", answer)

    async def _method(self, http: TokenHTTP) -> AuthMethod:
        metadata = self.endpoints.metadata
        found = None if metadata is None else TokenEndpoint.of(await http.token(metadata)).method
        return found or METHODS_FOUND[0]

    def __repr__(self) -> str:
        return f"<AppClient {self._auth!r}>"
