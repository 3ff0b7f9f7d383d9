"""Secrets in files, environment variables and vaults, which change while the program runs."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from tests.providers.test_client_secrets import MAKERS, NEW, OLD, Server, brokers, oauth, requests_of
from tests.redis.waiting import until
from tokenmw import ConfigurationError, CredentialRejected, TokenUnavailable
from tokenmw.providers import EnvSecret, FeishuStoreApp, FileSecret, SecretSource, secret_sources
from tokenmw.providers.client_secrets import ClientSecrets

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.servers import RedisServer


def answers(*secrets: str | Sequence[str]) -> SecretSource:
    """Make a source that returns one of these after the other, and the last one from then on."""
    left = list(secrets)
    return SecretSource(lambda: left.pop(0) if len(left) > 1 else left[0], credential_id="crm")


class Mounted:
    """A secret as Kubernetes mounts it: the file is a link through `..data`, which is replaced by a rename."""

    def __init__(self, directory: Path, secret: str) -> None:
        self._directory = directory
        self._versions = 0
        self.path = directory / "crm"
        self.swap(secret)
        self.path.symlink_to("..data/crm")

    def swap(self, secret: str) -> None:
        """Replace the secret by another one, with a newline at its end as editors write it."""
        self._versions += 1
        version = self._directory / f"..version-{self._versions}"
        version.mkdir()
        (version / "crm").write_text(f"{secret}\n", encoding="utf-8")
        link = self._directory / "..data_tmp"
        link.symlink_to(version.name)
        link.rename(self._directory / "..data")


@pytest.mark.parametrize("kind", MAKERS)
async def test_a_secret_that_was_swapped_costs_no_request(kind: str, tmp_path: Path) -> None:
    """The file is read at each token request, so that the swapped one is sent without a restart."""
    server, mounted = Server(), Mounted(tmp_path, OLD)
    async with brokers(server, [MAKERS[kind](FileSecret(mounted.path))]) as [broker]:
        first = await broker.token("crm")
        mounted.swap(NEW)
        server.accepted = frozenset({NEW})
        assert first.value == (await broker.token("crm")).value  # of the old secret; it stays valid
        await broker.invalidate_provider("crm")
        assert (await broker.token("crm")).value
        assert 2 == requests_of(server)


@pytest.mark.parametrize("kind", MAKERS)
async def test_a_refused_secret_is_read_again_once(kind: str) -> None:
    """It may have been changed between the read and the request."""
    server = Server()
    server.accepted = frozenset({NEW})
    async with brokers(server, [MAKERS[kind](answers(OLD, NEW))]) as [broker]:
        assert (await broker.token("crm")).value
        assert 2 == requests_of(server)


@pytest.mark.parametrize("kind", MAKERS)
async def test_a_secret_that_stays_refused_is_sent_once(kind: str) -> None:
    """The error names the source and shows no secret."""
    server = Server()
    server.accepted = frozenset()
    async with brokers(server, [MAKERS[kind](answers(OLD))]) as [broker]:
        with pytest.raises(CredentialRejected, match=r"SecretSource\(credential_id='crm'\) was read again") as caught:
            await broker.token("crm")
        assert "s3cr3t" not in f"{caught.value}{caught.value!r}{caught.value.detail}{broker.status()}"
        assert 1 == requests_of(server)


async def test_two_valid_secrets_are_no_outage() -> None:
    """A source may return the new one and the old one; the accepted one is remembered."""
    server = Server()
    async with brokers(server, [oauth(answers([NEW, OLD]))]) as [broker]:
        await broker.token("crm")
        await broker.invalidate_provider("crm")
        await broker.token("crm")
        assert 3 == requests_of(server)


async def test_a_refusal_does_not_stop_instances_that_read_a_newer_secret(redis_server: RedisServer) -> None:
    """The file reaches one machine later than another one."""
    server = Server()
    server.accepted = frozenset({NEW})
    async with brokers(server, [oauth(answers(OLD)), oauth(answers(NEW))], redis=redis_server.url) as [late, early]:
        with pytest.raises(CredentialRejected):
            await late.token("crm")
        assert (await early.token("crm")).value


async def test_a_file_is_not_read_on_the_event_loop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A mounted directory may be on a network."""
    path = tmp_path / "crm"
    path.write_text(OLD, encoding="utf-8")
    threads: list[int] = []
    opened: Any = type(path).open

    def noted(*args: Any, **kwargs: Any) -> Any:
        threads.append(threading.get_ident())
        return opened(*args, **kwargs)

    monkeypatch.setattr(type(path), "open", noted)
    assert (OLD,) == await FileSecret(path).read()
    assert threads
    assert threading.get_ident() not in threads


async def test_a_variable_is_read_at_each_request(monkeypatch: pytest.MonkeyPatch) -> None:
    """It need not be set when the provider is made."""
    monkeypatch.delenv("CRM_SECRET", raising=False)
    source = EnvSecret("CRM_SECRET")
    with pytest.raises(TokenUnavailable, match=r"EnvSecret\('CRM_SECRET'\): the environment variable is not set"):
        await source.read()
    monkeypatch.setenv("CRM_SECRET", NEW)
    assert (NEW,) == await source.read()


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (None, "cannot be read: No such file or directory"),
        (b"", "is empty"),
        (b"\n", "is empty"),
        (b"s3cr3t\x00", "control character"),
        (b"s3cr3t\xff", "not UTF-8"),
        (b"Bearer s3cr3t", "leave out `Bearer `"),
        (b"s3cr3t" * 20_000, "more than 65536 bytes"),
    ],
)
async def test_a_file_without_a_secret_is_no_outage_of_the_provider(
    tmp_path: Path, content: bytes | None, text: str
) -> None:
    """The next attempt reads it again; the text names the path and has no part of the content."""
    server, path = Server(), tmp_path / "crm"
    if content is not None:
        path.write_bytes(content)
    async with brokers(server, [oauth(FileSecret(path))]) as [broker]:
        with pytest.raises(TokenUnavailable, match=text) as caught:
            await broker.token("crm")
    assert os.fspath(path) in str(caught.value)
    assert os.fspath(path) not in caught.value.detail
    assert "s3cr3t" not in str(caught.value)
    assert 0 == requests_of(server)


