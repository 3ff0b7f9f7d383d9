"""DPoP: tokens that are bound to a key, and the proof of its possession in each request (RFC 9449)."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import secrets
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

from tokenmw.clock import SYSTEM_CLOCK
from tokenmw.errors import ConfigurationError
from tokenmw.providers.http import read_url
from tokenmw.providers.signing_key import SigningKey, new_key, read_key_file
from tokenmw.redaction import FrozenValue, Unpicklable, without_locals
from tokenmw.values import Token

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["NONCE_REQUIRED", "DPoPKey", "asks_for_nonce", "checked_dpop"]

NONCE_REQUIRED: Final = "use_dpop_nonce"  # the error code of a server that wants its nonce in the proof
_NONCE: Final = re.compile(r"[!#-\[\]-~]{1,1024}")  # RFC 9449 §8.1
_MAX_ORIGINS: Final = 256  # whose nonces are kept; the origins of API requests may come from callers
_DEFAULT_PORTS: Final = {"http": ":80", "https": ":443"}
_UNAUTHORIZED: Final = 401


class DPoPKey(FrozenValue):
    """A private key to which a server binds its tokens (DPoP, RFC 9449), for `dpop` of a provider.

    >>> KEY = DPoPKey(file="/run/secrets/crm-dpop.pem")
    >>> ClientCredentials(token_url="https://idp.example/token", client_id="crm", client_secret="…", dpop=KEY)
    <ClientCredentials>

    It needs the extra `jwt`. Make it once, when the program starts: it also keeps the nonces that servers send, of at
    most 256 hosts. Token requests and the requests of auth objects each get a proof of their own, which is signed in
    the event loop: about 0.1 ms with a key on P-256, 0.6 ms with RSA of 2048 bits.

    All processes that share tokens through Redis need the same key, because a token works with its key only. Without
    arguments a key on P-256 is made, which no other process has: its tokens are not shared through Redis, and each
    process fetches its own.

    A file is read once. A changed key is another credential, whose tokens are fetched anew, so a new key needs a
    restart.

    Args:
        key: The key in PEM, as text or bytes, a JWK as JSON or as a dict, or a `pathlib.Path` of a file with one of
            these. P-256 is what all servers accept; P-384, P-521, Ed25519, Ed448, and RSA of 2048 to 3072 bits. Not
            encrypted. Default: a new key on P-256.
        file: The path of the file instead of `key`.

    Attributes:
        shareable: Whether other processes can have the same key.
        thumbprint: The digest of the public key (RFC 7638), which servers put into the token as `cnf.jkt`.

    Raises:
        ConfigurationError: The key is malformed, encrypted, a public key or of another sort, or the extra `jwt` is not
            installed.
    """

    __slots__ = ("_header", "_key", "_nonces", "shareable", "thumbprint")

    shareable: bool
    thumbprint: str
    _header: Mapping[str, Any]
    _key: SigningKey
    _nonces: _Nonces

    @without_locals
    def __init__(
        self, key: str | bytes | Mapping[str, Any] | Path | None = None, *, file: str | Path | None = None
    ) -> None:
        if key is not None and file is not None:
            raise ConfigurationError("DPoPKey takes key=… or file=…, and not both.")
        if file is not None and not isinstance(cast("object", file), (str, os.PathLike)):
            raise ConfigurationError(
                f"DPoPKey(file=…) must be a path as a str or a pathlib.Path, not {type(file).__name__}."
            )
        signing = _signing_key(key if file is None else Path(file))
        jwk = signing.public_jwk()
        digest = hashlib.sha256(json.dumps(jwk, sort_keys=True, separators=(",", ":")).encode()).digest()
        put = object.__setattr__
        put(self, "shareable", key is not None or file is not None)
        put(self, "thumbprint", _base64url(digest))
        put(self, "_header", {"typ": "dpop+jwt", "jwk": jwk})
        put(self, "_key", signing)
        put(self, "_nonces", _Nonces())

    def proof(self, method: str, url: Any, *, token: Token | str | None = None, nonce: str | None = None) -> str:
        """Return a proof for one request, as the value of its `DPoP` header (RFC 9449 §4.2).

        Auth objects need no call of this. A request that is made without one sends two headers, and is repeated with
        a new proof if the API asks for a nonce::

            headers = {"Authorization": token.authorization, "DPoP": KEY.proof("GET", url, token=token)}

        Args:
            method: The request's method.
            url: Its URL: text, or a URL of httpx or httpx2. Query and fragment are left out of the proof.
            token: The token that the request carries. Default: none, as in a token request.
            nonce: The nonce of the server. Default: the one that the server of this URL sent last, to a token request
                or to a request of an auth object; or none.

        Raises:
            ConfigurationError: The URL is not absolute, or an argument is of another type.
        """
        target, origin = _target_of(url)
        if not isinstance(cast("object", method), str):
            raise ConfigurationError(f"DPoPKey.proof(method) must be a str, not {type(method).__name__}.")
        if not isinstance(cast("object", token), (str, Token, type(None))):
            raise ConfigurationError(f"DPoPKey.proof(token=…) must be a Token or a str, not {type(token).__name__}.")
        claims = {
            "jti": secrets.token_urlsafe(16),
            "htm": method.upper(),
            "htu": target,
            "iat": int(SYSTEM_CLOCK.time()),
        }
        if token is not None:
            value = token.value if isinstance(token, Token) else token
            claims["ath"] = _base64url(hashlib.sha256(value.encode()).digest())
        nonce = self._nonces.last((origin, token is not None)) if nonce is None else nonce
        if nonce is not None:
            claims["nonce"] = nonce
        return self._key.sign(claims, header=self._header)

    def take_nonce(self, url: Any, headers: Mapping[str, str], *, of_api: bool) -> bool:
        """Keep the nonce in an answer's headers for the next proofs, and return whether there is one.

        An API and a token endpoint of one origin have nonces of their own (RFC 9449 §9).
        """
        nonce = headers.get("dpop-nonce")
        if nonce is None or not _NONCE.fullmatch(nonce):
            return False
        self._nonces.keep((_target_of(url)[1], of_api), nonce)
        return True

    def identity(self) -> tuple[object, ...]:
        """Return what makes this key differ from another one; no part of it is secret."""
        return ("dpop", self.thumbprint)

    def __repr__(self) -> str:
        return f"<DPoPKey {self._key.algorithm}>"


class _Nonces(Unpicklable):
    """The nonce that each server sent last. Brokers of several threads may use one key."""

    __slots__ = ("_last", "_lock")

    def __init__(self) -> None:
        self._last: dict[tuple[str, bool], str] = {}
        self._lock = threading.Lock()

    def last(self, server: tuple[str, bool]) -> str | None:
        return self._last.get(server)

    def keep(self, server: tuple[str, bool], nonce: str) -> None:
        with self._lock:
            # Set anew, so that it moves to the end: the one that was kept longest ago is evicted.
            self._last.pop(server, None)
            if len(self._last) >= _MAX_ORIGINS:
                del self._last[next(iter(self._last))]
            self._last[server] = nonce


def asks_for_nonce(status: int, headers: Mapping[str, str]) -> bool:
    """Return whether an API wants a request again with the nonce in its answer (RFC 9449 §9)."""
    return status == _UNAUTHORIZED and NONCE_REQUIRED in headers.get("www-authenticate", "").lower()


def checked_dpop(key: object, *, option: str) -> DPoPKey | None:
    """Return the option `dpop` of a provider.

    Raises:
        ConfigurationError: It is neither a `DPoPKey` nor None.
    """
    if key is None or isinstance(key, DPoPKey):
        return key
    raise ConfigurationError(f"{option} must be DPoPKey(file=…) or DPoPKey(key), not {type(key).__name__}.")


def _signing_key(given: Any) -> SigningKey:
    option = f"DPoPKey({given})" if isinstance(given, Path) else "DPoPKey(…)"
    problem = ""
    content: Any = given
    try:
        if given is None:
            content = new_key(option=option)
        elif isinstance(given, Path):
            content = read_key_file(given, option=option)
    except OSError as error:
        problem = f"{error.strerror or type(error).__name__}: {error.filename}"
    if problem:
        raise ConfigurationError(f"DPoPKey cannot read its file ({problem}): check the path and its rights.")
    signing = SigningKey(content, option=option)
    if not signing.quick:
        raise ConfigurationError(
            f"{option} is an RSA key that takes milliseconds for each request: give a key on P-256, or RSA of at most "
            f"3072 bits."
        )
    return signing


def _target_of(url: Any) -> tuple[str, str]:
    """Return a URL without query and fragment as it is sent, and its origin."""
    parsed = read_url(url) if isinstance(url, str) else url
    # The client encodes what no host name can have, and another reader of the URL may see another host.
    if not getattr(parsed, "netloc", None) or not parsed.scheme or b"%" in parsed.netloc:
        raise ConfigurationError("DPoPKey needs the whole URL of the request, such as https://api.example/orders.")
    # Of `HTTPS://…:443` the clients keep the port.
    netloc = parsed.netloc.decode("ascii").removesuffix(_DEFAULT_PORTS.get(parsed.scheme, ""))
    origin = f"{parsed.scheme}://{netloc}"
    path: bytes = parsed.raw_path
    return origin + (path.partition(b"?")[0].decode("ascii") or "/"), origin


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
