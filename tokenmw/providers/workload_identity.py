"""AKS workload identity: a pod's service account signs in to Entra as an app, by variables and a file of the pod."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from tokenmw.errors import ConfigurationError
from tokenmw.providers.microsoft_clouds import Cloud, cloud_of, cloud_of_login
from tokenmw.providers.secret_sources import FileSecret
from tokenmw.providers.urls import checked_base_url

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["TOKEN_FILE", "workload_options"]

TOKEN_FILE: Final = "AZURE_FEDERATED_TOKEN_FILE"
"""The variable that AKS sets in a pod with a workload identity."""
_TENANT: Final = "AZURE_TENANT_ID"
_CLIENT: Final = "AZURE_CLIENT_ID"
_AUTHORITY: Final = "AZURE_AUTHORITY_HOST"


def workload_options(
    environ: Mapping[str, str],
    *,
    name: str,
    id_option: str,
    client_id: str | None,
    cloud: Cloud | None,
    allow_http: bool,
) -> dict[str, Any]:
    """Return the options of `Entra` that the variables of a pod stand for.

    Args:
        environ: The environment variables.
        name: The provider's class name, for error texts.
        id_option: The provider's option for the app's id.
        client_id: The app's id in place of `AZURE_CLIENT_ID`; None: the variable's.
        cloud: The national cloud; None: that of `AZURE_AUTHORITY_HOST`.
        allow_http: Whether that host may be another machine without TLS.

    Raises:
        ConfigurationError: A variable is not set, or contradicts an option.
    """
    found = {_TENANT: environ.get(_TENANT), _CLIENT: client_id or environ.get(_CLIENT)}
    found[TOKEN_FILE] = environ.get(TOKEN_FILE)
    missing = [variable for variable, value in found.items() if not value]
    if missing:
        raise ConfigurationError(
            f"{name}.from_environment(): {', '.join(missing)} not set. AKS sets it in pods with the label "
            f'azure.workload.identity/use: "true", whose service account has the annotation '
            f"azure.workload.identity/client-id. Elsewhere, use {name}(tenant=…, {id_option}=…)."
        )
    return {
        "tenant": found[_TENANT],
        id_option: found[_CLIENT],
        # Read at each fetch: Kubernetes replaces the token long before it expires.
        "client_assertion": FileSecret(str(found[TOKEN_FILE])),
        **_login(environ.get(_AUTHORITY), name=name, cloud=cloud, allow_http=allow_http),
    }


def _login(authority: str | None, *, name: str, cloud: Cloud | None, allow_http: bool) -> dict[str, str]:
    """Return the option `cloud`, or `base_url` for a login host that belongs to no cloud."""
    chosen = None if cloud is None else cloud_of(cloud, option=f"{name}.from_environment(cloud=…)")
    if not authority:
        return {"cloud": cloud or "public"}
    url = authority if "://" in authority else f"https://{authority}"
    host = _plain_host(url)
    if cloud is not None and chosen is not None:
        if host != chosen.login:
            raise ConfigurationError(
                f"{name}.from_environment(cloud=…): {_AUTHORITY} names another login host than {chosen.login}, which "
                f"belongs to cloud={cloud!r}: leave out cloud, or set the variable to https://{chosen.login}/."
            )
        return {"cloud": cloud}
    of_login = cloud_of_login(host)
    if of_login is not None:
        return {"cloud": of_login}
    return {"base_url": checked_base_url(url, option=f"The variable {_AUTHORITY}", allow_http=allow_http)}


def _plain_host(url: str) -> str:
    """Return the host of an https URL that has nothing else, or ""."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return ""
    plain = parts.scheme == "https" and port in (None, 443) and parts.path in ("", "/") and not parts.query
    return (parts.hostname or "") if plain else ""
