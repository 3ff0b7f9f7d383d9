"""Azure Arc: the endpoint asks for the content of a file that only programs of a group can read, over real HTTP."""

from __future__ import annotations

import asyncio
import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tokenmw.errors import CredentialRejected, TokenUnavailable
from tokenmw.providers import Answer, ManagedIdentity, TokenHTTP, arc_challenge
from tokenmw.providers.arc_challenge import challenge_secret
from tokenmw.testing import ProviderServer

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def server() -> ProviderServer:
    """An agent that knows one user-assigned identity."""
    server = ProviderServer(clients={"client": ""})
    server.managed_identity.platform = "azure_arc"
    return server


@pytest.fixture
def endpoint(server: ProviderServer) -> Iterator[str]:
    """Its URL."""
    with server.running() as base_url:
        yield f"{base_url}{server.managed_identity.path}"


@pytest.fixture
def key(server: ProviderServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file of its challenges."""
    directory = tmp_path / "tokens"
    directory.mkdir()
    monkeypatch.setattr(arc_challenge, "_DIRECTORY", directory)
    file = directory / "1234.key"
    write(file, "content-of-the-file")
    server.managed_identity.key_file = file
    return file


def write(file: Path, content: str) -> None:
    """Replace a file's content."""
    file.write_text(content, encoding="utf-8")


def arc(endpoint: str, **options: Any) -> ManagedIdentity:
    """Make the identity of a machine with the agent of Azure Arc."""
    return ManagedIdentity(
        resource="https://vault.azure.net", source="azure_arc", identity_endpoint=endpoint, **options
    )


async def test_challenge_file_is_read_in_a_thread(
    key: Path, endpoint: str, http: TokenHTTP, server: ProviderServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first request gets the file's name, the second one has its content; each fetch reads it again."""
    threads: list[int] = []
    read = arc_challenge._read

    def counted(path: Path) -> bytes | None:
        threads.append(threading.get_ident())
        return read(path)

    monkeypatch.setattr(arc_challenge, "_read", counted)
    await arc(endpoint).fetch(http)
    write(key, "other-content\n")
    await arc(endpoint).fetch(http)
    assert 4 == server.calls["managed_identity"]
    assert 2 == len(threads)
    assert threading.get_ident() not in threads


async def test_file_that_the_agent_does_not_accept_is_a_refusal(
    key: Path, endpoint: str, http: TokenHTTP, server: ProviderServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There is one challenge for each fetch, and the content is in no text."""

    def refuse(_request: object) -> bool:
        return False

    monkeypatch.setattr(server.managed_identity, "_has_read_file", refuse)
    with pytest.raises(CredentialRejected, match=r"refuses .unauthorized, HTTP 401") as caught:
        await arc(endpoint).fetch(http)
    assert 2 == server.calls["managed_identity"]
    assert "content-of-the-file" not in str(caught.value)


@pytest.mark.parametrize(
    "path",
    [
        "{outside}/secret.key",
        "{tokens}/../outside/secret.key",
        "{tokens}/sub/secret.key",
        "{tokens}/1234.txt",
        "{tokens}/.key",
        "{tokens}",
        "1234.key",
        "/etc/passwd",
    ],
)
async def test_other_files_are_not_read(
    path: str, *, key: Path, endpoint: str, http: TokenHTTP, server: ProviderServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What listens at the port may be another program."""
    outside = key.parent.parent / "outside"
    for directory in (outside, key.parent / "sub"):
        directory.mkdir()
        (directory / "secret.key").write_text("secret", encoding="utf-8")
    (key.parent / "1234.txt").write_text("secret", encoding="utf-8")
    server.managed_identity.key_file = Path(path.format(outside=outside, tokens=key.parent))

    def read(_path: Path) -> bytes:
        pytest.fail("it was read")

    monkeypatch.setattr(arc_challenge, "_read", read)
    with pytest.raises(TokenUnavailable, match=r"names a challenge file that is no .key file in"):
        await arc(endpoint).fetch(http)
    assert 1 == server.calls["managed_identity"]


@pytest.mark.parametrize("links_to", ["outside", "inside"])
async def test_link_is_not_followed(
    links_to: str, key: Path, endpoint: str, http: TokenHTTP, server: ProviderServer
) -> None:
    """A link in the directory may lead to any file of the machine."""
    target = key if links_to == "inside" else key.parent.parent / "outside.key"
    target.write_text("secret", encoding="utf-8")
    link = key.with_name("link.key")
    link.symlink_to(target)
    server.managed_identity.key_file = link
    with pytest.raises(TokenUnavailable, match=r"cannot be read .it is a link.: add the user"):
        await arc(endpoint).fetch(http)
    assert 1 == server.calls["managed_identity"]


@pytest.mark.parametrize("content", ["x" * 4097, "", "\n", "two\nlines", "caf\u00e9", "a\x00b", "a b"])
async def test_content_that_cannot_be_sent_is_refused(key: Path, endpoint: str, http: TokenHTTP, content: str) -> None:
    """No part of it is shown."""
    write(key, content)
    with pytest.raises(TokenUnavailable, match="is not one line of ASCII of at most 4096 bytes") as caught:
        await arc(endpoint).fetch(http)
    assert not content or content not in str(caught.value)


async def test_file_of_the_greatest_size_is_sent(key: Path, endpoint: str, http: TokenHTTP) -> None:
    """4096 bytes are allowed."""
    write(key, "x" * 4096)
    assert (await arc(endpoint).fetch(http)).value


async def test_file_that_is_missing_or_no_file_is_unavailability(key: Path, endpoint: str, http: TokenHTTP) -> None:
    """The text has the cause and the group that may read; a pipe does not block the thread."""
    await asyncio.to_thread(key.unlink)
    with pytest.raises(TokenUnavailable, match=r"cannot be read .No such file or directory.: .* group himds"):
        await arc(endpoint).fetch(http)
    await asyncio.to_thread(key.mkdir)
    with pytest.raises(TokenUnavailable, match=r"cannot be read|is not one line"):
        await arc(endpoint).fetch(http)
    await asyncio.to_thread(key.rmdir)
    os.mkfifo(key)
    with pytest.raises(TokenUnavailable, match="is not one line"):
        await arc(endpoint).fetch(http)


@pytest.mark.parametrize(
    "challenge", ["", "Bearer", "Basic", "Basic realm=", 'Basic realm="', "Basic realm=/a\x00.key"]
)
async def test_response_without_a_file_is_unavailability(challenge: str) -> None:
    """The text says what the agent would send."""
    with pytest.raises(TokenUnavailable, match=r"HTTP 401 without the name of a file .*: check identity_endpoint"):
        await challenge_secret(Answer(401, headers={"WWW-Authenticate": challenge}))


async def test_name_may_be_quoted(key: Path) -> None:
    """As RFC 7617 writes it."""
    for challenge in (f'Basic realm="{key}"', f"basic realm={key}"):
        assert "content-of-the-file" == await challenge_secret(Answer(401, headers={"WWW-Authenticate": challenge}))


async def test_agent_that_ignores_the_identity_is_not_believed(
    key: Path, endpoint: str, http: TokenHTTP, server: ProviderServer
) -> None:
    """An old agent answers with the token of the machine's own identity."""
    del key
    server.managed_identity.knows_ids = False
    with pytest.raises(
        CredentialRejected, match=r"another identity than that of client_id=client: .* update the agent"
    ):
        await arc(endpoint, client_id="client").fetch(http)
    assert (await arc(endpoint).fetch(http)).value
