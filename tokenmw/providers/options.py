"""Options that providers have in common, checked when a provider is made."""

from __future__ import annotations

import inspect
import ipaddress
import re
from typing import TYPE_CHECKING, Any, Final, cast

from tokenmw.errors import ConfigurationError, CredentialRejected, TokenUnavailable
from tokenmw.observe.error_place import place_of
from tokenmw.options import optional_seconds
from tokenmw.providers.base import Provider
from tokenmw.providers.http import ascii_host

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

__all__ = [
    "call_credential",
    "check_provider",
    "host_names",
    "is_host",
    "is_loopback",
]

_HOST: Final = re.compile(r"[a-z0-9_]([a-z0-9._-]*[a-z0-9_.])?", re.ASCII)


def host_names(hosts: Iterable[str] | None, *, option: str) -> frozenset[str] | None:
    """Return the hosts to which a token may be sent, as they are on the wire; None: wherever the auth object is used.

    Raises:
        ConfigurationError: It is a lone `str`, is empty, or holds something that is no host name.
    """
    if hosts is None:
        return None
    mend = f'{option} must be a list of host names, such as ["api.example"], or None for no restriction'
    if isinstance(hosts, (str, bytes)):
        raise ConfigurationError(f"{mend}; a lone {type(hosts).__name__} would be read letter by letter.")
    try:
        names = list[Any](hosts)
    except TypeError:
        names = []
    found = [_on_the_wire(name) if isinstance(name, str) else "" for name in names]
    if not found or not all(found):
        raise ConfigurationError(f"{mend}; without scheme, port and path.")
    return frozenset(found)


def check_provider(provider: Provider) -> None:
    """Check what a provider's class or `__init__` has set, also one that is not of this package.

    Raises:
        ConfigurationError: Something cannot work; the text names the class and the attribute.
    """
    name = type(provider).__name__
    for option in ("hosts", "refresh_before", "renewal_window", "scheme", "exclusive", "shareable"):
        if not hasattr(provider, option):
            raise ConfigurationError(f"{name} names {option} in __slots__ and never sets it in __init__.")
    if (allow_http := cast("object", provider.allow_http)) is not True and allow_http is not False:
        raise ConfigurationError(f"{name}.allow_http must be True or False, not {type(allow_http).__name__}.")
    hosts: object = provider.hosts
    if isinstance(hosts, str):
        host_names(hosts, option=f"{name}.hosts")
    optional_seconds(provider.refresh_before, option=f"{name}.refresh_before")
    if provider.renewal_window != 0:
        optional_seconds(provider.renewal_window, option=f"{name}.renewal_window")
    scheme: object = provider.scheme
    if scheme is not None and not (isinstance(scheme, str) and scheme.isascii() and scheme.replace("-", "").isalnum()):
        raise ConfigurationError(f"{name}.scheme must be one word, such as Bearer, or None.")
    _check_methods(provider, name=name)


def _check_methods(provider: Provider, *, name: str) -> None:
    if type(provider).fetch is Provider.fetch:
        raise ConfigurationError(f'{name} has no fetch: README, "Writing a provider", shows one.')
    if not inspect.iscoroutinefunction(provider.fetch):
        raise ConfigurationError(f"{name}.fetch must be an `async def`.")
    for method in ("authorize", "is_rejected"):
        # Nobody awaits it: a request would go without a token, or each good answer count as a rejection.
        if inspect.iscoroutinefunction(getattr(provider, method)):
            raise ConfigurationError(f"{name}.{method} must be a plain `def`, not an `async def`.")
    _ = provider.credential  # it checks what `identity` gives


def is_host(name: str) -> bool:
    """Return whether a text is the name or the address of a host, as it is on the wire; IPv6 without brackets."""
    if ":" not in name:
        return _HOST.fullmatch(name) is not None
    try:
        return ipaddress.IPv6Address(name).scope_id is None
    except ValueError:
        return False


def is_loopback(host: str) -> bool:
    """Return whether a host is this machine, by its name or address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _on_the_wire(name: str) -> str:
    # A leading dot stands for all names below it.
    dot = "." if name.startswith(".") else ""
    host = ascii_host(name.removeprefix("."))
    return f"{dot}{host}" if is_host(host) and not (dot and ":" in host) else ""


async def call_credential(function: Callable[[], Any], *, option: str) -> Any:
    """Call a credential that is a function, sync or async, and return what it gives.

    Raises:
        TokenUnavailable: The function raised. The text has only the kind of error, and the error is not
            chained: it may hold the key that the function works with.
        CredentialRejected: The function raised it itself; its own `TokenUnavailable` passes as well.
    """
    try:
        result = function()
        return await result if inspect.isawaitable(result) else result
    except (CredentialRejected, TokenUnavailable):
        raise
    except Exception as error:  # noqa: BLE001  whatever a user's function raises, a request must get our error
        kind, place = type(error).__name__, place_of(error, called=function)
    raise TokenUnavailable(f"{option} raised {kind}: call the function by itself to see why").at(place)
