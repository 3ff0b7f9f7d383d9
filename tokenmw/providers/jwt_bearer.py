"""The JWT bearer grant (RFC 7523 §2.1): a signed assertion is exchanged for an access token."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from tokenmw.errors import ConfigurationError, CredentialRejected
from tokenmw.options import optional_seconds
from tokenmw.providers.client_auth import AuthMethod, ClientAuth, default_method
from tokenmw.providers.construction import reuses_checks
from tokenmw.providers.grant_assertion import GrantAssertion
from tokenmw.providers.grant_reader import bearer_rejected
from tokenmw.providers.oauth_client import OAuthClient
from tokenmw.providers.public_client import PublicClient
from tokenmw.providers.request_fields import RequestFields
from tokenmw.providers.subject import SubjectProvider, SubjectToken, subject_error
from tokenmw.providers.urls import checked_hosts
from tokenmw.redaction import without_locals

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping

    from tokenmw.providers.answer import Answer
    from tokenmw.providers.base import OutgoingAnswer
    from tokenmw.providers.client_certificate import ClientCertificate
    from tokenmw.providers.dpop import DPoPKey
    from tokenmw.providers.http import TokenHTTP
    from tokenmw.providers.private_key_jwt import PrivateKeyJWT
    from tokenmw.providers.proof import Proof
    from tokenmw.providers.secret_sources import Secret, SecretSource
    from tokenmw.values import Grant

__all__ = ["JWTBearer"]

_GRANT_TYPE: Final = "urn:ietf:params:oauth:grant-type:jwt-bearer"
_METHODS: Final = ("client_secret_basic", "client_secret_post", "tls_client_auth", "self_signed_tls_client_auth")
_SUBJECT_CODES: Final = frozenset({"invalid_grant", "invalid_token"})
_OPTIONS: Final = {
    "assertion": "assertion=…, or subject=…",
    "audience": "",
    "client_assertion": "client_secret=…, because this grant signs no client assertion",
    "client_assertion_type": "client_secret=…, because this grant signs no client assertion",
    "grant_type": "ClientCredentials for another grant",
    "resource": "",
}
_UNSUPPORTED: Final = "this endpoint does not offer the JWT bearer grant (RFC 7523): check the URL"
_SUBJECT_FIX: Final = "the caller's token is expired, or not for this API"


@reuses_checks
class JWTBearer(SubjectProvider):
    """Exchanges a signed assertion for an access token (RFC 7523 §2.1): of a service account, or of the caller.

    Of a service account, with the key that signs one for each request, from the extra `jwt`::

        JWTBearer(
            token_url="https://oauth2.googleapis.com/token",
            assertion=PrivateKeyJWT(file="/run/secrets/robot.pem", key_id="4f1c…"),
            claims={"iss": "robot@project.example", "scope": "https://www.googleapis.com/auth/calendar"},
        )

    With a function that signs one:

    >>> JWTBearer(
    ...     token_url="https://idp.example/token", assertion=lambda: "eyJ…", credential_id="robot-key-2", scope="crm"
    ... )
    <JWTBearer>

    With the token of each request's caller: `subject=SubjectToken()` in place of `assertion`. The new token then ends
    with the caller's at the latest, and is fetched again only for a request; a refused one is a 401
    (`SubjectRefused`).

    Args:
        token_url: The token endpoint: https, unless it is on this machine. Default: `issuer` is given in its place.
        assertion: A `PrivateKeyJWT`, which signs `claims` for each attempt; or a function, sync or async, that returns
            a new signed JWT for each; or where to read one, such as `FileSecret(path)`; or one as text.
        claims: The claims that a `PrivateKeyJWT` signs, as the server documents them: `iss`, the name by which it knows
            the signer; `sub`, the account or user that the token is for, which most servers want; `aud`, if it is not
            the token endpoint; and others, such as the `scope` that Google wants here and not in the request. `exp`,
            `iat`, `nbf` and `jti` are made for each assertion, which is valid for 60 s. Default: `client_id` is the
            `iss`.
        subject: The caller's token in place of `assertion`: text, or `SubjectToken()`.
        subject_expires_at: When the subject's token expires, in seconds since 1970. Default: its `exp`.
        credential_id: A name for the key behind `assertion`; change it with the key. Default: none. A `PrivateKeyJWT`
            needs none; the tokens that a function obtains are not shared with other provider objects or through Redis.
        client_id: The client's id, where the server wants the client to authenticate. Default: it does not, because
            the assertion is enough for most servers.
        client_secret: The client's secret; while it is changed, a list: the new one and the old one. Default: none;
            `client_id` is sent alone.
        auth_method: `client_secret_basic` or `client_secret_post`; with `certificate`, `tls_client_auth` or
            `self_signed_tls_client_auth`. Default: as for `ClientCredentials`.
        scope: The scopes to request, separated by spaces. Default: none, the server decides.
        allow_http: Allows plain HTTP to other machines. Default: False.
        refresh_before: Seconds before expiry at which a new token is fetched in the background, with `assertion`.
            Default: a quarter of the lifetime, at most 3600 s.
        hosts: Host names to which auth objects send the token. Default: every host that they are used for.
        default_life: The lifetime in seconds of a token whose response does not say one. Default: 600 s.
        log_description: As for `ClientCredentials`.
        allow_private: As for `ClientCredentials`.
        issuer: The server's issuer in place of `token_url`, as for `ClientCredentials`.
        params: More fields of the request, as for `ClientCredentials`.
        json: Whether the fields are sent as a JSON object, as for `ClientCredentials`.
        certificate: A `ClientCertificate`, as for `ClientCredentials`.
        dpop: A `DPoPKey` to which the server binds the token, as for `ClientCredentials`.

    Raises:
        ConfigurationError: An option is missing, contradicts another one, or cannot work.
    """

    __slots__ = (
        "_assertion",
        "_client",
        "_fields",
        "_reader",
        "allow_http",
        "allow_private",
        "certificate",
        "dpop",
        "hosts",
        "per_subject",
        "refresh_before",
        "renewal_window",
        "shareable",
        "token_url",
    )

    kind = "jwt_bearer"
    token_url: str

    @without_locals
    def __init__(
        self,
        *,
        token_url: str | None = None,
        assertion: str | PrivateKeyJWT | SecretSource | Callable[[], str | Awaitable[str]] | None = None,
        subject: str | SubjectToken | None = None,
        subject_expires_at: float | None = None,
        credential_id: str | None = None,
        client_id: str | None = None,
        client_secret: Secret | None = None,
        auth_method: AuthMethod | None = None,
        scope: str = "",
        allow_http: bool = False,
        refresh_before: float | None = None,
        hosts: Iterable[str] | None = None,
        default_life: float = 600.0,
        log_description: bool = False,
        allow_private: bool = True,
        issuer: str | None = None,
        params: Mapping[str, str] | None = None,
        json: bool = False,
        certificate: ClientCertificate | None = None,
        dpop: DPoPKey | None = None,
        claims: Mapping[str, Any] | None = None,
    ) -> None:
        name = type(self).__name__
        self._client = OAuthClient(
            _auth(name, client_id, client_secret, auth_method, issuer=issuer, certificate=certificate),
            provider=name,
            token_url=token_url,
            issuer=issuer,
            allow_http=allow_http,
            allow_private=allow_private,
            dpop=dpop,
        )
        self.dpop = dpop
        self.allow_http = allow_http
        self.allow_private = self._client.allow_private
        self.certificate = self._client.certificate
        self.token_url = self._client.token_url
        if (assertion is None) == (subject is None):
            raise ConfigurationError(
                f"{name} takes assertion=… of this service or subject=… of the caller: one of them."
            )
        own = {"credential_id": credential_id, "refresh_before": refresh_before, "claims": claims}
        for option in (option for option, value in own.items() if subject is not None and value is not None):
            raise ConfigurationError(f"{name}({option}=…) is for assertion=…, not for subject=…: leave it out.")
        if subject is None and subject_expires_at is not None:
            raise ConfigurationError(
                f"{name}(subject_expires_at=…) is for subject=…, not for assertion=…: leave it out."
            )
        self.per_subject = subject is not None
        self.renewal_window = 0.0 if self.per_subject else None
        if subject is not None:
            self._set_subject(subject, expires_at=subject_expires_at)
            self._assertion = None
        else:
            self._subject, self._subject_ends = None, None
            self._assertion = GrantAssertion(
                assertion, claims=claims, client_id=client_id, credential_id=credential_id, provider=name
            )
        self.shareable = self._client.shareable and (self._assertion is None or self._assertion.shareable)
        self._fields = RequestFields(
            provider=name,
            grant_type=_GRANT_TYPE,
            scope=scope,
            params=params,
            as_json=json,
            options=_OPTIONS,
        )
        self.hosts = checked_hosts(hosts, option=f"{name}(hosts=…)")
        self.refresh_before = optional_seconds(refresh_before, option=f"{name}(refresh_before=…)")
        self._reader = self._client.reader(
            default_life=default_life,
            fixes={
                "invalid_grant": _SUBJECT_FIX if self._assertion is None else self._assertion.fix,
                "unsupported_grant_type": _UNSUPPORTED,
            },
            log_description=log_description,
        )

    def identity(self) -> tuple[object, ...]:
        """Return the endpoint, the client with its secret, the assertion or the subject's digest, and the scope."""
        proof, named = (self._subject_identity(), None) if self._assertion is None else self._assertion.identity()
        first = (*self._client.identity(), self.per_subject, proof, named, self._fields.identity()[0])
        return (*first, *self._fields.more_identity(), *self._client.more_identity())

    @without_locals
    async def fetch(self, http: TokenHTTP) -> Grant:
        """Exchange the assertion.

        Raises:
            SubjectRefused: The server refuses the caller's token, or it has expired.
            CredentialRejected: The server refuses the assertion, the client or the request.
            TokenUnavailable: The server cannot be reached, is busy, or its response cannot be used; or the `assertion`
                function failed.
        """
        if self.per_subject:
            self._check_subject(now=http.time())

        def read(answer: Answer, proof: Proof, url: str) -> Grant:
            try:
                return self._reader.at(url).read(answer, proof)
            except CredentialRejected as error:
                raise subject_error(error, codes=_SUBJECT_CODES if self.per_subject else ()) from None

        grant = await self._client.grant(http, self._fields, read, more=self._assertion_field)
        return self._capped(grant, now=http.time()) if self.per_subject else grant

    def is_rejected(self, answer: OutgoingAnswer) -> bool:
        """Return whether an API answered that the token is not valid (RFC 6750 §3.1)."""
        return bearer_rejected(answer)

    async def _assertion_field(self, url: str) -> dict[str, str]:
        # A new one each time: servers refuse an assertion that they have seen.
        made = self._assertion
        return {"assertion": self._subject_text() if made is None else await made.text(audience=url)}


def _auth(
    provider: str,
    client_id: str | None,
    client_secret: Secret | None,
    method: AuthMethod | None,
    *,
    issuer: str | None,
    certificate: ClientCertificate | None,
) -> ClientAuth | PublicClient:
    if client_secret is None and certificate is None and method is not None:
        raise ConfigurationError(
            f"{provider}(auth_method=…) is for a client with client_secret=… or certificate=…: give one of them, or "
            "leave it out."
        )
    if client_secret is None and certificate is None:
        return PublicClient(client_id, provider=provider, name="the assertion")
    if client_id is None:
        option = "client_secret" if certificate is None else "certificate"
        raise ConfigurationError(f"{provider}({option}=…) needs client_id=… with it.")
    if method not in (None, *_METHODS):
        raise ConfigurationError(f"{provider}(auth_method=…) must be one of {', '.join(_METHODS)}.")
    return ClientAuth(
        client_id,
        provider=provider,
        method=method or default_method(assertion=None, issuer=issuer, secret=client_secret, certificate=certificate),
        secret=client_secret,
        assertion=None,
        credential_id=None,
        certificate=certificate,
    )
