"""An id that all instances find by themselves, if they share a secret."""

from __future__ import annotations

from uuid import RFC_4122, UUID

from hypothesis import given
from hypothesis import strategies as st

from tokenmw.sessions.derive import SessionIds

SECRET = "a-secret-of-some-length"


@given(api_key=st.binary())
def test_derived_id_is_a_uuid_of_version_8(api_key: bytes) -> None:
    """RFC 9562 §5.8 keeps that version for ids made by a rule of one's own; any bytes have one."""
    derivation = SessionIds(SECRET)
    session = UUID(derivation.derive(api_key))
    assert (session.version, session.variant) == (8, RFC_4122)
    assert str(session) == derivation.derive(api_key)


@given(keys=st.lists(st.binary(), unique=True, max_size=20))
def test_different_keys_have_different_ids(keys: list[bytes]) -> None:
    """And the same key has the same one in every process with the secret."""
    ids = [SessionIds(SECRET).derive(key) for key in keys]
    assert len(keys) == len(set(ids))
    assert ids == [SessionIds(SECRET).derive(key) for key in keys]


def test_derived_id_stays_what_it_is() -> None:
    """Instances of different versions of this package run side by side while one replaces the other."""
    assert SessionIds(SECRET).derive(b"sk-live-1") == "0a21446e-e2f6-8b66-b8e0-1941c7116f76"


def test_id_depends_on_the_secret() -> None:
    """Whoever has no secret cannot tell whose an id is."""
    assert SessionIds(SECRET).derivable
    assert SessionIds(SECRET).derive(b"k") != SessionIds(SECRET + "2").derive(b"k")


def test_id_without_a_secret_is_random() -> None:
    """Nothing is shared to derive from, and a plain hash could be tried out."""
    derivation = SessionIds(None)
    assert not derivation.derivable
    first, second = UUID(derivation.derive(b"k")), UUID(derivation.derive(b"k"))
    assert first != second
    assert (first.version, second.version) == (4, 4)
