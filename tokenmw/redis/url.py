"""Reads a Redis URL, and says what is wrong with it without showing a part of the password.

The password ends at the last "@". So an option may be named only if there is no "@" behind the host: if there is one,
what looks like an option may be a part of a password with an unquoted "?".
"""

from __future__ import annotations

import re
from difflib import get_close_matches
from inspect import Parameter, signature
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from redis import __version__ as redis_version
from redis.asyncio.connection import parse_url

from tokenmw.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from urllib.parse import SplitResult

__all__ = ["is_cluster", "option_error", "options_of", "parameters_of", "url_kwargs"]

_SCHEMES: Final = ("redis", "rediss", "unix", "redis+cluster", "rediss+cluster")
_CLUSTER_SINCE: Final = (8, 0, 1)  # the first redis-py whose nodes release the connection of a cancelled command
_NAME: Final = re.compile(r"[A-Za-z_]{1,40}")
_UNQUOTED: Final = (
    'redis: the URL has an "@" behind its host, so its password probably has an unquoted "/", "?" or "#": write them '
    "as %2F, %3F and %23."
)
_MALFORMED: Final = (
    "redis: the URL is malformed: its host or its port is not valid. Write special characters in a password as %XX."
)
_OWN_BOUNDS: Final = {"timeout": "Limits(command_seconds=…)", "max_idle_time": "Limits(connections=…)"}


def is_cluster(url: str) -> bool:
    """Return whether a URL is of a cluster."""
    return "+cluster" in url.partition("://")[0]


def url_kwargs(url: str) -> dict[str, Any]:
    """Return the arguments of a connection that a URL stands for.

    The URL of a cluster may have several hosts, `redis+cluster://a:7000,b:7001`: those beyond the first are in `seeds`,
    a list of host and port.

    Raises:
        ConfigurationError: The URL cannot work. No error quotes it, because it contains the password.
    """
    first, *others = [_kwargs_of(each) for each in _each_host(url)]
    if others:
        first["seeds"] = [(other["host"], other.get("port", 6379)) for other in others]
    return first


def _each_host(url: str) -> list[str]:
    scheme, separator, rest = url.partition("://")
    end = next((number for number, letter in enumerate(rest) if letter in "/?#"), len(rest))
    userinfo, at, hosts = rest[:end].rpartition("@")
    if "," not in hosts or scheme == "unix" or "@" in rest[end:]:  # with such an "@", it may be part of a password
        return [url]
    if not is_cluster(url):
        raise ConfigurationError(
            "redis: the URL has several hosts: write redis+cluster:// for a cluster, or pass "
            "sentinel.master_for(name) for a Sentinel. Write a comma in a password as %2C."
        )
    each = hosts.split(",")
    if any(host.strip().startswith(":") or not host.strip() for host in each):
        raise ConfigurationError("redis: the URL has a comma without a host before or after it: remove it.")
    return [f"{scheme}{separator}{userinfo}{at}{host.strip()}{rest[end:]}" for host in each]


def _kwargs_of(url: str) -> dict[str, Any]:
    scheme, separator, rest = url.partition("://")
    if scheme not in _SCHEMES or not separator:
        known = ", ".join(f"{name}://" for name in _SCHEMES)
        raise ConfigurationError(
            f"redis: the URL must begin with one of {known}. For a Sentinel, pass sentinel.master_for(name)."
        )
    parsed = _parse(url, without_cluster=scheme.removesuffix("+cluster") + separator + rest)
    if parsed is None:
        raise ConfigurationError(_what_is_malformed(url))
    parts, port, kwargs = parsed
    if port == 0 or (scheme != "unix" and parts.netloc.endswith(":")):
        # An environment variable that is not set leaves such a URL; redis-py would use its default.
        raise ConfigurationError("redis: the URL has a colon without a port from 1 to 65535: omit the colon for 6379.")
    database = parts.path.strip("/")
    if scheme != "unix" and database and not database.isdecimal():
        if "@" in database:
            raise ConfigurationError(_UNQUOTED)
        raise ConfigurationError("redis: the URL's path must be a database number, such as redis://host:6379/0.")
    if scheme == "unix" and not parts.path:
        raise ConfigurationError("redis: a unix:// URL needs the socket's path, such as unix:///run/redis.sock?db=0.")
    if is_cluster(url) and kwargs.get("db"):
        raise ConfigurationError("redis: a cluster has only database 0: remove the number from the URL.")
    if kwargs.get("decode_responses"):
        raise ConfigurationError("redis: values are bytes: remove decode_responses from the URL.")
    if is_cluster(url) and tuple(map(int, re.findall(r"\d+", redis_version)[:3])) < _CLUSTER_SINCE:
        needed = ".".join(map(str, _CLUSTER_SINCE))
        raise ConfigurationError(
            f"redis: with redis-py {redis_version} a cluster node that hung once would never be used again: "
            f'`pip install "redis>={needed}"`.'
        )
    return kwargs


def _parse(url: str, *, without_cluster: str) -> tuple[SplitResult, int | None, dict[str, Any]] | None:
    # Returns None instead of raising, because the text of the error would quote a part of the URL.
    try:
        parts = urlsplit(url)
        port, kwargs = parts.port, dict(parse_url(without_cluster))
    except ValueError:
        return None
    # An unquoted "?" or "#" in a password: what precedes it would be taken for host and port, and be logged as such.
    cut = parts.fragment or any(option and "=" not in option for option in parts.query.split("&"))
    return None if cut else (parts, port, kwargs)


def _what_is_malformed(url: str) -> str:
    if re.search(r"[/?#].*@", url.partition("://")[2]):
        return _UNQUOTED
    if "#" in url:
        return 'redis: the URL has a "#", which ends it: remove it, or write it as %23 in a password.'
    for option in options_of(url):
        name, separator, _value = option.partition("=")
        if not separator:
            return f'redis: the URL\'s option "{name}" has no value: write {name}=…, or remove it.'
        if _parse(f"redis://localhost?{option}", without_cluster=f"redis://localhost?{option}") is None:
            return f'redis: the URL\'s option "{name}" has a value that is not valid.'
    return _MALFORMED


def options_of(url: str) -> list[str]:
    """Return the options of a URL whose names may be shown, each as `name=value`."""
    before, _, query = url.partition("?")
    if "@" in query or (before.partition("://")[2].startswith(":") and "@" not in before):
        return []
    return [option for option in query.split("&") if _NAME.fullmatch(option.partition("=")[0])]


def option_error(name: str, *, known: Iterable[str]) -> ConfigurationError:
    """Return the error for an option that cannot be used, with the fix."""
    names = sorted(set(known) - _OWN_BOUNDS.keys())
    if name in _OWN_BOUNDS:
        return ConfigurationError(f'redis: the URL\'s option "{name}" is not used: {_OWN_BOUNDS[name]} bounds that.')
    if name in names:
        return ConfigurationError(f'redis: the URL\'s option "{name}" has a value that is not valid.')
    near = get_close_matches(name, names, n=1)
    fix = f'did you mean "{near[0]}"?' if near else "remove it, or pass a client of redis.asyncio."
    return ConfigurationError(f'redis: the URL has the unknown option "{name}": {fix}')


def parameters_of(*classes: type) -> set[str]:
    """Return the names of the parameters that the constructors of some classes have, with those of their bases."""
    return {
        name
        for one in classes
        for base in one.__mro__[:-1]
        if "__init__" in base.__dict__
        for name, parameter in signature(base.__dict__["__init__"]).parameters.items()
        if name != "self" and parameter.kind in (Parameter.KEYWORD_ONLY, Parameter.POSITIONAL_OR_KEYWORD)
    }
