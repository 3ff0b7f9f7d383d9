"""Names of keys reveal nothing, never collide, and do not change between releases."""

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


def distinct(part: Any) -> Any:
    """Return a value that equals another only if type and bits do: in Python 1 == True == 1.0, and 0.0 == -0.0."""
    if isinstance(part, tuple):
        return tuple, tuple(distinct(each) for each in part)  # pyright: ignore[reportUnknownVariableType]
    return type(part), part.hex() if isinstance(part, float) else part


@settings(deadline=None)  # a busy machine is not what is tested
@given(nested, nested)
def test_different_parts_have_different_bytes(first: object, second: object) -> None:
    """No two credentials have the same name, however their parts are split and nested."""
    assert (distinct(first) == distinct(second)) == (_encode(first) == _encode(second))


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
def test_parts_are_distinct_where_joining_them_would_not_be(first: object, second: object) -> None:
    """Type and length precede each part."""
    names = KeyNames("n", name_key=SECRET)
    assert names.digest("token", first) != names.digest("token", second)


def test_kinds_are_distinct() -> None:
    """An API key with the text of a credential has another name."""
    names = KeyNames("n", name_key=None)
    assert names.digest("token", b"a") != names.digest("session", b"a")


def test_digest_depends_on_the_secret() -> None:
    """Digests without a secret and under two secrets all differ."""
    digests = [KeyNames("n", name_key=key).digest("token", PARTS) for key in (None, SECRET, SECRET + "x")]
    assert len(set(digests)) == 3


def test_digests_are_short_and_safe_in_a_key() -> None:
    """No character of one ends a hash tag, or needs quoting in an ACL pattern or a shell."""
    names = KeyNames("n", name_key=SECRET)
    for number in range(200):
        digest = names.digest("token", (number,))
        assert len(digest) == 32
        assert set(digest) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")


def test_key_has_its_namespace_and_its_digest_as_hash_tag() -> None:
    """Two services on one Redis do not collide, and a cluster has all keys of one token in one slot."""
    assert KeyNames("bots", name_key=None).key("d1", "token") == b"bots:v1:{d1}:token"
    assert KeyNames("bots:eu", name_key=None).key("d1", "lease") == b"bots:eu:v1:{d1}:lease"


def test_part_of_an_unknown_type_is_refused() -> None:
    """Its name would be accidental; the text of the error does not show the part."""
    for part in (["secret-part"], {"secret-part"}, object(), {"a": "secret-part"}):
        with pytest.raises(TypeError, match="cannot be part of a credential's identity") as caught:
            KeyNames("n", name_key=SECRET).digest("token", (part,))
        assert "secret-part" not in str(caught.value)


def test_repr_does_not_show_the_secret() -> None:
    """It shows the namespace."""
    names = KeyNames("n", name_key=SECRET)
    assert SECRET not in repr(names)
    assert repr(names) == "<KeyNames in 'n'>"


def test_format_of_digests_does_not_change() -> None:
    """A change renames every key of every user: tokens are fetched again, and sessions are lost."""
    assert subkey(SECRET, "names").hex() == "0b2e75ada1968288b900e726298178e544aaa6bf654737fc451d1f341b38e207"
    assert KeyNames("n", name_key=SECRET).digest("token", PARTS) == "94FTOx5sgE9AaeMtfQZPMKWTyD_iMaBm"
    assert KeyNames("n", name_key=None).digest("token", PARTS) == "c8V-WgFvWlLk7zkxdng033Fj1aeYiap4"
    assert KeyNames("n", name_key=SECRET).digest("session", b"sk-1") == "vqGC81qjguxa0Qt9kibvPts8861AGDdp"
