"""Client certificates in files, and a token server over TLS that shows what a connection has shown it."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import datetime as dt
import hashlib
import json
import ssl
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding

from tests.providers.network.certificates import self_signed
from tests.providers.private_keys import make_key, pem_of
from tokenmw.providers import ClientCertificate

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path

__all__ = ["Files", "TLSServer", "authority", "make_certificate", "thumbprint_of", "tls_server"]

AUTHORITY = "authority of clients"
NOW = dt.datetime.now(dt.UTC).replace(microsecond=0)


def make_certificate(
    *,
    name: str = "crm",
    key: Any = None,
    begins: dt.datetime = NOW - dt.timedelta(days=30),
    ends: dt.datetime = NOW + dt.timedelta(days=60),
) -> str:
    """Return a certificate in PEM, which :func:`authority` has signed."""
    return _signed(name, make_key("P-256") if key is None else key, begins=begins, ends=ends)


def authority() -> str:
    """Return the certificate of the authority of all client certificates, in PEM."""
    lifetime = dt.timedelta(days=10_000)
    return _signed(AUTHORITY, make_key("P-256", number=9), begins=NOW - lifetime, ends=NOW + lifetime)


def _signed(name: str, key: Any, *, begins: dt.datetime, ends: dt.datetime) -> str:
    subject, issuer = (x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, one)]) for one in (name, AUTHORITY))
    built = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(key.public_key())
    built = built.serial_number(x509.random_serial_number()).not_valid_before(begins).not_valid_after(ends)
    built = built.add_extension(x509.BasicConstraints(ca=name == AUTHORITY, path_length=None), critical=True)
    return built.sign(make_key("P-256", number=9), SHA256()).public_bytes(Encoding.PEM).decode()


class Files:
    """A certificate and its key in two files.

    Attributes:
        certificate: The certificate's file.
        key: The key's file.
    """

    def __init__(self, directory: Path, **options: Any) -> None:
        self.certificate, self.key = directory / "tls.crt", directory / "tls.key"
        self.certificate.write_text(make_certificate(**options))
        self.key.write_text(pem_of(options.get("key") or make_key("P-256")))

    def write(self, *, certificate: str, key: str) -> None:
        """Replace both files, one after the other, as a program that renews them does."""
        for path, content in ((self.certificate, certificate), (self.key, key)):
            new = path.with_suffix(".new")
            new.write_text(content)
            new.replace(path)

    def load(self, **options: Any) -> ClientCertificate:
        """Return the certificate as the package reads it."""
        return ClientCertificate(self.certificate, self.key, **options)

    @property
    def thumbprint(self) -> str:
        """The thumbprint of the certificate in the file."""
        der = x509.load_pem_x509_certificate(self.certificate.read_bytes()).public_bytes(Encoding.DER)
        return thumbprint_of(der)


def thumbprint_of(der: bytes) -> str:
    """Return the SHA-256 thumbprint of a certificate, as RFC 8705 writes it."""
    return base64.urlsafe_b64encode(hashlib.sha256(der).digest()).rstrip(b"=").decode()


@dataclass
class TLSServer:
    """A token server over TLS.

    Attributes:
        url: Its base URL.
        ca_file: The certificate authority that has signed its certificate.
        requests: For each request, its path, its form and the thumbprint of the client's certificate, "" without one.
        connections: The connections that were made.
        answers: The status and the fields of the next responses; then tokens are granted.
    """

    url: str = ""
    ca_file: str = ""
    requests: list[tuple[str, dict[str, str], str]] = field(default_factory=list[tuple[str, dict[str, str], str]])
    connections: int = 0
    answers: list[tuple[int, dict[str, Any]]] = field(default_factory=list[tuple[int, dict[str, Any]]])
    metadata: dict[str, Any] = field(default_factory=dict[str, Any])

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer the requests of one connection."""
        self.connections += 1
        der = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        shown = thumbprint_of(der) if der else ""
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                path = head.split(" ")[1]
                lengths = [line for line in head.split("\r\n") if line.lower().startswith("content-length")]
                length = lengths[0].split(": ")[1] if lengths else "0"
                form = dict(parse_qsl((await reader.readexactly(int(length))).decode()))
                status, fields = 200, self.metadata
                if "well-known" not in path:
                    self.requests.append((path, form, shown))
                    status, fields = self.answers.pop(0) if self.answers else (200, granted(shown))
                body = json.dumps(fields).encode()
                writer.write(
                    f"HTTP/1.1 {status} X\r\ncontent-type: application/json\r\n"
                    f"content-length: {len(body)}\r\n\r\n".encode()
                    + body
                )
        writer.close()


def granted(thumbprint: str) -> dict[str, Any]:
    """Return a response with a token that is bound to a certificate."""
    return {"access_token": f"t-{thumbprint or 'plain'}", "token_type": "Bearer", "expires_in": 3600}


@contextlib.asynccontextmanager
async def tls_server(directory: Path) -> AsyncGenerator[TLSServer]:
    """Serve on a free port; client certificates of :func:`authority` are accepted."""
    public, context = self_signed(directory)
    context.verify_mode = ssl.CERT_OPTIONAL
    context.load_verify_locations(cadata=authority())
    made = TLSServer(ca_file=str(public))
    server = await asyncio.start_server(made.serve, "127.0.0.1", 0, ssl=context)
    made.url = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield made
    finally:
        server.close()
