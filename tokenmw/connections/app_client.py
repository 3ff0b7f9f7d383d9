"""The token requests of an app, and those to the other endpoints at which its client authenticates."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from tokenmw.connections.pair_reader import read_pair
from tokenmw.errors import ConfigurationError
from tokenmw.providers.client_auth import ClientAuth, default_method
from tokenmw.providers.discovery import METHODS_FOUND, TokenEndpoint
from tokenmw.providers.proof import Proof, shown_option
from tokenmw.providers.public_client import PublicClient
from tokenmw.providers.request_fields import RequestFields
from tokenmw.redaction import FrozenValue, without_locals

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from tokenmw.connections.dialect import Dialect
    from tokenmw.connections.endpoints import Endpoints
    from tokenmw.connections.pair import TokenPair
    from tokenmw.providers.answer import Answer
    from tokenmw.providers.client_auth import AuthMethod
    from tokenmw.providers.client_certificate import ClientCertificate
    from tokenmw.providers.grant_reader import GrantReader
    from tokenmw.providers.http import TokenHTTP
    from tokenmw.providers.oauth_client import OAuthClient
    from tokenmw.providers.private_key_jwt import PrivateKeyJWT
    from tokenmw.providers.secret_sources import Secret

__all__ = ["AppClient", "app_auth"]


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
        certificate, http = self._client.certificate, self.reach(http)
        url = await self.endpoints.url(http, option, mtls=certificate is not None)
        if not url:
            return None
        if certificate is not None:
            http = http.with_certificate(certificate)

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


def app_auth(
    client_id: str,
    *,
    provider: str,
    method: AuthMethod | Literal["none"] | None,
    issuer: str | None,
    secret: Secret | None,
    assertion: str | Callable[[], str | Awaitable[str]] | PrivateKeyJWT | None,
    credential_id: str | None,
    form_encode_basic: bool,
    certificate: ClientCertificate | None,
) -> ClientAuth | PublicClient:
    """Return how an app's client authenticates; the method `"none"` is that of a public client.

    Raises:
        ConfigurationError: An option is missing, or contradicts another one.
    """
    if method != "none":
        return ClientAuth(
            client_id,
            provider=provider,
            method=method or default_method(assertion=assertion, issuer=issuer, secret=secret, certificate=certificate),
            secret=secret,
            assertion=assertion,
            credential_id=credential_id,
            form_encode_basic=form_encode_basic,
            certificate=certificate,
        )
    if any(given is not None for given in (secret, assertion, certificate)):
        raise ConfigurationError(
            f'{provider}(auth_method="none") is for a public client: leave client_secret, client_assertion and '
            f"certificate out."
        )
    return PublicClient(client_id, provider=provider, name=shown_option("client_id", client_id, secrets=()))
