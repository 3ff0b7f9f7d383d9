"""Instances that share a secret derive the same session id."""

from __future__ import annotations

from uuid import RFC_4122, UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenmw.sessions.derive import SessionIds

SECRET = "a-secret-of-some-length"


@given(api_key=st.binary())
def test_derived_id_is_a_uuid_of_version_8(api_key: bytes) -> None:
    """RFC 9562 §5.8 reserves that version for custom ids; any API key has one."""
    ids = SessionIds(SECRET)
    session = UUID(ids.derive(api_key))
    assert (session.version, session.variant) == (8, RFC_4122)
    assert str(session) == ids.derive(api_key)


@given(keys=st.lists(st.binary(), unique=True, max_size=20))
def test_different_keys_have_different_ids(keys: list[bytes]) -> None:
    """The same key has the same id in every process with the secret."""
    ids = [SessionIds(SECRET).derive(key) for key in keys]
    assert len(keys) == len(set(ids))
    assert ids == [SessionIds(SECRET).derive(key) for key in keys]


def test_derived_ids_do_not_change_between_versions() -> None:
    """Instances with different versions of this package run side by side during an upgrade."""
    assert SessionIds(SECRET).derive(b"sk-live-1") == "0a21446e-e2f6-8b66-b8e0-1941c7116f76"


def test_id_depends_on_the_namespace() -> None:
    """Two services with one `name_key` give one caller two ids; the default namespace keeps the ids it had."""
    namespaces = ["tokenmw", "crm", "crm2", "names", "", "é"]
    ids = {SessionIds(SECRET, namespace=one).derive(b"sk-live-1") for one in namespaces}
    assert len(namespaces) == len(ids)
    assert SessionIds(SECRET).derive(b"k") == SessionIds(SECRET, namespace="tokenmw").derive(b"k")
    assert SessionIds(SECRET, namespace="crm").derive(b"sk-live-1") == "e78d09e2-2e43-8d9d-96f5-e5b9e4fa8bc6"


@pytest.mark.parametrize("lost", [False, True])
def test_candidate_is_the_derived_id(*, lost: bool) -> None:
    """With `new="random"` it is derived only while a reply may be lost, and without a secret it is always random."""
    derived = SessionIds(SECRET).derive(b"k")
    assert derived == SessionIds(SECRET).candidate(b"k", reply_may_be_lost=lost)
    assert lost is (derived == SessionIds(SECRET, new="random").candidate(b"k", reply_may_be_lost=lost))
    assert 4 == UUID(SessionIds(None).candidate(b"k", reply_may_be_lost=lost)).version


def test_id_of_a_reset_does_not_change_between_versions() -> None:
    """What one version keeps of a reset gives the same id in another one."""
    kept = b"\x01" + bytes(range(16)) + bytes.fromhex("1928aa27762e4811b2dbb4db72e672d1")
    assert SessionIds(SECRET).after_reset(b"tokenmw:v1:{d}:session", kept) == "6ac2433f-664d-84a7-9ef7-c8a241e14f32"


@given(key=st.binary())
def test_each_reset_has_a_new_id(key: bytes) -> None:
    """Every instance with the secret makes it from what is kept, for this key only."""
    ids = SessionIds(SECRET)
    made = [ids.reset(key) for _ in range(3)]
    assert 3 == len({session_id for session_id, _ in made})
    for session_id, kept in made:
        assert (8, session_id) == (UUID(session_id).version, SessionIds(SECRET, namespace="x").after_reset(key, kept))
        assert ids.after_reset(key + b"x", kept) is None
        assert SessionIds(SECRET + "2").after_reset(key, kept) is None


@given(kept=st.binary(max_size=80))
def test_a_reset_cannot_be_made_without_the_secret(kept: bytes) -> None:
    """Any other bytes count as none."""
    assert SessionIds(SECRET).after_reset(b"key", kept) is None


@pytest.mark.parametrize("ids", [SessionIds(None), SessionIds(SECRET, new="random")])
def test_reset_of_random_ids_is_not_kept(ids: SessionIds) -> None:
    """A key does not have its former id again, so a new random one is enough."""
    session_id, kept = ids.reset(b"key")
    assert (False, b"", 4) == (ids.recurring, kept, UUID(session_id).version)
    assert ids.after_reset(b"key", SessionIds(SECRET).reset(b"key")[1]) is None
    assert SessionIds(SECRET).reset(None)[1] == b""  # without Redis


def test_id_depends_on_the_secret() -> None:
    """Without the secret, an id does not reveal its API key."""
    assert SessionIds(SECRET).derivable
    assert SessionIds(SECRET).derive(b"k") != SessionIds(SECRET + "2").derive(b"k")


def test_id_without_a_secret_is_random() -> None:
    """There is no shared secret, and a plain hash could be found by trying API keys."""
    ids = SessionIds(None)
    assert not ids.derivable
    first, second = UUID(ids.derive(b"k")), UUID(ids.derive(b"k"))
    assert first != second
    assert (first.version, second.version) == (4, 4)
