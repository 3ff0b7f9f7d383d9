"""What the endpoints of Azure's platforms want in a request for a managed identity's token."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, Literal, cast, get_args

from tokenmw.errors import ConfigurationError
from tokenmw.options import checked_choice
from tokenmw.providers.http import read_url
from tokenmw.providers.urls import checked_token_url
from tokenmw.redaction import without_locals

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["IdentityRequest", "IdentitySource", "checked_endpoint", "confirms", "request_of", "user_assigned"]

IdentitySource = Literal["imds", "app_service", "azure_arc", "azure_ml", "cloud_shell", "service_fabric"]


@dataclass(frozen=True, slots=True, kw_only=True)
class IdentityRequest:
    """The form of one platform's requests.

    Attributes:
        platform: The platform's name for error texts.
        version: The `api-version`; None: the endpoint has none.
        ids: The parameter for each option that names a user-assigned identity; without the options that the platform
            does not have.
        header: The name of the header for `identity_header`; None: the header is `Metadata: true`.
        posts: Whether the parameters are a form of a POST request.
        challenges: Whether the endpoint asks for the content of a file on this machine.
        pinned: Whether only a thumbprint verifies the endpoint's certificate.
        of: Whose identity is used where no option names one.
    """

    platform: str
    version: str | None
    ids: Mapping[str, str]
    header: str | None = None
    posts: bool = False
    challenges: bool = False
    pinned: bool = False
    of: str = "the user's own identity"

    def headers(self, secret: str | None) -> dict[str, str]:
        """Return the header that a browser cannot be made to send, or the secret that the platform gave."""
        return {"metadata": "true"} if self.header is None else {self.header: secret or ""}

    def parameters(self, resource: str, identity: tuple[str, str] | None) -> dict[str, str]:
        """Return the parameters; `identity` is the option that names the user-assigned identity, and its value."""
        found = {} if self.version is None else {"api-version": self.version}
        found["resource"] = resource
        if identity is not None:
            found[self.ids[identity[0]]] = identity[1]
        return found


_IMDS_IDS: Final = MappingProxyType({"client_id": "client_id", "resource_id": "msi_res_id", "object_id": "object_id"})
_REQUESTS: Final[dict[IdentitySource, IdentityRequest]] = {
    # https://learn.microsoft.com/entra/identity/managed-identities-azure-resources/how-to-use-vm-token
    "imds": IdentityRequest(platform="a virtual machine", version="2018-02-01", ids=_IMDS_IDS),
    # https://learn.microsoft.com/azure/app-service/overview-managed-identity
    "app_service": IdentityRequest(
        platform="App Service",
        version="2019-08-01",
        ids=MappingProxyType({**_IMDS_IDS, "resource_id": "mi_res_id"}),
        header="x-identity-header",
    ),
    # https://learn.microsoft.com/azure/azure-arc/servers/managed-identity-authentication
    "azure_arc": IdentityRequest(platform="Azure Arc", version="2020-06-01", ids=_IMDS_IDS, challenges=True),
    # Also old versions of App Service. An endpoint that does not know a parameter would return the token of another
    # identity, so only the documented one is sent.
    "azure_ml": IdentityRequest(
        platform="Azure ML",
        version="2017-09-01",
        ids=MappingProxyType({"client_id": "clientid"}),
        header="secret",
    ),
    "cloud_shell": IdentityRequest(platform="Cloud Shell", version=None, ids=MappingProxyType({}), posts=True),
    # https://learn.microsoft.com/azure/service-fabric/how-to-managed-identity-service-fabric-app-code
    "service_fabric": IdentityRequest(
        platform="Service Fabric",
        version="2019-07-01-preview",
        ids=MappingProxyType({}),
        header="secret",
        pinned=True,
        of="the identity that the application's manifest gives this service",
    ),
}


@without_locals
def request_of(
    source: IdentitySource | None, *, endpoint: str | None, header: str | None, identity: tuple[str, str] | None
) -> IdentityRequest:
    """Return the form of a source's requests; None: App Service with a header, else a virtual machine.

    Raises:
        ConfigurationError: There is no such source, or another option of `ManagedIdentity` contradicts it.
    """
    if header is not None and endpoint is None:
        raise ConfigurationError("ManagedIdentity(identity_header=…) needs identity_endpoint=… with it.")
    if source is not None:
        checked_choice(source, option="ManagedIdentity(source=…)", choices=get_args(IdentitySource))
    named = source or ("imds" if header is None else "app_service")
    request = _REQUESTS[named]
    option = f'ManagedIdentity(source="{named}")'
    if endpoint is None and named != "imds":
        raise ConfigurationError(f"{option} needs identity_endpoint=…, or use ManagedIdentity.from_environment().")
    if header is None and request.header is not None:
        raise ConfigurationError(f"{option} needs identity_header=…, or use ManagedIdentity.from_environment().")
    if header is not None and request.header is None:
        raise ConfigurationError(f"{option} takes no identity_header, and would not send it: leave it out.")
    if identity is not None and identity[0] not in request.ids:
        fix = f"use {' or '.join(request.ids)}" if request.ids else f"leave it out, {request.of} is used"
        raise ConfigurationError(f"ManagedIdentity({identity[0]}=…): {request.platform} does not take it: {fix}.")
    return request


def user_assigned(ids: Mapping[str, str | None]) -> tuple[str, str] | None:
    """Return the option that names a user-assigned identity, and its value; None: none of `ids` does.

    Raises:
        ConfigurationError: More than one does.
    """
    given = [(name, value) for name, value in ids.items() if value is not None]
    if len(given) > 1:
        raise ConfigurationError(
            f"ManagedIdentity takes only one of {' and '.join(name for name, _ in given)}, each of which names an "
            f"identity: leave the others out."
        )
    return given[0] if given else None


def checked_endpoint(url: str, *, option: str, allow_http: bool) -> str:
    """Return the URL of an identity endpoint; plain HTTP is allowed to link-local addresses.

    Raises:
        ConfigurationError: As of `checked_token_url`.
    """
    # Routers do not forward packets to these addresses, so they stay between the machine and its host.
    near = isinstance(cast("object", url), str) and _is_link_local(read_url(url).host)
    return checked_token_url(url, option=option, allow_http=allow_http is True or near)


def confirms(identity: tuple[str, str] | None, fields: Mapping[str, object]) -> bool:
    """Return whether a response is for the user-assigned identity that was named.

    Old agents of Azure Arc do not know the parameter, and answer with the token of the machine's own identity.
    """
    if identity is None:
        return True
    option, value = identity
    answered = fields.get(_IMDS_IDS[option]) or fields.get("mi_res_id" if option == "resource_id" else option)
    return isinstance(answered, str) and answered.casefold() == value.casefold()


def _is_link_local(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_link_local
    except ValueError:
        return False
