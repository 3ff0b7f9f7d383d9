"""Microsoft's national clouds: the hosts of the login, of Graph and of the Bot Connector in each."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, Literal, get_args
from urllib.parse import urlsplit

from tokenmw.errors import ConfigurationError
from tokenmw.providers.urls import checked_base_url, host_of

__all__ = ["Cloud", "CloudHosts", "checked_login", "checked_tenant", "cloud_of", "cloud_of_login", "hosts_of_resource"]

Cloud = Literal["public", "usgov", "usdod", "china"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CloudHosts:
    """The hosts of one cloud.

    Attributes:
        login: The host of its token endpoints.
        graph: The host of Microsoft Graph.
        bot_tenant: The tenant of multi-tenant bots.
        bot_scope: The scope that a bot requests.
        bot_hosts: The hosts that a `serviceUrl` may name, to which a bot sends its messages.
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
        # Anyone can register a name below trafficmanager.net, so only the whole name is trusted.
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
_NO_TENANT: Final = frozenset({"common", "organizations", "consumers"})
_TENANT: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]{0,253}", re.ASCII)


def cloud_of(name: Cloud, *, option: str) -> CloudHosts:
    """Return the hosts of a cloud.

    Raises:
        ConfigurationError: There is no cloud of that name.
    """
    if name not in get_args(Cloud):
        raise ConfigurationError(f"{option} must be one of {', '.join(get_args(Cloud))}.")
    return _CLOUDS[name]


def cloud_of_login(host: str) -> Cloud | None:
    """Return the cloud of a login host; of two that share it, the first one; None: it belongs to no cloud."""
    return next((name for name, cloud in _CLOUDS.items() if cloud.login == host), None)


def checked_login(cloud: Cloud, base_url: str | None, *, provider: str, allow_http: bool) -> str:
    """Return the URL of the login host: that of a cloud, or `base_url`, such as a test server in its place.

    Raises:
        ConfigurationError: `base_url` cannot be used, or is the login host of another cloud, whose tokens the APIs of
            this one do not accept.
    """
    own = cloud_of(cloud, option=f"{provider}(cloud=…)").login
    if base_url is None:
        return f"https://{own}"
    login = checked_base_url(base_url, option=f"{provider}(base_url=…)", allow_http=allow_http)
    other = cloud_of_login(host_of(login))
    if other is not None and urlsplit(login).path:
        raise ConfigurationError(f"{provider}(base_url=…) has a path, which begins with tenant=…: leave the path out.")
    if other is not None and _CLOUDS[other].login != own:
        raise ConfigurationError(
            f'{provider}(base_url=…) is the login host of cloud="{other}", and cloud is "{cloud}", which decides the '
            f'default scope and hosts: give cloud="{other}" alone.'
        )
    return login


def checked_tenant(tenant: str, *, option: str) -> str:
    """Return a tenant's id or domain in lower case.

    An app that acts for its callers needs one as well: a tenant's keys have signed their tokens.

    Raises:
        ConfigurationError: The text is neither, or it leaves the tenant to the user who signs in (`common`,
            `organizations`, `consumers`).
    """
    named = tenant.lower() if isinstance(tenant, str) else ""
    if named in _NO_TENANT:
        raise ConfigurationError(
            f"{option} is {named!r}, which leaves the tenant to the user who signs in. No user signs in here, so the "
            f"token endpoint refuses it (AADSTS50059): give the tenant's id or domain."
        )
    if not _TENANT.fullmatch(named):
        raise ConfigurationError(f'{option} must be a tenant\'s id or domain, such as "contoso.onmicrosoft.com".')
    return named


def hosts_of_resource(resource: str) -> frozenset[str] | None:
    """Return the hosts to which a resource's token may be sent, or None for no restriction.

    The hosts of Graph and of the bots' channels are known. For other resources the URI seldom names the API's host.
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
