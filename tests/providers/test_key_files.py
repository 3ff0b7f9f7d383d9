"""Keys in files that change: they are read again before an assertion, in a thread, and a broken one is not used."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import time
from pathlib import Path
from typing import Any

import jwt
import pytest

from tests.providers.private_keys import certificate_of, jwk_of, make_key, pem_of, public_pem_of, started
from tokenmw.errors import ConfigurationError
from tokenmw.providers import PrivateKeyJWT

URL = "https://idp.example/token"
MANY = "x" * (65 << 10)


def put(path: Path, text: str) -> None:
    """Replace a file, as editors and Kubernetes do: the new one takes the name of the old one."""
    new = path.with_name(f"{path.name}.new")
    new.write_text(text)
    new.replace(path)


async def signer_of(key: PrivateKeyJWT) -> Any:
    """Return the number of the P-256 key that signs, and the `kid`."""
    signed = await key.assertion("crm", audience=URL)
    for number in (1, 2, 3):
        try:
            jwt.decode(signed, make_key("P-256", number=number).public_key(), algorithms=["ES256"], audience=URL)
        except jwt.InvalidSignatureError:
            continue
        return number
    raise AssertionError


def p256(number: int) -> str:
    """Return one of several keys."""
    return pem_of(make_key("P-256", number=number))


@pytest.mark.parametrize("way", ["replaced", "written", "symlink"])
async def test_a_changed_file_is_read_again(tmp_path: Path, way: str) -> None:
    """A file that is replaced, written over, or swapped by a symlink as Kubernetes does, gives the new key."""
    path = tmp_path / "key.pem"
    if way == "symlink":
        for number in (1, 2):
            (tmp_path / f"data-{number}").mkdir()
            (tmp_path / f"data-{number}" / "key.pem").write_text(p256(number))
        (tmp_path / "..data").symlink_to("data-1")
        path.symlink_to("..data/key.pem")
    else:
        path.write_text(p256(1))
    key = await started(path)
    identity = key.identity()
    assert 1 == await signer_of(key)
    if way == "symlink":
        (tmp_path / "..data.new").symlink_to("data-2")
        (tmp_path / "..data.new").replace(tmp_path / "..data")
    elif way == "replaced":
        put(path, p256(2))
    else:
        path.write_text(p256(2))
        os.utime(path, (1, 1))
    assert 2 == await signer_of(key)
    assert identity == key.identity()


async def test_an_unchanged_file_is_not_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its state is checked for each assertion, and its content is not read."""
    path = tmp_path / "key.pem"
    path.write_text(p256(1))
    key = await started(path)
    monkeypatch.setattr(Path, "open", None)
    assert 1 == await signer_of(key) == await signer_of(key)


@pytest.mark.parametrize("broken", ["half", "nothing", "missing", "public"])
async def test_a_broken_file_leaves_the_key_in_use(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, broken: str
) -> None:
    """It is logged once, with the path and the reason; as soon as the file is whole, its key is used."""
    path = tmp_path / "key.pem"
    path.write_text(p256(1))
    key = await started(path)
    texts = {"half": p256(2)[:100], "nothing": "", "public": public_pem_of(make_key("P-256"))}
    if broken == "missing":
        path.unlink()
    else:
        put(path, texts[broken])
    with caplog.at_level(logging.WARNING, "tokenmw"):
        assert [1, 1, 1] == [await signer_of(key) for _ in range(3)]
    (line,) = caplog.messages
    assert line.startswith(f"tokenmw: The key file {path} has changed and cannot be used (")
    assert line.endswith("); the key that was read before stays in use")
    assert "key-file" == getattr(caplog.records[0], "tokenmw.kind")
    put(path, p256(3))
    assert 3 == await signer_of(key)


