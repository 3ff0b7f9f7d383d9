"""URLs and host names: where secrets and tokens may be sent."""

from __future__ import annotations

import ipaddress
import re
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, cast
from urllib.parse import parse_qsl, urlsplit

from tokenmw.errors import ConfigurationError
from tokenmw.providers.http import ascii_host, read_url
from tokenmw.providers.network.addresses import check_public_host

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["checked_base_url", "checked_hosts", "checked_private", "checked_token_url", "host_of", "is_loopback"]

_MAX_CHARACTERS: Final = 8_000  # of a URL; every proxy must be able to pass on as much (RFC 9110 §4.1)
# Of each check, so that a provider that is made in each request costs no second one. What is refused is not kept.
_MAX_CACHED: Final = 512
_SECRETS: Final = ("secret", "password", "passwd", "assertion", "accesstoken", "refreshtoken")  # parts of names
_MAX_LABEL: Final = 63  # characters between two dots of a host name (RFC 1035 §2.3.4)
_HOST: Final = re.compile(r"[a-z0-9_]([a-z0-9._-]*[a-z0-9_.])?", re.ASCII)


def checked_token_url(url: str, *, option: str, allow_http: bool) -> str:
    """Return the URL of a token endpoint if secrets may be sent there (RFC 6749 §3.2).

    Args:
        url: The URL that the user gave.
        option: The option's name for error texts, such as `"ClientCredentials(token_url=…)"`.
        allow_http: Whether plain HTTP is allowed to hosts other than this machine.

    Raises:
        ConfigurationError: The URL is not an absolute https URL, has blanks, user information, a fragment or a secret
            in its query, or an impossible host or port. The text names the option and the fix. It never repeats the
            URL, which may hold a password.
    """
    if not isinstance(cast("object", url), str):
        raise ConfigurationError(f"{option} must be a str, not {type(url).__name__}.")
    # `is True`: the text "false" of an environment variable is true.
    return _checked_url(str(url), option=option, allow_http=allow_http is True)


@lru_cache(_MAX_CACHED)
def _checked_url(url: str, *, option: str, allow_http: bool) -> str:
    if url != url.strip():
        raise ConfigurationError(
            f"{option} has a blank or line break before or after it, perhaps from the file it is read from: strip() it."
        )
    if " " in url:
        raise ConfigurationError(f"{option} has a space in it: remove it, or write %20 if it belongs there.")
    parsed = read_url(url)
    if parsed.scheme not in ("http", "https") or len(url) > _MAX_CHARACTERS:
        raise ConfigurationError(
            f"{option} must be an absolute URL of at most {_MAX_CHARACTERS} characters, such as "
            f'"https://idp.example/token".'
        )
    if parsed.userinfo or "@" in url.partition("//")[2].partition("/")[0].partition("?")[0].partition("#")[0]:
        raise ConfigurationError(
            f"{option} has a user name or password before the host: remove it, and pass credentials in their own "
            f"options."
        )
    if parsed.fragment:
        raise ConfigurationError(f"{option} has a fragment (#…), which is never sent: remove it.")
    secret = next((part for name in _query_names(parsed) for part in _SECRETS if part in name), None)
    if secret is not None:
        raise ConfigurationError(
            f"{option} has a parameter in its query that looks like a secret ({secret}), and proxies log URLs: remove "
            f"it, and pass the secret in its own option."
        )
    if not _has_valid_host(url, parsed):
        raise ConfigurationError(
            f"{option} has an invalid host or port: use a host name or an IP address, and a port from 1 to 65535."
        )
    if parsed.scheme == "http" and not allow_http and not is_loopback(parsed.host):
        raise ConfigurationError(
            f"{option} would send the credential without TLS: use https://, or pass allow_http=True "
            f"if you trust the network between."
        )
    return url


def checked_base_url(url: str, *, option: str, allow_http: bool) -> str:
    """Return a platform's base URL in one spelling, without a trailing slash, because it is part of the credential.

    >>> checked_base_url("https://Open.Feishu.cn:443/", option="base_url", allow_http=False)
    'https://open.feishu.cn'

    Raises:
        ConfigurationError: The URL has a query, or :func:`checked_token_url` refuses it.
    """
    return _in_one_spelling(checked_token_url(url, option=option, allow_http=allow_http), option=option)


@lru_cache(_MAX_CACHED)
def _in_one_spelling(url: str, *, option: str) -> str:
    scheme, _, rest = url.partition(":")
    parsed = read_url(f"{scheme.lower()}:{rest}")  # httpx drops the default port only after a scheme in lower case
    if parsed.query:
        raise ConfigurationError(f"{option} has a query (?…), which would stand before the path: remove it.")
    path = parsed.raw_path.decode("ascii").removesuffix("?").rstrip("/")
    return f"{parsed.scheme}://{parsed.netloc.decode('ascii').lower()}{path}"


