"""A token server for tests: `server` is all of it, with one file per provider.

`endpoint`, `fault` and `issued` are shared by the endpoints; `running` serves over real HTTP with uvicorn. `users` is
what users have consented to: `families` has their refresh tokens, `codes` their authorization codes.
"""

from __future__ import annotations

from tokenmw.testing.provider_server.endpoint import Endpoint, TokenEndpoint, json_response
from tokenmw.testing.provider_server.families import Family, Pair, TokenPost
from tokenmw.testing.provider_server.fault import Fault, Hang
from tokenmw.testing.provider_server.server import ProviderServer

__all__ = [
    "Endpoint",
    "Family",
    "Fault",
    "Hang",
    "Pair",
    "ProviderServer",
    "TokenEndpoint",
    "TokenPost",
    "json_response",
]
