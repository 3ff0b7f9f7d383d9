"""The OAuth 2.0 client credentials grant, for any server that offers it (RFC 6749 §4.4)."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, get_args

from tokenmw.errors import ConfigurationError
from tokenmw.options import checked_choice, checked_flag, optional_seconds
from tokenmw.providers.base import OutgoingAnswer, Provider
from tokenmw.providers.client_auth import AuthMethod, ClientAuth, default_method
from tokenmw.providers.construction import reuses_checks
from tokenmw.providers.grant_reader import INVALID_REQUEST_FIX, bearer_rejected
from tokenmw.providers.oauth_client import OAuthClient
from tokenmw.providers.request_fields import GrantType, RequestFields
from tokenmw.providers.urls import checked_hosts
from tokenmw.redaction import without_locals

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence

    from tokenmw.providers.client_certificate import ClientCertificate
    from tokenmw.providers.dpop import DPoPKey
    from tokenmw.providers.http import TokenHTTP
    from tokenmw.providers.jwt_assertion import SecretAlgorithm
    from tokenmw.providers.private_key_jwt import PrivateKeyJWT
    from tokenmw.providers.secret_sources import Secret
    from tokenmw.values import Grant

__all__ = ["ClientCredentials"]

_SCHEME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]{0,63}")

# Servers answer so if a token is to be bound and the connection has shown no certificate.
_GRANT_FIX: Final = (
    "check the credential and its permissions; if the server binds tokens to a certificate (RFC 8705), give "
    "certificate=…"
)


@reuses_checks
class ClientCredentials(Provider):
    """A client of an OAuth 2.0 server, with a secret or with signed assertions.

    >>> ClientCredentials(
    ...     token_url="https://idp.example/token", client_id="crm", client_secret="…", scope="crm.read"
    ... )
    <ClientCredentials>

    With a private key instead of a secret (RFC 7523 §2.2), from the extra `jwt`::

        KEY = PrivateKeyJWT(file="/run/secrets/crm.pem", key_id="crm-2")
        ClientCredentials(
            token_url="https://idp.example/token",
            client_id="crm",
            auth_method="private_key_jwt",
            client_assertion=KEY,
        )

    Args:
        token_url: The token endpoint: https, unless it is on this machine. Default: `issuer` is given in its place.
        client_id: The client's id at the server.
        client_secret: The client's secret, for the two `client_secret_…` methods. While it is changed, a list: the new
            one and the old one. If the server refuses the first, the next one is tried.
        scope: The scopes to request, separated by spaces. Their order makes no other credential; they are sent as
            given. Default: none, the server decides.
        audience: The API that the token is for, where the server expects `audience`. Default: not sent.
        resource: The API that the token is for, where the server follows RFC 8707: an absolute URI without a fragment,
            or a list of several, which are sent as a field each. Default: not sent.
        auth_method: How the client authenticates (RFC 6749 §2.3.1, RFC 7523 §2.2): `client_secret_basic` in a header,
            `client_secret_post` in the form, `client_secret_jwt` with an assertion that is signed with the secret for
            each request, `private_key_jwt` with `client_assertion`, or `tls_client_auth` and
            `self_signed_tls_client_auth` with `certificate`. Default: `private_key_jwt` if `client_assertion` is given,
            `tls_client_auth` if only `certificate` is, else `client_secret_basic`; with `issuer`, `client_secret_post`
            if the server publishes that and not `client_secret_basic`.
        client_assertion: A `PrivateKeyJWT`, or a function, sync or async, that returns a signed assertion, or one as
            text. A new one is made for each attempt, because servers refuse an assertion that they have seen.
        credential_id: A name for the key behind `client_assertion`; change it with the key. Default: none. A
            `PrivateKeyJWT` needs none; the tokens that a function obtains are not shared with other provider objects
            or through Redis without it, so every process fetches its own.
        allow_http: Allows plain HTTP to other machines, for `token_url` and for requests of auth objects. Default:
            False, it is refused, because the network would see secret and token.
        refresh_before: Seconds before expiry at which a new token is fetched in the background. Default: a quarter of
            the lifetime, at most 3600 s; or earlier, after the seconds that the server sends as `refresh_in`.
        hosts: Host names to which auth objects send the token; one that begins with a dot stands for every name below
            it. Default: every host, so the token goes wherever the program sends a request with the auth object.
        form_encode_basic: Whether id and secret are form-encoded in the `Authorization` header, as RFC 6749 §2.3.1
            requires. Default: True; servers that do not decode them refuse secrets with special characters, and need
            False.
        default_life: The lifetime in seconds of a token whose response does not say one. Default: 600 s; where tokens
            live longer, they are fetched more often than necessary.
        max_life: The lifetime in seconds to which a longer one is cut, for servers that send milliseconds in
            `expires_in`. Default: 30 days.
        zero_means_default_life: Whether `expires_in: 0` means `default_life`, for servers that send it for tokens
            without an expiry. Default: False, the token counts as expired, and is refused.
        scheme: The word in front of the token in the `Authorization` header, whatever `token_type` the server names.
            Default: `Bearer`, and tokens of the types `DPoP`, `MAC`, `PoP` and `mtls_pop`, which need more than a
            header, and `N_A`, which are no access tokens, are refused.
        log_description: Whether the log and `status()` show the server's `error_description` of a refusal, at most 200
            characters, and not if it repeats a part of the secret. Callers never see it. Default: False, only the
            `error` code, because servers may repeat in it what was sent.
        allow_private: False is for a `token_url` that a tenant chooses: one with a private, loopback, link-local or
            otherwise special address is refused, and requests connect to public addresses only, whatever the name
            resolves to. It needs the broker's own HTTP client. Default: True, any address.
        params: More fields of the request, which the server needs beyond the standard, such as `{"box_subject_type":
            "enterprise", "box_subject_id": "…"}`. A field that another option sets is refused. Default: none.
        json: Whether the fields are sent as a JSON object, for servers that take no form. Default: False, a form (RFC
            6749 §4.4.2).
        grant_type: The grant's name. `"account_credentials"` is for Zoom's server-to-server apps, with
            `params={"account_id": "…"}`. Default: `"client_credentials"`.
        assertion_audience: The audience (`aud`) of the assertions that are made here, for servers that want another
            one, such as their issuer. Default: the token endpoint.
        assertion_algorithm: The algorithm of `client_secret_jwt`: `"HS256"`, `"HS384"` or `"HS512"`. Default: HS256.
        issuer: The server's issuer in place of `token_url`, such as `"https://idp.example/realms/crm"`, exactly as the
            server writes it. The token endpoint is then found by RFC 8414 or OpenID Connect Discovery: for the first
            token, once a day, and when it is no longer where it was. Default: `token_url` is given.
        certificate: A `ClientCertificate`, which connections to the token endpoint show (RFC 8705). Alone, it is the
            client authentication: `auth_method="tls_client_auth"`, or `"self_signed_tls_client_auth"` if the server
            knows the certificate itself. With another method, servers only bind tokens to it. An API accepts such a
            token only over connections with the same certificate: `verify=CERTIFICATE.context()` of the program's own
            client. It needs the broker's own HTTP client. Default: none.
        dpop: A `DPoPKey` to which the server binds the token (RFC 9449), so that a stolen token is of no use. Requests
            to the API then need a proof each, which auth objects send. A token that is not bound is refused. Default:
            none, a bearer token.

    Raises:
        ConfigurationError: An option is missing, contradicts another one, or cannot work.
    """

    __slots__ = (
        "_client",
        "_fields",
        "_grant_type",
        "_reader",
        "allow_http",
        "allow_private",
        "certificate",
        "dpop",
        "hosts",
        "refresh_before",
        "scheme",
        "shareable",
        "token_url",
    )

    kind = "oauth2"
    token_url: str

    @without_locals
    def __init__(
        self,
        *,
        token_url: str | None = None,
        client_id: str,
        client_secret: Secret | None = None,
        scope: str = "",
        audience: str | None = None,
        resource: str | Sequence[str] | None = None,
        auth_method: AuthMethod | None = None,
        client_assertion: str | Callable[[], str | Awaitable[str]] | PrivateKeyJWT | None = None,
        credential_id: str | None = None,
        allow_http: bool = False,
        refresh_before: float | None = None,
        hosts: Iterable[str] | None = None,
        form_encode_basic: bool = True,
        default_life: float = 600.0,
        max_life: float | None = None,
        zero_means_default_life: bool = False,
        scheme: str | None = None,
        log_description: bool = False,
        allow_private: bool = True,
        params: Mapping[str, str] | None = None,
        json: bool = False,
        grant_type: GrantType = "client_credentials",
        assertion_audience: str | None = None,
        assertion_algorithm: SecretAlgorithm | None = None,
        issuer: str | None = None,
        certificate: ClientCertificate | None = None,
        dpop: DPoPKey | None = None,
    ) -> None:
        name = type(self).__name__
        checked_flag(zero_means_default_life, option=f"{name}(zero_means_default_life=…)")
        checked_choice(grant_type, option=f"{name}(grant_type=…)", choices=get_args(GrantType))
        auth = ClientAuth(
            client_id,
            provider=name,
            method=auth_method
            or default_method(assertion=client_assertion, issuer=issuer, secret=client_secret, certificate=certificate),
            secret=client_secret,
            assertion=client_assertion,
            credential_id=credential_id,
            form_encode_basic=form_encode_basic,
            audience=assertion_audience,
            algorithm=assertion_algorithm,
            certificate=certificate,
        )
        self._client = OAuthClient(
            auth,
            provider=name,
            token_url=token_url,
            issuer=issuer,
            allow_http=allow_http,
            allow_private=allow_private,
            dpop=dpop,
        )
        self.allow_http = allow_http
        self.allow_private = self._client.allow_private
        self.certificate = self._client.certificate
        self.dpop = dpop
        self.shareable = self._client.shareable
        self.token_url = self._client.token_url
        self._grant_type = grant_type
        self._fields = RequestFields(
            provider=name,
            grant_type=grant_type,
            scope=scope,
            audience=audience,
            resource=resource,
            params=params,
            as_json=json,
        )
        if grant_type == "account_credentials" and "account_id" not in (params or {}):
            raise ConfigurationError(
                f'{name}(grant_type="account_credentials") needs params={{"account_id": "…"}} with it.'
            )
        self.hosts = checked_hosts(hosts, option=f"{name}(hosts=…)")
        self.refresh_before = optional_seconds(refresh_before, option=f"{name}(refresh_before=…)")
        if dpop is not None and scheme is not None:
            raise ConfigurationError(f"{name}(dpop=…) decides the scheme, which is DPoP: leave scheme out.")
        self.scheme = "Bearer" if scheme is None else _checked_scheme(scheme, option=f"{name}(scheme=…)")
        client_fix = auth.fix(method_option=True)
        # A server that decodes what was not encoded may find no client in it.
        encoding_fix = "" if form_encode_basic else auth.encoding_fix()
        self._reader = self._client.reader(
            default_life=default_life,
            max_life=max_life,
            zero_is_default=zero_means_default_life,
            fixes={
                "invalid_grant": "" if certificate else _GRANT_FIX,
                "invalid_request": f"{INVALID_REQUEST_FIX}{encoding_fix}",
                "unauthorized_client": f"the client needs the permission to use this grant type; or {client_fix}",
                "unsupported_grant_type": f"this endpoint does not offer the grant type {grant_type}: check the URL",
            },
            scheme=scheme,
            scheme_option=f"{name}(scheme=…)",
            log_description=log_description,
        )

    def identity(self) -> tuple[object, ...]:
        """Return what makes this credential differ from another one, the secret included."""
        scheme = () if self._reader.scheme is None else (self._reader.scheme,)
        grant_type = () if self._grant_type == "client_credentials" else (("grant_type", self._grant_type),)
        # First what 0.1 has, then only what is not at its default: instances of both versions share their tokens.
        first = (*self._client.identity(), *self._fields.identity(), *scheme)
        return (*first, *grant_type, *self._fields.more_identity(), *self._client.more_identity())

    @without_locals
    async def fetch(self, http: TokenHTTP) -> Grant:
        """Request a token (RFC 6749 §4.4.2).

        Raises:
            CredentialRejected: The server refuses the credential or the request (RFC 6749 §5.2).
            TokenUnavailable: The server cannot be reached, is busy, or its response cannot be used; or
                `client_assertion` failed; or the server of `issuer` publishes no token endpoint that can be used.
        """
        return await self._client.grant(
            http, self._fields, lambda answer, proof, url: self._reader.at(url).read(answer, proof)
        )

    def is_rejected(self, answer: OutgoingAnswer) -> bool:
        """Return whether an API answered that the token is not valid (RFC 6750 §3.1)."""
        return bearer_rejected(answer)


def _checked_scheme(scheme: object, *, option: str) -> str:
    if isinstance(scheme, str) and _SCHEME.fullmatch(scheme):
        return scheme
    raise ConfigurationError(f'{option} must be one word of at most 64 characters, such as "Bearer".')
