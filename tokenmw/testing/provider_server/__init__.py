"""A token server for tests. One file for each provider; `endpoint` and `fault` are what they share."""

from __future__ import annotations

from tokenmw.testing.provider_server.endpoint import Endpoint, TokenEndpoint, json_response
from tokenmw.testing.provider_server.fault import Fault, Hang
from tokenmw.testing.provider_server.server import ProviderServer

__all__ = ["Endpoint", "Fault", "Hang", "ProviderServer", "TokenEndpoint", "json_response"]
