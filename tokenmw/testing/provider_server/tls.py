"""A certificate for the test server, of an authority that exists for one server alone."""

from __future__ import annotations

import atexit
import datetime as dt
import ipaddress
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from tokenmw.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["TLSFiles", "make_tls_files"]

_DAYS: Final = 30
_ADDRESSES: Final = ("127.0.0.1", "::1")
_NAMES: Final = ("localhost",)


@dataclass(frozen=True, slots=True)
class TLSFiles:
    """The files of a server's certificate.

    Attributes:
        ca_file: The authority, which clients trust.
        cert_file: The server's certificate, for `localhost`, `127.0.0.1` and `::1`.
        key_file: Its key.
    """

    ca_file: str
    cert_file: str
    key_file: str


def make_tls_files() -> TLSFiles:
    """Make a certificate in a temporary directory, which is removed when the process ends.

    Raises:
        ConfigurationError: cryptography is not installed.
    """
    try:
        from cryptography.hazmat.primitives.asymmetric import ec
    except ImportError:
        raise ConfigurationError(
            "ProviderServer(tls=True) makes a certificate with cryptography: pip install 'tokenmw[crypto]'. Without "
            "it, serve without TLS: token URLs of this machine may have plain HTTP."
        ) from None
    # Not with the server: it may be garbage-collected while an event loop runs, which would block it.
    directory = Path(tempfile.mkdtemp(prefix="tokenmw-tls-"))
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    authority, own = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    issuer = _certificate(
        "tokenmw test authority", authority, signer=authority, issuer=None, extensions=_of_authority()
    )
    certificate = _certificate("tokenmw test server", own, signer=authority, issuer=issuer, extensions=_of_server())
    made = {"ca.pem": _pem(issuer), "server.pem": _pem(certificate), "server.key": _key_pem(own)}
    for name, content in made.items():
        (directory / name).write_bytes(content)
    return TLSFiles(*(str(directory / name) for name in made))


def _certificate(name: str, key: Any, *, signer: Any, issuer: Any, extensions: Iterable[tuple[Any, bool]]) -> Any:
    from cryptography import x509
    from cryptography.hazmat.primitives.hashes import SHA256

    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = dt.datetime.now(dt.UTC)
    identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key())
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject if issuer is None else issuer.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=_DAYS))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(identifier, critical=False)
    )
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical=critical)
    return builder.sign(signer, SHA256())


def _of_authority() -> list[tuple[Any, bool]]:
    from cryptography import x509

    usage = dict.fromkeys(("digital_signature", "key_cert_sign", "crl_sign"), True)
    others = ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement")
    usage |= dict.fromkeys((*others, "encipher_only", "decipher_only"), False)
    return [(x509.BasicConstraints(ca=True, path_length=0), True), (x509.KeyUsage(**usage), True)]


def _of_server() -> list[tuple[Any, bool]]:
    from cryptography import x509
    from cryptography.x509.oid import ExtendedKeyUsageOID

    names: list[x509.GeneralName] = [x509.IPAddress(ipaddress.ip_address(one)) for one in _ADDRESSES]
    names += [x509.DNSName(one) for one in _NAMES]
    usage = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])
    alternative = x509.SubjectAlternativeName(names)
    return [(x509.BasicConstraints(ca=False, path_length=None), True), (alternative, False), (usage, False)]


def _pem(certificate: Any) -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding

    return bytes(certificate.public_bytes(Encoding.PEM))


def _key_pem(key: Any) -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    return bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
