"""The token requests of an app, and those to the other endpoints at which its client authenticates."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tokenmw.connections.pair_reader import read_pair
from tokenmw.providers.discovery import METHODS_FOUND, TokenEndpoint
from tokenmw.providers.proof import Proof
from tokenmw.providers.request_fields import RequestFields
from tokenmw.redaction import FrozenValue, without_locals

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from tokenmw.connections.dialect import Dialect
    from tokenmw.connections.endpoints import Endpoints
    from tokenmw.connections.pair import TokenPair
    from tokenmw.providers.answer import Answer
    from tokenmw.providers.client_auth import AuthMethod
    from tokenmw.providers.grant_reader import GrantReader
    from tokenmw.providers.http import TokenHTTP
    from tokenmw.providers.oauth_client import OAuthClient

__all__ = ["AppClient"]


class _Fields(RequestFields):
    """The fields of a token request, in a platform's names."""

    __slots__ = ("_dialect",)

    _dialect: Dialect

    def __init__(self, fields: Mapping[str, str], *, dialect: Dialect, as_json: bool) -> None:
        own = {name: value for name, value in fields.items() if name != "grant_type"}
        super().__init__(provider="OAuthApp", grant_type=fields["grant_type"], own=own, as_json=as_json)
        object.__setattr__(self, "_dialect", dialect)

    def body(self, proof: Proof, more: Mapping[str, str] | None = None) -> dict[str, Any]:
        """Return the body of a request, as an argument of `TokenHTTP.request`."""
        ((sort, fields),) = super().body(proof, more).items()
        return {sort: self._dialect.fields(fields)}


class AppClient(FrozenValue):
    """An app's client at its server.

    Args:
        client: The client at the token endpoint.
        endpoints: Where the other endpoints are.
        reader: Reads responses.
        dialect: What the platform does otherwise.
        as_json: Whether token requests are JSON objects.
        params: More fields of each token request.

    Attributes:
        endpoints: Where the other endpoints are.
    """

    __slots__ = ("_as_json", "_client", "_dialect", "_params", "_reader", "endpoints")

    endpoints: Endpoints
    _as_json: bool
    _client: OAuthClient
    _dialect: Dialect
    _params: Mapping[str, str]
    _reader: GrantReader

    def __init__(
        self,
        client: OAuthClient,
        *,
        endpoints: Endpoints,
        reader: GrantReader,
        dialect: Dialect,
        as_json: bool,
        params: Mapping[str, str],
    ) -> None:
        put = object.__setattr__
        put(self, "_client", client)
        put(self, "endpoints", endpoints)
        put(self, "_reader", reader)
        put(self, "_dialect", dialect)
        put(self, "_as_json", as_json)
        put(self, "_params", params)

    @property
    def name(self) -> str:
        """The client for an error text."""
        return self._client.auth.client()

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
        request = _Fields({**fields, **self._params}, dialect=self._dialect, as_json=self._as_json)

        def pair(answer: Answer, proof: Proof, url: str) -> TokenPair:
            return read(answer, proof, reader=self._reader.at(url), dialect=self._dialect)

        return await self._client.grant(self.reach(http), request, pair, secrets=(secret, *self._params.values()))

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

        async def send(proof: Proof) -> Answer:
            answer = await http.request("POST", url, headers=proof.headers, data={**fields, **proof.form})
            answer.check_busy()
            if not 200 <= answer.status < 300:
                raise self._reader.refusal(answer, proof.with_secret(secret) if secret else proof)
            return answer

        if option == "revoke_url" and not self._dialect.revoke_client:
            return await send(Proof(secret, form={}, headers={}))
        return await self._client.auth.grant(send, token_url=url, method=await self._method(http))

    async def _method(self, http: TokenHTTP) -> AuthMethod:
        metadata = self.endpoints.metadata
        found = None if metadata is None else TokenEndpoint.of(await http.token(metadata)).method
        return found or METHODS_FOUND[0]

    def __repr__(self) -> str:
        return f"<AppClient {self._client!r}>"
