"""What is wrong with a server or with the `redis` option, and how to fix it: the second half of a log line.

No text quotes what a server answered, because a server or a proxy may repeat what it was sent. Of an answer, only names
of commands are used, and of an error reply that concerns one command, the first plain words (`summary`).
"""

from __future__ import annotations

import re
import ssl
from typing import TYPE_CHECKING, Any, Final

from redis.exceptions import AskError, InvalidResponse, RedisError, ResponseError

from tokenmw.redis.acl import ACL_RULES, CATEGORIES
from tokenmw.redis.errors import Unsuitable, causes, classify

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["advice", "check_probe", "summary"]

_OLDEST: Final = (6, 2)
_NEEDED: Final = "tokenmw needs Redis 6.2 or newer, or Valkey, with EVAL, EVALSHA and SCRIPT"
_ALLOW: Final = f"ACL SETUSER <user> {ACL_RULES}"  # all that is needed: a server names one command at a time
_SHOWN: Final = 6  # parts of an error reply
_PLAIN: Final = re.compile(r"[A-Za-z]{1,20}")
_COMMAND: Final = re.compile(r"'([a-z|]{1,20})' command")
_UNKNOWN_COMMAND: Final = re.compile(r"unknown command ['`]([A-Za-z]{1,20})['`]", re.IGNORECASE)
_VERSION: Final = re.compile(rb"(\d{1,4})\.(\d{1,4})(\.\d{1,4})?")
_WHICH_SCHEME: Final = "rediss:// is for a port with TLS, redis:// for one without"
_OTHER_HOST: Final = (62, 64)  # OpenSSL's codes of a host name and of an IP address that do not match
_FIX_OF_CLASS: Final[tuple[tuple[type[BaseException], str], ...]] = (
    (
        ssl.SSLCertVerificationError,
        "its certificate is not trusted: give its CA, in a URL as ?ssl_ca_certs=/path/to/ca.pem",
    ),
    (ssl.SSLError, f"TLS failed: {_WHICH_SCHEME}, and the files of ssl_ca_certs and ssl_certfile are in PEM"),
    (
        FileNotFoundError,
        "a path of redis= does not exist: check that of the socket, or of ssl_ca_certs and ssl_certfile",
    ),
    (
        PermissionError,
        "this user has no access to a path of redis=: the socket, or a file of ssl_ca_certs or ssl_keyfile",
    ),
)
_FIX_OF_REASON: Final = {
    "refused": "nothing listens there: check host and port, and that Redis runs",
    "dns": "its host name does not resolve: check the name, and this machine's name servers",
    "nofile": "this process has too many open files: raise `ulimit -n`, or lower Limits(connections=…)",
}
_CLOSED: Final = (
    "the server, or what is between, closed the connection: see its log, and the idle limits of firewalls and proxies"
)
_CLOSED_AT_START: Final = f"it closed the connection at the start: {_WHICH_SCHEME}"
_NOT_ANSWERED: Final = f"it has not answered yet: check host and port; {_WHICH_SCHEME}"
_WRONG_REPLY: Final = (
    "a reply is damaged or not that of its command: find out what between this process and Redis changes or repeats it"
)
_TOO_MANY_CLIENTS: Final = "max number of clients"


def check_probe(reply: Any) -> None:
    """Check what the probe script returned.

    Raises:
        Unsuitable: The server is too old, is no Redis, or its ACL refuses a command that is needed.
    """
    match reply:
        case [bytes() as version, bytes() as refused]:
            pass
        case _:
            raise Unsuitable("unsupported", f"it does not run scripts as Redis does; {_NEEDED}")
    if refused:
        names = [name for name in refused.decode("ascii", "replace").split() if name in CATEGORIES]
        raise Unsuitable("permission", _not_allowed(*names))
    found = _VERSION.fullmatch(version)
    if found and (int(found[1]), int(found[2])) < _OLDEST:
        raise Unsuitable("unsupported", f"it is version {version.decode()}; {_NEEDED}")


