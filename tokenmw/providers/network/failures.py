"""Why a request got no response: the reason, what happened and the fix, from the errors of any client.

The clients' own errors hold the request with its headers and body. So an error is reduced to a text, and to the error
of the operating system or of TLS behind it, made anew from its number: nothing of the request is reachable from it.
"""

from __future__ import annotations

import asyncio
import errno
import os
import re
import socket
import ssl
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final, NamedTuple, cast

from tokenmw.providers.answer import UnusableAnswer
from tokenmw.providers.network.pinned import WRONG_CERTIFICATE
from tokenmw.providers.quiet_http import hide_response

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["Failure", "Progress", "expects_https", "failure_of", "host_and_port", "server_of", "system_error"]

_MAX_ERRORS: Final = 20  # of a chain that are read
_CONSTANT: Final = re.compile(r"[A-Z0-9_]{1,60}", re.ASCII)
# What h11 says of an answer that begins with a control character, as a TLS alert does, without and with a line's end.
_TLS_RECORD: Final = re.compile(r"""illegal request line|illegal status line: bytearray\(b['"]\\x1[56]\\x03""")
# How nginx, Go, Apache and Tomcat answer plain HTTP on a port for TLS, with status 400. In lower case.
_HTTPS_SENTENCES: Final = (
    b"plain http request was sent to https port",
    b"client sent an http request to an https server",
    b"speaking plain http to an ssl-enabled server port",
    b"this combination of host and port requires tls",
)
_SENTENCE_WITHIN: Final = 4096  # bytes of a body
_STATUS: Final = re.compile(r"[1-5][0-9]{2}", re.ASCII)

_NO_RESPONSE: Final = "without sending a response"

_Reason = tuple[str, str]  # its name, and what happened with its fix
_TLS_FIX: Final = "check the port, and whether the URL must begin with http://"
_NO_HANDSHAKE: Final = ("tls", f"it closed the connection during the handshake: {_TLS_FIX}")
_SLOW_HANDSHAKE: Final = ("tls", f"the handshake took too long: {_TLS_FIX}")
_RESET: Final = ("reset", "the connection was reset: check whether the server or a firewall refuses this machine")
_TOO_MANY_FILES: Final = ("files", "this process has too many open files: raise its limit (ulimit -n)")
_NO_ROUTE: Final = ("no route", "this machine has no route to it: check its network")
_CONNECT_TIMEOUT: Final = ("connect timeout", "check host, port and firewalls")
_NO_SUCH_HOST: Final = ("dns", "there is no host of that name: check the URL")
_NO_LOOKUP: Final = (
    "dns",
    "the name lookup failed or took too long: check the host name and this machine's name servers",
)
_NOT_HTTPS: Final = ("https expected", "the port takes requests with TLS only: use https:// in the URL")
_CLOSED: Final = (
    "closed",
    "it closed the connection without a response: check the port, and whether it needs https://",
)
_NOT_HTTP: Final = ("protocol", "it did not send a whole HTTP response: check the port")
_READ_TIMEOUT: Final = (
    "read timeout",
    "find out why it is slow; if it needs more, raise Limits(fetch_seconds=…)",
)
_PROXY_URL: Final = (
    "the proxy's URL: HTTPS_PROXY, HTTP_PROXY or ALL_PROXY with HTTPOptions(trust_env=True), or an option of the "
    "client given as http="
)
_PROXY_PARTS: Final = frozenset({"proxy", "socks"})  # of httpcore; each begins TLS when its tunnel is open
_FAULTS_OF_A_PROXY: Final = frozenset(
    {"refused", "reset", "connect timeout", "dns", "tls", "closed", "protocol", "https expected"}
)
_CONNECTED: Final = {"reset", "https expected", "closed", "protocol"}  # the reasons of a server that was reached
_BY_NUMBER: Final[dict[int, _Reason]] = {
    errno.ECONNREFUSED: ("refused", "nothing accepts connections there: check host and port"),
    **dict.fromkeys((errno.ECONNRESET, errno.ECONNABORTED, errno.EPIPE), _RESET),
    **dict.fromkeys((errno.EMFILE, errno.ENFILE), _TOO_MANY_FILES),
    **dict.fromkeys((errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EADDRNOTAVAIL), _NO_ROUTE),
    errno.ETIMEDOUT: _CONNECT_TIMEOUT,
}
_BY_NAME: Final[dict[str, _Reason]] = {
    "PoolTimeout": ("pool", "all connections of the HTTP client were in use: other token endpoints do not answer"),
    "ReadError": _RESET,
    "WriteError": _RESET,
}
_HANDSHAKE_ERRORS: Final = {"ConnectError", "ConnectTimeout", "TimeoutError"}
# The base classes of httpx's and httpx2's network errors, and of httpcore's.
_NETWORK_ERRORS: Final = {"TransportError", "NetworkError", "ProtocolError", "TimeoutException", "UnsupportedProtocol"}
_NO_SUCH_HOST_CODES: Final = {
    code for name in ("EAI_NONAME", "EAI_NODATA") if (code := getattr(socket, name, None)) is not None
}

