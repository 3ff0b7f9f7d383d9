"""The servers behind an example."""

from __future__ import annotations

import pytest

from tests.examples.upstream import CLIENT, Model
from tokenmw.testing import ProviderServer


@pytest.fixture
def model() -> Model:
    """A model's API; its answers go on when the test says so."""
    return Model()


@pytest.fixture
def tokens() -> ProviderServer:
    """A token server that knows the client of the examples."""
    return ProviderServer(clients={CLIENT["MODEL_CLIENT_ID"]: CLIENT["MODEL_CLIENT_SECRET"]})
