"""A private key that signs assertions: read from PEM or a JWK, checked once, and ready to sign."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from typing import TYPE_CHECKING, Any, Final, Literal, cast, get_args

from tokenmw.errors import ConfigurationError
from tokenmw.options import credential_text
from tokenmw.redaction import FrozenValue, without_locals

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

__all__ = ["KeyAlgorithm", "SigningKey", "new_key", "read_key_file"]

KeyAlgorithm = Literal["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"]

_MAX_BYTES: Final = 64 << 10  # of a file
_MIN_RSA: Final = 2048  # bits (RFC 7518 §3.3)
_MAX_RSA: Final = 4096  # bits; to check one of 8192 bits takes nine seconds
_QUICK_RSA: Final = 3072  # bits; a signature takes 1.7 ms, and one of 4096 bits 4.3 ms
_RSA: Final = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")
_OF_CURVE: Final = {"secp256r1": ("ES256",), "secp384r1": ("ES384",), "secp521r1": ("ES512",)}
_REQUIRED: Final = {"EC": ("crv", "kty", "x", "y"), "OKP": ("crv", "kty", "x"), "RSA": ("e", "kty", "n")}
_PEM: Final = re.compile(rb"-----BEGIN ([A-Z0-9 ]{1,40})-----.*?-----END \1-----", re.DOTALL)
_BEGIN: Final = b"-----BEGIN "
_INSTALL: Final = 'needs PyJWT and cryptography: pip install "tokenmw[jwt]".'
_MAKE_PLAIN: Final = "openssl pkey -in key.pem -out plain.pem"


class SigningKey(FrozenValue):
    """A private key with its algorithm and the header of the assertions that it signs.

    Args:
        key: The key: PEM, or a JWK as text or as a dict.
        option: What the key was given in, for error texts.
        key_id: The `kid` in the header. Default: that of the JWK, or none.
        algorithm: The algorithm. Default: that of the JWK, or the usual one of the key.
        certificate: The key's certificate in PEM, whose thumbprint goes into the header; or None.
        check_primes: Whether the numbers of an RSA key are checked, which takes 0.1 s and stops all threads. If not, a
            signature is made and verified, which finds a damaged key, too.

    Attributes:
        algorithm: The algorithm.
        quick: Whether a signature takes less than a millisecond or two, so that it may be made in the event loop.

    Raises:
        ConfigurationError: The key is no private key of a supported sort, does not fit the algorithm or the
            certificate, or the extra `jwt` is not installed. The text never has a part of the key.
    """

    __slots__ = ("_fingerprint", "_headers", "_key", "algorithm", "quick")

    algorithm: str
    quick: bool
    _fingerprint: str
    _headers: Mapping[str, str]
    _key: Any

    @without_locals
    def __init__(
        self,
        key: str | bytes | Mapping[str, Any],
        *,
        option: str,
        key_id: str | None = None,
        algorithm: str | None = None,
        certificate: bytes | None = None,
        check_primes: bool = True,
    ) -> None:
        _check_installed(option)
        loaded, named_id, named_algorithm = _loaded(key, option=option, check=check_primes)
        allowed, quick = _sort_of(loaded, option=option)
        x5t = {} if certificate is None else _thumbprint(certificate, loaded)
        # Entra takes a certificate's SHA-256 thumbprint with PS256.
        usual = "PS256" if x5t and "PS256" in allowed else allowed[0]
        chosen = algorithm or named_algorithm or usual
        if chosen not in allowed:
            wanted = chosen if chosen in get_args(KeyAlgorithm) else "what its alg says"
            raise ConfigurationError(
                f"{option} is a key for {' or '.join(allowed)}, and not for {wanted}: leave algorithm out, or give a "
                f"key for that algorithm."
            )
        key_id = named_id if key_id is None else key_id
        put = object.__setattr__
        put(self, "algorithm", chosen)
        put(self, "quick", quick)
        put(self, "_key", loaded)
        put(self, "_headers", ({} if key_id is None else {"kid": key_id}) | x5t)
        put(self, "_fingerprint", _fingerprint(loaded))
        if not check_primes and _attempt(self._signs) is None:
            raise ConfigurationError(f"{option} is damaged, its signatures are not valid: copy the original key again.")

    def identity(self) -> tuple[object, ...]:
        """Return what makes this key differ from another one: the digest of its public key, and how it is used."""
        return (self._fingerprint, self.algorithm, *sorted(self._headers.items()))

    def sign(self, claims: Mapping[str, Any], *, header: Mapping[str, Any] | None = None) -> str:
        """Return the claims as a signed JWT; with a `header` in place of the key's own."""
        import jwt

        headers = dict(self._headers if header is None else header)
        return jwt.encode(dict(claims), self._key, algorithm=self.algorithm, headers=headers)

    def public_jwk(self) -> dict[str, str]:
        """Return the public key as a JWK with the members that it must have, and no others (RFC 7638 §3.2)."""
        from jwt.algorithms import get_default_algorithms

        reader: Any = get_default_algorithms()[self.algorithm]
        members = json.loads(reader.to_jwk(self._key.public_key()))
        return {name: str(members[name]) for name in _REQUIRED[str(members["kty"])]}

    def _signs(self) -> dict[str, Any]:
        import jwt

        claims: dict[str, Any] = jwt.decode(self.sign({"n": 1}), self._key.public_key(), algorithms=[self.algorithm])
        return claims

    def __repr__(self) -> str:
        return f"<SigningKey {self.algorithm}>"


