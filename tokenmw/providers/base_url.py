"""The base URL of a platform with several clouds or private deployments."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tokenmw.errors import ConfigurationError
from tokenmw.providers.http import read_url
from tokenmw.providers.options import host_names
from tokenmw.providers.token_url import token_url

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["checked_base_url", "hosts_of"]


def checked_base_url(url: str, *, option: str, allow_http: bool) -> str:
    """Return a base URL in one spelling, without a slash at its end: it is a part of the credential.

    >>> checked_base_url("https://Open.Feishu.cn:443/", option="base_url", allow_http=False)
    'https://open.feishu.cn'

    Raises:
        ConfigurationError: It is no absolute https URL, or has user information, a query or a fragment.
    """
    parsed = read_url(token_url(url, option=option, allow_http=allow_http))
    if parsed.query:
        raise ConfigurationError(f"{option} holds a query (?…), which would come before the path: take it out.")
    path = parsed.raw_path.decode("ascii").removesuffix("?").rstrip("/")
    return f"{parsed.scheme}://{parsed.netloc.decode('ascii').lower()}{path}"


def hosts_of(hosts: Iterable[str] | None, *, base_url: str, option: str) -> frozenset[str]:
    """Return the hosts to which a token may be sent: those that were given, else the base URL's own.

    Raises:
        ConfigurationError: They are a lone `str`, empty, or hold something that is no host name.
    """
    return host_names(hosts, option=option) or frozenset({read_url(base_url).raw_host.decode("ascii")})
