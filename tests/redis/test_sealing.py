"""What is stored opens only where it belongs, and by those who have the secret."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from tokenmw.errors import ConfigurationError
from tokenmw.options import checked_secrets
from tokenmw.redis.sealing import Sealer, Unreadable

OLD, NEW = "old-secret-0123456789", "new-secret-0123456789"
KEY = b"tokenmw:v1:{d}:token"
VERSION = 1_800_000_000_000_000


def why(seals: Sealer, value: bytes, key: bytes = KEY) -> str:
    """Return why a value does not open."""
    with pytest.raises(Unreadable) as caught:
        seals.open(value, key=key)
    return caught.value.why


def test_what_is_sealed_opens() -> None:
    """Version and body come back, and the body is not readable in between."""
    seals = Sealer([OLD])
    value = seals.seal(b"the body", key=KEY, version=VERSION)
    assert b"the body" not in value
    assert seals.open(value, key=KEY) == (VERSION, b"the body")
    assert int.from_bytes(value[1:9]) == VERSION


def test_two_seals_of_one_body_differ() -> None:
    """Each has its own nonce; one used twice would give the key away."""
    seals = Sealer([OLD])
    assert len({seals.seal(b"x", key=KEY, version=1)[13:25] for _ in range(100)}) == 100


@pytest.mark.parametrize("other", [b"tokenmw:v1:{e}:token", b"tokenmw:v1:{d}:note", b"other:v1:{d}:token"])
def test_a_value_copied_to_another_key_does_not_open(other: bytes) -> None:
    """Of another credential, another kind, another namespace."""
    seals = Sealer([OLD])
    assert why(seals, seals.seal(b"x", key=KEY, version=1), other) == "damaged"


def test_every_single_bit_counts() -> None:
    """A flipped bit in the key id makes the secret unknown, any other one the value damaged."""
    seals = Sealer([OLD])
    value = seals.seal(b"x", key=KEY, version=1)
    for position in range(len(value) * 8):
        flipped = bytearray(value)
        flipped[position // 8] ^= 1 << position % 8
        in_key_id = 9 <= position // 8 < 13
        assert why(seals, bytes(flipped)) == ("unknown-key" if in_key_id else "damaged")


def test_every_cut_is_noticed() -> None:
    """A value that lost its end, or got more, does not open."""
    seals = Sealer([OLD])
    value = seals.seal(b"x", key=KEY, version=1)
    for length in range(len(value)):
        assert why(seals, value[:length]) == "damaged"
    assert why(seals, value + b"\x00") == "damaged"


def test_a_changed_version_is_noticed() -> None:
    """The scripts compare the clear header; who raises it there makes the value useless, not newer."""
    seals = Sealer([OLD])
    value = seals.seal(b"x", key=KEY, version=1)
    assert why(seals, value[:1] + (2).to_bytes(8) + value[9:]) == "damaged"


@pytest.mark.parametrize("secrets", [[], [OLD]])
def test_other_formats_and_absurd_versions_are_damaged(secrets: list[str]) -> None:
    """A later format is not guessed at, and no version is beyond what the scripts can compare."""
    seals = Sealer(secrets)
    value = seals.seal(b"x", key=KEY, version=1)
    assert why(seals, b"\x02" + value[1:]) == "damaged"
    for version in (2**52, 2**53, 2**64 - 1):
        assert why(seals, seals.seal(b"x", key=KEY, version=version)) == "damaged"


def test_an_unsealed_value_is_refused_where_values_are_sealed() -> None:
    """Somebody who can write to Redis but has no secret cannot plant a token."""
    plain = Sealer([])
    assert not plain.sealing
    assert plain.open(plain.seal(b"x", key=KEY, version=1), key=KEY) == (1, b"x")
    assert why(Sealer([OLD]), plain.seal(b"x", key=KEY, version=1)) == "damaged"


def test_a_sealed_value_is_left_alone_where_none_are() -> None:
    """Other instances have the secret; it is not damaged."""
    value = Sealer([OLD]).seal(b"x", key=KEY, version=1)
    assert why(Sealer([]), value) == "unknown-key"
    assert why(Sealer([OLD], seal=False), value) == "unknown-key"


def test_secrets_rotate_without_a_gap() -> None:
    """In [old] → [old, new] → [new, old] → [new] two neighbouring stages read each other; the ends do not."""
    stages = [Sealer([OLD]), Sealer([OLD, NEW]), Sealer([NEW, OLD]), Sealer([NEW])]
    values = [stage.seal(b"x", key=KEY, version=1) for stage in stages]
    for one in range(4):
        for two in range(4):
            if abs(one - two) <= 1:
                assert stages[one].open(values[two], key=KEY) == (1, b"x")
    assert why(stages[0], values[3]) == why(stages[3], values[0]) == "unknown-key"


@pytest.mark.parametrize("secret", ["", "short", "123456789012345", b"bytes-0123456789", None, 7, SecretStr(OLD)])
def test_secrets_that_cannot_work_are_refused(secret: object) -> None:
    """Short ones, other types, a SecretStr; the text shows none of them."""
    with pytest.raises(ConfigurationError, match="secret_key") as caught:
        checked_secrets([NEW, secret])
    assert not isinstance(secret, str) or not secret or secret not in str(caught.value)


def test_a_secret_str_is_refused_with_the_mend() -> None:
    """It would be taken for an object, or sealed with as asterisks."""
    with pytest.raises(ConfigurationError, match=r"get_secret_value\(\)"):
        checked_secrets([SecretStr(OLD)])


def test_one_secret_twice_is_refused() -> None:
    """It is a slip of a rotation."""
    with pytest.raises(ConfigurationError, match="twice"):
        Sealer([OLD, NEW, OLD])


def test_sealing_without_a_secret_is_refused() -> None:
    """seal=True alone cannot work."""
    with pytest.raises(ConfigurationError, match="needs a secret_key"):
        Sealer([], seal=True)


def test_nothing_shows_the_secrets() -> None:
    """Only how many there are."""
    assert repr(Sealer([OLD, NEW])) == "<Sealer of 2 secrets>"


def test_without_the_library_both_mends_are_named() -> None:
    """A secret_key without the extra is told at construction; seal=False then works."""
    program = f"""
