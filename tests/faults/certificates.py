"""Certificates for a TLS server on this machine: of a CA, servers and a client."""

from __future__ import annotations

import datetime as dt
import ipaddress
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

__all__ = ["Certificates", "certificates"]


@dataclass(frozen=True)
class Certificates:
    """The files: a certificate and its key for each name, signed by the CA."""

    directory: Path

    def certificate(self, name: str) -> str:
        """Return the path of a certificate: `ca`, `server`, `elsewhere`, `client` or `stranger`."""
        return str(self.directory / f"{name}.crt")

    def key(self, name: str) -> str:
        """Return the path of the key of a certificate."""
        return str(self.directory / f"{name}.key")


def certificates(directory: Path) -> Certificates:
    """Make the files: `server` is for 127.0.0.1, `elsewhere` for another host, and `stranger` is another CA."""
    made = Certificates(directory)
    ca_key = ec.generate_private_key(ec.SECP256R1())
    ca = _signed(made, "ca", ca_key, issuer=None, issuer_key=ca_key)
    stranger_key = ec.generate_private_key(ec.SECP256R1())
    _signed(made, "stranger", stranger_key, issuer=None, issuer_key=stranger_key)
    here = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    for name, host in (("server", here), ("elsewhere", x509.DNSName("redis.example")), ("client", None)):
        _signed(made, name, ec.generate_private_key(ec.SECP256R1()), issuer=ca, issuer_key=ca_key, host=host)
    return made


def _signed(
    made: Certificates,
    name: str,
    key: ec.EllipticCurvePrivateKey,
    *,
    issuer: x509.Certificate | None,
    issuer_key: ec.EllipticCurvePrivateKey,
    host: x509.GeneralName | None = None,
) -> x509.Certificate:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"tokenmw test {name}")])
    now, day = dt.datetime.now(dt.UTC), dt.timedelta(days=1)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject if issuer is None else issuer.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - day)
        .not_valid_after(now + day)
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False)
    )
    if issuer is None:
        usage = dict.fromkeys(("digital_signature", "key_cert_sign", "crl_sign"), True)
        others = ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement")
        usage |= dict.fromkeys((*others, "encipher_only", "decipher_only"), False)
        builder = builder.add_extension(x509.KeyUsage(**usage), critical=True)
    if host is not None:
        builder = builder.add_extension(x509.SubjectAlternativeName([host]), critical=False)
    certificate = builder.sign(issuer_key, hashes.SHA256())
    pem, private = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    Path(made.certificate(name)).write_bytes(certificate.public_bytes(pem))
    Path(made.key(name)).write_bytes(key.private_bytes(pem, private, serialization.NoEncryption()))
    return certificate