def checked_hosts(hosts: Iterable[str] | None, *, option: str) -> frozenset[str] | None:
    """Return the hosts to which a token may be sent, as they are written on the wire; None: no restriction.

    Raises:
        ConfigurationError: The value is a lone `str`, is empty, or holds an item that is not a host name; the text has
            the index of the item. An item that begins with a dot must be a domain, not a part of an address. A dot at
            the end is refused, because requests are compared without one.
    """
    if hosts is None:
        return None
    fix = f'{option} must be a list of host names, such as ["api.example"], or None for no restriction'
    if isinstance(hosts, (str, bytes)):
        raise ConfigurationError(f"{fix}; a lone {type(hosts).__name__} would be read letter by letter.")
    try:
        names = list[Any](hosts)
    except TypeError:
        raise ConfigurationError(f"{fix}, not {type(hosts).__name__}.") from None
    if not names:
        raise ConfigurationError(f"{fix}; an empty list would keep the token from every host.")
    plain = all(type(name) is str for name in names)
    return (_hosts_of if plain else _hosts_of.__wrapped__)(tuple(names), fix=fix)


@lru_cache(_MAX_CACHED)
def _hosts_of(names: tuple[object, ...], *, fix: str) -> frozenset[str]:
    found: set[str] = set()
    for index, name in enumerate(names):
        host = _on_the_wire(name) if isinstance(name, str) else ""
        if not host or host.endswith("."):
            raise ConfigurationError(f"{fix}. hosts[{index}]{_fix_of_host(name)}")
        found.add(host)
    return frozenset(found)


def _fix_of_host(name: object) -> str:
    """Return what is wrong with an item of `hosts`. It is shown only if it is a host name with a wildcard."""
    if not isinstance(name, str):
        return f" is of type {type(name).__name__}: it must be text."
    domain = name.removeprefix("*")
    if name.startswith("*.") and _on_the_wire(domain):
        return f': for all names below a domain, write "{_on_the_wire(domain)}" instead of "*{_on_the_wire(domain)}".'
    if name != name.strip():
        return " has a blank or line break before or after it: strip() it."
    if name.strip(".*") == "":
        return " has no name: for every host, leave the option out."
    if name.startswith("."):
        return (
            " begins with a dot, so it must have the name of a domain behind it, not a part of an address, and must "
            "not end with a dot."
        )
    ends_with_dot = " ends with a dot: leave it out, because requests are compared without one."
    return ends_with_dot if _on_the_wire(name) else " is not a host name: write it without scheme, port and path."


def checked_private(allow_private: bool, *, url: str, option: str) -> bool:  # noqa: FBT001  the value is the option
    """Return `allow_private`, after a check of the URL's host where it is False.

    Raises:
        ConfigurationError: The host is a private address or this machine, which the option refuses.
    """
    # `is not True`, as with allow_http: every other value refuses.
    if allow_private is not True:
        check_public_host(host_of(url), option=option)
    return allow_private is True


@lru_cache(_MAX_CACHED)
def host_of(url: str) -> str:
    """Return the host of a checked URL as it is written on the wire; an IPv6 address has no brackets."""
    return read_url(url).raw_host.decode("ascii")


def is_loopback(host: str) -> bool:
    """Return whether a host name or address is this machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _has_valid_host(url: str, parsed: Any) -> bool:
    # Two parsers must agree: where they differ, a proxy could send the request to another host.
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return False
    if port == 0 or parts.netloc.endswith(":"):
        return False
    host = ascii_host(parts.hostname or "")
    return _is_host(host) and host == parsed.raw_host.decode("ascii").lower()


def _query_names(parsed: Any) -> list[str]:
    """Return the names of a URL's query parameters, in lower case and without hyphens and underscores."""
    return [re.sub("[-_]", "", name.lower()) for name, _ in parse_qsl(parsed.query.decode("ascii", "replace"))]


def _is_host(name: str) -> bool:
    """Return whether a text is a host name or an IP address as on the wire; IPv6 without brackets."""
    if ":" not in name:
        labels = name.removesuffix(".").split(".")
        return _HOST.fullmatch(name) is not None and all(0 < len(label) <= _MAX_LABEL for label in labels)
    try:
        return ipaddress.IPv6Address(name).scope_id is None
    except ValueError:
        return False


def _on_the_wire(name: str) -> str:
    # A leading dot stands for every name below the domain.
    dot = "." if name.startswith(".") else ""
    host = ascii_host(name.removeprefix("."))
    # An address has no names below it: ".0.0.1" would be a part of 127.0.0.1. No top-level domain is a number.
    # With a dot behind it, nothing would match it: names below a domain are compared without one.
    is_domain = ":" not in host and not host.endswith(".") and not host.rpartition(".")[2].isdecimal()
    return f"{dot}{host}" if _is_host(host) and (is_domain or not dot) else ""
