"""The managed identity of an Azure machine or app: tokens from the platform's own endpoint, without a secret."""

from __future__ import annotations

import math
import os
import re
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlencode

from tokenmw.errors import ConfigurationError, CredentialRejected, TokenUnavailable
from tokenmw.options import credential_text, optional_seconds
from tokenmw.providers.answer import grant_in, number
from tokenmw.providers.arc_challenge import challenge_secret
from tokenmw.providers.base import OutgoingAnswer, Provider
from tokenmw.providers.construction import reuses_checks
from tokenmw.providers.entra import Entra
from tokenmw.providers.expiry import remaining_seconds
from tokenmw.providers.grant_reader import bearer_rejected, bearer_type
from tokenmw.providers.identity_environment import THUMBPRINT, identity_environment
from tokenmw.providers.identity_sources import IdentitySource, checked_endpoint, confirms, request_of, user_assigned
from tokenmw.providers.microsoft_clouds import hosts_of_resource
from tokenmw.providers.network.pinned import PinnedServer
from tokenmw.providers.proof import Proof, shown_option
from tokenmw.providers.urls import checked_hosts
from tokenmw.redaction import HiddenStr, without_locals
from tokenmw.values import Grant

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from tokenmw.providers.answer import Answer
    from tokenmw.providers.http import TokenHTTP

__all__ = ["ManagedIdentity"]

# Link-local: requests to it do not leave the machine's own network.
_INSTANCE_METADATA: Final = "http://169.254.169.254/metadata/identity/oauth2/token"
_LONG: Final = 7200.0  # seconds
_UNAUTHORIZED: Final = 401
# Their names are a part of the credential, as their requests differ. The names of the other two are none, so that the
# credential is that of earlier versions.
_NAMED: Final = frozenset({"azure_arc", "azure_ml", "cloud_shell", "service_fabric"})
_BEING_UPDATED: Final = frozenset({404, 410})
_CODE: Final = re.compile(r"[A-Za-z0-9_.-]{1,64}")


