"""A client at the token endpoint of one OAuth 2.0 server: the part that every grant has in common.

It finds the endpoint by its URL or by the server's issuer, authenticates the client, sends the request and passes the
response on. Grants differ in the fields that they send and in how they read a refusal.
"""

from __future__ import annotations

from functools import partial, reduce
from typing import TYPE_CHECKING, Any, TypeVar, cast

from tokenmw.errors import ConfigurationError, CredentialRejected, TokenUnavailable
from tokenmw.options import checked_flag, optional_seconds, positive_seconds
from tokenmw.providers.discovery import METHODS_FOUND, ServerMetadata, TokenEndpoint, request_at_issuer
from tokenmw.providers.dpop import DPoPKey, checked_dpop
from tokenmw.providers.dpop_requests import post_token_request, with_nonce
from tokenmw.providers.grant_reader import GrantReader
from tokenmw.providers.proof import Proof
from tokenmw.providers.urls import checked_private, checked_token_url
from tokenmw.redaction import FrozenValue, without_locals
from tokenmw.values import MAX_LIFETIME

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping

    from tokenmw.providers.answer import Answer
    from tokenmw.providers.client_auth import ClientAuth
    from tokenmw.providers.client_certificate import ClientCertificate
    from tokenmw.providers.http import TokenHTTP
    from tokenmw.providers.public_client import PublicClient
    from tokenmw.providers.request_fields import RequestFields

__all__ = ["OAuthClient"]

R = TypeVar("R")


