"""A client's certificate with its private key: for mutual TLS (RFC 8705), read again when its files change."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import os
import re
import ssl
import threading
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final, cast

from tokenmw.errors import ConfigurationError, TokenUnavailable
from tokenmw.observe.throttle import warn
from tokenmw.options import secret_text
from tokenmw.providers.x509_dates import validity_of
from tokenmw.redaction import FrozenValue, HiddenStr, Unpicklable, without_locals

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["ClientCertificate", "LoadedCertificate"]

_MAX_BYTES: Final = 256 << 10  # of a file, which may have a chain of certificates
_CHECK_SECONDS: Final = 1.0  # until the certificate that was read before is used; a file system may hang
_ATTEMPTS: Final = 3  # to read two files that are being replaced
_WARN_SECONDS: Final = 7 * 86_400.0  # before the expiry; a tenth of a shorter lifetime
_WARN_SHARE: Final = 10
_CERTIFICATE: Final = re.compile(rb"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", re.DOTALL)
_KEY: Final = re.compile(rb"-----BEGIN (?:[A-Z]{2,9} )?PRIVATE KEY-----")
_UNUSABLE: Final = "The client certificate %s has changed and cannot be used (%s); the one read before stays in use"
_EXPIRES: Final = "The client certificate %s expires at %s: replace the file, which is then read again"
_MISMATCH: Final = frozenset({"KEY_VALUES_MISMATCH", "KEY_TYPE_MISMATCH", "NO_CERTIFICATE_ASSIGNED"})
_WEAK: Final = frozenset({"CA_KEY_TOO_SMALL", "CA_MD_TOO_WEAK", "EE_KEY_TOO_SMALL"})


@dataclass(frozen=True, slots=True)
class LoadedCertificate:
    """A certificate as it was read from its files.

    Attributes:
        thumbprint: Its SHA-256 thumbprint, as in `cnf.x5t#S256` of a token that is bound to it (RFC 8705 §3.1).
        begins: From when it is valid, in seconds since 1970.
        ends: Until when it is valid, in seconds since 1970.
        stamps: What shows that a file has changed.
    """

    thumbprint: str
    begins: float
    ends: float
    stamps: tuple[tuple[int, ...], ...]


class ClientCertificate(FrozenValue):
    """A certificate and its key, with which a client authenticates by mutual TLS (RFC 8705).

    It is the `certificate` of `ClientCredentials`, `TokenExchange` and `JWTBearer`::

        CERTIFICATE = ClientCertificate("/run/tls/tls.crt", "/run/tls/tls.key")
        ClientCredentials(issuer="https://idp.example", client_id="crm", certificate=CERTIFICATE)

    Make it once, when the program starts: it reads the files. They are read again, in a thread, before a token request
    if they have changed; while changed files cannot be used, the connections of the certificate that was read before
    are. The log warns before the certificate expires.

    The credential is that of the certificate that was read first, because a token may be bound to it: an instance that
    starts with a renewed certificate fetches a token of its own. Where the server binds no tokens, `credential_id` of
    the provider gives all instances one token.

    Args:
        cert_file: The PEM file of the certificate, with the intermediate ones after it.
        key_file: The PEM file of its private key. Default: it is in `cert_file`, too.
        password: The password of an encrypted key. Default: it is not encrypted.

    Raises:
        ConfigurationError: A file cannot be read, has no certificate or key, the key is another one's, or the password
            does not open it.
    """

    __slots__ = ("_files",)

    _files: _Files
    needed_by = "certificate=…"
    """What needs the client of our own, for error texts."""

    @without_locals
    def __init__(
        self,
        cert_file: str | os.PathLike[str],
        key_file: str | os.PathLike[str] | None = None,
        *,
        password: str | None = None,
    ) -> None:
        certificate = _checked_path(cert_file, option="ClientCertificate(cert_file=…)")
        key = certificate if key_file is None else _checked_path(key_file, option="ClientCertificate(key_file=…)")
        if password is not None:
            secret_text(password, option="ClientCertificate(password=…)")
        object.__setattr__(self, "_files", _Files(certificate, key, password=password))

    def identity(self) -> tuple[object, ...]:
        """Return what makes this certificate differ from another one: the thumbprint of the one that was read first."""
        return ("certificate", self._files.identity)

    @property
    def thumbprint(self) -> str:
        """The SHA-256 thumbprint of the certificate that was read last, as in `cnf.x5t#S256` of a token."""
        return self._files.loaded.thumbprint

    def context(self) -> ssl.SSLContext:
        """Return a new context with this certificate, for the program's own client of an API: `verify=` of httpx.

        APIs accept a token that is bound to a certificate only over connections with that certificate. It reads the
        files, so it belongs outside of the event loop.

        Raises:
            ConfigurationError: The files cannot be used.
        """
        return self._files.load(ssl.create_default_context)[1]

    async def current(self) -> LoadedCertificate:
        """Return the certificate as it is now; a file system that does not answer within a second is not waited for."""
        try:
            async with asyncio.timeout(_CHECK_SECONDS):
                await asyncio.to_thread(self._files.read_if_changed)
        except TimeoutError:
            self._files.report("no answer of the file system")
        return self._files.loaded

    async def load(self, make_context: Callable[[], ssl.SSLContext]) -> tuple[LoadedCertificate, ssl.SSLContext]:
        """Return the certificate and a new context with it, read in a thread.

        Raises:
            TokenUnavailable: The files cannot be used now.
        """
        try:
            async with asyncio.timeout(_CHECK_SECONDS * _ATTEMPTS):
                return await asyncio.to_thread(self._files.load, make_context)
        except TimeoutError:
            problem = f"{self!r} was not read within {_CHECK_SECONDS * _ATTEMPTS:g} s: is its file system available?"
        except ConfigurationError as error:
            problem = str(error).removesuffix(".")
        raise TokenUnavailable(problem)

    def expiry_text(self, *, now: float) -> str:
        """Return why servers refuse the certificate at a time, "" if it is valid; warn once before it expires."""
        loaded = self._files.loaded
        if now >= loaded.ends:
            return f"{self!r} expired at {_written(loaded.ends)}: replace the file"
        if now < loaded.begins:
            return f"{self!r} is not valid before {_written(loaded.begins)}: check this machine's clock"
        if loaded.ends - now < min(_WARN_SECONDS, (loaded.ends - loaded.begins) / _WARN_SHARE):
            self._files.warn_of_expiry(loaded)
        return ""

    def __repr__(self) -> str:
        return f"ClientCertificate({str(self._files.path)!r})"


class _Files(Unpicklable):
    """The files, and the certificate that was read from them last.

    Attributes:
        identity: The thumbprint of the certificate that was read first.
        loaded: The certificate that was read last.
        path: The certificate's file.
    """

    __slots__ = ("_key", "_lock", "_password", "_reported", "_warned", "identity", "loaded", "path")

    def __init__(self, path: Path, key: Path, *, password: str | None) -> None:
        self.path = path
        self._key = key
        self._password = None if password is None else HiddenStr(password)
        self._lock = threading.Lock()
        self._reported = False
        self._warned = ""
        self.loaded = self.load(lambda: ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))[0]
        self.identity = self.loaded.thumbprint

    @without_locals
    def load(self, make_context: Callable[[], ssl.SSLContext]) -> tuple[LoadedCertificate, ssl.SSLContext]:
        """Return the certificate with a new context that has it.

        Raises:
            ConfigurationError: The files cannot be used.
        """
        context = make_context()
        for _ in range(_ATTEMPTS):
            loaded = self._read(context)
            # The context reads the files a second time.
            if self._stamps() == loaded.stamps:
                return loaded, context
        raise ConfigurationError(f"The files of ClientCertificate({str(self.path)!r}) change while they are read.")

    def read_if_changed(self) -> None:
        """Read the files if they have changed; report it if they cannot be used."""
        # One thread reads; the others use the certificate that there is, also while the file system hangs.
        if not self._lock.acquire(blocking=False):
            return
        try:
            if self._stamps() != self.loaded.stamps:
                self.loaded = self.load(lambda: ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))[0]
                self._reported = False
        except ConfigurationError as error:
            self.report(str(error))
        finally:
            self._lock.release()

    def report(self, reason: str) -> None:
        """Warn that changed files cannot be used, once until they can."""
        if not self._reported:
            self._reported = True
            warn("certificate-file", _UNUSABLE % (self.path, reason.removesuffix(".")))

    def warn_of_expiry(self, loaded: LoadedCertificate) -> None:
        """Warn that a certificate expires soon, once for each."""
        if self._warned != loaded.thumbprint:
            self._warned = loaded.thumbprint
            warn("certificate-expiry", _EXPIRES % (self.path, _written(loaded.ends)))

    def _stamps(self) -> tuple[tuple[int, ...], ...]:
        problem = ""
        try:
            found = [path.stat() for path in (self.path, self._key)]
            return tuple((one.st_dev, one.st_ino, one.st_size, one.st_mtime_ns) for one in found)
        except OSError as error:
            problem = f"{error.strerror or type(error).__name__}: {error.filename}"
        raise ConfigurationError(f"ClientCertificate cannot read its file ({problem}): check the path and its rights.")

    def _read(self, context: ssl.SSLContext) -> LoadedCertificate:
        stamps = self._stamps()
        option = f"ClientCertificate({str(self.path)!r})"
        block = _CERTIFICATE.search(_content(self.path))
        if block is None:
            raise ConfigurationError(
                f"{option} has no certificate in PEM (-----BEGIN CERTIFICATE-----): convert a copy of it with "
                f"`openssl x509 -inform der`."
            )
        key = _content(self._key)
        if not _KEY.search(key):
            where = "its file has no private key: give key_file=…" if self._key == self.path else "key_file has no"
            raise ConfigurationError(
                f"{option}: {where}{'' if self._key == self.path else ' private key in PEM'} "
                f"(-----BEGIN PRIVATE KEY-----)."
            )
        encrypted = b"ENCRYPTED" in key
        if encrypted and self._password is None:
            raise ConfigurationError(f"{option}: its key is encrypted: give password=….")
        problem = self._load_into(context, encrypted=encrypted)
        if problem:
            raise ConfigurationError(f"{option} {problem}.")
        try:
            der = ssl.PEM_cert_to_DER_cert(block[0].decode("ascii"))
            begins, ends = validity_of(der)
        except ValueError:
            raise ConfigurationError(
                f"{option} has a certificate that cannot be read: check that it is whole."
            ) from None
        thumbprint = base64.urlsafe_b64encode(hashlib.sha256(der).digest()).rstrip(b"=").decode()
        return LoadedCertificate(thumbprint, begins, ends, stamps)

    def _load_into(self, context: ssl.SSLContext, *, encrypted: bool) -> str:
        """Load the files into a context, and return what is wrong with them, or ""."""
        try:
            # Without a password, OpenSSL would ask for one at the terminal.
            context.load_cert_chain(self.path, self._key, password=str(self._password or "-"))
        except ssl.SSLError as error:
            reason = error.reason or "unknown"
            if reason in _MISMATCH:
                return f"and {self._key} do not belong together: the key is that of another certificate"
            if reason in _WEAK:
                return f"is too weak for OpenSSL ({reason}): get one with a longer key"
            if encrypted:
                return "has a key that password does not open, or that is damaged"
            return f"cannot be used with its key ({reason}): check that both files are whole"
        except OSError as error:
            return f"cannot be read ({error.strerror or type(error).__name__})"
        return ""


def _checked_path(given: object, *, option: str) -> Path:
    kind = type(given).__name__
    path = os.fspath(cast("str", given)) if isinstance(given, (str, os.PathLike)) else ""
    if not path:
        raise ConfigurationError(f"{option} must be the path of a PEM file, not {kind}.")
    if "-----BEGIN" in path:
        raise ConfigurationError(f"{option} was given PEM: give the path of a file that has it.")
    return Path(path)


def _content(path: Path) -> bytes:
    problem, data = "", b""
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_BYTES + 1)
    except OSError as error:
        problem = f"{error.strerror or type(error).__name__}: {error.filename}"
    if problem:
        raise ConfigurationError(f"ClientCertificate cannot read its file ({problem}): check the path and its rights.")
    if len(data) > _MAX_BYTES:
        raise ConfigurationError(f"ClientCertificate({str(path)!r}) has more than {_MAX_BYTES} bytes: check the path.")
    return data


def _written(time: float) -> str:
    return datetime.fromtimestamp(time, UTC).strftime("%Y-%m-%d %H:%M UTC")
