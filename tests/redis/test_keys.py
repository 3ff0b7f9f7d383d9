"""Names in Redis tell nothing, collide never, and do not change between releases."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenmw.redis.keys import KeyNames, _encode, subkey

SECRET = "fixed-secret-0123456789"
PARTS = ("client_credentials", "https://idp.example/token", None, 7, True, 1.5, b"\x00", ("a", ("b",)))

scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(st.characters())
    | st.text(st.characters(categories=["Cs"]))
    | st.binary()
)
nested = st.recursive(scalars, lambda inner: st.lists(inner, max_size=4).map(tuple), max_leaves=8)


def told_apart(part: Any) -> Any:
    """Return a value that equals another only if type and bits do: in Python 1 == True == 1.0, and 0.0 == -0.0."""
    if isinstance(part, tuple):
        return tuple, tuple(told_apart(each) for each in part)  # pyright: ignore[reportUnknownVariableType]
    return type(part), part.hex() if isinstance(part, float) else part


@settings(deadline=None)  # a busy machine is no fault of the encoding
@given(nested, nested)
def test_different_parts_have_different_bytes(first: object, second: object) -> None:
    """No two credentials share a name, however their parts are cut and nested."""
    assert (told_apart(first) == told_apart(second)) == (_encode(first) == _encode(second))


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (("ab", "c"), ("a", "bc")),
        (("a", "b"), ("ab",)),
        (("a", ("b",)), (("a",), "b")),
        (("a",), "a"),
        (("1",), (1,)),
        ((1,), (True,)),
        ((1,), (1.0,)),
        (("a",), (b"a",)),
        (("",), (None,)),
        ((), ((),)),
    ],
)
def test_parts_are_told_apart_where_joining_would_not(first: object, second: object) -> None:
    """Length and type stand in front of each part."""
    names = KeyNames("n", name_key=SECRET)
    assert names.digest("token", first) != names.digest("token", second)


def test_kinds_are_told_apart() -> None:
    """An API key that is the text of a credential names another key."""
    names = KeyNames("n", name_key=None)
    assert names.digest("token", b"a") != names.digest("session", b"a")


def test_a_digest_needs_the_secret() -> None:
    """Keyed and plain digests differ, and so do those of two secrets."""
    digests = [KeyNames("n", name_key=key).digest("token", PARTS) for key in (None, SECRET, SECRET + "x")]
    assert len(set(digests)) == 3
    assert [KeyNames("n", name_key=key).keyed for key in (None, SECRET)] == [False, True]


def test_digests_are_short_and_safe_in_a_key() -> None:
    """Nothing in one ends a hash tag or needs quoting in an ACL pattern or a shell."""
    names = KeyNames("n", name_key=SECRET)
    for number in range(200):
        digest = names.digest("token", (number,))
        assert len(digest) == 32
        assert set(digest) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")


def test_a_namespace_is_in_front_and_the_digest_is_the_hash_tag() -> None:
    """Two services in one Redis do not meet, and a cluster has all keys of one token in one slot."""
    assert KeyNames("bots", name_key=None).key("d1", "token") == b"bots:v1:{d1}:token"
    assert KeyNames("bots:eu", name_key=None).key("d1", "lease") == b"bots:eu:v1:{d1}:lease"


def test_what_cannot_be_named_is_refused() -> None:
    """An identity of an unknown type would have an accidental name; the text does not show the part."""
    for part in (["secret-part"], {"secret-part"}, object(), {"a": "secret-part"}):
        with pytest.raises(TypeError, match="cannot be part of a credential's identity") as caught:
            KeyNames("n", name_key=SECRET).digest("token", (part,))
        assert "secret-part" not in str(caught.value)


def test_nothing_shows_the_secret() -> None:
    """Neither repr nor any key."""
    names = KeyNames("n", name_key=SECRET)
    assert SECRET not in repr(names)
    assert repr(names) == "<KeyNames in 'n'>"


def test_the_format_of_digests_is_held() -> None:
    """Whoever changes one of these renames every key of every user: tokens are fetched anew, sessions are lost."""
    assert subkey(SECRET, "names").hex() == "0b2e75ada1968288b900e726298178e544aaa6bf654737fc451d1f341b38e207"
    assert KeyNames("n", name_key=SECRET).digest("token", PARTS) == "94FTOx5sgE9AaeMtfQZPMKWTyD_iMaBm"
    assert KeyNames("n", name_key=None).digest("token", PARTS) == "c8V-WgFvWlLk7zkxdng033Fj1aeYiap4"
    assert KeyNames("n", name_key=SECRET).digest("session", b"sk-1") == "vqGC81qjguxa0Qt9kibvPts8861AGDdp"
