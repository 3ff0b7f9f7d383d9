"""Connects to the server of a Glide configuration with redis-py, for hints.

Glide keeps messages that arrive in a list without a bound, and a flood of them would fill the memory. So the listener's
connection is redis-py's, with the same server, user and certificates.
"""

from __future__ import annotations

import random
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

import redis.asyncio as redis
from redis.asyncio.connection import Connection, ConnectionPool, SSLConnection, UnixDomainSocketConnection

from tokenmw.redis.background_connect import BACKGROUND_CONNECTIONS
from tokenmw.redis.errors import Unsuitable
from tokenmw.redis.name_lookup import NameLookups

if TYPE_CHECKING:
    from tokenmw.limits import Limits

__all__ = ["open_subscriber", "server_address"]

_OFF: Final = "; TokenBroker(hints=False) omits them"
_IAM: Final = f"hints need a password, which redis-py has no IAM token for{_OFF}"
_PEM: Final = f"hints need the client's certificate as client_cert_path and client_key_path, not as bytes{_OFF}"


def server_address(configuration: Any) -> str:
    """Return the addresses of a configuration, as "host:port" or as a socket's path, separated by commas."""
    return ",".join(str(one.unix_socket_path or _host_port(one)) for one in configuration.addresses)


def _host_port(address: Any) -> str:
    return f"[{address.host}]:{address.port}" if ":" in address.host else f"{address.host}:{address.port}"


def open_subscriber(configuration: Any, *, limits: Limits) -> redis.Redis:
    """Return a redis-py client of one of the addresses: a replica passes on what is published to its primary.

    Raises:
        Unsuitable: The configuration has something that redis-py cannot do.
    """
    address = random.choice(configuration.addresses)
    options: dict[str, Any] = {"socket_connect_timeout": limits.connect_seconds, **_login(configuration)}
    kind: type[Any] = Connection
    if address.unix_socket_path is not None:
        kind = UnixDomainSocketConnection
        options["path"] = address.unix_socket_path
    else:
        options["host"], options["port"] = _resolved(configuration, address)
        options["lookups"] = NameLookups()
        if configuration.use_tls:
            kind = SSLConnection
            options.update(_tls(configuration.advanced_config))
    return redis.Redis(connection_pool=ConnectionPool(connection_class=BACKGROUND_CONNECTIONS[kind], **options))


def _login(configuration: Any) -> dict[str, Any]:
    credentials = configuration.credentials
    if credentials is None:
        return {}
    if credentials.iam_config is not None:
        raise Unsuitable("unsupported", _IAM)
    return {"username": credentials.username, "password": credentials.password}


def _resolved(configuration: Any, address: Any) -> tuple[str, int]:
    resolver = configuration.address_resolver
    if resolver is not None:
        with suppress(Exception):  # the program's code; then the address stays, as with Glide
            host, port = resolver(address.host, address.port)
            return host, port
    return address.host, address.port


def _tls(advanced: Any) -> dict[str, Any]:
    tls = None if advanced is None else advanced.tls_config
    if tls is None:
        return {}
    if tls.client_cert_pem is not None:
        raise Unsuitable("unsupported", _PEM)
    options: dict[str, Any] = {}
    if tls.root_pem_cacerts is not None:
        options["ssl_ca_data"] = tls.root_pem_cacerts.decode()
    if tls.client_cert_path is not None:
        options["ssl_certfile"], options["ssl_keyfile"] = str(tls.client_cert_path), str(tls.client_key_path)
    if tls.use_insecure_tls:
        options["ssl_cert_reqs"], options["ssl_check_hostname"] = "none", False
    return options