def read_key_file(path: Path, *, option: str) -> bytes:
    """Return the content of a file with a key or a certificate.

    Raises:
        ConfigurationError: It has more than 64 KiB.
        OSError: It cannot be read.
    """
    with path.open("rb") as file:
        data = file.read(_MAX_BYTES + 1)
    if len(data) > _MAX_BYTES:
        raise ConfigurationError(f"{option} has more than {_MAX_BYTES} bytes: check the path.")
    return data


def new_key(*, option: str) -> bytes:
    """Return a new key on P-256 as PEM.

    Raises:
        ConfigurationError: The extra `jwt` is not installed.
    """
    _check_installed(option)
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    made = ec.generate_private_key(ec.SECP256R1())
    return made.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _check_installed(option: str) -> None:
    try:
        import cryptography
        import jwt
    except ImportError:
        raise ConfigurationError(f"{option.partition('(')[0]} {_INSTALL}") from None
    del cryptography, jwt


def _loaded(key: object, *, option: str, check: bool) -> tuple[Any, str | None, str | None]:
    """Return the key, and the `kid` and the `alg` that it was given with."""
    if isinstance(key, dict):
        return _from_jwk(cast("dict[str, Any]", key), option=option, check=check)
    data = key.encode("utf-8", "replace") if isinstance(key, str) else key
    if not isinstance(data, bytes):
        raise ConfigurationError(
            f"{option} must be PEM or a JWK as text, bytes or a dict, or a pathlib.Path, not {type(key).__name__}."
        )
    text = data.strip()
    if text.startswith(b"{"):
        try:
            jwk = json.loads(text)
        except (ValueError, RecursionError):
            jwk = None
        if isinstance(jwk, dict):
            return _from_jwk(cast("dict[str, Any]", jwk), option=option, check=check)
        raise ConfigurationError(f"{option} begins like a JWK and is not JSON: check that it is whole.")
    if _BEGIN not in text:
        raise ConfigurationError(
            f"{option} is neither PEM nor a JWK. The path of a file is given as file=…, or as a pathlib.Path."
            if text
            else f"{option} is empty: is the variable or file set that it is read from?"
        )
    return _from_pem(text, option=option, check=check), None, None


def _from_pem(text: bytes, *, option: str, check: bool) -> Any:
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    if b"\\n" in text:
        raise ConfigurationError(
            rf'{option} has "\n" as two characters, perhaps from an environment variable: .replace("\\n", "\n") it.'
        )
    blocks = {found[1].decode(): found[0] for found in _PEM.finditer(text)}
    label = next((label for label in blocks if label.endswith("PRIVATE KEY")), "")
    if not label:
        given = next((label for label in blocks if label.endswith(("PUBLIC KEY", "CERTIFICATE"))), "")
        article = f"is a {given.lower()}" if given else "has no whole block with a private key"
        raise ConfigurationError(f"{option} {article}: give the private key (-----BEGIN PRIVATE KEY-----).")
    block = blocks[label]
    if label.startswith("ENCRYPTED") or b"ENCRYPTED" in block:
        raise ConfigurationError(f"{option} is encrypted: decrypt it before, with `{_MAKE_PLAIN}`.")
    if label.startswith("OPENSSH"):
        raise ConfigurationError(
            f"{option} is in the format of OpenSSH: convert a copy of it with `ssh-keygen -p -N '' -m PKCS8 -f key`."
        )
    loaded = _attempt(lambda: load_pem_private_key(block, None, unsafe_skip_rsa_key_validation=not check))
    if loaded is None:
        raise ConfigurationError(f"{option} is PEM that cannot be read: `openssl pkey -in key.pem -check` says why.")
    return loaded


