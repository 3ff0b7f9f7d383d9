"""The servers that the examples call."""

from __future__ import annotations

import pytest

from tests.examples.upstream import CLIENT, Model
from tokenmw.testing import ProviderServer


@pytest.fixture
def model() -> Model:
    """A model's API whose responses continue when the test lets them."""
    return Model()


@pytest.fixture
def tokens() -> ProviderServer:
    """A token server that knows the examples' client."""
    return ProviderServer(clients={CLIENT["MODEL_CLIENT_ID"]: CLIENT["MODEL_CLIENT_SECRET"]})