def advice(error: BaseException, reason: str, *, reached: bool) -> str:
    """Return what is wrong and its fix, without a full stop; "" if the reason says it all.

    Args:
        error: What the command raised.
        reason: Its reason.
        reached: Whether the server has answered any command so far.
    """
    if isinstance(error, Unsuitable):
        return error.fix
    if isinstance(error, InvalidResponse) and reached:
        return _WRONG_REPLY
    if reason in _FIX_OF_REASON:
        return _FIX_OF_REASON[reason]
    if reason in _ABOUT_CONNECTING:
        return _of_connecting(error, reason, reached=reached)
    advise = _ADVICE.get(reason)
    return "" if advise is None else advise(error)


def _of_login(error: BaseException) -> str:
    text = str(error)
    if "already authenticated" in text or "Authentication required" in text:
        return "it requires a password, and redis= has none: redis://user:password@host"
    if "without any password" in text:
        return "it has no password, and redis= gives one: remove it"
    return "it refuses the user or the password of redis=; in a URL, write special characters of a password as %XX"


def _of_permission(error: BaseException) -> str:
    found = _COMMAND.search(str(error))
    if found is None and "key" in str(error):
        return f"its ACL does not allow the keys of the namespace: {_ALLOW}"
    return _not_allowed(*([found[1]] if found else []))


def _not_allowed(*commands: str) -> str:
    if not commands:
        return f"its ACL does not allow a command: {_ALLOW}"
    names = ", ".join(f"{name} (@{CATEGORIES[name]})" if name in CATEGORIES else name for name in commands)
    more = "".join(f" +{name}" for name in commands if name not in CATEGORIES)
    return f"its ACL does not allow {names}: {_ALLOW}{more}"


def _of_support(error: BaseException) -> str:
    command = _UNKNOWN_COMMAND.search(str(error))
    name = f"the command {command[1].upper()}" if command else "a command"
    return f"it does not know {name}; {_NEEDED}, not renamed and not behind a proxy that lacks them"


def _of_database(_error: BaseException) -> str:
    return "it has no database of that number: change the number at the end of the URL; a cluster has only 0"


def _of_protocol(error: BaseException) -> str:
    return "what answers there is not Redis: check host and port" if isinstance(error, InvalidResponse) else ""


def _of_cluster(error: BaseException) -> str:
    if isinstance(error, AskError):  # MOVED as well
        return "it is a node of a cluster: use redis+cluster:// or a RedisCluster"
    if "Cluster mode is not enabled" in str(error):
        return "it is not a cluster: use redis:// in place of redis+cluster://"
    return ""


def _of_connecting(error: BaseException, reason: str, *, reached: bool) -> str:
    for cause in causes(error):
        if isinstance(cause, ssl.SSLCertVerificationError) and cause.verify_code in _OTHER_HOST:
            return "its certificate is for another host name: use a name that is in the certificate"
        for kind, fix in _FIX_OF_CLASS:
            if isinstance(cause, kind):
                return fix
        if isinstance(cause, RedisError) and _TOO_MANY_CLIENTS in str(cause):
            return "it has no free connection: raise its maxclients, or lower Limits(connections=…)"
    if reached:
        return _CLOSED if reason == "reset" else ""
    return _NOT_ANSWERED if reason == "timeout" else _CLOSED_AT_START


_ABOUT_CONNECTING: Final = frozenset({"connection", "timeout", "reset"})
_ADVICE: Final[dict[str, Callable[[BaseException], str]]] = {
    "auth": _of_login,
    "permission": _of_permission,
    "unsupported": _of_support,
    "database": _of_database,
    "cluster": _of_cluster,
    "error": _of_protocol,
}


def summary(error: BaseException) -> str:
    """Return the beginning of an error reply: at most six plain words, so that it holds no key and no value."""
    parts: list[str] = []
    for part in str(error).split()[:_SHOWN] if isinstance(error, ResponseError) else ():
        plain = part.strip("'`\".,:;()")
        if not _PLAIN.fullmatch(plain):
            break
        parts.append(plain)
        if part[-1] in ",:;.":
            break
    return " ".join(parts) or classify(error)
