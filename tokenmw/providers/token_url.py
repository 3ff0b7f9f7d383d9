"""URLs to which secrets may be sent."""

from __future__ import annotations

from typing import Any, Final, cast
from urllib.parse import urlsplit

from tokenmw.errors import ConfigurationError
from tokenmw.providers.http import ascii_host, read_url
from tokenmw.providers.options import is_host, is_loopback

__all__ = ["token_url"]

_LONGEST: Final = 8_000  # what everybody on the way must be able to pass on (RFC 9110 §4.1)


def token_url(url: str, *, option: str, allow_http: bool) -> str:
    """Return the URL of a token endpoint if secrets may be sent there (RFC 6749 §3.2).

    Args:
        url: What the user gave.
        option: How the user knows it, such as `"ClientCredentials(token_url=…)"`.
        allow_http: Whether plain HTTP is allowed outside this machine too.

    Raises:
        ConfigurationError: It is no absolute https URL, has user information or a fragment, or a host or port that
            cannot be. The text names the option and the mend, and never repeats the URL, which may hold a password.
    """
    if not isinstance(cast("object", url), str):
        raise ConfigurationError(f"{option} must be a str, not {type(url).__name__}.")
    parsed = read_url(url)
    if parsed.scheme not in ("http", "https") or len(url) > _LONGEST:
        raise ConfigurationError(
            f'{option} must be an absolute URL, of {_LONGEST} characters at most, such as "https://idp.example/token".'
        )
    if parsed.userinfo:
        raise ConfigurationError(
            f"{option} holds a user name or password before the host: "
            f"take it out, and pass credentials by their own options."
        )
    if parsed.fragment:
        raise ConfigurationError(f"{option} holds a fragment (#…), which is never sent: take it out.")
    if not _names_a_place(url, parsed):
        raise ConfigurationError(
            f"{option} has a host or a port that cannot be: the host is a name or an address, and behind a colon comes "
            f"a port from 1 to 65535."
        )
    # `is not True`: the text "false" of an environment variable is true.
    if parsed.scheme == "http" and allow_http is not True and not is_loopback(parsed.host):
        raise ConfigurationError(
            f"{option} would send the credential without TLS: use https://, or pass allow_http=True "
            f"if the network between is trusted."
        )
    return str(url)


def _names_a_place(url: str, parsed: Any) -> bool:
    # By two parsers: where they differ, another program on the way could read another place.
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return False
    if port == 0 or parts.netloc.endswith(":"):
        return False
    host = ascii_host(parts.hostname or "")
    return is_host(host) and host == parsed.raw_host.decode("ascii").lower()
