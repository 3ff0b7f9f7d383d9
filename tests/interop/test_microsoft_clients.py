"""Microsoft's libraries msal and azure-identity get tokens from the test server, over TLS and without a stand-in."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
import uvicorn

from tests.faults.certificates import certificates
from tests.interop.running import python, result_of
from tests.providers.private_keys import certificate_of, make_key, pem_of
from tokenmw.testing import ProviderServer

if TYPE_CHECKING:
    from collections.abc import Generator

    from tests.faults.certificates import Certificates

pytestmark = pytest.mark.sdk

CLIENT, SECRET, TENANT = "crm", "the secret", "contoso.test"
START_SECONDS = 10.0


@contextlib.contextmanager
def over_tls(server: ProviderServer, files: Certificates) -> Generator[str]:
    """Serve over TLS as well, because the libraries send no secret without it, and yield the base URL."""
    config = uvicorn.Config(
        server.app,
        lifespan="off",
        log_config=None,
        ssl_certfile=files.certificate("server"),
        ssl_keyfile=files.key("server"),
    )
    tls = uvicorn.Server(config)
    listener = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=tls.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    try:
        ends = time.monotonic() + START_SECONDS
        while not tls.started:
            assert time.monotonic() < ends
            time.sleep(0.01)
        yield f"https://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        tls.should_exit = True
        thread.join()
        listener.close()


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> tuple[ProviderServer, dict[str, Any]]:
    """A server that knows one app, and what the libraries got from it."""
    command = python("microsoft_clients.py", modules=["msal", "azure.identity", "requests"])
    server = ProviderServer(clients={CLIENT: SECRET})
    key, files = make_key("RSA-2048"), certificates(tmp_path_factory.mktemp("tls"))
    with server.running() as plain, over_tls(server, files) as login:
        environment = {
            "AZURE_POD_IDENTITY_AUTHORITY_HOST": plain,
            "REQUESTS_CA_BUNDLE": files.certificate("ca"),
        }
        return server, result_of(
            command,
            environment=environment,
            login=login,
            tenant=TENANT,
            client=CLIENT,
            secret=SECRET,
            key=pem_of(key),
            certificate=certificate_of(key),
            user=server.subjects.issue("ada"),
        )


@pytest.mark.parametrize(
    ("library", "credentials"),
    [
        ("msal", {"secret", "certificate", "user", "managed identity"}),
        ("azure-identity", {"secret", "certificate", "assertion", "user", "managed identity"}),
    ],
)
def test_each_credential_gets_its_token(
    served: tuple[ProviderServer, dict[str, Any]], library: str, credentials: set[str]
) -> None:
    """Each way to authenticate gets a token of the app, and a user's token one for that user."""
    server, results = served
    tokens = results[library]["tokens"]
    assert set(tokens) == credentials
    for name, token in tokens.items():
        issued = server.issued.find(token)
        assert issued is not None
        managed = name == "managed identity"
        assert ("managed_identity" if managed else "entra", "" if managed else CLIENT) == (
            issued.endpoint,
            issued.client,
        )
        assert ("ada" if name == "user" else "") == issued.user
        assert issued.scope.startswith(
            "https://graph.microsoft.com" if managed else f"{TENANT} https://graph.microsoft.com/.default"
        )


def test_a_wrong_secret_has_the_number_of_the_platform(served: tuple[ProviderServer, dict[str, Any]]) -> None:
    """Both libraries show the number that the test server answers with."""
    _, results = served
    refused = results["msal"]["refused"]
    assert ("invalid_client", [7000215]) == (refused["error"], refused["error_codes"])
    assert "AADSTS7000215" in results["azure-identity"]["refused"]
