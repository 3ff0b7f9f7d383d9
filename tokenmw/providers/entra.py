"""Microsoft Entra ID: an app that calls an API in its own name, and what the token endpoint answers."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, ClassVar, Final, cast

from tokenmw.errors import ConfigurationError, TokenUnavailable
from tokenmw.options import credential_text, optional_seconds
from tokenmw.providers.base import OutgoingAnswer, Provider
from tokenmw.providers.client_auth import ClientAuth
from tokenmw.providers.construction import reuses_checks
from tokenmw.providers.grant_reader import bearer_rejected
from tokenmw.providers.microsoft_clouds import Cloud, checked_login, checked_tenant, cloud_of, hosts_of_resource
from tokenmw.providers.oauth_client import OAuthClient
from tokenmw.providers.request_fields import RequestFields
from tokenmw.providers.urls import checked_hosts, host_of
from tokenmw.providers.workload_identity import workload_options
from tokenmw.redaction import without_locals

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable
    from typing import Self

    from tokenmw.providers.answer import Answer
    from tokenmw.providers.grant_reader import GrantReader
    from tokenmw.providers.http import TokenHTTP
    from tokenmw.providers.private_key_jwt import PrivateKeyJWT
    from tokenmw.providers.proof import Proof
    from tokenmw.providers.secret_sources import Secret, SecretSource
    from tokenmw.values import Grant

__all__ = ["DEFAULT_LIFETIME", "OPTIONS_OF_URL", "Entra", "entra_grant", "error_codes"]

DEFAULT_LIFETIME: Final = 600.0  # seconds, as in Microsoft's own library for responses that do not say

# https://learn.microsoft.com/entra/identity-platform/reference-error-codes
_FIXES: Final = {
    50059: "check tenant",
    70011: "check scope",
    90002: "there is no such tenant in this cloud: check tenant and cloud",
    700016: "the tenant does not know the app: check the app's id, tenant and cloud",
    700021: "the assertion's issuer or subject is not the app",
    700023: "the assertion's audience must be the token endpoint",
    700024: "the assertion is not valid now: check its times and this machine's clock",
    700027: "the assertion is signed with a key that the app does not have",
    1002012: 'the scope must be one resource followed by "/.default"',
    7000215: "the secret is wrong: give the secret's value, not its id",
    7000218: "give a secret or an assertion",
    7000222: "the secret has expired: make a new one",
}
OPTIONS_OF_URL: Final = "tenant, cloud and base_url"
_OTHER_FIXES: Final = {"invalid_request": "check tenant, cloud and the other options"}
_MAX_CODES: Final = 8  # of one response
# "Try again" and "request loop"; both come with status 400 as well.
_TRANSIENT: Final = frozenset({90033, 50196})


@reuses_checks
class Entra(Provider):
    """An app of Microsoft Entra ID that calls an API in its own name.

    >>> Entra(tenant="contoso.onmicrosoft.com", client_id="00000000-…", client_secret="…")
    <Entra>

    In a pod of AKS with a workload identity, `Entra.from_environment()` needs nothing else.

    The endpoint issues another token each time, and earlier tokens stay valid
    (https://learn.microsoft.com/entra/identity-platform/v2-oauth2-client-creds-grant-flow).

    Args:
        tenant: The tenant's id, or one of its domains. `"common"` and the like are refused: no user signs in who could
            decide the tenant.
        client_id: The app's id.
        client_secret: The value of one of the app's secrets. While it is changed, a list: the new one and the old one.
            If Entra refuses the first, the next one is tried.
        client_assertion: A `PrivateKeyJWT` instead of a secret, with the app's certificate, or a function, sync or
            async, that returns a signed JWT for each attempt, or one as text; also for federated credentials. A
            `FileSecret` or other source has a JWT that another program signs, and is read for each attempt.
        credential_id: A name for the key behind `client_assertion`; change it with the key. Default: none, and the
            tokens that a function obtains are not shared with other provider objects or through Redis, so every
            process fetches its own.
        scope: One resource followed by `/.default`. Default: Microsoft Graph of the cloud.
        cloud: The national cloud: `"public"`, `"usgov"`, `"usdod"` or `"china"`. Default: `"public"`.
        base_url: Another login host than the cloud's, such as a test server or a gateway. `cloud` still decides the
            default scope and hosts; the login host of another cloud is refused. Default: the cloud's.
        refresh_before: Seconds before expiry at which a new token is fetched in the background. Default: a quarter of
            the lifetime, at most 3600 s; or earlier, after the seconds that the server sends as `refresh_in`.
        hosts: Host names to which auth objects send the token; one that begins with a dot stands for every name below
            it. Default: the hosts of Graph or of the bots' channels if the scope is one of these, and the host of
            `base_url` with them; else every host that the auth object is used for.
        allow_http: Allows plain HTTP to other machines, for `base_url` and for requests of auth objects. Default:
            False, it is refused, because the network would see secret and token.
        log_description: Whether the log and `status()` show Microsoft's `error_description` of a refusal, with its
            trace id, at most 200 characters, and not if it repeats a part of the secret. Callers never see it.
            Default: False, only the codes.

    Raises:
        ConfigurationError: An option is missing, contradicts another one, or cannot work.
    """

    __slots__ = (
        "_client",
        "_fields",
        "_reader",
        "_scope",
        "allow_http",
        "hosts",
        "refresh_before",
        "shareable",
        "tenant",
        "token_url",
    )

    kind = "entra"
    _option_names: ClassVar[tuple[str, str]] = ("client_id", "client_secret")
    """The names of the options for the id and the secret, for error texts."""
    tenant: str
    token_url: str

    @without_locals
    def __init__(
        self,
        *,
        tenant: str,
        client_id: str,
        client_secret: Secret | None = None,
        client_assertion: str | Callable[[], str | Awaitable[str]] | PrivateKeyJWT | SecretSource | None = None,
        credential_id: str | None = None,
        scope: str | None = None,
        cloud: Cloud = "public",
        base_url: str | None = None,
        refresh_before: float | None = None,
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
            options=self._option_names,
        )
        self.token_url = f"{login}/{self.tenant}/oauth2/v2.0/token"
        self._client = OAuthClient(auth, provider=name, token_url=self.token_url, allow_http=allow_http)
        self._reader = self._client.reader(
            owner=f" of tenant {self.tenant}",
            method_option=False,
            url_options=OPTIONS_OF_URL,
            default_life=DEFAULT_LIFETIME,
            fixes=_OTHER_FIXES,
            log_description=log_description,
        )
        self.shareable = auth.shareable
        self._scope = _resource_scope(scope or f"https://{chosen.graph}/.default", option=f"{name}(scope=…)")
        self._fields = RequestFields(provider=name, grant_type="client_credentials", scope=self._scope)
        allowed = checked_hosts(hosts, option=f"{name}(hosts=…)") or hosts_of_resource(self._scope)
        if allowed is not None and hosts is None and base_url is not None:
            allowed |= {host_of(login)}  # a test server is both the login host and the API
        self.hosts = allowed
        self.allow_http = allow_http
        self.refresh_before = optional_seconds(refresh_before, option=f"{name}(refresh_before=…)")

    @classmethod
    def from_environment(
        cls,
        *,
        scope: str | None = None,
        client_id: str | None = None,
        cloud: Cloud | None = None,
        refresh_before: float | None = None,
        hosts: Iterable[str] | None = None,
        allow_http: bool = False,
        log_description: bool = False,
    ) -> Self:
        """Make the app of AKS workload identity, by the variables that AKS sets in a pod.

        `AZURE_FEDERATED_TOKEN_FILE` is read at each fetch, in a thread. `AZURE_AUTHORITY_HOST` is the login host of
        another cloud, or of a test server.

        Args:
            scope: One resource followed by `/.default`. Default: Microsoft Graph of the cloud.
            client_id: The app's id. Default: that of `AZURE_CLIENT_ID`.
            cloud: The national cloud. Default: that of `AZURE_AUTHORITY_HOST`, or `"public"`.
            refresh_before: As for the class, like the options after it.
            hosts: As for the class.
            allow_http: As for the class.
            log_description: As for the class.

        Raises:
            ConfigurationError: A variable is not set, or contradicts an option.
        """
        options: dict[str, Any] = workload_options(
            os.environ,
            name=cls.__name__,
            id_option=cls._option_names[0],
            client_id=client_id,
            cloud=cloud,
            allow_http=allow_http,
        )
        if scope is not None:  # a bot has no option for it
            options["scope"] = scope
        return cls(
            **options,
            refresh_before=refresh_before,
            hosts=hosts,
            allow_http=allow_http,
            log_description=log_description,
        )

    def identity(self) -> tuple[object, ...]:
        """Return the endpoint with its cloud and tenant, the app, its secret or key, and the scope."""
        return (*self._client.identity(), self._scope)

    @without_locals
    async def fetch(self, http: TokenHTTP) -> Grant:
        """Request a token from the tenant's token endpoint.

        Raises:
            CredentialRejected: The endpoint refuses the app, its secret, the tenant or the scope.
            TokenUnavailable: The endpoint cannot be reached, is busy, or its response cannot be used; or
                `client_assertion` failed.
        """
        return await self._client.grant(
            http, self._fields, lambda answer, proof, _: entra_grant(answer, proof, reader=self._reader)
        )

    def is_rejected(self, answer: OutgoingAnswer) -> bool:
        """Return whether an API answered that the token is not valid: 401.

        A 401 that asks for a token with more claims (`insufficient_claims`, continuous access evaluation) is not a
        rejection: a new token of the same kind would be refused too.
        """
        return bearer_rejected(answer)


def entra_grant(answer: Answer, proof: Proof, *, reader: GrantReader) -> Grant:
    """Return the token that an Entra token endpoint granted; `extra` has `refresh_in` if the endpoint sent it.

    `error` and the status decide whether a refusal is permanent; Microsoft's numeric codes only add the reason.

    Raises:
        CredentialRejected: The endpoint refuses the credential or the request.
        TokenUnavailable: The endpoint is busy, or its response cannot be used.
    """
    codes = error_codes(answer)
    detail = ", ".join(f"AADSTS{code}" for code in codes)
    if not _TRANSIENT.isdisjoint(codes):
        raise TokenUnavailable(
            f"{answer.endpoint} cannot serve {reader.client} now ({detail}, HTTP {answer.status})",
            retry_after=answer.retry_after,
            said=True,
        )
    return reader.read(answer, proof, detail=detail, fix=next((_FIXES[code] for code in codes if code in _FIXES), ""))


def error_codes(answer: Answer) -> tuple[int, ...]:
    """Return the numeric codes (AADSTS…) of a failed response; empty if it has none."""
    if 200 <= answer.status < 300:
        return ()
    codes = (answer.fields or {}).get("error_codes")
    listed = cast("list[object]", codes)[:_MAX_CODES] if isinstance(codes, list) else []
    return tuple(code for code in listed if isinstance(code, int) and 0 < code < 10**9)


def _resource_scope(scope: str, *, option: str) -> str:
    credential_text(scope, option=option)
    if len(scope.split()) != 1 or not scope.strip().endswith("/.default"):
        raise ConfigurationError(
            f'{option} must be one resource followed by "/.default", such as "https://graph.microsoft.com/.default": '
            f"an app without a user gets every permission that it was granted there (AADSTS1002012)."
        )
    return scope.strip()
