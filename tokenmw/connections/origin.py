"""The origin of this program as browsers see it: for redirect URIs, and against requests of other sites (CSRF)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from urllib.parse import quote, unquote, urlsplit

from tokenmw.errors import ConfigurationError
from tokenmw.providers.urls import checked_base_url, is_loopback

if TYPE_CHECKING:
    from starlette.requests import Request

__all__ = ["base_url_of", "checked_public_url", "differing_paths", "is_from_same_origin", "is_secure"]

_OPTION: Final = "ConnectApp(public_url=…)"
_SAME: Final = "same-origin"
_OF_PROXIES: Final = ("x-forwarded-proto", "x-forwarded-host", "x-forwarded-for", "forwarded", "via")
_PLAIN: Final = "/!$&'()*+,;=:@"  # and what `quote` always leaves: the characters of a path (RFC 3986 §3.3)


def checked_public_url(public_url: object) -> str | None:
    """Return the option `public_url` without a slash at the end.

    Raises:
        ConfigurationError: It is no https URL (http for this machine), or it has a query.
    """
    if public_url is None:
        return None
    example = 'such as "https://app.example/connect"'
    if not isinstance(public_url, str):
        raise ConfigurationError(f"{_OPTION} must be a str, {example}, not {type(public_url).__name__}.")
    if not public_url:
        raise ConfigurationError(
            f"{_OPTION} is empty: is the variable set that it is read from? Write a URL, {example}."
        )
    parts = urlsplit(public_url)
    if parts.scheme not in ("http", "https"):
        raise ConfigurationError(f"{_OPTION} must be a URL, {example}.")
    if parts.scheme == "http" and not is_loopback(parts.hostname or ""):
        raise ConfigurationError(f"{_OPTION} must begin with https://, because codes and cookies are sent there.")
    if parts.path.rstrip("/").endswith("/callback"):
        raise ConfigurationError(
            f"{_OPTION} must be the URL of this application, and not that of one app: leave out "
            f"/{'/'.join(parts.path.rstrip('/').split('/')[-2:])}."
        )
    return checked_base_url(public_url, option=_OPTION, allow_http=False)


def differing_paths(url: str, *, connect_path: str) -> tuple[str, str] | None:
    """Return the path of the application and that of errors, if these lead users elsewhere; else None.

    Args:
        url: The URL at which browsers reach the application.
        connect_path: The path or URL of `Connections`. A path is the same on each host.
    """
    whole = "://" in connect_path
    given, expected = (url, connect_path) if whole else (unquote(urlsplit(url).path), unquote(connect_path))
    given, expected = given.rstrip("/"), expected.rstrip("/")
    return None if given == expected else (given or "/", expected or "/")


def base_url_of(request: Request, public_url: str | None) -> str:
    """Return the URL at which the `ConnectApp` is mounted, without a slash at the end.

    Raises:
        ConfigurationError: There is no `public_url`, and the request came without TLS from another machine.
    """
    if public_url is not None:
        return public_url
    url = request.url
    if url.scheme != "https" and not is_loopback(url.hostname or ""):
        raise ConfigurationError(
            f"{_OPTION} is missing: the request came over {url.scheme}, which is for this machine only (localhost), or "
            f"a proxy in front of this program hides its public URL. Set it to the URL of this application, such as "
            f'"https://app.example/connect".'
        )
    proxy = next((name for name in _OF_PROXIES if name in request.headers), "") if url.scheme != "https" else ""
    if proxy:
        raise ConfigurationError(
            f"{_OPTION} is missing: the request for {url.netloc} has the header {proxy}, so a proxy in front of this "
            f'program hides its public URL. Set it to the URL of this application, such as "https://app.example/'
            f'connect".'
        )
    root: str = request.scope.get("root_path", "")
    return f"{url.scheme}://{url.netloc}{quote(root.rstrip('/'), safe=_PLAIN)}"


def is_secure(base_url: str) -> bool:
    """Return whether browsers reach a URL over TLS."""
    return base_url.startswith("https://")


def is_from_same_origin(request: Request, base_url: str) -> bool:
    """Return whether a browser sent a request from a page of this site; False if the request does not say.

    Every browser sends one of the two headers with a POST: `Sec-Fetch-Site`, or an older one `Origin`.
    """
    site = request.headers.get("sec-fetch-site")
    origins = request.headers.getlist("origin")
    own = urlsplit(base_url)
    same = all(origin == f"{own.scheme}://{own.netloc}" for origin in origins)
    if site is not None:
        # A page with `Referrer-Policy: no-referrer` sends `Origin: null` to its own site, too.
        return site == _SAME and (same or origins == ["null"])
    return bool(origins) and same