@pytest.mark.parametrize("given", [[], ["a"] * 5, None, 1, [None], b"secret"])
async def test_a_function_that_returns_no_secret_is_named(given: Any) -> None:
    """Its result is not shown."""
    with pytest.raises(TokenUnavailable, match=r"SecretSource\(credential_id='crm'\)"):
        await SecretSource(lambda: given, credential_id="crm").read()


async def test_a_function_that_raises_shows_nothing_of_its_error() -> None:
    """The error of a vault's client may repeat its token."""

    def fails() -> str:
        message = "s3cr3t"
        raise RuntimeError(message)

    with pytest.raises(TokenUnavailable, match="raised RuntimeError") as caught:
        await SecretSource(fails, credential_id="crm").read()
    assert "s3cr3t" not in str(caught.value)


def test_tokens_belong_to_the_source() -> None:
    """Two sources with one name are one credential; what they return is no part of it."""
    assert oauth(answers(OLD)) == oauth(answers(NEW))
    assert oauth(FileSecret("/a")) == oauth(FileSecret("/a")) != oauth(FileSecret("/b"))
    assert oauth(FileSecret("/a", credential_id="crm")) == oauth(FileSecret("/b", credential_id="crm"))
    assert oauth(EnvSecret("A")) != oauth(OLD)
    assert oauth(answers(OLD)).shareable
    one, two = (FeishuStoreApp(app_id="a", app_secret=EnvSecret(name)) for name in "AB")
    assert one != two


async def test_nothing_shows_a_secret_that_was_read() -> None:
    """The secrets are kept for a comparison with error texts only."""
    secrets = ClientSecrets(answers(OLD), option="X(secret=…)")
    assert OLD == await secrets.accepted()
    assert (OLD,) == secrets.all
    assert "s3cr3t" not in f"{secrets!r} {secrets.all!r} {secrets.identity()!r} {secrets.source!r}"


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: SecretSource("secret", credential_id="a"), "a function that returns the secret, not a str"),  # type: ignore[arg-type]
        (lambda: SecretSource(lambda: "", credential_id=""), r"SecretSource\(credential_id=…\) is empty"),
        (lambda: FileSecret(""), "the path of a file, not an empty text"),
        (lambda: FileSecret(1), "the path of a file, not a int"),  # type: ignore[arg-type]
        (lambda: EnvSecret(""), "is empty"),
        (lambda: EnvSecret("A=secret"), "the name of a variable"),
    ],
)
def test_a_source_that_cannot_work_is_refused_at_construction(make: Any, text: str) -> None:
    """The text shows no secret."""
    with pytest.raises(ConfigurationError, match=text) as caught:
        make()
    assert "secret'" not in str(caught.value)


async def test_a_vault_over_http_can_be_the_source() -> None:
    """As HashiCorp Vault and OpenBao answer: `GET /v1/kv/data/crm` with `X-Vault-Token`."""
    secret = OLD

    def vault(request: httpx.Request) -> httpx.Response:
        assert ("/v1/kv/data/crm", "hvs.token") == (request.url.path, request.headers["x-vault-token"])
        return httpx.Response(200, json={"data": {"data": {"client_secret": secret}, "metadata": {"version": 1}}})

    async with httpx.AsyncClient(
        base_url="https://vault.example", headers={"x-vault-token": "hvs.token"}, transport=httpx.MockTransport(vault)
    ) as client:

        async def read() -> str:
            answer = await client.get("/v1/kv/data/crm")
            answer.raise_for_status()
            found: str = answer.json()["data"]["data"]["client_secret"]
            return found

        server = Server()
        async with brokers(server, [oauth(SecretSource(read, credential_id="vault:kv/crm"))]) as [broker]:
            await broker.token("crm")
            secret, server.accepted = NEW, frozenset({NEW})
            await broker.invalidate_provider("crm")
            await broker.token("crm")
            assert 2 == requests_of(server)


async def test_a_file_that_hangs_holds_up_no_other_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a mount that is not available: each attempt names the file, and all wait for one read."""
    monkeypatch.setattr(secret_sources, "_READ_SECONDS", 0.1)
    pipes = [tmp_path / f"pipe-{number}" for number in range(8)]
    for pipe in pipes:
        os.mkfifo(pipe)
    good = tmp_path / "crm"
    good.write_text(NEW, encoding="utf-8")
    before = threading.active_count()
    for _ in range(2):
        for pipe in pipes:
            with pytest.raises(TokenUnavailable, match=r"FileSecret\('.*pipe-.'\) was not read within 0.1 s"):
                await FileSecret(pipe).read()
    assert threading.active_count() <= before + len(pipes)
    assert (NEW,) == await FileSecret(good).read()
    for pipe in pipes:
        pipe.write_text("s3cr3t", encoding="utf-8")
    await until(lambda: threading.active_count() <= before, within=5)


@pytest.mark.parametrize(("given", "text"), [(lambda: "s3cr3t", "pass SecretSource"), (Path("/a"), "pass FileSecret")])
def test_what_is_no_source_yet_is_named(given: Any, text: str) -> None:
    """The text says what to pass."""
    with pytest.raises(ConfigurationError, match=text):
        oauth(given)