# X.509 verification results of OpenSSL (x509_vfy.h), as it words them; its own text repeats the host name.
_VERIFY_TEXTS: Final = {
    9: "certificate is not yet valid",
    10: "certificate has expired",
    18: "self-signed certificate",
    19: "self-signed certificate in certificate chain",
    20: "unable to get local issuer certificate",
    21: "unable to verify the first certificate",
    23: "certificate revoked",
    62: "hostname mismatch",
    64: "IP address mismatch",
    WRONG_CERTIFICATE: "certificate with another thumbprint",
}
# Where the certificate itself is wrong, whatever CA is trusted.
_CERTIFICATE_FIXES: Final = {
    9: "check this machine's clock",
    10: "the server needs a new one",
    23: "the server needs a new one",
    62: "use the host name that the certificate is for",
    64: "use the host name that the certificate is for",
    WRONG_CERTIFICATE: "compare server_thumbprint, or IDENTITY_SERVER_THUMBPRINT, with the server's certificate",
}
_TRUST_FIX: Final = (
    "to trust its CA, use http=HTTPOptions(ca_file=…), or HTTPOptions(trust_env=True) with SSL_CERT_FILE, or a client "
    "with your CA"
)


class Failure(NamedTuple):
    """Why there is no response.

    Attributes:
        text: The end of a sentence that begins with the endpoint.
        cause: The error of the operating system or of TLS; None if there is none.
    """

    text: str
    cause: OSError | None = None


class Progress:
    """How far a request has come: its `trace` extension, which httpcore calls at each step, and httpcore2 too.

    Attributes:
        peer: The host and port last connected to, which may be those of a proxy; None before that, and for transports
            that report nothing.
        step: The step that was last begun.
        talks_to_peer: Whether that step is an exchange with `peer` itself, and not with a server behind its tunnel.
    """

    __slots__ = ("_may_send", "peer", "step", "talks_to_peer")

    def __init__(self, may_send: Callable[[], bool] | None = None) -> None:
        self.peer: tuple[str, int] | None = None
        self.step = ""
        self.talks_to_peer = False
        self._may_send = may_send

    def check(self) -> None:
        """Raise if the request may no longer be sent.

        Raises:
            UnusableAnswer: The program that asks has given up its right to.
        """
        if self._may_send is not None and not self._may_send():
            raise UnusableAnswer("was not asked: this process was suspended, or too slow, before it could send")

    async def __call__(self, event: str, info: dict[str, Any]) -> None:
        """Record a step, and keep the response out of the log."""
        if event.endswith(".started"):
            part, self.step, _ = ("", *event.split("."))[-3:]
            host, port = info.get("host"), info.get("port")
            if self.step == "connect_tcp" and isinstance(host, str) and isinstance(port, int):
                self.peer = host, port
                self.talks_to_peer = True
            elif part in _PROXY_PARTS and self.step == "start_tls":
                self.talks_to_peer = False
            elif self.step == "send_request_headers":
                self.check()
        await hide_response(event, info)

    @property
    def is_connecting(self) -> bool:
        """Whether there is no connection yet, with or without TLS."""
        return self.step in ("connect_tcp", "connect_unix_socket")


def failure_of(error: Exception, *, seconds: float, progress: Progress, server: str, scheme: str = "http") -> Failure:
    """Return why a request got no response.

    Args:
        error: What the client raised.
        seconds: The time limit of the request.
        progress: How far it came.
        server: The URL's host and port, as `host:port`.
        scheme: The URL's scheme.
    """
    found = next((one for one in _chain(error) if isinstance(one, OSError) and _is_specific(one)), None)
    cause = None if found is None else _anew(found)
    reason = _reason_of_name(error, progress) if found is None else _reason_of(found, progress)
    if reason is None:
        return Failure(f"was not asked, because the HTTP client failed ({type(error).__name__})")  # it is closed, maybe
    peer = "" if progress.peer is None else host_and_port(*progress.peer)
    # Only a proxy is connected to in place of the URL's own host.
    proxy = f" through the proxy at {peer}" if peer and peer != server else ""
    name, what = _NOT_HTTP if reason is _NOT_HTTPS and scheme == "https" else reason
    if name == "connect timeout":
        what = f"no connection within {seconds:g} s: {what}"
    if proxy and progress.talks_to_peer and name in _FAULTS_OF_A_PROXY:
        what = f"{what.partition(': ')[0]}: check {_PROXY_URL}"
    if name == "read timeout":
        return Failure(f"did not answer within {seconds:g} s{proxy} ({name}): {what}", cause)
    verb = "did not answer" if name in _CONNECTED else "could not be reached"
    return Failure(f"{verb}{proxy} ({name}){f': {what}' if what else ''}", cause)


def expects_https(status: int, body: bytes) -> str | None:
    """Return the end of the sentence for a response to plain HTTP that asks for TLS; None for any other response."""
    start = body[:_SENTENCE_WITHIN].lower()
    if status != HTTPStatus.BAD_REQUEST or not any(sentence in start for sentence in _HTTPS_SENTENCES):
        return None
    name, what = _NOT_HTTPS
    return f"did not answer ({name}): {what}"


