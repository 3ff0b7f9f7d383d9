"""AKS workload identity: an app of Entra that signs in with a file of its pod, over real HTTP."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

import pytest

from tokenmw.errors import ConfigurationError, TokenUnavailable
from tokenmw.providers import BotFramework, Entra, FileSecret, SecretSource, TokenHTTP, secret_sources
from tokenmw.testing import ProviderServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

VARIABLES = ("AZURE_FEDERATED_TOKEN_FILE", "AZURE_CLIENT_ID", "AZURE_TENANT_ID", "AZURE_AUTHORITY_HOST")
TENANT = "contoso.onmicrosoft.com"


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The token of a pod, whose variables are set without a login host."""
    file = tmp_path / "azure-identity-token"
    write(file, "service.account.1\n")
    for name, value in zip(VARIABLES, (str(file), "app", TENANT, None), strict=True):
        if value is None:
            monkeypatch.delenv(name, raising=False)
        else:
            monkeypatch.setenv(name, value)
    return file


@pytest.fixture
def login(file: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ProviderServer]:
    """The login host that the pod's variables name."""
    del file
    server = ProviderServer(clients={"app": ""})
    with server.running() as base_url:
        monkeypatch.setenv("AZURE_AUTHORITY_HOST", f"{base_url}/")
        yield server


def write(file: Path, content: str) -> None:
    """Replace a file's content."""
    file.write_text(content, encoding="utf-8")


async def test_file_is_read_at_each_fetch_in_a_thread(
    login: ProviderServer, file: Path, http: TokenHTTP, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kubernetes replaces the token. The server refuses one that it has seen."""
    threads: list[int] = []
    read: Callable[[Any], str] = secret_sources._text_of

    def counted(path: Path) -> str:
        threads.append(threading.get_ident())
        return read(path)

    monkeypatch.setattr(secret_sources, "_text_of", counted)
    app = Entra.from_environment()
    assert app.shareable
    await app.fetch(http)
    write(file, "service.account.2\n")
    await app.fetch(http)
    assert 2 == login.calls["entra", "app"]
    assert {"service.account.1", "service.account.2"} == login.entra._assertions
    assert 2 == len(threads)
    assert threading.get_ident() not in threads


async def test_bot_may_have_one(login: ProviderServer, http: TokenHTTP) -> None:
    """The variables are those of its app."""
    bot = BotFramework.from_environment()
    assert isinstance(bot, BotFramework)
    assert (await bot.fetch(http)).value
    assert 1 == login.calls["entra", "app"]


@pytest.mark.parametrize("content", ["", None, "x" * 70_000])
async def test_file_that_cannot_be_used_is_unavailability(
    login: ProviderServer, file: Path, http: TokenHTTP, content: str | None
) -> None:
    """Nothing is sent, and the text names the file."""
    if content is None:
        await asyncio.to_thread(file.unlink)
    else:
        write(file, content)
    with pytest.raises(TokenUnavailable, match="azure-identity-token"):
        await Entra.from_environment().fetch(http)
    assert not login.calls["entra"]


@pytest.mark.usefixtures("file")
@pytest.mark.parametrize(
    ("authority", "url", "graph"),
    [
        (None, "https://login.microsoftonline.com/", "graph.microsoft.com"),
        ("", "https://login.microsoftonline.com/", "graph.microsoft.com"),
        ("https://login.microsoftonline.com/", "https://login.microsoftonline.com/", "graph.microsoft.com"),
        ("login.microsoftonline.us", "https://login.microsoftonline.us/", "graph.microsoft.us"),
        ("https://LOGIN.partner.microsoftonline.cn:443", "https://login.partner.microsoftonline.cn/", "chinacloudapi"),
        ("https://login.example/adfs", "https://login.example/adfs/", "graph.microsoft.com"),
    ],
)
def test_login_host_decides_the_cloud(
    authority: str | None, url: str, graph: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So the default scope is that of the cloud's Graph."""
    if authority is not None:
        monkeypatch.setenv("AZURE_AUTHORITY_HOST", authority)
    app = Entra.from_environment()
    assert f"{url}{TENANT}/oauth2/v2.0/token" == app.token_url
    assert graph in app._scope


def test_options_have_precedence(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The app is that of `client_id`, and the cloud one of those with the login host."""
    monkeypatch.setenv("AZURE_AUTHORITY_HOST", "https://login.microsoftonline.us/")
    made = Entra.from_environment(client_id="other", cloud="usdod")
    assert made == Entra(tenant=TENANT, client_id="other", cloud="usdod", client_assertion=FileSecret(file))
    assert made != Entra.from_environment(cloud="usdod")


@pytest.mark.usefixtures("file")
@pytest.mark.parametrize(
    ("environment", "options", "text"),
    [
        ({"AZURE_TENANT_ID": ""}, {}, r"Entra\.from_environment\(\): AZURE_TENANT_ID not set\. AKS sets it in pods"),
        ({"AZURE_CLIENT_ID": ""}, {}, "AZURE_CLIENT_ID not set"),
        ({"AZURE_FEDERATED_TOKEN_FILE": ""}, {}, "AZURE_FEDERATED_TOKEN_FILE not set"),
        ({"AZURE_AUTHORITY_HOST": "https://login.example"}, {"cloud": "china"}, "AZURE_AUTHORITY_HOST names another"),
        ({"AZURE_AUTHORITY_HOST": "https://login.microsoftonline.us"}, {"cloud": "public"}, "leave out cloud, or set"),
        ({"AZURE_AUTHORITY_HOST": "http://login.example"}, {}, r"AZURE_AUTHORITY_HOST would send .* without TLS"),
        ({"AZURE_AUTHORITY_HOST": "https://login.example:x"}, {}, "AZURE_AUTHORITY_HOST must be an absolute URL"),
        ({}, {"cloud": "mars"}, r"from_environment\(cloud=…\) must be one of public"),
        ({"AZURE_TENANT_ID": "common"}, {}, "which leaves the tenant to the user"),
    ],
)
def test_variables_that_cannot_work_are_refused(
    environment: dict[str, str], options: dict[str, Any], text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The text names the variable and the fix."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError, match=text):
        Entra.from_environment(**options)


def test_assertion_of_a_source_is_known_by_the_source() -> None:
    """Another token in the same file is the same credential."""
    given: dict[str, Any] = {"tenant": TENANT, "client_id": "app"}
    one, other = (Entra(client_assertion=FileSecret(path), **given) for path in ("/a", "/b"))
    assert one == Entra(client_assertion=FileSecret("/a"), **given) != other
    assert one.shareable
    named = SecretSource(lambda: "a.b.c", credential_id="file:/a")
    assert one == Entra(client_assertion=named, **given)
    assert Entra(client_assertion=FileSecret("/a"), credential_id="k", **given) == Entra(
        client_assertion=FileSecret("/b"), credential_id="k", **given
    )
    alike = SecretSource(lambda: "x.y.z", credential_id="a.b.c")
    assert Entra(client_assertion=alike, **given) != Entra(client_assertion="a.b.c", **given)
