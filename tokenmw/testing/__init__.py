"""What tests of a program that uses tokenmw need: a clock to move, tokens, and a token server."""

from __future__ import annotations

from tokenmw.testing.clock import ManualClock
from tokenmw.testing.make_token import make_token
from tokenmw.testing.provider_server import Fault, ProviderServer

__all__ = ["Fault", "ManualClock", "ProviderServer", "make_token"]
