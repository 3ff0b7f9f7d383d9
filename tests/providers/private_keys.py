"""Private keys of each sort, in the formats in which operators have them. Each is made once."""

from __future__ import annotations

import asyncio
import datetime as dt
import functools
import json
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, rsa, x25519
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from jwt.algorithms import get_default_algorithms

from tokenmw.providers import PrivateKeyJWT

__all__ = ["certificate_of", "jwk_of", "make_key", "pem_of", "public_jwk_of", "public_pem_of", "started"]


def make_key(sort: str, *, number: int = 1) -> Any:
    """Return a private key of a sort, such as `RSA-2048`; each number is another key."""
    return _made(sort, number)


@functools.cache
def _made(sort: str, _number: int) -> Any:
    kind, _, size = sort.partition("-")
    match kind:
        case "RSA":
            return rsa.generate_private_key(65537, int(size))
        case "P":
            curves = {"256": ec.SECP256R1(), "384": ec.SECP384R1(), "521": ec.SECP521R1(), "256k": ec.SECP256K1()}
            return ec.generate_private_key(curves[size])
        case "DSA":
            return dsa.generate_private_key(int(size))
        case _:
            kinds: dict[str, Any] = {
                "Ed25519": ed25519.Ed25519PrivateKey,
                "Ed448": ed448.Ed448PrivateKey,
                "X25519": x25519.X25519PrivateKey,
            }
            return kinds[kind].generate()


def pem_of(key: Any, *, form: str = "pkcs8", password: bytes | None = None) -> str:
    """Return a key in PEM."""
    formats = {
        "pkcs8": PrivateFormat.PKCS8,
        "traditional": PrivateFormat.TraditionalOpenSSL,
        "openssh": PrivateFormat.OpenSSH,
    }
    encryption: KeySerializationEncryption = BestAvailableEncryption(password) if password else NoEncryption()
    return str(key.private_bytes(Encoding.PEM, formats[form], encryption).decode())


def public_pem_of(key: Any) -> str:
    """Return the public key in PEM."""
    return str(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode())


def jwk_of(key: Any, **more: Any) -> dict[str, Any]:
    """Return a key as a JWK, with more members."""
    names = {"RSA": "RS256", "Ell": "ES256", "ECP": "ES256", "Ed2": "EdDSA", "Ed4": "EdDSA"}
    algorithm: Any = get_default_algorithms()[names[type(key).__name__[:3]]]
    return {**json.loads(algorithm.to_jwk(key)), **more}


def public_jwk_of(key: Any) -> dict[str, Any]:
    """Return the public key as a JWK."""
    return {name: value for name, value in jwk_of(key).items() if name in ("kty", "crv", "x", "y", "n", "e")}


def certificate_of(key: Any) -> str:
    """Return a certificate that a key has signed for itself, in PEM."""
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "crm")])
    start = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(start).not_valid_after(start + dt.timedelta(days=365))
    return builder.sign(key, SHA256()).public_bytes(Encoding.PEM).decode()


async def started(*given: Any, **options: Any) -> PrivateKeyJWT:
    """Make a key outside of the event loop, as a program does when it starts."""
    return await asyncio.to_thread(lambda: PrivateKeyJWT(*given, **options))
