"""A stored value opens only under its own key, and only with the secret that sealed it."""

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


def reason(sealer: Sealer, value: bytes, key: bytes = KEY) -> str:
    """Return the reason for which a value does not open."""
    with pytest.raises(Unreadable) as caught:
        sealer.open(value, key=key)
    return caught.value.reason


def test_sealed_value_opens() -> None:
    """Version and body are those that were sealed, and the body is not readable in between."""
    sealer = Sealer([OLD])
    value = sealer.seal(b"the body", key=KEY, version=VERSION)
    assert b"the body" not in value
    assert sealer.open(value, key=KEY) == (VERSION, b"the body")
    assert int.from_bytes(value[1:9]) == VERSION


def test_each_sealing_has_its_own_nonce() -> None:
    """A nonce that is used twice would reveal the key."""
    sealer = Sealer([OLD])
    assert len({sealer.seal(b"x", key=KEY, version=1)[13:25] for _ in range(100)}) == 100


@pytest.mark.parametrize("other", [b"tokenmw:v1:{e}:token", b"tokenmw:v1:{d}:note", b"other:v1:{d}:token"])
def test_value_that_was_copied_to_another_key_does_not_open(other: bytes) -> None:
    """Be it of another credential, of another kind, or in another namespace."""
    sealer = Sealer([OLD])
    assert reason(sealer, sealer.seal(b"x", key=KEY, version=1), other) == "damaged"


