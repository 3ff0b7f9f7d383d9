"""A server whose certificate is verified by its thumbprint, and not by an authority."""

from __future__ import annotations

import hashlib
import hmac
import re
import ssl
from typing import TYPE_CHECKING, Any, Final

from tokenmw.errors import ConfigurationError
from tokenmw.redaction import FrozenValue

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["WRONG_CERTIFICATE", "PinnedServer"]

WRONG_CERTIFICATE: Final = 0x10000
"""The `verify_code` of a certificate with another thumbprint, above all those of OpenSSL."""
_DIGITS: Final = {40: "sha1", 64: "sha256"}
_SEPARATORS: Final = re.compile(r"[:\s]")


class PinnedServer(FrozenValue):
    """The only certificate that a connection accepts.

    Args:
        thumbprint: Its SHA-1 or SHA-256 thumbprint, in hexadecimal digits, with or without colons.
        option: What it was given in, for error texts.

    Attributes:
        thumbprint: It, in lower case and without separators, after `pin:`.

    Raises:
        ConfigurationError: It is no thumbprint.
    """

    __slots__ = ("thumbprint",)

    thumbprint: str
    needed_by = 'source="service_fabric"'
    """What needs the client of our own, for error texts."""

    def __init__(self, thumbprint: object, *, option: str) -> None:
        digits = _SEPARATORS.sub("", thumbprint).lower() if isinstance(thumbprint, str) else ""
        if len(digits) not in _DIGITS or not re.fullmatch("[0-9a-f]*", digits):
            raise ConfigurationError(
                f"{option} must be the SHA-1 thumbprint of the server's certificate in 40 hexadecimal digits, or the "
                f"SHA-256 one in 64."
            )
        object.__setattr__(self, "thumbprint", f"pin:{digits}")

    async def current(self) -> PinnedServer:
        """Return this object, which never changes, as a client certificate does."""
        return self

    async def load(self, make_context: Callable[[], ssl.SSLContext]) -> tuple[PinnedServer, ssl.SSLContext]:
        """Return this object, and a new context that accepts its certificate alone."""
        del make_context  # no authority is trusted
        context = _PinnedContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE  # the handshake itself compares the certificate
        context.digits = self.thumbprint.removeprefix("pin:")
        context.sslobject_class = _PinnedObject
        return self, context

    def __repr__(self) -> str:
        return f"<PinnedServer {self.thumbprint.removeprefix('pin:')[:8]}…>"


class _PinnedContext(ssl.SSLContext):
    """A context that accepts one certificate.

    Attributes:
        digits: The thumbprint of the certificate.
    """

    digits: str


class _PinnedObject(ssl.SSLObject):
    """A connection whose handshake fails with another certificate, before anything is sent."""

    def do_handshake(self) -> None:
        """Finish the handshake, and compare the certificate.

        Raises:
            SSLCertVerificationError: It is another one.
        """
        super().do_handshake()
        digits = self.context.digits if isinstance(self.context, _PinnedContext) else ""
        der = self.getpeercert(binary_form=True) or b""
        digest = hashlib.new(_DIGITS[len(digits)], der, usedforsecurity=False).hexdigest()
        if not hmac.compare_digest(digest, digits):
            error: Any = ssl.SSLCertVerificationError(1, "certificate verify failed: another thumbprint")
            error.verify_code = WRONG_CERTIFICATE
            raise error
