"""What the error of a redirect says: where it leads, and what to check. Token requests follow no redirect.

No part of the target is shown: the server chooses it, and it may repeat the secret.
"""

from __future__ import annotations

import re
from typing import Any, Final

from tokenmw.providers.network.failures import server_of

__all__ = ["redirect_text"]

_MAX_LOCATION: Final = 8_000  # characters; every proxy must be able to pass on as much (RFC 9110 §4.1)
_KEEPS_METHOD: Final = (307, 308)  # so the endpoint has moved; the others send browsers to a page
_LOGIN: Final = re.compile(
    r"(?<![a-z])(log[-_]?[io]n|sign[-_]?in|sso|saml2?|cas|adfs|authorize)(?![a-z])", re.IGNORECASE | re.ASCII
)
_CHECK: Final = "check that the provider's URL (token_url, base_url) is that of the token endpoint"


def redirect_text(response: Any, url: Any) -> str:
    """Return the end of a sentence that begins with the endpoint.

    Args:
        response: The response, of httpx or httpx2.
        url: The URL of its request.
    """
    status: int = response.status_code
    answered = f"answered with a redirect (HTTP {status})"
    location = response.headers.get("location", "").strip()
    if not location:
        return f"{answered} that leads nowhere, because it has no Location: {_CHECK}"
    try:
        target = url.join(location) if len(location) <= _MAX_LOCATION else url
        scheme, host, server, path = target.scheme, target.host, server_of(target), target.path
    except Exception:  # noqa: BLE001  each library has its own InvalidURL
        scheme, host, server, path = "", "", "", ""
    if _LOGIN.search(path):
        return f"{answered} to a login page for browsers, which is not followed: {_CHECK}"
    if server == server_of(url):
        leads = "to the same server"
    elif host == url.host:
        leads = f"to {scheme}:// on port {server.rpartition(':')[2]} of the same host"
    else:
        leads = "to another host"
    page = "" if status in _KEEPS_METHOD else f", or if that is a page for browsers, {_CHECK}"
    return f"{answered} {leads}, which is not followed: configure the URL it leads to{page}"