@reuses_checks
class ManagedIdentity(Provider):
    """The managed identity of the Azure machine, app or container that this program runs in.

    >>> ManagedIdentity(resource="https://graph.microsoft.com")
    <ManagedIdentity>

    That is the identity of a virtual machine. `ManagedIdentity.from_environment(resource=…)` finds the endpoint of each
    platform by its environment variables: App Service, Functions, Container Apps, Service Fabric, Azure Arc, Azure ML,
    Cloud Shell, and AKS workload identity.

    See https://learn.microsoft.com/entra/identity/managed-identities-azure-resources/how-to-use-vm-token and
    https://learn.microsoft.com/azure/app-service/overview-managed-identity.

    Args:
        resource: The API that the token is for, without `/.default`.
        client_id: The client id of a user-assigned identity. Default: none, the machine's or app's own identity; its
            tokens are not shared through Redis, because another machine has another identity.
        resource_id: The resource id of a user-assigned identity (`/subscriptions/…`), instead of `client_id`. Default:
            none.
        object_id: The object id of a user-assigned identity, instead of `client_id`. Default: none.
        source: Whose endpoint it is: `"imds"`, `"app_service"`, `"azure_arc"`, `"azure_ml"` (also old versions of App
            Service), `"cloud_shell"` or `"service_fabric"`. Default: `"app_service"` with `identity_header`, else
            `"imds"`, that of virtual machines.
        identity_endpoint: The URL of the identity endpoint. Default: that of virtual machines (IMDS).
        identity_header: The secret that belongs to `identity_endpoint`. Default: none, as IMDS needs none.
        refresh_before: Seconds before expiry at which a new token is fetched in the background. Default: a quarter of
            the lifetime, at most 3600 s; or earlier, after the seconds that the endpoint sends as `refresh_in`, or
            after half of a lifetime of two hours or more.
        hosts: Host names to which auth objects send the token; one that begins with a dot stands for every name below
            it. Default: the hosts of Graph or of the bots' channels if the resource is one of these, else every host
            that the auth object is used for.
        allow_http: Allows plain HTTP to other machines, for `identity_endpoint` and for requests of auth objects.
            Default: False, it is refused, because the network would see secret and token. Platforms have their
            endpoints on link-local addresses (169.254.…), which are always allowed.
        server_thumbprint: The SHA-1 or SHA-256 thumbprint of the certificate of `identity_endpoint`, in hexadecimal
            digits, for `"service_fabric"`, whose endpoint has a certificate that no authority has signed. It needs the
            broker's own HTTP client. Default: none, the certificate is verified as usual.

    Raises:
        ConfigurationError: An option is missing, contradicts another one, or cannot work.
    """

    __slots__ = (
        "_header",
        "_identity",
        "_request",
        "_resource",
        "_source",
        "_url",
        "allow_http",
        "certificate",
        "hosts",
        "refresh_before",
        "shareable",
    )

    kind = "managed_identity"

    @without_locals
    def __init__(
        self,
        *,
        resource: str,
        client_id: str | None = None,
        resource_id: str | None = None,
        object_id: str | None = None,
        source: IdentitySource | None = None,
        identity_endpoint: str | None = None,
        identity_header: str | None = None,
        refresh_before: float | None = None,
        hosts: Iterable[str] | None = None,
        allow_http: bool = False,
        server_thumbprint: str | None = None,
    ) -> None:
        ids = {"client_id": client_id, "resource_id": resource_id, "object_id": object_id}
        texts = {"resource": resource, **ids, "identity_header": identity_header}
        for name, text in texts.items():
            if text is not None or name == "resource":
                credential_text(text, option=f"ManagedIdentity({name}=…)")
        if resource.endswith("/.default"):
            raise ConfigurationError('ManagedIdentity(resource=…) must be the resource alone: leave out "/.default".')
        self._identity = user_assigned(ids)
        self._request = request_of(source, endpoint=identity_endpoint, header=identity_header, identity=self._identity)
        option = "ManagedIdentity(identity_endpoint=…)"
        self._url = (
            _INSTANCE_METADATA
            if identity_endpoint is None
            else checked_endpoint(identity_endpoint, option=option, allow_http=allow_http)
        )
        self.certificate = _checked_pin(server_thumbprint, pinned=self._request.pinned, url=self._url)
        self._resource = resource
        self._source = source
        self._header = None if identity_header is None else HiddenStr(identity_header)
        self.shareable = self._identity is not None
        self.hosts = checked_hosts(hosts, option="ManagedIdentity(hosts=…)") or hosts_of_resource(resource)
        self.allow_http = allow_http
        self.refresh_before = optional_seconds(refresh_before, option="ManagedIdentity(refresh_before=…)")

    @classmethod
    def from_environment(
        cls,
        *,
        resource: str,
        client_id: str | None = None,
        resource_id: str | None = None,
        object_id: str | None = None,
        refresh_before: float | None = None,
        hosts: Iterable[str] | None = None,
        allow_http: bool = False,
    ) -> ManagedIdentity | Entra:
        """Make the identity of the platform that the program runs on, found by the variables that it sets.

        The order is that of Microsoft's own library: `IDENTITY_ENDPOINT` with `IDENTITY_HEADER` (App Service,
        Functions, Container Apps; with `IDENTITY_SERVER_THUMBPRINT` as well, Service Fabric) or with `IMDS_ENDPOINT`
        (Azure Arc); `MSI_ENDPOINT` with `MSI_SECRET` (Azure ML) or
        without (Cloud Shell); `AZURE_FEDERATED_TOKEN_FILE` (AKS workload identity, for which it returns an `Entra`);
        else a virtual machine.

        Args:
            resource: The API that the token is for, without `/.default`.
            client_id: As for the class, like all options after it.
            resource_id: As for the class.
            object_id: As for the class.
            refresh_before: As for the class.
            hosts: As for the class.
            allow_http: As for the class.

        Raises:
            ConfigurationError: A variable is missing, cannot be used, or contradicts an option.
        """
        found = identity_environment(os.environ)
        if found.source == "workload":
            other = user_assigned({"client_id": None, "resource_id": resource_id, "object_id": object_id})
            if other is not None:
                raise ConfigurationError(
                    f"ManagedIdentity.from_environment({other[0]}=…): AZURE_FEDERATED_TOKEN_FILE is set, and the "
                    f"identity of a pod is named by its client id: use client_id, or unset the variable."
                )
            return Entra.from_environment(
                scope=f"{resource}/.default",
                client_id=client_id,
                refresh_before=refresh_before,
                hosts=hosts,
                allow_http=allow_http,
            )
        if found.endpoint is not None:
            # Here, so that the text names the variable.
            checked_endpoint(found.endpoint, option=f"The variable {found.variable}", allow_http=allow_http)
        if found.thumbprint is not None:
            PinnedServer(found.thumbprint, option=f"The variable {THUMBPRINT}")
        return cls(
            resource=resource,
            client_id=client_id,
            resource_id=resource_id,
            object_id=object_id,
            source=found.source,
            identity_endpoint=found.endpoint,
            identity_header=found.header,
            refresh_before=refresh_before,
            hosts=hosts,
            allow_http=allow_http,
            server_thumbprint=found.thumbprint,
        )

    def identity(self) -> tuple[object, ...]:
        """Return the resource and the identity; the machine's own identity is known by its endpoint."""
        if self._identity is None:
            named = self._source if self._source in _NAMED else None
            own = (self._url, self._header) if named is None else (self._url, self._header, named)
            return (self._resource, None, own)
        # A user-assigned identity is the same at the endpoints of all machines.
        option, value = self._identity
        return (self._resource, value if option == "client_id" else self._identity, None)

    @without_locals
    async def fetch(self, http: TokenHTTP) -> Grant:
        """Request a token from the identity endpoint.

        Raises:
            CredentialRejected: This machine has no such identity, or the identity may not get a token for the resource.
            TokenUnavailable: The endpoint cannot be reached, is busy, or its response cannot be used; or the file of a
                challenge cannot be read.
        """
        secret = self._header or ""
        answer = await self._send(http)
        if self._request.challenges and answer.status == _UNAUTHORIZED:
            secret = await challenge_secret(answer)
            answer = await self._send(http, authorization=f"Basic {secret}")
        answer.check_busy()
        proof = Proof(secret, form={}, headers={})
        if answer.status in _BEING_UPDATED and not (self._request.pinned and _code_of(answer)):
            raise TokenUnavailable(self._not_there(answer, proof), retry_after=answer.retry_after)
        if not 200 <= answer.status < 300:
            # `said` is False: another machine may have the identity.
            raise CredentialRejected(self._refusal(answer, proof), said=False, retry_after=answer.retry_after)
        if answer.fields is None:
            raise answer.not_json(check="identity_endpoint")
        fields = answer.fields
        if self._request.challenges and not confirms(self._identity, fields):
            raise CredentialRejected(
                f"the agent of Azure Arc at {answer.endpoint} answered for another identity than that of "
                f"{self._shown_identity(proof)}: check the option, and update the agent",
                said=False,
            )
        granted = grant_in(
            answer,
            fields,
            "access_token",
            # App Service sends only the time of expiry.
            seconds=lambda: remaining_seconds(answer, fields),
            token_type=bearer_type(answer, fields, proof),
        )
        return Grant(
            granted.value,
            expires_in=granted.expires_in,
            token_type=granted.token_type,
            extra=_refresh_in(fields, granted.expires_in),
        )

    async def _send(self, http: TokenHTTP, **headers: str) -> Answer:
        parameters = self._request.parameters(self._resource, self._identity)
        headers |= self._request.headers(self._header)
        if self.certificate is not None:
            http = http.with_certificate(self.certificate)
        if self._request.posts:
            return await http.request("POST", self._url, data=parameters, headers=headers)
        separator = "&" if "?" in self._url else "?"
        return await http.request("GET", f"{self._url}{separator}{urlencode(parameters)}", headers=headers)

    def _not_there(self, answer: Answer, proof: Proof) -> str:
        answered = f"{_shown_code(answer, proof)}HTTP {answer.status}"
        if self._url == _INSTANCE_METADATA:
            # https://learn.microsoft.com/entra/identity/managed-identities-azure-resources/how-to-use-vm-token
            return f"the identity endpoint at {answer.endpoint} is being updated ({answered})"
        return f"{answer.endpoint} has no identity endpoint at this path ({answered}): check identity_endpoint"

    def _refusal(self, answer: Answer, proof: Proof) -> str:
        shown = _shown_code(answer, proof)
        header = " and identity_header" if self._header is not None else ""
        return (
            f"the identity endpoint at {answer.endpoint} refuses ({shown}HTTP {answer.status}): "
            f"check that this machine or app has {self._shown_identity(proof)}, and check resource{header}"
        )

    def _shown_identity(self, proof: Proof) -> str:
        if self._identity is None:
            return "an identity of its own"
        option, value = self._identity
        return option if proof.is_in(value) else shown_option(option, value, secrets=())

    def is_rejected(self, answer: OutgoingAnswer) -> bool:
        """Return whether an API answered that the token is not valid, as for `Entra`."""
        return bearer_rejected(answer)