import sys
sys.modules["cryptography"] = None
from tokenmw.errors import ConfigurationError
from tokenmw.options import checked_secrets
from tokenmw.redis.sealing import Sealer
assert Sealer([{OLD!r}], seal=False).open(Sealer([]).seal(b"x", key=b"k", version=1), key=b"k") == (1, b"x")
try:
    Sealer([{OLD!r}])
except ConfigurationError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert 'pip install "tokenmw[crypto]"' in done.stdout
    assert "seal=False" in done.stdout
    assert OLD not in done.stdout


def test_the_format_of_values_is_held() -> None:
    """Version 1 as it was first released must open for ever, else an update reads nothing of what is stored."""
    sealed = bytes.fromhex(
        "010006651728988000f9fa0e9f3a09554ac1bf0f45da8e851d1a4c6d226f54ce20a0021fe2e95bcdcc236273cf5a8dd0a0"
    )
    plain = bytes.fromhex("0100066517289880000000000074686520626f6479")
    assert Sealer([OLD]).open(sealed, key=KEY) == (VERSION, b"the body")
    assert Sealer([]).open(plain, key=KEY) == (VERSION, b"the body")
    assert Sealer([]).seal(b"the body", key=KEY, version=VERSION) == plain
    assert Sealer([OLD]).seal(b"", key=KEY, version=VERSION)[:13] == sealed[:13]


RINGS = [Sealer([OLD]), Sealer([NEW, OLD]), Sealer([NEW]), Sealer([])]


@given(st.binary(max_size=64), st.binary(min_size=1, max_size=32), st.integers(0, 2**52 - 1))
def test_every_body_opens_as_it_was_sealed_and_nowhere_else(body: bytes, key: bytes, version: int) -> None:
    """Under its own key, by each ring that has its secret."""
    for ring in RINGS:
        value = ring.seal(body, key=key, version=version)
        assert ring.current(value)
        assert (version, body) == ring.open(value, key=key)
        if ring.sealing:
            assert "damaged" == why(ring, value, key + b"x")
            assert (version, body) == RINGS[1].open(value, key=key)


@given(st.binary(max_size=64))
def test_no_bytes_open_that_nobody_has_sealed(value: bytes) -> None:
    """Whoever can write to Redis and has no secret gets nothing in."""
    for ring in RINGS:
        try:
            version, body = ring.open(value, key=KEY)
        except Unreadable:
            continue
        assert not ring.sealing
        assert value == ring.seal(body, key=KEY, version=version)
