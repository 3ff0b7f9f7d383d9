from __future__ import annotations

import copy
import json
import pickle
from typing import TYPE_CHECKING, Any

import pytest

from tokenmw import Grant, TokenBroker, providers
from tokenmw.errors import ConfigurationError
from tokenmw.providers.base import Provider
from tokenmw.redis.keys import KeyNames
from tokenmw.testing import make_token

if TYPE_CHECKING:
    from tests.servers import RedisServer
    from tokenmw.providers import TokenHTTP


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


class Sibling(Part):
    """Another class of the same kind, by inheritance."""

    __slots__ = ()


class Unrelated(Provider):
    """Another class of the same kind, by accident."""

    __slots__ = ("part",)
    kind = "part"

    def __init__(self, part: object) -> None:
        self.part = part

    def identity(self) -> tuple[object, ...]:
        return ("same", (self.part,))


class Alias(Part, same_credential=True):
    """Another class of the same token, because its author says so."""

    __slots__ = ()


def digest_of(provider: Provider) -> str:
    """Return the digest in a provider's Redis keys."""
    return KeyNames("tokenmw", name_key="a key for these tests").digest("token", provider.key_parts)


def test_the_class_is_a_part_of_the_credential() -> None:
    """Two classes of one kind share no token, in this process and in Redis, unless the author of one says so."""
    part, alias, others = Part("s"), Alias("s"), (Sibling("s"), Unrelated("s"))
    assert part == alias
    assert digest_of(part) == digest_of(alias)
    for other in others:
        assert part != other
        assert alias != other
        assert digest_of(part) != digest_of(other)
    assert len({digest_of(other) for other in others}) == len({*others}) == 2


def test_equal_objects_of_a_subclass_are_equal() -> None:
    """Two objects of one class share a token, whatever it inherits."""
    assert Sibling("s") == Sibling("s")
    assert hash(Sibling("s")) == hash(Sibling("s"))
    assert digest_of(Sibling("s")) == digest_of(Sibling("s"))


@pytest.mark.parametrize("slots", ["scope", ("scope",), ["scope", "__weakref__"]])
def test_a_new_slot_needs_an_identity_of_its_own(slots: object) -> None:
    """A subclass that adds an attribute and inherits `identity` is refused: two tenants would share a token."""
    with pytest.raises(
        ConfigurationError, match=r"adds scope to __slots__ .* \(\*super\(\)\.identity\(\), self\.scope\)"
    ):
        type("Scoped", (Part,), {"__slots__": slots})

    def identity(_self: Part) -> tuple[object, ...]:
        return ("own",)

    type("Scoped", (Part,), {"__slots__": slots, "identity": identity})


def test_a_new_slot_below_a_mixin_needs_an_identity_too() -> None:
    """An identity that a base class has from a mixin knows nothing of a later attribute; a new mixin's may."""

    class WithIdentity:
        __slots__ = ()

        def identity(self) -> tuple[object, ...]:
            return ("mixed in",)

    mixed: Any = type("Mixed", (WithIdentity, Provider), {"__slots__": ("part",), "kind": "mixed"})
    with pytest.raises(ConfigurationError, match="adds scope"):
        type("Scoped", (mixed,), {"__slots__": ("scope",)})


@pytest.mark.parametrize("bases", [(Provider,), (Hand,)])
def test_only_a_subclass_of_the_same_kind_has_the_same_credential(bases: tuple[type, ...]) -> None:
    """`same_credential` without a base class that is a provider, or with a kind of its own, is refused."""
    with pytest.raises(ConfigurationError, match="same_credential"):
        type("Alone", bases, {"__slots__": (), "kind": "alone"}, same_credential=True)


async def test_two_classes_of_one_name_are_refused() -> None:
    """A broker refuses two classes that a function made under one name: they would share a token in Redis."""

    def made() -> Provider:
        class Made(Part):
            __slots__ = ()

            async def fetch(self, http: TokenHTTP) -> Grant:
                raise NotImplementedError

        return Made("s")

    with pytest.raises(ConfigurationError, match=r"Two classes named .*Made have equal credentials.* its own kind"):
        TokenBroker({"one": made(), "two": made()})
    one = made()
    TokenBroker({"one": one, "two": type(one)("s")})  # type: ignore[call-arg]


async def test_classes_of_one_kind_get_their_own_tokens(redis_server: RedisServer) -> None:
    """Of two classes of one kind each gets its own token, in one process and in two that share a Redis."""

    class Admin(Part):
        __slots__ = ()

        async def fetch(self, http: TokenHTTP) -> Grant:
            return Grant("of-an-administrator", expires_in=3600)

    class User(Part):
        __slots__ = ()

        async def fetch(self, http: TokenHTTP) -> Grant:
            return Grant("of-a-user", expires_in=3600)

    async with TokenBroker({"user": User("s"), "admin": Admin("s")}, redis=redis_server.url) as first:
        assert "of-an-administrator" == (await first.token("admin")).value
        assert "of-a-user" == (await first.token("user")).value
        async with TokenBroker({"user": User("s")}, redis=redis_server.url) as second:
            assert "of-a-user" == (await second.token("user")).value


def test_kinds_of_the_package_are_different() -> None:
    """No two classes of this package have one kind, apart from those with the same credential: their keys name none."""
    owners: dict[str, set[type[Provider]]] = {}
    for one in (getattr(providers, name) for name in providers.__all__):
        if isinstance(one, type) and issubclass(one, Provider) and one is not Provider:
            owners.setdefault(one.kind, set()).add(one._credential_class)
    assert {"feishu", "oauth2", "static", "entra", "bot_framework"} <= owners.keys()
    assert dict.fromkeys(owners, 1) == {kind: len(classes) for kind, classes in owners.items()}