def _checked_pin(thumbprint: str | None, *, pinned: bool, url: str) -> PinnedServer | None:
    option = "ManagedIdentity(server_thumbprint=…)"
    if thumbprint is None:
        if pinned:
            raise ConfigurationError(
                f'ManagedIdentity(source="service_fabric") needs server_thumbprint=…, the value of {THUMBPRINT}, or '
                f"use ManagedIdentity.from_environment()."
            )
        return None
    if not pinned:
        raise ConfigurationError(f'{option} is for source="service_fabric": give that, or leave it out.')
    if not url.lower().startswith("https:"):
        raise ConfigurationError(f"{option} needs an https identity_endpoint, because it verifies a certificate.")
    return PinnedServer(thumbprint, option=option)


def _code_of(answer: Answer) -> str:
    """Return the error's code, which Service Fabric has inside of `error`; "" if there is none."""
    error = (answer.fields or {}).get("error")
    inner: object = error.get("code") if isinstance(error, dict) else error
    return inner if isinstance(inner, str) and _CODE.fullmatch(inner) else ""


def _shown_code(answer: Answer, proof: Proof) -> str:
    code = _code_of(answer)
    return f"{code}, " if code and not proof.has_piece_in(code) else ""


def _refresh_in(fields: Mapping[str, Any], seconds: float) -> dict[str, Any]:
    """Return the seconds after which a new token is fetched, for `extra`.

    Where the endpoint does not say, that is half the lifetime if it is two hours or more, as in Microsoft's own
    libraries: the endpoint has outages of hours.
    """
    given = number(fields.get("refresh_in"))
    if given is not None and math.isfinite(given):
        return {"refresh_in": given}
    return {"refresh_in": seconds / 2} if seconds >= _LONG else {}
