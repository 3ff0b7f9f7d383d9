"""The faults that processes with valkey-glide see too: those that its connection, and not the package, notices."""

from __future__ import annotations

from dataclasses import replace
from importlib.util import find_spec
from typing import Final

from tests.faults.outages import OUTAGES

__all__ = ["GLIDE"]

_NAMES: Final = (
    "killed, and restarted with its data",
    "restarted empty immediately",
    "frozen",
    "maxclients is reached",
    "a read-only replica",
    "loading its data",
    "wrong password",
    "SCRIPT FLUSH",
    "accepts connections, never replies",
    "connections are reset in the middle of a reply",
    "5 % of the chunks reset their connection",
    "slow by 100 to 140 ms",
    "slow by 5 s",
    "a tenth of the replies is doubled, values are not encrypted",
    "two of four processes are cut off",
    "full, noeviction",
    "FLUSHALL",
)
GLIDE: Final = tuple(
    replace(outage, name=f"valkey-glide: {outage.name}", client="glide")
    for outage in OUTAGES
    if outage.name in _NAMES and find_spec("glide") is not None
)
