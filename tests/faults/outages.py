"""All faults of Redis that the campaign runs, in the order of the table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from tests.faults.outages_data import DATA
from tests.faults.outages_network import NETWORK
from tests.faults.outages_server import SERVER

if TYPE_CHECKING:
    from tests.faults.outage import Outage

__all__ = ["OUTAGES"]

OUTAGES: Final[tuple[Outage, ...]] = (*SERVER, *NETWORK, *DATA)
