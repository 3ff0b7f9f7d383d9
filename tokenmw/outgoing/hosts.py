"""Where a token may go: the provider's hosts, over TLS, and after a redirect only to a port that was named."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from tokenmw.errors import ConfigurationError
from tokenmw.observe.throttle import warn
from tokenmw.providers.base import Provider
from tokenmw.providers.http import ascii_host
from tokenmw.providers.urls import is_loopback

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["WithheldTokens", "may_receive_token", "may_receive_token_after_redirect"]

# A name that DNS can hold (RFC 1123 §2.1; underscores are common). A client also accepts hosts such as
# `evil.example\.api.example`, which another parser on the way may read as `evil.example`.
_LABEL: Final = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_HOST_NAME: Final = re.compile(rf"(?:{_LABEL}\.)+(?!(?:[0-9]+|0x[0-9a-f]*)\Z){_LABEL}", re.ASCII)
_MAX_HOST_NAME: Final = 253  # characters
_WITH_TLS: Final = frozenset({"https", "wss"})

_WITHHELD: Final = (
    "Requests to %s are sent without the token of %s, because its hosts do not include this host; add it to hosts=[…] "
    "of the provider if it may receive the token."
)
_MAX_WITHHELD: Final = 8  # log lines of one provider; hosts may come from callers
_MAX_SHOWN: Final = 100  # characters of a host in a log line


def may_receive_token(url: Any, *, provider: Provider) -> bool:
    """Return whether a provider's token may be sent to a URL. Called before a token is fetched.

    Raises:
        ConfigurationError: The host is the provider's, but the request would go there without TLS.
    """
    if provider.hosts is not None and not _is_one_of(provider.hosts, host_of(url)):
        return False
    if url.scheme not in _WITH_TLS and not _allows_plain_http(provider, url):
        raise ConfigurationError(
            f"The token of {type(provider).__name__} is not sent to {host_of(url)} without TLS: use https://, "
            f"or give the provider allow_http=True if the network between is trusted."
        )
    return True


def may_receive_token_after_redirect(url: Any, *, start: Any, provider: Provider) -> bool:
    """Return whether a redirect from `start` leads to a URL that may receive the token.

    It must be a host of the provider's, or without `hosts` the first host. Its port must be the default one, or that of
    the first request on the same host. A redirect from TLS to plain HTTP never gets the token.
    """
    host, is_same_host = host_of(url), host_of(url) == host_of(start)
    if not (is_same_host if provider.hosts is None else _is_one_of(provider.hosts, host)):
        return False
    if url.port is not None and not (is_same_host and url.port == start.port):
        return False
    return url.scheme in _WITH_TLS or (start.scheme not in _WITH_TLS and _allows_plain_http(provider, url))


class WithheldTokens:
    """Logs once that a request went to a host outside the provider's `hosts`, and so without a token.

    At most 8 lines for each name of a provider: a program may take hosts from its callers. The number of names is the
    program's, so one provider's lines leave those of the others.
    """

    __slots__ = ("_logged",)

    def __init__(self) -> None:
        self._logged: dict[str, set[str]] = {}

    def of(self, provider: str | Provider) -> Callable[[Any], None]:
        """Return a function that logs a URL to which a provider's token was not sent."""
        name = provider.kind if isinstance(provider, Provider) else provider

        def withheld(url: Any) -> None:
            host = host_of(url)[:_MAX_SHOWN]
            logged = self._logged.setdefault(name, set())
            if host not in logged and len(logged) < _MAX_WITHHELD:
                logged.add(host)
                warn(f"hosts:{name}", _WITHHELD % (host, name))

        return withheld


def host_of(url: Any) -> str:
    """Return the host of an httpx or httpx2 URL in lower case, as it is written on the wire."""
    # Not `url.host`: it decodes internationalised names, and raises for some that cannot be decoded.
    host: bytes = url.raw_host
    return host.decode("ascii").lower()


def _allows_plain_http(provider: Provider, url: Any) -> bool:
    return provider.allow_http or is_loopback(host_of(url))


def _is_one_of(hosts: frozenset[str], host: str) -> bool:
    if host in hosts and not host.startswith("."):
        return True
    # A provider class of the user's own may name hosts that are not in their ASCII form.
    return any(
        _is_below(host, ascii_host(name[1:])) if name.startswith(".") else host == ascii_host(name) for name in hosts
    )


def _is_below(host: str, domain: str) -> bool:
    """Return whether a host is a DNS name below a domain; an address is below none."""
    return (
        domain != ""
        and host.endswith(f".{domain}")
        and len(host) <= _MAX_HOST_NAME
        and _HOST_NAME.fullmatch(host) is not None
    )
