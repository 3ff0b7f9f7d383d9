"""Microsoft Entra ID, on behalf of a user: the caller's token is exchanged for one of another API."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

from tokenmw.errors import ConfigurationError, CredentialRejected
from tokenmw.providers.client_auth import ClientAuth
from tokenmw.providers.construction import reuses_checks
from tokenmw.providers.entra import DEFAULT_LIFETIME, OPTIONS_OF_URL, entra_grant, error_codes
from tokenmw.providers.grant_reader import bearer_rejected
from tokenmw.providers.microsoft_clouds import Cloud, checked_login, checked_tenant, cloud_of, hosts_of_resource
from tokenmw.providers.oauth_client import OAuthClient
from tokenmw.providers.request_fields import RequestFields, checked_scope
from tokenmw.providers.subject import SubjectProvider, SubjectToken, subject_error
from tokenmw.providers.urls import checked_hosts, host_of
from tokenmw.redaction import without_locals

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from tokenmw.providers.answer import Answer
    from tokenmw.providers.base import OutgoingAnswer
    from tokenmw.providers.http import TokenHTTP
    from tokenmw.providers.private_key_jwt import PrivateKeyJWT
    from tokenmw.providers.proof import Proof
    from tokenmw.providers.secret_sources import Secret
    from tokenmw.values import Grant

__all__ = ["EntraOnBehalfOf"]

_GRANT_TYPE: Final = "urn:ietf:params:oauth:grant-type:jwt-bearer"
# A user must sign in again, consent, or prove more: all of it happens in the caller.
_SUBJECT_CODES: Final = frozenset({"consent_required", "interaction_required", "invalid_grant", "login_required"})
_OF_APP: Final = frozenset({7000114})  # `invalid_grant`, but the app may not act for users
_MAX_CLAIMS: Final = 4096  # characters; they go into a response header
_FIXES: Final = {
    "invalid_grant": "the caller's token is expired, for another app, or its user has not consented",
    "interaction_required": "the user must satisfy a policy, such as a second factor: the caller gets the claims",
    "invalid_request": "check tenant, cloud and the other options",
}


@reuses_checks
class EntraOnBehalfOf(SubjectProvider):
    """An app of Microsoft Entra ID that calls an API on behalf of the user who calls it.

    >>> from tokenmw.providers import SubjectToken
    >>> EntraOnBehalfOf(
    ...     tenant="contoso.onmicrosoft.com",
    ...     client_id="00000000-…",
    ...     client_secret="…",
    ...     subject=SubjectToken(),
    ...     scope="https://graph.microsoft.com/.default",
    ... )
    <EntraOnBehalfOf>

    https://learn.microsoft.com/entra/identity-platform/v2-oauth2-on-behalf-of-flow

    The new token ends with the caller's at the latest, and is fetched again only for a request. If the user must sign
    in again, consent, or satisfy a Conditional Access policy, the caller gets a 401 (`SubjectRefused`) whose
    `WWW-Authenticate` has the claims that Entra asks for.

    Args:
        tenant: The tenant's id, or one of its domains.
        client_id: The id of this app.
        client_secret: The value of one of the app's secrets; while it is changed, a list: the new one and the old one.
        client_assertion: A `PrivateKeyJWT`, or a function that returns a signed JWT, instead of a secret, as for
            `Entra`.
        credential_id: A name for the key behind `client_assertion`, as for `Entra`.
        subject: The caller's token, which must be for this app: text, or `SubjectToken()`, which takes it from each
            request.
        subject_expires_at: When the caller's token expires, in seconds since 1970. Default: its `exp`.
        scope: The scopes of the API, separated by spaces, such as `https://graph.microsoft.com/User.Read`. Default: all
            that were granted for Microsoft Graph of the cloud (`/.default`).
        cloud: The national cloud: `"public"`, `"usgov"`, `"usdod"` or `"china"`.
        base_url: Another login host than the cloud's, as for `Entra`. Default: the cloud's.
        hosts: Host names to which auth objects send the token. Default: as for `Entra`.
        allow_http: Allows plain HTTP to other machines. Default: False.
        log_description: As for `Entra`.

    Raises:
        ConfigurationError: An option is missing, contradicts another one, or cannot work.
    """

    __slots__ = ("_client", "_fields", "_reader", "_scope", "allow_http", "hosts", "shareable", "tenant", "token_url")

    kind = "entra_on_behalf_of"
    tenant: str
    token_url: str

    @without_locals
    def __init__(
        self,
        *,
        tenant: str,
        client_id: str,
        client_secret: Secret | None = None,
        client_assertion: str | Callable[[], str | Awaitable[str]] | PrivateKeyJWT | None = None,
        credential_id: str | None = None,
        subject: str | SubjectToken,
        subject_expires_at: float | None = None,
        scope: str | None = None,
        cloud: Cloud = "public",
        base_url: str | None = None,
        hosts: Iterable[str] | None = None,
        allow_http: bool = False,
        log_description: bool = False,
    ) -> None:
        name = type(self).__name__
        chosen = cloud_of(cloud, option=f"{name}(cloud=…)")
        self.tenant = checked_tenant(tenant, option=f"{name}(tenant=…)")
        login = checked_login(cloud, base_url, provider=name, allow_http=allow_http)
        auth = ClientAuth(
            client_id,
            provider=name,
            method="client_secret_post" if client_assertion is None else "private_key_jwt",
            secret=client_secret,
            assertion=client_assertion,
            credential_id=credential_id,
        )
        self.shareable = auth.shareable
        self._set_subject(subject, expires_at=subject_expires_at)
        self.token_url = f"{login}/{self.tenant}/oauth2/v2.0/token"
        self._client = OAuthClient(auth, provider=name, token_url=self.token_url, allow_http=allow_http)
        self._reader = self._client.reader(
            owner=f" of tenant {self.tenant}",
            method_option=False,
            url_options=OPTIONS_OF_URL,
            default_life=DEFAULT_LIFETIME,
            fixes=_FIXES,
            log_description=log_description,
        )
        default = f"https://{chosen.graph}/.default"
        self._scope = " ".join(checked_scope(scope or default, provider=name).split())
        _check_one_resource(self._scope, graph=chosen.graph, option=f"{name}(scope=…)")
        self._fields = RequestFields(
            provider=name, grant_type=_GRANT_TYPE, scope=self._scope, own={"requested_token_use": "on_behalf_of"}
        )
        allowed = checked_hosts(hosts, option=f"{name}(hosts=…)") or _hosts_of(self._scope)
        if allowed is not None and hosts is None and base_url is not None:
            allowed |= {host_of(login)}  # a test server is both the login host and the API
        self.hosts = allowed
        self.allow_http = allow_http

    def identity(self) -> tuple[object, ...]:
        """Return the endpoint with its tenant, the app with its secret, the digest of the subject, and the scope."""
        return (*self._client.identity(), self._subject_identity(), self._scope)

    @without_locals
    async def fetch(self, http: TokenHTTP) -> Grant:
        """Exchange the caller's token.

        Raises:
            SubjectRefused: Entra refuses the caller's token or wants the user to do something, or it has expired.
            CredentialRejected: Entra refuses the app, its secret, the tenant or the scope.
            TokenUnavailable: The endpoint cannot be reached, is busy, or its response cannot be used; or
                `client_assertion` failed.
        """
        self._check_subject(now=http.time())
        subject = self._subject_text()

        def read(answer: Answer, proof: Proof, _url: str) -> Grant:
            try:
                return entra_grant(answer, proof, reader=self._reader)
            except CredentialRejected as error:
                of_app = not _OF_APP.isdisjoint(error_codes(answer))
                codes = frozenset[str]() if of_app else _SUBJECT_CODES
                raise subject_error(error, codes=codes, claims=_claims_in(answer)) from None

        grant = await self._client.grant(http, self._fields, read, more={"assertion": subject}, secrets=(subject,))
        return self._capped(grant, now=http.time())

    def is_rejected(self, answer: OutgoingAnswer) -> bool:
        """Return whether an API answered that the token is not valid: 401, as for `Entra`."""
        return bearer_rejected(answer)


def _claims_in(answer: Answer) -> str:
    """Return the claims that Entra asks for, as JSON text; "" if there are none that fit into a header."""
    claims = (answer.fields or {}).get("claims")
    if not isinstance(claims, str) or len(claims) > _MAX_CLAIMS:
        return ""
    try:
        document: object = json.loads(claims)
    except (ValueError, RecursionError):
        return ""
    return json.dumps(document, separators=(",", ":")) if isinstance(document, dict) else ""


def _check_one_resource(scope: str, *, graph: str, option: str) -> None:
    # AADSTS28000: a token is for one API. A scope without a resource is one of Graph.
    of_user = {"openid", "profile", "email", "offline_access"}
    scopes = [one for one in scope.split() if one not in of_user]
    if len({_resource_of(one, graph=graph) for one in scopes}) > 1:
        raise ConfigurationError(
            f"{option} has scopes of two APIs, and a token is for one: make a provider for each API. A scope without "
            f"an API before it, such as User.Read, is one of Microsoft Graph."
        )


def _resource_of(scope: str, *, graph: str) -> str:
    resource = scope.rpartition("/")[0].rstrip("/").lower()
    return resource or f"https://{graph}"


def _hosts_of(scope: str) -> frozenset[str] | None:
    """Return the hosts of the scopes' resource; None if they are not known."""
    found = {hosts_of_resource(f"{one.rpartition('/')[0]}/.default") for one in scope.split() if "/" in one}
    return next(iter(found)) if len(found) == 1 else None