def system_error(error: BaseException) -> OSError | None:
    """Return the error of the operating system or of TLS that caused one of this package's; None if there is none.

    It is made anew, so that it can be kept: the cause of an error of the program's own code may hold anything.
    """
    cause = error.__cause__
    return _anew(cause) if isinstance(cause, OSError) and _is_specific(cause) else None


def host_and_port(host: str, port: int) -> str:
    """Return `host:port`, with brackets around an IPv6 address."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def server_of(url: Any) -> str:
    """Return the host and port of a URL of httpx or httpx2, as `host:port`."""
    return host_and_port(url.raw_host.decode("ascii"), url.port or {"http": 80, "https": 443}.get(url.scheme, 0))


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and everything that caused it, innermost last."""
    waiting: list[BaseException | None] = [error]
    for _ in range(_MAX_ERRORS):
        if not waiting:
            return
        one = waiting.pop()
        if one is None or isinstance(one, asyncio.CancelledError):  # what was interrupted is not why
            continue
        yield one
        waiting.append(one.__cause__ or one.__context__)  # httpcore's pool raises each error again `from None`
        if isinstance(one, BaseExceptionGroup):
            waiting += reversed(cast("tuple[BaseException, ...]", one.exceptions))


def _is_specific(error: OSError) -> bool:
    # anyio raises an OSError without a number around the errors of several addresses.
    return isinstance(error, (ssl.SSLError, socket.gaierror)) or isinstance(error.errno, int)


def _reason_of(error: OSError, progress: Progress) -> _Reason:
    """Return the reason that an error of the operating system or of TLS gives."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return "certificate", f"{_verify_text(error)}: {_CERTIFICATE_FIXES.get(_verify_code(error), _TRUST_FIX)}"
    if isinstance(error, ssl.SSLError):
        return "tls", f"the handshake failed ({_reason_code(error)}): {_TLS_FIX}"
    number = _number(error)
    if isinstance(error, socket.gaierror):
        return _NO_SUCH_HOST if number in _NO_SUCH_HOST_CODES else _NO_LOOKUP
    reason = _BY_NUMBER.get(number, ("network", os.strerror(number)))
    return _NO_HANDSHAKE if reason is _RESET and progress.step == "start_tls" else reason


def _reason_of_name(error: Exception, progress: Progress) -> _Reason | None:
    """Return the reason that the class of an error gives; None if it is not about the network.

    httpx, httpx2 and httpcore use the same names.
    """
    name = type(error).__name__
    if name == "ProxyError":
        return "proxy", _proxy_refusal(_STATUS.match(str(error)))
    if name == "RemoteProtocolError":
        return _not_http(str(error))
    if progress.step == "start_tls" and name in _HANDSHAKE_ERRORS:
        return _NO_HANDSHAKE if name == "ConnectError" else _SLOW_HANDSHAKE
    if name != "PoolTimeout" and (isinstance(error, TimeoutError) or name.endswith("Timeout")):
        return _CONNECT_TIMEOUT if name == "ConnectTimeout" or progress.is_connecting else _READ_TIMEOUT
    if isinstance(error, OSError) or any(base.__name__ in _NETWORK_ERRORS for base in type(error).__mro__):
        return _BY_NAME.get(name, (name, ""))
    return None


def _proxy_refusal(status: re.Match[str] | None) -> str:
    if status is None:
        return f"the proxy refused: check {_PROXY_URL}"
    if status[0].startswith("5"):
        return f"the proxy has no connection to it (HTTP {status[0]}): check the host, and what the proxy can reach"
    return f"the proxy refused (HTTP {status[0]}): check its rules, and the user name and password in {_PROXY_URL}"


def _not_http(text: str) -> _Reason:
    if _TLS_RECORD.search(text):
        return _NOT_HTTPS
    return _CLOSED if _NO_RESPONSE in text else _NOT_HTTP


def _anew(error: OSError) -> OSError:
    """Return an equal error made of numbers and constants only: the error's own text might be of a user's transport."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return ssl.SSLCertVerificationError(1, f"certificate verify failed: {_verify_text(error)}")
    if isinstance(error, ssl.SSLError):
        return ssl.SSLError(1, _reason_code(error))
    number = _number(error)
    if isinstance(error, socket.gaierror):
        return socket.gaierror(number, "name lookup failed")
    return OSError(number, os.strerror(number))  # Python chooses the subclass by the number


def _number(error: OSError) -> int:
    return error.errno if isinstance(error.errno, int) else 0


def _reason_code(error: ssl.SSLError) -> str:
    code = getattr(error, "reason", None)  # only OpenSSL's own errors have it
    return code if isinstance(code, str) and _CONSTANT.fullmatch(code) else "no reason"


def _verify_text(error: ssl.SSLCertVerificationError) -> str:
    code = _verify_code(error)
    return _VERIFY_TEXTS.get(code, f"certificate verify code {code}")


def _verify_code(error: ssl.SSLCertVerificationError) -> int:
    code = getattr(error, "verify_code", 0)
    return code if isinstance(code, int) else 0
