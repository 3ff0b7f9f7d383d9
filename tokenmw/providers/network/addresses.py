"""Public addresses: those to which a URL chosen by someone else may lead (`allow_private=False`)."""

from __future__ import annotations

import re
import socket
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Final

from tokenmw.errors import ConfigurationError

__all__ = ["CLIENT_CERTIFICATE", "ONLY_PUBLIC", "check_public_host", "is_public"]

CLIENT_CERTIFICATE: Final = "tokenmw.client_certificate"
"""The extension of an HTTP request with the `ClientCertificate` of its connection, a `PinnedServer`, or None."""
ONLY_PUBLIC: Final = "tokenmw.only_public"
"""The extension of an HTTP request that must not reach a private address."""

# The IANA registries of special-purpose addresses, and multicast. Our own list, because `is_global` of the standard
# library has changed between Python's releases, and counts some of these as global.
_SPECIAL_IPV4: Final = tuple(
    ip_network(network)
    for network in (
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",  # carrier-grade NAT; Alibaba Cloud's metadata
        "127.0.0.0/8",
        "168.63.129.16/32",  # Azure's host, which gives out certificates: not special by registry
        "169.254.0.0/16",  # link-local; metadata of most clouds
        "172.16.0.0/12",
        "192.0.0.0/24",  # Oracle Cloud's metadata, among others
        "192.0.2.0/24",
        "192.88.99.0/24",
        "192.168.0.0/16",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/4",
        "240.0.0.0/4",
    )
)
# All else is loopback, link-local, unique local (AWS's metadata), multicast, reserved, or embeds an IPv4 address.
_GLOBAL_IPV6: Final = ip_network("2000::/3")
_SPECIAL_IPV6: Final = tuple(
    ip_network(network)
    for network in (
        "2001::/23",  # protocol assignments; Teredo embeds an IPv4 address
        "2001:db8::/32",
        "2002::/16",  # 6to4 embeds an IPv4 address
        "3fff::/20",
    )
)
_NAT64: Final = ip_network("64:ff9b::/96")

# What `inet_aton` takes for an IPv4 address, and with it every resolver: 127.1, 0x7f.0.0.1, 0177.1, 2130706433.
_INET_ATON: Final = re.compile(r"(0x[0-9a-f]*|[0-9]+)(\.(0x[0-9a-f]*|[0-9]+)){0,3}", re.ASCII)


def is_public(address: str) -> bool:
    """Return whether an IP address is one of the public internet.

    False also for text that is no IP address, and for IPv6 addresses with an IPv4 address inside (mapped, 6to4,
    Teredo). One behind the NAT64 prefix of RFC 6052 is judged by its IPv4 address, because in networks with DNS64 every
    name has one.
    """
    try:
        parsed = ip_address(address.partition("%")[0])
    except ValueError:
        return False
    if isinstance(parsed, IPv6Address) and parsed in _NAT64:
        parsed = IPv4Address(parsed.packed[-4:])
    if isinstance(parsed, IPv4Address):
        return not any(parsed in network for network in _SPECIAL_IPV4)
    return parsed in _GLOBAL_IPV6 and not any(parsed in network for network in _SPECIAL_IPV6)


def check_public_host(host: str, *, option: str) -> None:
    """Raise if a URL's host is a private address in any spelling, or a name of this machine.

    Other names are resolved when a request connects, and their addresses are checked then.

    Raises:
        ConfigurationError: The text names the option and the fix.
    """
    name = host.lower().rstrip(".")
    if name == "localhost" or name.endswith(".localhost") or not name:
        private = True
    elif ":" in name:
        private = not is_public(name)
    else:
        private = _INET_ATON.fullmatch(name) is not None and not is_public(_as_resolvers_read(name))
    if private:
        raise ConfigurationError(
            f"{option} leads to a private address or to this machine, which allow_private=False refuses: use a public "
            "host, or allow_private=True if the URL is your own."
        )


def _as_resolvers_read(name: str) -> str:
    try:
        return socket.inet_ntoa(socket.inet_aton(name))
    except OSError:
        return ""  # too large a number: no resolver accepts it
