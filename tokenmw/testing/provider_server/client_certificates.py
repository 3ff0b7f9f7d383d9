"""Client certificates (RFC 8705), from a header as a proxy sets it after the TLS handshake."""

from __future__ import annotations

import base64
import hashlib
import ssl
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote

if TYPE_CHECKING:
    from starlette.requests import Request

__all__ = ["CERTIFICATE_HEADER", "certificate_thumbprint"]

CERTIFICATE_HEADER: Final = "x-client-cert"
_BEGIN: Final = "-----BEGIN"


def certificate_thumbprint(request: Request) -> str:
    """Return the thumbprint (`x5t#S256`) of the client certificate of a request, "" without one.

    The header `X-Client-Cert` has it in PEM, percent-encoded as nginx writes `$ssl_client_escaped_cert`, or in base64
    as RFC 9440 §2.1 has it.
    """
    text = unquote(request.headers.get(CERTIFICATE_HEADER, "")).strip()
    try:
        der = ssl.PEM_cert_to_DER_cert(text) if text.startswith(_BEGIN) else base64.b64decode(text.strip(":"))
    except ValueError:
        return ""
    return base64.urlsafe_b64encode(hashlib.sha256(der).digest()).rstrip(b"=").decode() if der else ""
