"""Assertions that are signed with a private key, without code of the program's (RFC 7523 §2.2)."""

from __future__ import annotations

import asyncio
import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast, get_args

from tokenmw.errors import ConfigurationError
from tokenmw.observe.throttle import warn
from tokenmw.options import checked_choice, credential_text, secret_text
from tokenmw.providers.jwt_assertion import client_claims
from tokenmw.providers.signing_key import KeyAlgorithm, SigningKey, read_key_file
from tokenmw.redaction import FrozenValue, Unpicklable, without_locals

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["PrivateKeyJWT", "signed_text"]

_CHECK_SECONDS: Final = 1.0  # until the key that was read before is used; a file system may hang
_UNUSABLE: Final = "The key file %s has changed and cannot be used (%s); the key that was read before stays in use"


class PrivateKeyJWT(FrozenValue):
    """A private key that signs assertions: `client_assertion` of `ClientCredentials`, `assertion` of `JWTBearer`.

    >>> KEY = PrivateKeyJWT(file="/run/secrets/crm.pem", key_id="crm-2")
    >>> ClientCredentials(token_url="https://idp.example/token", client_id="crm", client_assertion=KEY)
    <ClientCredentials>

    It needs the extra `jwt`. Make it once, when the program starts, and use it for all requests: reading an RSA key
    takes 0.1 s, signing with it 0.6 ms (one of 2048 bits). Each token request gets an assertion of its own, which is
    valid for a minute, with the client's id as `iss` and `sub`, and the token endpoint as `aud`.

    A file is read again before a token request if it has changed: its time, its size or its place, as Kubernetes
    changes it. Until then, and while a changed file cannot be read, the key that was read before is used. The
    credential stays the one of the key that was read first; `credential_id` of the provider gives instances that start
    before and after a change of the file one token.

    Args:
        key: The key in PEM, as text or bytes, a JWK as JSON or as a dict, or a `pathlib.Path` of a file with one of
            these. RSA of 2048 to 4096 bits, P-256, P-384, P-521, Ed25519 or Ed448; not encrypted.
        file: The path of the file instead of `key`.
        key_id: The `kid` of the assertions, by which the server finds the public key. It stays when a file changes, so
            for a file that changes a JWK with a `kid` of its own is better. Default: the `kid` of the JWK, or none.
        algorithm: `RS256` to `RS512`, `PS256` to `PS512`, `ES256`, `ES384`, `ES512` or `EdDSA`. Default: the `alg` of
            the JWK, or by the key: RS256 for RSA, PS256 if it has a certificate, else the only one of its curve.
        certificate: The key's certificate in PEM, or a `pathlib.Path` of it, which is read again with the key. Its
            SHA-256 thumbprint is sent as `x5t#S256`, which Entra needs. Default: none.

    Raises:
        ConfigurationError: The key is missing, malformed, encrypted, a public key or of another sort, does not fit the
            algorithm or the certificate, or the extra `jwt` is not installed.
    """

    __slots__ = ("_source",)

    _source: _KeySource

    @without_locals
    def __init__(
        self,
        key: str | bytes | Mapping[str, Any] | Path | None = None,
        *,
        file: str | Path | None = None,
        key_id: str | None = None,
        algorithm: KeyAlgorithm | None = None,
        certificate: str | bytes | Path | None = None,
    ) -> None:
        if (key is None) is (file is None):
            raise ConfigurationError("PrivateKeyJWT needs key=… or file=…, and not both.")
        if key_id is not None:
            credential_text(key_id, option="PrivateKeyJWT(key_id=…)")
        if algorithm is not None:
            checked_choice(algorithm, option="PrivateKeyJWT(algorithm=…)", choices=get_args(KeyAlgorithm))
        given: object = certificate
        if given is not None and not isinstance(given, (str, bytes, Path)):
            raise ConfigurationError(
                f"PrivateKeyJWT(certificate=…) must be PEM as text or bytes, or a pathlib.Path, not "
                f"{type(given).__name__}."
            )
        if file is not None and not isinstance(cast("object", file), (str, os.PathLike)):
            raise ConfigurationError(
                f"PrivateKeyJWT(file=…) must be a path as a str or a pathlib.Path, not {type(file).__name__}."
            )
        source = _KeySource(
            key if file is None else Path(file), certificate=certificate, key_id=key_id, algorithm=algorithm
        )
        object.__setattr__(self, "_source", source)

    def identity(self) -> tuple[object, ...]:
        """Return what makes this key differ from another one; no part of it is secret. A changed file leaves it."""
        return self._source.identity

    async def assertion(self, client_id: str, *, audience: str) -> str:
        """Return a client's assertion for one token request; read the file before, if it has changed."""
        return await self.sign(client_claims(client_id, audience=audience))

    async def sign(self, claims: Mapping[str, Any]) -> str:
        """Return claims as a signed JWT; read the file before, if it has changed."""
        await self._source.read_again()
        key = self._source.key
        # 0.6 ms for RSA of 2048 bits, 0.1 ms for P-256: a thread would cost as much.
        return key.sign(claims) if key.quick else await asyncio.to_thread(key.sign, claims)

    def __repr__(self) -> str:
        return f"<PrivateKeyJWT {self._source.key.algorithm}>"


