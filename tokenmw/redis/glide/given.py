"""Recognizes what a program passes as `redis=` from valkey-glide, and says what cannot be used and why."""

from __future__ import annotations

import copy
import sys
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeAlias

from tokenmw.errors import ConfigurationError

if TYPE_CHECKING:
    from tokenmw.limits import Limits

__all__ = ["GivenGlide", "GlideClient", "GlideClientConfiguration", "glide_configuration", "private_configuration"]

_CLUSTER: Final = (
    "redis: valkey-glide's cluster client does not tell which node has a key, so one node that fails would count as "
    "all of them: pass a redis+cluster:// URL."
)
_SYNC: Final = (
    "redis: valkey-glide-sync's clients would block the event loop: pass a GlideClientConfiguration of valkey-glide "
    '(`pip install "tokenmw[glide]"`).'
)
_OLD: Final = 'redis: this version of valkey-glide is too old: `pip install "tokenmw[glide]"`.'
# What a client of its own, with a timeout for each batch and a circuit breaker in front, must not have: replies of
# replicas and caches are old, compressed values are unreadable for other instances, and messages are the program's.
_LEFT_OUT: Final = ("pubsub_subscriptions", "compression", "client_side_cache", "client_circuit_breaker")


class GlideClient(Protocol):
    """What is used of a `glide.GlideClient`: its configuration."""

    @property
    def config(self) -> Any:
        """Its configuration."""
        ...


class GlideClientConfiguration(Protocol):
    """What identifies a `glide.GlideClientConfiguration`."""

    @property
    def addresses(self) -> Any:
        """The addresses of the server and its replicas."""
        ...

    @property
    def lazy_connect(self) -> Any:
        """Whether a client connects with its first command."""
        ...


GivenGlide: TypeAlias = GlideClient | GlideClientConfiguration


def glide_configuration(given: object) -> Any | None:
    """Return the configuration of what a program passed; None if it is nothing of valkey-glide.

    Raises:
        ConfigurationError: It is of valkey-glide, but cannot be used.
    """
    packages = {kind.__module__.partition(".")[0] for kind in type(given).__mro__}
    if "glide_sync" in packages:
        raise ConfigurationError(_SYNC)
    glide: Any = sys.modules.get("glide")
    if glide is None or not packages & {"glide", "glide_shared"}:
        return None
    if isinstance(given, (glide.GlideClusterClient, glide.GlideClusterClientConfiguration)):
        raise ConfigurationError(_CLUSTER)
    configuration = given.config if isinstance(given, glide.GlideClient) else given
    if not isinstance(configuration, glide.GlideClientConfiguration):
        return None
    if not hasattr(configuration, "lazy_connect"):
        raise ConfigurationError(_OLD)
    return configuration


def private_configuration(given: Any, *, limits: Limits) -> Any:
    """Return a copy of a configuration for a client of this package's own.

    It connects with its first command, because creating a client that connects first blocks the event loop. It reads
    from the primary, has nothing of `_LEFT_OUT`, and `connect_seconds` bounds connecting unless the program bounds it.
    """
    made = copy.copy(given)
    made.lazy_connect = True
    made.read_from = type(given.read_from).PRIMARY
    for name in _LEFT_OUT:
        setattr(made, name, None)
    advanced = given.advanced_config
    if advanced is None or advanced.connection_timeout is None:
        advanced = sys.modules["glide"].AdvancedGlideClientConfiguration() if advanced is None else copy.copy(advanced)
        advanced.connection_timeout = max(1, int(limits.connect_seconds * 1000))
        made.advanced_config = advanced
    return made
