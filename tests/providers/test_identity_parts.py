"""Two credentials are one if their tokens may stand for each other, here and in Redis."""

from __future__ import annotations

from tokenmw import Provider


class Part(Provider):
    """A credential of one part."""

    __slots__ = ("part",)
    kind = "part"

    def __init__(self, part: object) -> None:
        self.part = part

    def identity(self) -> tuple[object, ...]:
        return ("same", (self.part,))


def test_parts_that_are_equal_and_not_the_same_are_two_keys() -> None:
    """Redis has a key for each of them, so this process has a token for each."""
    parts = (1, True, 1.0, "1", b"1", None)
    assert len(parts) == len({Part(part) for part in (*parts, *parts)})