def test_change_of_any_bit_is_noticed() -> None:
    """A changed bit in the key id makes the secret unknown, any other one makes the value damaged."""
    sealer = Sealer([OLD])
    value = sealer.seal(b"x", key=KEY, version=1)
    for position in range(len(value) * 8):
        flipped = bytearray(value)
        flipped[position // 8] ^= 1 << position % 8
        in_key_id = 9 <= position // 8 < 13
        assert reason(sealer, bytes(flipped)) == ("unknown-key" if in_key_id else "damaged")


def test_change_of_the_length_is_noticed() -> None:
    """A value that was shortened or lengthened does not open."""
    sealer = Sealer([OLD])
    value = sealer.seal(b"x", key=KEY, version=1)
    for length in range(len(value)):
        assert reason(sealer, value[:length]) == "damaged"
    assert reason(sealer, value + b"\x00") == "damaged"


def test_change_of_the_version_is_noticed() -> None:
    """The scripts compare the clear header; increasing the version there makes the value useless, and not newer."""
    sealer = Sealer([OLD])
    value = sealer.seal(b"x", key=KEY, version=1)
    assert reason(sealer, value[:1] + (2).to_bytes(8) + value[9:]) == "damaged"


@pytest.mark.parametrize("secrets", [[], [OLD]])
def test_other_formats_and_absurd_versions_are_damaged(secrets: list[str]) -> None:
    """A later format is not guessed, and no version is above those that the scripts can compare."""
    sealer = Sealer(secrets)
    value = sealer.seal(b"x", key=KEY, version=1)
    assert reason(sealer, b"\x02" + value[1:]) == "damaged"
    for version in (2**52, 2**53, 2**64 - 1):
        assert reason(sealer, sealer.seal(b"x", key=KEY, version=version)) == "damaged"


def test_plain_value_is_refused_where_values_are_sealed() -> None:
    """A process that can write to Redis but has no secret cannot insert a token."""
    plain = Sealer([])
    assert not plain.sealing
    assert plain.open(plain.seal(b"x", key=KEY, version=1), key=KEY) == (1, b"x")
    assert reason(Sealer([OLD]), plain.seal(b"x", key=KEY, version=1)) == "damaged"


def test_sealed_value_has_an_unknown_key_where_values_are_plain() -> None:
    """Other instances have the secret, so it is not damaged."""
    value = Sealer([OLD]).seal(b"x", key=KEY, version=1)
    assert reason(Sealer([]), value) == "unknown-key"
    assert reason(Sealer([OLD], seal=False), value) == "unknown-key"


def test_secrets_rotate_without_a_gap() -> None:
    """In [old] → [old, new] → [new, old] → [new] each stage reads the values of the next one and of the one before."""
    stages = [Sealer([OLD]), Sealer([OLD, NEW]), Sealer([NEW, OLD]), Sealer([NEW])]
    values = [stage.seal(b"x", key=KEY, version=1) for stage in stages]
    for one in range(4):
        for two in range(4):
            if abs(one - two) <= 1:
                assert stages[one].open(values[two], key=KEY) == (1, b"x")
    assert reason(stages[0], values[3]) == reason(stages[3], values[0]) == "unknown-key"


@pytest.mark.parametrize("secret", ["", "short", "123456789012345", b"bytes-0123456789", None, 7, SecretStr(OLD)])
def test_invalid_secrets_are_refused(secret: object) -> None:
    """Short ones, other types and a SecretStr are refused; the error shows none of them."""
    with pytest.raises(ConfigurationError, match="secret_key") as caught:
        checked_secrets([NEW, secret])
    assert not isinstance(secret, str) or not secret or secret not in str(caught.value)


def test_secret_str_is_refused_with_the_fix() -> None:
    """Its text would be asterisks."""
    with pytest.raises(ConfigurationError, match=r"get_secret_value\(\)"):
        checked_secrets([SecretStr(OLD)])


def test_secret_that_is_given_twice_is_refused() -> None:
    """It is a mistake in a rotation."""
    with pytest.raises(ConfigurationError, match="twice"):
        Sealer([OLD, NEW, OLD])


def test_sealing_without_a_secret_is_refused() -> None:
    """`seal=True` alone is not enough."""
    with pytest.raises(ConfigurationError, match="needs a secret_key"):
        Sealer([], seal=True)


def test_repr_does_not_show_the_secrets() -> None:
    """It shows how many there are."""
    assert repr(Sealer([OLD, NEW])) == "<Sealer of 2 secrets>"


def test_missing_library_is_an_error_that_names_both_fixes() -> None:
    """A secret_key without the extra is refused at construction; with seal=False it is accepted."""
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


def test_format_of_values_does_not_change() -> None:
    """Values of the first release must open for ever, or an update could not read what is stored."""
    sealed = bytes.fromhex(
        "010006651728988000f9fa0e9f3a09554ac1bf0f45da8e851d1a4c6d226f54ce20a0021fe2e95bcdcc236273cf5a8dd0a0"
    )
    plain = bytes.fromhex("0100066517289880000000000074686520626f6479")
    assert Sealer([OLD]).open(sealed, key=KEY) == (VERSION, b"the body")
    assert Sealer([]).open(plain, key=KEY) == (VERSION, b"the body")
    assert Sealer([]).seal(b"the body", key=KEY, version=VERSION) == plain
    assert Sealer([OLD]).seal(b"", key=KEY, version=VERSION)[:13] == sealed[:13]


SEALERS = [Sealer([OLD]), Sealer([NEW, OLD]), Sealer([NEW]), Sealer([])]


@given(st.binary(max_size=64), st.binary(min_size=1, max_size=32), st.integers(0, 2**52 - 1))
def test_any_body_opens_under_its_own_key_only(body: bytes, key: bytes, version: int) -> None:
    """It opens with each sealer that has its secret."""
    for sealer in SEALERS:
        value = sealer.seal(body, key=key, version=version)
        assert sealer.is_current(value)
        assert (version, body) == sealer.open(value, key=key)
        if sealer.sealing:
            assert "damaged" == reason(sealer, value, key + b"x")
            assert (version, body) == SEALERS[1].open(value, key=key)


@given(st.binary(max_size=64))
def test_no_bytes_open_that_were_not_sealed(value: bytes) -> None:
    """A process without the secret cannot make a value that opens."""
    for sealer in SEALERS:
        try:
            version, body = sealer.open(value, key=KEY)
        except Unreadable:
            continue
        assert not sealer.sealing
        assert value == sealer.seal(body, key=KEY, version=version)
