"""A program whose provider is a real token server."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.commands.programs import CLIENT_SECRET, Program
from tokenmw.testing import ProviderServer

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path


@pytest.fixture
def provider_server() -> ProviderServer:
    """The token server, with the client "crm"."""
    return ProviderServer(clients={"crm": CLIENT_SECRET}, token_life=3600)


@pytest.fixture
def program(tmp_path: Path, provider_server: ProviderServer) -> Generator[Program]:
    """The program; it is written by `program.write(redis)`."""
    with provider_server.running() as url:
        yield Program(tmp_path, f"{url}/oauth2/token")