def _from_jwk(jwk: dict[str, Any], *, option: str, check: bool) -> tuple[Any, str | None, str | None]:
    from jwt.algorithms import ECAlgorithm, OKPAlgorithm

    readers: dict[str, Callable[[dict[str, Any]], Any]] = {
        "RSA": lambda fields: _rsa_key(fields, check=check),
        "EC": ECAlgorithm.from_jwk,
        "OKP": OKPAlgorithm.from_jwk,
    }
    kind = jwk.get("kty")
    if "keys" in jwk:
        raise ConfigurationError(f"{option} is a set of keys (JWKS): give the one key that signs.")
    if kind == "oct":
        raise ConfigurationError(
            f'{option} is a shared secret (kty "oct"): give a private key, or for assertions use '
            f'auth_method="client_secret_jwt" with client_secret=….'
        )
    if "private_key" in jwk:
        raise ConfigurationError(
            f'{option} is a service account of Google: give account["private_key"], and '
            f'key_id=account["private_key_id"].'
        )
    if not isinstance(kind, str) or kind not in readers:
        raise ConfigurationError(f'{option} is not a JWK with a kty of "RSA", "EC" or "OKP".')
    if "d" not in jwk:
        raise ConfigurationError(f"{option} is a public key, a JWK without d: give the private key.")
    if jwk.get("use", "sig") != "sig":
        raise ConfigurationError(f'{option} is a JWK that is not for signatures: give the key with the use "sig".')
    loaded = _attempt(lambda: readers[kind](dict(jwk)))
    if loaded is None:
        raise ConfigurationError(f"{option} is a JWK that cannot be read: check that all its fields are whole.")
    key_id, algorithm = jwk.get("kid"), jwk.get("alg")
    if key_id is not None:
        credential_text(key_id, option=f"{option}: kid")
    return loaded, key_id, None if algorithm is None else str(algorithm)


def _rsa_key(fields: dict[str, Any], *, check: bool) -> Any:
    # Not by PyJWT, which always checks the numbers (RFC 7518 §6.3).
    from cryptography.hazmat.primitives.asymmetric import rsa

    numbers = {
        name: int.from_bytes(base64.urlsafe_b64decode(f"{fields[name]}=="))
        for name in ("n", "e", "d", "p", "q")
        if name in fields
    }
    n, e, d = numbers["n"], numbers["e"], numbers["d"]
    if n.bit_length() > _MAX_RSA:
        return None  # whatever the rest of it is, it would take seconds
    p, q = (numbers["p"], numbers["q"]) if "q" in numbers else rsa.rsa_recover_prime_factors(n, e, d)
    rest = (rsa.rsa_crt_dmp1(d, p), rsa.rsa_crt_dmq1(d, q), rsa.rsa_crt_iqmp(p, q))
    return rsa.RSAPrivateNumbers(p, q, d, *rest, rsa.RSAPublicNumbers(e, n)).private_key(
        unsafe_skip_rsa_key_validation=not check
    )


def _attempt(load: Callable[[], Any]) -> Any:
    # Returned, not raised from: a library's error holds what it was given.
    try:
        return load()
    except Exception:  # noqa: BLE001  each library raises what it likes on a malformed key
        return None


def _sort_of(key: Any, *, option: str) -> tuple[tuple[str, ...], bool]:
    """Return the algorithms of a key, the usual one first, and whether it signs quickly."""
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
    from cryptography.hazmat.primitives.asymmetric.ed448 import Ed448PrivateKey
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

    if isinstance(key, RSAPrivateKey):
        if not _MIN_RSA <= key.key_size <= _MAX_RSA:
            raise ConfigurationError(
                f"{option} is an RSA key of {key.key_size} bits: give one of {_MIN_RSA} to {_MAX_RSA} bits."
            )
        return _RSA, key.key_size <= _QUICK_RSA
    if isinstance(key, EllipticCurvePrivateKey) and key.curve.name in _OF_CURVE:
        return _OF_CURVE[key.curve.name], True
    if isinstance(key, (Ed25519PrivateKey, Ed448PrivateKey)):
        return ("EdDSA",), True
    raise ConfigurationError(f"{option} is of another sort: give an RSA key, or one on P-256, P-384, P-521 or Ed25519.")


def _thumbprint(certificate: bytes, key: Any) -> dict[str, str]:
    from cryptography.hazmat.primitives.serialization import Encoding
    from cryptography.x509 import load_pem_x509_certificate

    option = "PrivateKeyJWT(certificate=…)"
    if _BEGIN + b"CERTIFICATE-----" not in certificate:
        raise ConfigurationError(f"{option} must be PEM (-----BEGIN CERTIFICATE-----), or the pathlib.Path of such.")
    block = next((found[0] for found in _PEM.finditer(certificate) if found[1] == b"CERTIFICATE"), b"")
    loaded = _attempt(lambda: load_pem_x509_certificate(block))
    if loaded is None:
        raise ConfigurationError(f"{option} is PEM that cannot be read: check that it is whole.")
    public = _attempt(loaded.public_key)
    if public != key.public_key():
        raise ConfigurationError(f"{option} is the certificate of another key: give the certificate of this one.")
    digest = hashlib.sha256(loaded.public_bytes(Encoding.DER)).digest()
    return {"x5t#S256": base64.urlsafe_b64encode(digest).rstrip(b"=").decode()}


def _fingerprint(key: Any) -> str:
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    public = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(public).hexdigest()
