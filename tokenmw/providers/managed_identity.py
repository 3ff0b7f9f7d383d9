"""The managed identity of an Azure machine or app: tokens from the platform's own endpoint, without a secret."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlencode

from tokenmw.errors import ConfigurationError, CredentialRejected, TokenUnavailable
from tokenmw.options import credential_text, optional_seconds
from tokenmw.providers.answer import grant_in, number
from tokenmw.providers.base import OutgoingAnswer, Provider
from tokenmw.providers.client_auth import Proof, shown_option
from tokenmw.providers.construction import reuses_checks
from tokenmw.providers.expiry import remaining_seconds
from tokenmw.providers.grant_reader import bearer_rejected, bearer_type
from tokenmw.providers.microsoft_clouds import hosts_of_resource
from tokenmw.providers.urls import checked_hosts, checked_token_url
from tokenmw.redaction import HiddenStr, without_locals
from tokenmw.values import Grant

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from tokenmw.providers.answer import Answer
    from tokenmw.providers.http import TokenHTTP

__all__ = ["ManagedIdentity"]

# Link-local: requests to it do not leave the machine's own network.
_INSTANCE_METADATA: Final = "http://169.254.169.254/metadata/identity/oauth2/token"
_METADATA_VERSION: Final = "2018-02-01"
_APP_SERVICE_VERSION: Final = "2019-08-01"
_LONG: Final = 7200.0  # seconds
_BEING_UPDATED: Final = frozenset({404, 410})
_CODE: Final = re.compile(r"[A-Za-z0-9_.-]{1,64}")


@reuses_checks
class ManagedIdentity(Provider):
    """The managed identity of the Azure machine, app or container that this program runs in.

    >>> ManagedIdentity(resource="https://graph.microsoft.com")
    <ManagedIdentity>

    On a virtual machine or in AKS nothing else is needed. In App Service, Functions and Container Apps the platform
    gives the endpoint in two environment variables::

        ManagedIdentity(
            resource="https://api.botframework.com",
            client_id="00000000-…",
            identity_endpoint=os.environ["IDENTITY_ENDPOINT"],
            identity_header=os.environ["IDENTITY_HEADER"],
        )

    See https://learn.microsoft.com/entra/identity/managed-identities-azure-resources/how-to-use-vm-token and
    https://learn.microsoft.com/azure/app-service/overview-managed-identity.

    Args:
        resource: The API that the token is for, without `/.default`.
        client_id: The client id of a user-assigned identity. Default: none, the machine's or app's own identity; its
            tokens are not shared through Redis, because another machine has another identity.
        identity_endpoint: The URL of the identity endpoint. Default: that of virtual machines (IMDS).
        identity_header: The secret that belongs to `identity_endpoint`. Default: none, as IMDS needs none.
        refresh_before: Seconds before expiry at which a new token is fetched in the background. Default: a quarter of
            the lifetime, at most 3600 s; or earlier, after the seconds that the endpoint sends as `refresh_in`, or
            after half of a lifetime of two hours or more.
        hosts: Host names to which auth objects send the token; one that begins with a dot stands for every name below
            it. Default: the hosts of Graph or of the bots' channels if the resource is one of these, else every host
            that the auth object is used for.
        allow_http: Allows plain HTTP to other machines, for `identity_endpoint` and for requests of auth objects.
            Default: False, it is refused, because the network would see secret and token.

    Raises:
        ConfigurationError: An option is missing, contradicts another one, or cannot work.
    """

    __slots__ = (
        "_client_id",
        "_header",
        "_resource",
        "_url",
        "allow_http",
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
        identity_endpoint: str | None = None,
        identity_header: str | None = None,
        refresh_before: float | None = None,
        hosts: Iterable[str] | None = None,
        allow_http: bool = False,
    ) -> None:
        texts = {"resource": resource, "client_id": client_id, "identity_header": identity_header}
        for name, text in texts.items():
            if text is not None or name == "resource":
                credential_text(text, option=f"ManagedIdentity({name}=…)")
        if resource.endswith("/.default"):
            raise ConfigurationError('ManagedIdentity(resource=…) must be the resource alone: leave out "/.default".')
        if identity_header is not None and identity_endpoint is None:
            raise ConfigurationError("ManagedIdentity(identity_header=…) needs identity_endpoint=… with it.")
        option = "ManagedIdentity(identity_endpoint=…)"
        self._url = (
            _INSTANCE_METADATA
            if identity_endpoint is None
            else checked_token_url(identity_endpoint, option=option, allow_http=allow_http)
        )
        self._resource = resource
        self._client_id = client_id
        self._header = None if identity_header is None else HiddenStr(identity_header)
        self.shareable = client_id is not None
        self.hosts = checked_hosts(hosts, option="ManagedIdentity(hosts=…)") or hosts_of_resource(resource)
        self.allow_http = allow_http
        self.refresh_before = optional_seconds(refresh_before, option="ManagedIdentity(refresh_before=…)")

    def identity(self) -> tuple[object, ...]:
        """Return the resource and the identity; the machine's own identity is known by its endpoint."""
        # A user-assigned identity is the same at the endpoints of all machines.
        own = (self._url, self._header) if self._client_id is None else None
        return (self._resource, self._client_id, own)

    @without_locals
    async def fetch(self, http: TokenHTTP) -> Grant:
        """Request a token from the identity endpoint.

        Raises:
            CredentialRejected: This machine has no such identity, or the identity may not get a token for the resource.
            TokenUnavailable: The endpoint cannot be reached, is busy, or its response cannot be used.
        """
        version = _METADATA_VERSION if self._header is None else _APP_SERVICE_VERSION
        query = {"api-version": version, "resource": self._resource}
        if self._client_id is not None:
            query["client_id"] = self._client_id
        separator = "&" if "?" in self._url else "?"
        answer = await http.request(
            "GET",
            f"{self._url}{separator}{urlencode(query)}",
            headers={"metadata": "true"} if self._header is None else {"x-identity-header": self._header},
        )
        answer.check_busy()
        proof = Proof(self._header or "", form={}, headers={})
        if answer.status in _BEING_UPDATED:
            raise TokenUnavailable(self._not_there(answer, proof), retry_after=answer.retry_after)
        if not 200 <= answer.status < 300:
            # `said` is False: another machine may have the identity.
            raise CredentialRejected(self._refusal(answer, proof), said=False, retry_after=answer.retry_after)
        if answer.fields is None:
            raise answer.not_json(check="identity_endpoint")
        fields = answer.fields
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

    def _not_there(self, answer: Answer, proof: Proof) -> str:
        answered = f"{_shown_code(answer, proof)}HTTP {answer.status}"
        if self._url == _INSTANCE_METADATA:
            # https://learn.microsoft.com/entra/identity/managed-identities-azure-resources/how-to-use-vm-token
            return f"the identity endpoint at {answer.endpoint} is being updated ({answered})"
        return f"{answer.endpoint} has no identity endpoint at this path ({answered}): check identity_endpoint"

    def _refusal(self, answer: Answer, proof: Proof) -> str:
        shown = _shown_code(answer, proof)
        identity = "an identity of its own"
        if self._client_id is not None:
            identity = shown_option("client_id", self._client_id, secrets=(self._header or "",))
        header = " and identity_header" if self._header is not None else ""
        return (
            f"the identity endpoint at {answer.endpoint} refuses ({shown}HTTP {answer.status}): "
            f"check that this machine or app has {identity}, and check resource{header}"
        )

    def is_rejected(self, answer: OutgoingAnswer) -> bool:
        """Return whether an API answered that the token is not valid, as for `Entra`."""
        return bearer_rejected(answer)


def _shown_code(answer: Answer, proof: Proof) -> str:
    error = (answer.fields or {}).get("error")
    code = error if isinstance(error, str) and _CODE.fullmatch(error) else ""
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