def signed_text(given: object, *, option: str) -> str:
    """Return a signed JWT that was given as text.

    Raises:
        ConfigurationError: It is a key, or no text.
    """
    kind = f"the class {given.__name__}" if isinstance(given, type) else type(given).__name__
    if isinstance(given, dict) and "private_key" in given:
        raise ConfigurationError(
            f'{option} is a service account of Google: give PrivateKeyJWT(account["private_key"], '
            f'key_id=account["private_key_id"]), which signs.'
        )
    if isinstance(given, str) and ("/" in given or "\\" in given) and "-----" not in given:
        raise ConfigurationError(
            f"{option} is a path and not a signed JWT: give PrivateKeyJWT(file=…) for a key, or FileSecret(…) for a "
            f"file with a signed JWT."
        )
    is_key = isinstance(given, (dict, Path)) or hasattr(given, "private_bytes")
    text = given.decode("latin-1") if isinstance(given, bytes) else given if isinstance(given, str) else ""
    if is_key or "PRIVATE KEY-----" in text:
        raise ConfigurationError(f"{option} is a key and not a signed JWT: give PrivateKeyJWT(…) of it, which signs.")
    if not isinstance(given, str):
        raise ConfigurationError(
            f"{option} must be a str with a signed JWT, a function that returns one, or a PrivateKeyJWT, not {kind}."
        )
    return secret_text(given, option=option)


class _KeySource(Unpicklable):
    """The key as it was read last, and the files that it comes from.

    Attributes:
        key: The key.
        identity: The identity of the key that was read first.
    """

    __slots__ = ("_algorithm", "_certificate", "_given", "_key_id", "_lock", "_reported", "_stamps", "identity", "key")

    @without_locals
    def __init__(self, given: Any, *, certificate: Any, key_id: str | None, algorithm: str | None) -> None:
        self._given: Any = given
        self._certificate: Any = certificate
        self._key_id = key_id
        self._algorithm = algorithm
        self._lock = threading.Lock()
        self._reported = False
        try:
            self._stamps = self._current_stamps()
            self.key = self._read(check_primes=True)
        except OSError as error:
            problem = f"{error.strerror or type(error).__name__}: {error.filename}"
        else:
            problem = ""
        if problem:
            raise ConfigurationError(f"PrivateKeyJWT cannot read its file ({problem}): check the path and its rights.")
        self.identity = self.key.identity()
        if not self._stamps:
            self._given = self._certificate = None  # not needed any more, and a second copy of the secret

    async def read_again(self) -> None:
        """Read the files in a thread if they have changed; return after a second even if they cannot be read."""
        if not self._stamps:
            return
        try:
            async with asyncio.timeout(_CHECK_SECONDS):
                await asyncio.to_thread(self._read_if_changed)
        except TimeoutError:
            self._report("no answer of the file system")

    def _read_if_changed(self) -> None:
        # One thread reads; the others use the key that there is, also while the file system hangs.
        if not self._lock.acquire(blocking=False):
            return
        try:
            stamps = self._current_stamps()
            if stamps == self._stamps:
                return
            key = self._read(check_primes=False)
            self.key, self._stamps, self._reported = key, stamps, False
        except OSError as error:
            self._report(error.strerror or type(error).__name__)
        except ConfigurationError as error:
            self._report(str(error))
        finally:
            self._lock.release()

    def _report(self, reason: str) -> None:
        if not self._reported:
            self._reported = True
            path = self._given if isinstance(self._given, Path) else self._certificate
            warn("key-file", _UNUSABLE % (path, reason))

    def _current_stamps(self) -> tuple[tuple[int, ...], ...]:
        found = [path.stat() for path in (self._given, self._certificate) if isinstance(path, Path)]
        return tuple((one.st_dev, one.st_ino, one.st_size, one.st_mtime_ns) for one in found)

    @without_locals
    def _read(self, *, check_primes: bool) -> SigningKey:
        certificate = self._certificate
        if certificate is not None:
            certificate = _content(certificate)
        in_file = isinstance(self._given, Path)
        return SigningKey(
            _content(self._given) if in_file else self._given,
            option=f"PrivateKeyJWT({self._given})" if in_file else "PrivateKeyJWT(key=…)",
            key_id=self._key_id,
            algorithm=self._algorithm,
            certificate=certificate,
            check_primes=check_primes,
        )


def _content(given: Path | str | bytes) -> bytes:
    if not isinstance(given, Path):
        return given.encode("utf-8", "replace") if isinstance(given, str) else given
    return read_key_file(given, option=f"PrivateKeyJWT({given})")
