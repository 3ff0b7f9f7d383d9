"""For tests of programs that use tokenmw: a clock to move, tokens, and a token server.

`clock` and `make_token` need nothing but the core. `provider_server` is the token server; only its `running` imports
uvicorn. Nothing else in the package imports this.
"""

from __future__ import annotations

from tokenmw.testing.clock import ManualClock
from tokenmw.testing.make_token import make_token
from tokenmw.testing.provider_server import Fault, ProviderServer

__all__ = ["Fault", "ManualClock", "ProviderServer", "make_token"]