@pytest.mark.parametrize("form", ["PEM", "JWK"])
async def test_a_damaged_rsa_key_is_found(tmp_path: Path, form: str, caplog: pytest.LogCaptureFixture) -> None:
    """A file that is read again is not checked by its primes, but by a signature."""
    first, other = make_key("RSA-2048"), make_key("RSA-2048", number=2)
    path = tmp_path / "key"
    path.write_text(pem_of(first))
    key = await started(path)
    mixed = jwk_of(other) | {name: jwk_of(first)[name] for name in ("d", "p", "q")}
    if form == "PEM":
        text = pem_of(other).split("\n")
        text[12] = text[12][::-1]
        put(path, "\n".join(text))
    else:
        put(path, json.dumps(mixed))
    signed = await key.assertion("crm", audience=URL)
    assert jwt.decode(signed, first.public_key(), algorithms=["RS256"], audience=URL)
    assert 1 == len(caplog.messages)


async def test_a_certificate_is_read_again_with_its_key(tmp_path: Path) -> None:
    """Until both files have changed, the pair that was read before is used."""
    key_path, certificate_path = tmp_path / "tls.key", tmp_path / "tls.crt"
    key_path.write_text(p256(1))
    certificate_path.write_text(certificate_of(make_key("P-256")))
    key = await started(file=key_path, certificate=certificate_path)
    first = jwt.get_unverified_header(await key.assertion("crm", audience=URL))
    put(key_path, p256(2))
    assert 1 == await signer_of(key)
    put(certificate_path, certificate_of(make_key("P-256", number=2)))
    assert 2 == await signer_of(key)
    assert first != jwt.get_unverified_header(await key.assertion("crm", audience=URL))


async def test_reading_again_does_not_stop_the_event_loop(tmp_path: Path) -> None:
    """A changed RSA key takes a millisecond or two in a thread; at construction it takes a tenth of a second."""
    path = tmp_path / "key.pem"
    path.write_text(pem_of(make_key("RSA-2048")))
    key = await started(path)
    gaps: list[float] = []

    async def beat() -> None:
        while True:
            before = time.perf_counter()
            await asyncio.sleep(0)
            gaps.append(time.perf_counter() - before)

    beating = asyncio.create_task(beat())
    for number in (2, 1, 2, 1, 2):
        put(path, pem_of(make_key("RSA-2048", number=number)))
        await key.assertion("crm", audience=URL)
    beating.cancel()
    assert sorted(gaps)[-6] < 0.05


async def test_a_file_system_that_hangs_does_not_hold_up_requests(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """After a second the key that was read before signs, and further requests do not wait at all."""
    path = tmp_path / "key.pem"
    path.write_text(p256(1))
    key = await started(path)
    state, hangs = Path.stat, asyncio.Event()
    loop = asyncio.get_running_loop()

    def stat(self: Path, **options: Any) -> os.stat_result:
        if self == path:
            asyncio.run_coroutine_threadsafe(hangs.wait(), loop).result()
        return state(self, **options)

    monkeypatch.setattr(Path, "stat", stat)
    before = time.monotonic()
    assert 1 == await signer_of(key)
    assert 0.9 < time.monotonic() - before < 3
    before = time.monotonic()
    assert [1, 1] == [await signer_of(key) for _ in range(2)]
    assert time.monotonic() - before < 0.9
    assert 1 == len(caplog.messages)
    hangs.set()


async def test_many_assertions_at_the_same_time_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of them have the new key or the one before, and one thread reads the file."""
    path = tmp_path / "key.pem"
    path.write_text(p256(1))
    key = await started(path)
    opened: list[Path] = []
    original: Any = Path.open

    def count(self: Path, *options: Any) -> Any:
        opened.append(self)
        return original(self, *options)

    put(path, p256(2))
    monkeypatch.setattr(Path, "open", count)
    assert {1, 2} >= set(await asyncio.gather(*(signer_of(key) for _ in range(50))))
    assert 1 == len(opened)
    assert 2 == await signer_of(key)


def test_a_large_file_is_refused(tmp_path: Path) -> None:
    """A path of something else is no reason to fill the memory."""
    path = tmp_path / "key.pem"
    path.write_text(MANY)
    with pytest.raises(ConfigurationError, match="has more than 65536 bytes"):
        PrivateKeyJWT(path)
