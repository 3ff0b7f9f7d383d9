"""`HTTPOptions`: what the client that a broker makes for itself trusts and uses."""

from __future__ import annotations

import os
import ssl
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.request import getproxies_environment

import httpx

from tokenmw.errors import ConfigurationError
from tokenmw.options import checked_flag
from tokenmw.redaction import FrozenValue, HiddenStr, without_locals

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["HTTPOptions"]

_SCHEMES: Final = ("http", "https")


class HTTPOptions(FrozenValue):
    """Options of the HTTP client that a broker makes for itself, given as `TokenBroker(http=HTTPOptions(…))`.

    Files and variables are read here, so that a mistake is found when the program starts; `NO_PROXY` is read for each
    request.

    >>> HTTPOptions(trust_env=True)
    <HTTPOptions>

    Args:
        ca_file: A PEM file of certificate authorities to trust beside the public ones, such as that of a company's
            own authority. Default: the public ones only.
        trust_env: Whether to honour `SSL_CERT_FILE` and `SSL_CERT_DIR`, which replace the public authorities, and
            `HTTP_PROXY`, `HTTPS_PROXY`, `ALL_PROXY` and `NO_PROXY`. A proxy is never used for this machine itself
            and for link-local addresses, such as those of cloud metadata. Default: False: what sets a variable decides
            where secrets go.

    Attributes:
        ssl_context: What was loaded.
        proxies: The proxy of each scheme, if there is one.

    Raises:
        ConfigurationError: A file cannot be loaded, or a proxy variable cannot be used; the text names it and the fix.
    """

    __slots__ = ("_ca_file", "_trust_env", "proxies", "ssl_context")

    ssl_context: ssl.SSLContext
    proxies: Mapping[str, httpx.Proxy]
    _ca_file: str | Path | None
    _trust_env: bool

    @without_locals
    def __init__(self, *, ca_file: str | Path | None = None, trust_env: bool = False) -> None:
        checked_flag(trust_env, option="HTTPOptions(trust_env=…)")
        put = object.__setattr__
        put(self, "_ca_file", ca_file)
        put(self, "_trust_env", trust_env)
        put(self, "ssl_context", _context(ca_file, trust_env=trust_env))
        variables = getproxies_environment() if trust_env else {}
        put(self, "proxies", {scheme: proxy for scheme in _SCHEMES if (proxy := _proxy(scheme, variables)) is not None})

    def new_context(self) -> ssl.SSLContext:
        """Load the authorities again, for a context that gets a client certificate.

        Raises:
            ConfigurationError: A file cannot be loaded any more.
        """
        return _context(self._ca_file, trust_env=self._trust_env)

    def __repr__(self) -> str:
        return "<HTTPOptions>"  # a proxy's URL may hold a password


def _context(ca_file: object, *, trust_env: bool) -> ssl.SSLContext:
    try:
        context = httpx.create_ssl_context(trust_env=trust_env)
    except OSError:  # ssl.SSLError is one, too
        variable = "SSL_CERT_FILE" if os.environ.get("SSL_CERT_FILE") else "SSL_CERT_DIR"
        raise ConfigurationError(
            f"HTTPOptions(trust_env=True): the certificates of {variable} cannot be loaded: check the path, and that "
            "they are in PEM."
        ) from None
    directories = os.environ.get("SSL_CERT_DIR", "")
    reads_directories = trust_env and directories and not os.environ.get("SSL_CERT_FILE")
    # OpenSSL ignores a directory that does not exist, and then trusts no server.
    if reads_directories and not any(map(os.path.isdir, directories.split(os.pathsep))):
        raise ConfigurationError("HTTPOptions(trust_env=True): SSL_CERT_DIR names no directory: check the path.")
    if ca_file is not None:
        if not isinstance(ca_file, (str, Path)):
            raise ConfigurationError(f"HTTPOptions(ca_file=…) must be a path, not {type(ca_file).__name__}.")
        try:
            context.load_verify_locations(cafile=ca_file)
        except OSError as error:
            problem = error.strerror if error.errno and not isinstance(error, ssl.SSLError) else "it is not PEM"
            raise ConfigurationError(
                f"HTTPOptions(ca_file={str(ca_file)!r}) cannot be loaded ({problem}): it must be a PEM file with "
                "certificates."
            ) from None
    return context


def _proxy(scheme: str, variables: Mapping[str, str]) -> httpx.Proxy | None:
    variable = scheme if variables.get(scheme) else "all"
    url = variables.get(variable, "")
    if not url:
        return None
    name = f"{variable.upper()}_PROXY"
    try:
        proxy = httpx.Proxy(HiddenStr(url if "://" in url else f"http://{url}"))
    except (httpx.InvalidURL, ValueError):
        proxy = None
    if proxy is None or proxy.url.scheme not in _SCHEMES or not proxy.url.host:
        raise ConfigurationError(
            f"HTTPOptions(trust_env=True): the variable {name} must be the URL of an HTTP proxy, such as "
            "http://proxy.example:3128. For a SOCKS proxy, give http= a client of your own."
        ) from None
    return proxy