class OAuthClient(FrozenValue):
    """A client of one OAuth 2.0 server, for the token requests of any grant. Providers build on it.

    Args:
        auth: How the client authenticates.
        provider: The provider's class name, for error texts.
        token_url: The token endpoint; None: it is found by `issuer`.
        issuer: The server's issuer; None: `token_url` is given.
        allow_http: Whether the server may be reached without TLS on another machine.
        allow_private: Whether it may have a private address.
        dpop: The key to which the tokens are bound, or None.

    Attributes:
        allow_private: Whether the server may have a private address.
        auth: How the client authenticates.
        certificate: The certificate that connections to the token endpoint show, or None.
        dpop: The key to which the tokens are bound, or None.
        shareable: Whether other processes can make the same requests, and use the same tokens.
        token_url: The token endpoint; "" if it is found by the issuer.

    Raises:
        ConfigurationError: `token_url` and `issuer` are both given or both missing, or one cannot be used.
    """

    __slots__ = ("_metadata", "_provider", "allow_private", "auth", "certificate", "dpop", "shareable", "token_url")

    allow_private: bool
    auth: ClientAuth | PublicClient
    certificate: ClientCertificate | None
    dpop: DPoPKey | None
    shareable: bool
    token_url: str
    _metadata: ServerMetadata | None
    _provider: str

    @without_locals
    def __init__(
        self,
        auth: ClientAuth | PublicClient,
        *,
        provider: str,
        token_url: str | None,
        issuer: str | None = None,
        allow_http: bool,
        allow_private: bool = True,
        dpop: DPoPKey | None = None,
    ) -> None:
        checked_flag(allow_http, option=f"{provider}(allow_http=…)")
        if (token_url is None) is (issuer is None):
            raise ConfigurationError(f"{provider} needs token_url=…, or issuer=… in its place, and not both.")
        put = object.__setattr__
        put(self, "auth", auth)
        put(self, "_provider", provider)
        put(self, "certificate", auth.certificate)
        put(self, "dpop", checked_dpop(dpop, option=f"{provider}(dpop=…)"))
        put(self, "shareable", auth.shareable and (dpop is None or dpop.shareable))
        if issuer is None:
            option = f"{provider}(token_url=…)"
            url = checked_token_url(cast("str", token_url), option=option, allow_http=allow_http)
            if auth.certificate is not None and not url.lower().startswith("https:"):
                raise ConfigurationError(
                    f"{provider}(certificate=…) needs an https token_url, because it is shown in the TLS handshake."
                )
            put(self, "_metadata", None)
            put(self, "token_url", url)
            put(self, "allow_private", checked_private(allow_private, url=url, option=option))
        else:
            metadata = ServerMetadata(issuer, provider=provider, allow_http=allow_http, allow_private=allow_private)
            put(self, "_metadata", metadata)
            put(self, "token_url", "")
            put(self, "allow_private", metadata.allow_private)

    def identity(self) -> tuple[object, ...]:
        """Return what makes this client differ from another one: the server, and the client with its secret."""
        server = self.token_url if self._metadata is None else ("issuer", self._metadata.issuer)
        return (server, *self.auth.identity())

    def more_identity(self) -> tuple[object, ...]:
        """Return the part of the identity that clients with options for assertions, a certificate or a key have."""
        return (*self.auth.more_identity(), *(() if self.dpop is None else (self.dpop.identity(),)))

    def reader(
        self,
        *,
        default_life: float,
        max_life: float | None = None,
        fixes: Mapping[str, str],
        log_description: bool,
        method_option: bool = True,
        url_options: str = "",
        owner: str = "",
        **options: Any,
    ) -> GrantReader:
        """Return the reader of the responses that this client gets.

        Args:
            default_life: The provider's option of this name.
            max_life: The provider's option of this name.
            fixes: Fixes of error codes that differ from the usual ones.
            log_description: The provider's option of this name.
            method_option: Whether the provider has the options `auth_method` and `form_encode_basic`.
            url_options: The options that decide the token endpoint; "": `token_url` or `issuer`.
            owner: What follows the client's id in texts, such as its tenant.
            options: More attributes of the reader.

        Raises:
            ConfigurationError: An option is not a time or a flag.
        """
        name = self._provider
        checked_flag(log_description, option=f"{name}(log_description=…)")
        return GrantReader(
            client=f"{self.auth.client()}{owner}",
            client_fix=self.auth.fix(method_option=method_option),
            url=self.token_url,
            url_options=url_options or ("token_url" if self._metadata is None else "issuer"),
            default_lifetime=positive_seconds(default_life, option=f"{name}(default_life=…)"),
            max_lifetime=optional_seconds(max_life, option=f"{name}(max_life=…)") or MAX_LIFETIME,
            fixes=fixes,
            log_description=log_description,
            dpop=self.dpop is not None,
            **options,
        )

    @without_locals
    async def grant(
        self,
        http: TokenHTTP,
        fields: RequestFields,
        read: Callable[[Answer, Proof, str], R],
        *,
        more: Mapping[str, str] | Callable[[str], Awaitable[Mapping[str, str]]] | None = None,
        secrets: Iterable[str] = (),
    ) -> R:
        """Send a token request, and return what `read` makes of the response.

        If the server refuses the first of several secrets, the request is sent again with the next one; if the endpoint
        of an issuer has moved, once more at its new place; if it wants its nonce in the proof of `dpop`, once more with
        that.

        Args:
            http: Sends the request.
            fields: The request's fields.
            read: Reads a response. It gets what was sent, whose parts no text may repeat, and the endpoint's URL.
            more: Fields of this one request; or a function that returns them for the endpoint's URL, for each time that
                the request is sent. Its values are secrets.
            secrets: The secrets among the fields of this one request.

        Raises:
            CredentialRejected: As `read` raises it.
            TokenUnavailable: As `read` raises it, or the server cannot be reached, publishes no endpoint that can be
                used, or `client_assertion` failed.
        """
        sent = (*fields.secrets, *secrets)

        async def request(url: str, statuses: list[int], proof: Proof) -> R:
            own = await more(url) if callable(more) else more
            answer = await self._send(http, url, proof, fields.body(proof, own))
            statuses.append(answer.status)
            hidden = (*sent, *(own.values() if callable(more) and own else ()))
            return read(answer, reduce(Proof.with_secret, hidden, proof), url)

        async def request_at(endpoint: TokenEndpoint, statuses: list[int]) -> R:
            if endpoint.method is None and self._metadata is not None and self.auth.chooses_method:
                raise TokenUnavailable(
                    f"the server of issuer accepts neither {' nor '.join(METHODS_FOUND)}: set auth_method to one that "
                    f"it does accept"
                )
            url = endpoint.url_for(self.certificate)
            send = partial(request, url, statuses)
            method = endpoint.method or METHODS_FOUND[0]
            if self.dpop is None:
                return await self.auth.grant(send, token_url=url, method=method)
            return await with_nonce(lambda: self.auth.grant(send, token_url=url, method=method))

        problem = "" if self.certificate is None else self.certificate.expiry_text(now=http.time())
        try:
            if self._metadata is None:
                return await request_at(TokenEndpoint(self.token_url), [])
            return await request_at_issuer(http, self._metadata, request_at)
        except (CredentialRejected, TokenUnavailable) as error:
            # Only with a failure, because the clock that may be wrong is this machine's.
            raise (error if not problem else error.with_reason(problem)) from error.__cause__

    async def _send(self, http: TokenHTTP, url: str, proof: Proof, body: Mapping[str, Any]) -> Answer:
        """Send one token request. Those of every grant, client and attempt are sent here."""
        if self.certificate is not None:
            http = http.with_certificate(self.certificate)
        if self.dpop is None:
            return await http.request("POST", url, headers=proof.headers, **body)
        return await post_token_request(http, url, dpop=self.dpop, headers=proof.headers, **body)

    def __repr__(self) -> str:
        return f"<OAuthClient {self.auth!r}>"
