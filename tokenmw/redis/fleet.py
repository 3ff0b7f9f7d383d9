"""The heartbeats of a fleet in Redis, so that each instance and the command line can show all of them.

There are 1 024 places, each with one key. An instance takes a free place, and writes its heartbeat there every 5 s with
15 s to live, so that one that has stopped disappears by itself. With more instances, those without a place are not
shown. All keys are on one server of a cluster. SET, GET and PTTL in scripts are enough, so that no ACL has to change.

A heartbeat is sealed as tokens are; the version in its clear header is the number of its instance.
"""

from __future__ import annotations

import asyncio
import random
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from tokenmw.redaction import Unpicklable
from tokenmw.redis.heartbeat import Heartbeat
from tokenmw.redis.sealing import Unreadable

if TYPE_CHECKING:
    from tokenmw.redis.connection import RedisConnection
    from tokenmw.redis.keys import KeyNames
    from tokenmw.redis.sealing import Sealer

__all__ = ["LASTS", "PLACES", "Beat", "FleetStore"]

LASTS: Final = 15.0
"""Seconds for which Redis has a heartbeat."""
PLACES: Final = 1024
_AT_ONCE: Final = 128  # places that one script reads: it takes the server 0.3 ms
_TRIES: Final = 4
_INSTANCES: Final = 2**52  # the versions that an envelope can have


@dataclass(frozen=True, slots=True)
class Beat:
    """A heartbeat that was read.

    Attributes:
        instance: The instance: 13 characters.
        heartbeat: What it says; None if it is sealed with a secret that this instance does not have.
        age: Seconds since it was written.
        written: When that was, in seconds since 1970, by the server's clock.
    """

    instance: str
    heartbeat: Heartbeat | None
    age: float
    written: float


class FleetStore(Unpicklable):
    """Writes the heartbeat of one instance, and reads those of all. Each operation may raise `RedisUnavailable`.

    Args:
        connection: The connection.
        names: The names of keys.
        sealer: Seals and opens heartbeats.

    Attributes:
        instance: This instance.
    """

    __slots__ = ("_connection", "_names", "_number", "_place", "_sealer", "_value", "instance")

    def __init__(self, connection: RedisConnection, *, names: KeyNames, sealer: Sealer) -> None:
        self._connection = connection
        self._names = names
        self._sealer = sealer
        # Not of `random`, whose state a forked process shares.
        self._number = 1 + secrets.randbelow(_INSTANCES - 1)
        self._place: int = self._number % PLACES
        self._value = b""
        self.instance = _named(self._number)

    async def write(self, heartbeat: Heartbeat) -> bool:
        """Write this instance's heartbeat. Return whether there was a place for it."""
        body = heartbeat.encode()
        for _ in range(_TRIES):
            key = self._key(self._place)
            value = self._sealer.seal(body, key=key, version=self._number)
            args = (value, int(LASTS * 1000), PLACES)
            place: int = await self._connection.run("beat", (key,), args, background=True)
            if place == -1:
                self._value = value
                return True
            if not 0 <= place < PLACES:
                break
            self._place = place
        self._place = random.randrange(PLACES)
        return False

    async def delete(self) -> None:
        """Delete this instance's heartbeat, because it closes."""
        value, self._value = self._value, b""
        if value:
            await self._connection.run("replace", (self._key(self._place),), (value, "", 1))

    async def read(self) -> list[Beat]:
        """Return the heartbeats of all instances."""
        found: dict[str, Beat] = {}
        # One after the other, not in one batch: the server runs other commands in between.
        for first in range(0, PLACES, _AT_ONCE):
            reply = await self._connection.run("beats", (self._key(first),), (_AT_ONCE,), background=True)
            await asyncio.sleep(0)  # opening 128 heartbeats takes this process 5 ms
            for beat in self._beats(reply):
                other = found.get(beat.instance)
                if other is None or beat.age < other.age:
                    found[beat.instance] = beat
        return list(found.values())

    def _beats(self, reply: list[Any]) -> list[Beat]:
        now, *rest = reply
        beats: list[Beat] = []
        for place, value, left in zip(rest[::3], rest[1::3], rest[2::3], strict=True):
            age = LASTS - left / 1000
            if not 0 <= age <= LASTS:
                continue  # its TTL was changed by somebody else
            try:
                number, body = self._sealer.open(value, key=self._key(place))
                heartbeat = Heartbeat.decode(body)
                if heartbeat is None:
                    continue
            except Unreadable as error:
                if error.reason != "unknown-key":
                    continue
                number, heartbeat = int.from_bytes(value[1:9]), None
            beats.append(Beat(_named(number), heartbeat, age, now / 1000 - age))
        return beats

    def _key(self, place: int) -> bytes:
        return self._names.key("fleet", f"beat-{place}")


def _named(number: int) -> str:
    return f"{number:013x}"
