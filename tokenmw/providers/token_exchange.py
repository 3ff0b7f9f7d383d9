"""OAuth 2.0 Token Exchange (RFC 8693): a token for another API, made from the caller's."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Final, Literal, cast

from tokenmw.errors import ConfigurationError, CredentialRejected
from tokenmw.options import credential_text, secret_text
from tokenmw.providers.base import OutgoingAnswer, Provider
from tokenmw.providers.client_auth import AuthMethod, ClientAuth, default_method
from tokenmw.providers.construction import reuses_checks
from tokenmw.providers.grant_reader import bearer_rejected
from tokenmw.providers.oauth_client import OAuthClient
from tokenmw.providers.request_fields import RequestFields, checked_resource, checked_scope
from tokenmw.providers.subject import SubjectProvider, SubjectToken, subject_error
from tokenmw.providers.urls import checked_hosts
from tokenmw.redaction import HiddenStr, without_locals

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence

    from tokenmw.providers.answer import Answer
    from tokenmw.providers.client_certificate import ClientCertificate
    from tokenmw.providers.dpop import DPoPKey
    from tokenmw.providers.http import TokenHTTP
    from tokenmw.providers.jwt_assertion import SecretAlgorithm
    from tokenmw.providers.private_key_jwt import PrivateKeyJWT
    from tokenmw.providers.proof import Proof
    from tokenmw.providers.secret_sources import Secret
    from tokenmw.values import Grant

__all__ = ["TokenExchange", "TokenType"]

TokenType = Literal["access_token", "refresh_token", "id_token", "saml1", "saml2", "jwt"]

_GRANT_TYPE: Final = "urn:ietf:params:oauth:grant-type:token-exchange"
_TYPE_PREFIX: Final = "urn:ietf:params:oauth:token-type:"
_TYPES: Final = ("access_token", "refresh_token", "id_token", "saml1", "saml2", "jwt")
_URI: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:[!-~]{1,500}")
_NOT_ACCESS: Final = "N_A"
# RFC 8693 §2.2.2 has `invalid_request` for a subject that is refused; others answer as RFC 6749 and RFC 6750 do.
_SUBJECT_CODES: Final = frozenset({"invalid_grant", "invalid_request", "invalid_token"})
_FIXES: Final = {
    "invalid_grant": "the subject's token is expired, revoked, or not for this client",
    "invalid_request": (
        "the subject's token is refused, or the request: check the caller's token, subject_type, actor, actor_type, "
        "requested_type, audience and resource"
    ),
    "invalid_target": "check resource and audience",
    "unsupported_grant_type": "this endpoint does not offer token exchange (RFC 8693): check the URL",
}

# The fields of this grant, each with the option that sets it.
_OPTIONS: Final = {
    "grant_type": "ClientCredentials for another grant",
    "actor_token": "actor=…",
    "actor_token_type": "actor_type=…",
    "requested_token_type": "requested_type=…",
    "subject_token": "subject=…",
    "subject_token_type": "subject_type=…",
}


@reuses_checks
class TokenExchange(SubjectProvider):
    """Exchanges the caller's token for one that another API accepts (RFC 8693).

    In a broker, with the token of each request's `Authorization` header:

    >>> from tokenmw.providers import SubjectToken
    >>> TokenExchange(
    ...     token_url="https://idp.example/token",
    ...     client_id="shop",
    ...     client_secret="…",
    ...     subject=SubjectToken(),
    ...     audience="orders",
    ... )
    <TokenExchange>

    One exchange serves all requests of all processes with the same subject's token. The new token ends with the
    subject's at the latest. It is fetched again only for a request. If the server refuses the subject's token, the
    request gets a 401 (`SubjectRefused`), which is remembered for that token.

    Args:
        token_url: The token endpoint: https, unless it is on this machine. Default: `issuer` is given in its place.
        client_id: This service's id at the server.
        client_secret: Its secret; while it is changed, a list: the new one and the old one.
        subject: The token of the party on whose behalf the request is made: text, or `SubjectToken()`, which takes it
            from each request.
        subject_type: The type of the subject's token: one of the words of RFC 8693 §3, such as `access_token` or
            `id_token`, or another URI.
        subject_expires_at: When the subject's token expires, in seconds since 1970. Default: its `exp` if it is a JWT,
            else unknown, and the server alone decides how long the new token lives.
        actor: The token of the acting party, for delegation: text, or a provider, such as the `ClientCredentials` of
            this service. Default: none, which is impersonation.
        actor_type: The type of the actor's token, as `subject_type`. Default: `access_token`.
        requested_type: The type of token that is wanted, as `subject_type`. Default: not sent, the server decides. What
            it granted is in `token.extra["issued_token_type"]`. A token that is no access token (`N_A`) has no
            `authorization`; use its `value`.
        scope: The scopes to request, separated by spaces. Default: none, the server decides.
        audience: The API that the token is for, by name; one or several. Default: not sent.
        resource: The API that the token is for, by URI; one or several. Default: not sent.
        auth_method: How the client authenticates, as for `ClientCredentials`.
        client_assertion: A `PrivateKeyJWT`, or a function that returns a signed assertion, as for `ClientCredentials`.
        credential_id: A name for the key behind `client_assertion`, as for `ClientCredentials`.
        allow_http: Allows plain HTTP to other machines. Default: False.
        hosts: Host names to which auth objects send the token. Default: every host that they are used for.
        form_encode_basic: As for `ClientCredentials`.
        default_life: The lifetime in seconds of a token whose response does not say one. Default: 600 s.
        log_description: As for `ClientCredentials`.
        allow_private: As for `ClientCredentials`.
        issuer: The server's issuer in place of `token_url`, as for `ClientCredentials`.
        params: More fields of the request, as for `ClientCredentials`.
        json: Whether the fields are sent as a JSON object, as for `ClientCredentials`.
        assertion_audience: As for `ClientCredentials`.
        assertion_algorithm: As for `ClientCredentials`.
        certificate: A `ClientCertificate`, as for `ClientCredentials`.
        dpop: A `DPoPKey` to which the server binds the token, as for `ClientCredentials`.

    Raises:
        ConfigurationError: An option is missing, contradicts another one, or cannot work.
    """

    __slots__ = (
        "_actor",
        "_client",
        "_fields",
        "_form",
        "_other_reader",
        "_reader",
        "allow_http",
        "allow_private",
        "certificate",
        "dpop",
        "hosts",
        "shareable",
        "token_url",
    )

    kind = "token_exchange"
    token_url: str

    @without_locals
    def __init__(
        self,
        *,
        token_url: str | None = None,
        client_id: str,
        client_secret: Secret | None = None,
        subject: str | SubjectToken,
        subject_type: TokenType | str = "access_token",
        subject_expires_at: float | None = None,
        actor: str | Provider | None = None,
        actor_type: TokenType | str | None = None,
        requested_type: TokenType | str | None = None,
        scope: str = "",
        audience: str | Sequence[str] | None = None,
        resource: str | Sequence[str] | None = None,
        auth_method: AuthMethod | None = None,
        client_assertion: str | Callable[[], str | Awaitable[str]] | PrivateKeyJWT | None = None,
        credential_id: str | None = None,
        allow_http: bool = False,
        hosts: Iterable[str] | None = None,
        form_encode_basic: bool = True,
        default_life: float = 600.0,
        log_description: bool = False,
        allow_private: bool = True,
        issuer: str | None = None,
        params: Mapping[str, str] | None = None,
        json: bool = False,
        assertion_audience: str | None = None,
        assertion_algorithm: SecretAlgorithm | None = None,
        certificate: ClientCertificate | None = None,
        dpop: DPoPKey | None = None,
    ) -> None:
        name = type(self).__name__
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
        self.dpop = dpop
        self.allow_http = allow_http
        self.allow_private = self._client.allow_private
        self.certificate = self._client.certificate
        self.token_url = self._client.token_url
        self._set_subject(subject, expires_at=subject_expires_at)
        self._actor = _checked_actor(actor, option=f"{name}(actor=…)")
        self.shareable = self._client.shareable and (not isinstance(actor, Provider) or actor.shareable)
        form: list[tuple[str, str]] = [
            ("subject_token_type", _type_uri(subject_type, option=f"{name}(subject_type=…)")),
        ]
        if actor is not None:
            given = "access_token" if actor_type is None else actor_type
            form.append(("actor_token_type", _type_uri(given, option=f"{name}(actor_type=…)")))
        elif actor_type is not None:
            raise ConfigurationError(f"{name}(actor_type=…) is the type of actor=…: give an actor, or leave it out.")
        if requested_type is not None:
            form.append(("requested_token_type", _type_uri(requested_type, option=f"{name}(requested_type=…)")))
        if checked_scope(scope, provider=name):
            form.append(("scope", scope.strip()))
        form += [("audience", one) for one in _several(audience, option=f"{name}(audience=…)")]
        option = f"{name}(resource=…)"
        form += [("resource", checked_resource(one, option=option)) for one in _several(resource, option=option)]
        self._form = tuple(form)
        self._fields = RequestFields(
            provider=name,
            grant_type=_GRANT_TYPE,
            params=params,
            as_json=json,
            own=_by_name(form),
            options=_OPTIONS,
        )
        self.hosts = checked_hosts(hosts, option=f"{name}(hosts=…)")
        self._reader = self._client.reader(default_life=default_life, fixes=_FIXES, log_description=log_description)
        self._other_reader = replace(self._reader, scheme=_NOT_ACCESS)

    def identity(self) -> tuple[object, ...]:
        """Return the endpoint, the client with its secret, the digests of subject and actor, and what is requested."""
        actor = self._actor.key_parts if isinstance(self._actor, Provider) else self._actor
        form = (("grant_type", _GRANT_TYPE), *self._form)
        first = (*self._client.identity(), self._subject_identity(), actor, form)
        return (*first, *self._fields.more_identity(), *self._client.more_identity())

    @without_locals
    async def fetch(self, http: TokenHTTP) -> Grant:
        """Exchange the subject's token.

        Raises:
            SubjectRefused: The server refuses the subject's token, or it has expired.
            CredentialRejected: The server refuses the client or the request.
            TokenUnavailable: The server cannot be reached, is busy, or its response cannot be used.
        """
        self._check_subject(now=http.time())
        subject = self._subject_text()
        actor = (await http.token(self._actor)).value if isinstance(self._actor, Provider) else self._actor
        more = {"subject_token": subject} | ({"actor_token": actor} if actor else {})

        def read(answer: Answer, proof: Proof, url: str) -> Grant:
            reader = self._other_reader if (answer.fields or {}).get("token_type") == _NOT_ACCESS else self._reader
            try:
                return reader.at(url).read(answer, proof)
            except CredentialRejected as error:
                raise subject_error(error, codes=_SUBJECT_CODES) from None

        grant = await self._client.grant(http, self._fields, read, more=more, secrets=more.values())
        return self._capped(grant, now=http.time())

    def is_rejected(self, answer: OutgoingAnswer) -> bool:
        """Return whether an API answered that the token is not valid (RFC 6750 §3.1)."""
        return bearer_rejected(answer)


def _by_name(pairs: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    """Return form fields by name; a name that occurs several times is sent several times."""
    fields: dict[str, list[str]] = {}
    for name, value in pairs:
        fields.setdefault(name, []).append(value)
    return fields


def _type_uri(given: object, *, option: str) -> str:
    if isinstance(given, str):
        if given in _TYPES:
            return f"{_TYPE_PREFIX}{given}"
        if _URI.fullmatch(given):
            return given
    raise ConfigurationError(f"{option} must be one of {', '.join(_TYPES)}, or a URI (RFC 8693 §3).")


def _several(given: object, *, option: str) -> tuple[str, ...]:
    if given is None:
        return ()
    values = list(cast("Iterable[object]", given)) if isinstance(given, (list, tuple)) else [given]
    if not values:
        raise ConfigurationError(f"{option} is an empty list: leave it out.")
    return tuple(dict.fromkeys(credential_text(value, option=option) for value in values))


def _checked_actor(actor: object, *, option: str) -> str | Provider | None:
    if actor is None:
        return None
    if isinstance(actor, Provider):
        if actor.depends_on_request:
            raise ConfigurationError(f"{option} is this service's own token: it cannot depend on the request.")
        return actor
    if not isinstance(actor, str):
        kind = f"the class {actor.__name__}" if isinstance(actor, type) else type(actor).__name__
        raise ConfigurationError(
            f"{option} must be this service's own provider, such as ClientCredentials(…), or its token as a str, not "
            f"{kind}. The caller's token is subject=…."
        )
    return HiddenStr(secret_text(actor, option=option))
