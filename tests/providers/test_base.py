from __future__ import annotations

import copy
import json
import pickle

import pytest

from tokenmw.errors import ConfigurationError
from tokenmw.providers.base import Provider
from tokenmw.testing import make_token


class Hand(Provider):
    """A provider as a user might write it."""

    __slots__ = ("asked", "name", "secret")
    kind = "hand"
    asked: list[str]

    def __init__(self, *, name: str, secret: str) -> None:
        self.name = name
        self.secret = secret
        self.asked = []

    def identity(self) -> tuple[object, ...]:
        self.asked.append("identity")
        return (self.name, self.secret)


class OtherHand(Hand):
    __slots__ = ()
    kind = "other"


class Outgoing:
    """A request to an API, or its response."""

    url = ""
    body = None

    def __init__(self, status: int = 200, **headers: str) -> None:
        self.status = status
        self.headers = headers


def test_equal_credentials_are_one_key() -> None:
    """Providers made for each request are equal and have one hash, so they share one token."""
    first, same = Hand(name="a", secret="s"), Hand(name="a", secret="s")
    assert first == same
    assert hash(first) == hash(same)
    assert {first: 1}[same] == 1


@pytest.mark.parametrize(
    "other",
    [Hand(name="a", secret="t"), Hand(name="b", secret="s"), OtherHand(name="a", secret="s"), ("hand", "a", "s")],
)
def test_any_difference_is_another_key(other: object) -> None:
    """A rotated secret, another client and another kind each make another credential."""
    assert Hand(name="a", secret="s") != other


def test_identity_is_computed_once() -> None:
    """Warm requests compare providers, which must not compute the credential each time."""
    hand = Hand(name="a", secret="s")
    assert [hash(hand) for _ in range(3)] == [hash(hand)] * 3
    assert ("hand", "a", "s") == hand.credential
    assert ["identity"] == hand.asked


def test_provider_is_frozen_and_opaque() -> None:
    """A provider cannot change, because it is the key of its token, and no encoder can read its secret."""
    hand = Hand(name="a", secret="s3cr3t")
    with pytest.raises(AttributeError, match="make a new provider"):
        hand.secret = "t"
    with pytest.raises(AttributeError, match="frozen"):
        del hand.secret
    with pytest.raises(AttributeError):
        hand.unknown = 1
    with pytest.raises(TypeError, match="not pickled"):
        pickle.dumps(hand)
    with pytest.raises(TypeError, match="not JSON serializable"):
        json.dumps(hand)
    assert hand is copy.copy(hand) is copy.deepcopy(hand)
    assert not hasattr(hand, "__dict__")
    assert "<Hand>" == repr(hand) == str(hand)


def test_subclass_without_slots_is_refused_when_it_is_defined() -> None:
    """A class with a `__dict__` is refused, because an encoder could write out the secret."""
    with pytest.raises(ConfigurationError, match="__slots__"):
        type("Open", (Provider,), {"kind": "open"})


@pytest.mark.parametrize("kind", ["", "two words", "a-b"])
def test_subclass_needs_a_kind(kind: str) -> None:
    """A class without a valid kind is refused: the kind is a metrics label and a part of the key."""
    with pytest.raises(ConfigurationError, match="kind"):
        type("Nameless", (Provider,), {"__slots__": (), "kind": kind})


def test_defaults_of_a_provider() -> None:
    """The defaults of a subclass are the documented ones."""
    hand = Hand(name="a", secret="s")
    assert (False, None, None, True, None, False, "Bearer") == (
        hand.exclusive,
        hand.renewal_window,
        hand.refresh_before,
        hand.shareable,
        hand.hosts,
        hand.allow_http,
        hand.scheme,
    )


def test_token_goes_into_the_authorization_header() -> None:
    """By default the token goes into the `Authorization` header (RFC 6750 §2.1)."""
    request = Outgoing()
    Hand(name="a", secret="s").authorize(request, make_token("t-1"))
    assert {"Authorization": "Bearer t-1"} == request.headers


@pytest.mark.parametrize(("status", "rejected"), [(200, False), (401, True), (403, False), (500, False)])
def test_only_401_means_that_the_token_is_not_valid(status: int, *, rejected: bool) -> None:
    """A 403 is about permissions, which a new token would not change."""
    assert rejected is Hand(name="a", secret="s").is_rejected(Outgoing(status))


class Part(Provider):
    """A credential with one part."""

    __slots__ = ("part",)
    kind = "part"

    def __init__(self, part: object) -> None:
        self.part = part

    def identity(self) -> tuple[object, ...]:
        return ("same", (self.part,))


def test_equal_parts_of_different_types_are_different_keys() -> None:
    """1, 1.0 and True have different keys in Redis, so they have different tokens in this process."""
    parts = (1, True, 1.0, "1", b"1", None)
    assert len(parts) == len({Part(part) for part in (*parts, *parts)})
