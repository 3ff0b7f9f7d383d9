"""Which endpoint gives this process its managed identity, by the variables that Azure's platforms set."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from tokenmw.errors import ConfigurationError
from tokenmw.providers.workload_identity import TOKEN_FILE
from tokenmw.redaction import HiddenStr, Unpicklable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tokenmw.providers.identity_sources import IdentitySource

__all__ = ["THUMBPRINT", "IdentityEnvironment", "identity_environment"]

_ENDPOINT: Final = "IDENTITY_ENDPOINT"
_HEADER: Final = "IDENTITY_HEADER"
THUMBPRINT: Final = "IDENTITY_SERVER_THUMBPRINT"
"""The variable by which Service Fabric names its endpoint's certificate."""
_OLD_ENDPOINT: Final = "MSI_ENDPOINT"
_OLD_SECRET: Final = "MSI_SECRET"


@dataclass(frozen=True, slots=True, kw_only=True)
class IdentityEnvironment(Unpicklable):
    """Where the environment says that tokens come from.

    Attributes:
        source: The source; `"workload"`: Entra, with the token of a Kubernetes service account.
        endpoint: The endpoint's URL; None: the source has no other one.
        header: The secret that belongs to it.
        thumbprint: The thumbprint of its certificate, if only that verifies it.
        variable: The variable that has the URL, for error texts.
    """

    source: IdentitySource | Literal["workload"]
    endpoint: str | None = None
    header: HiddenStr | None = None
    thumbprint: str | None = None
    variable: str = ""


def identity_environment(environ: Mapping[str, str]) -> IdentityEnvironment:
    """Return the source that the environment names, in the order of Microsoft's own library; empty is not set.

    Raises:
        ConfigurationError: No platform sets these variables like this.
    """
    endpoint, header = environ.get(_ENDPOINT), environ.get(_HEADER)
    if endpoint:
        return _with_endpoint(endpoint, header, environ)
    old = environ.get(_OLD_ENDPOINT)
    if old:
        secret = environ.get(_OLD_SECRET)
        if secret:
            return IdentityEnvironment(
                source="azure_ml", endpoint=old, header=HiddenStr(secret), variable=_OLD_ENDPOINT
            )
        return IdentityEnvironment(source="cloud_shell", endpoint=old, variable=_OLD_ENDPOINT)
    if environ.get(TOKEN_FILE):
        return IdentityEnvironment(source="workload")
    # Not IMDS: the endpoint of the machine below a container would answer for another identity.
    for secret_name, endpoint_name in ((_HEADER, _ENDPOINT), (_OLD_SECRET, _OLD_ENDPOINT)):
        if environ.get(secret_name):
            raise ConfigurationError(
                f"ManagedIdentity.from_environment(): {secret_name} is set and {endpoint_name} is not; a platform sets "
                f"both: pass {endpoint_name} on to this process, or unset {secret_name}."
            )
    return IdentityEnvironment(source="imds")


def _with_endpoint(endpoint: str, header: str | None, environ: Mapping[str, str]) -> IdentityEnvironment:
    if not header:
        if environ.get("IMDS_ENDPOINT"):
            return IdentityEnvironment(source="azure_arc", endpoint=endpoint, variable=_ENDPOINT)
        raise ConfigurationError(
            f"ManagedIdentity.from_environment(): {_ENDPOINT} is set, and neither {_HEADER} (App Service) nor "
            f"IMDS_ENDPOINT (Azure Arc) is: pass them on to this process, or unset {_ENDPOINT}."
        )
    thumbprint = environ.get(THUMBPRINT)
    return IdentityEnvironment(
        source="service_fabric" if thumbprint else "app_service",
        endpoint=endpoint,
        header=HiddenStr(header),
        thumbprint=thumbprint or None,
        variable=_ENDPOINT,
    )
