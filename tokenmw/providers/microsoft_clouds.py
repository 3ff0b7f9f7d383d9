"""Microsoft's clouds: where each has its login, its Graph and its Bot Connector."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, Literal, get_args
from urllib.parse import urlsplit

from tokenmw.errors import ConfigurationError

__all__ = ["Cloud", "CloudHosts", "checked_tenant", "cloud_of", "hosts_of_resource"]

Cloud = Literal["public", "usgov", "usdod", "china"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CloudHosts:
    """One cloud.

    Attributes:
        login: The host of its token endpoints.
        graph: The host of Microsoft Graph.
        bot_tenant: The tenant of bots that are not of a single tenant.
        bot_scope: What a bot asks for.
        bot_hosts: Where a bot sends its messages: the hosts that a `serviceUrl` may name.
    """

    login: str
    graph: str
    bot_tenant: str
    bot_scope: str
    bot_hosts: frozenset[str]


_CLOUDS: Final[dict[Cloud, CloudHosts]] = {
    "public": CloudHosts(
        login="login.microsoftonline.com",
        graph="graph.microsoft.com",
        bot_tenant="botframework.com",
        bot_scope="https://api.botframework.com/.default",
        # Anybody can have a name under trafficmanager.net, so there it is the whole one.
        bot_hosts=frozenset({".botframework.com", "smba.trafficmanager.net", "smba.infra.gcc.teams.microsoft.com"}),
    ),
    "usgov": CloudHosts(
        login="login.microsoftonline.us",
        graph="graph.microsoft.us",
        bot_tenant="MicrosoftServices.onmicrosoft.us",
        bot_scope="https://api.botframework.us/.default",
        bot_hosts=frozenset({".botframework.azure.us", ".botframework.us", "smba.infra.gov.teams.microsoft.us"}),
    ),
    "usdod": CloudHosts(
        login="login.microsoftonline.us",
        graph="dod-graph.microsoft.us",
        bot_tenant="MicrosoftServices.onmicrosoft.us",
        bot_scope="https://api.botframework.us/.default",
        bot_hosts=frozenset({".botframework.azure.us", ".botframework.us", "smba.infra.dod.teams.microsoft.us"}),
    ),
    "china": CloudHosts(
        login="login.partner.microsoftonline.cn",
        graph="microsoftgraph.chinacloudapi.cn",
        bot_tenant="microsoftservices.partner.onmschina.cn",
        bot_scope="https://api.botframework.azure.cn/.default",
        bot_hosts=frozenset({".botframework.azure.cn"}),
    ),
}
_OF_NO_TENANT: Final = frozenset({"common", "organizations", "consumers"})
_TENANT: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]{0,253}", re.ASCII)


def cloud_of(name: Cloud, *, option: str) -> CloudHosts:
    """Return a cloud by its name.

    Raises:
        ConfigurationError: There is none of that name.
    """
    if name not in get_args(Cloud):
        raise ConfigurationError(f"{option} must be one of {', '.join(get_args(Cloud))}.")
    return _CLOUDS[name]


def checked_tenant(tenant: str, *, option: str) -> str:
    """Return a tenant, by its id or by one of its domains, in lower case.

    Raises:
        ConfigurationError: It is none, or stands for "whoever signs in" (`common`, `organizations`, `consumers`).
    """
    named = tenant.lower() if isinstance(tenant, str) else ""
    if named in _OF_NO_TENANT:
        raise ConfigurationError(
            f"{option} is {named!r}, which lets the user who signs in decide the tenant. Here nobody signs in, so the "
            f"token endpoint refuses it (AADSTS50059): give the tenant's id or domain."
        )
    if not _TENANT.fullmatch(named):
        raise ConfigurationError(f'{option} must be a tenant\'s id or domain, such as "contoso.onmicrosoft.com".')
    return named


def hosts_of_resource(resource: str) -> frozenset[str] | None:
    """Return the hosts to which the token of a resource may go; None where the resource does not tell.

    Graph's are known, and those of bots. The address of other resources is seldom that of their API.
    """
    host = urlsplit(resource).hostname or ""
    for cloud in _CLOUDS.values():
        if host == cloud.graph:
            return frozenset({cloud.graph})
        if host == urlsplit(cloud.bot_scope).hostname:
            return frozenset(
                host for one in _CLOUDS.values() if one.bot_scope == cloud.bot_scope for host in one.bot_hosts
            )
    return None
