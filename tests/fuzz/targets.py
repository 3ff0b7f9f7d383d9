"""All targets, by name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.fuzz import answers, callers, dpop, grants, outgoing, replies, stored, urls

if TYPE_CHECKING:
    from tests.fuzz.oracles import Target

__all__ = ["TARGETS"]

TARGETS: dict[str, Target] = {
    target.name: target
    for module in (grants, dpop, answers, outgoing, stored, replies, callers, urls)
    for target in module.TARGETS
}
