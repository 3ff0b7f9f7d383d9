"""ProviderServer issues tokens, and its API accepts them, as real servers do."""

from __future__ import annotations

import subprocess
import sys
from base64 import b64encode
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.requests import Request
from starlette.responses import Response

from tests.testing.conftest import BASE, CRM, FORM, token_of
from tokenmw import TokenBroker
from tokenmw.errors import ConfigurationError, TokenUnavailable
from tokenmw.providers import ClientCredentials, HTTPOptions
from tokenmw.testing import ManualClock, ProviderServer, make_token
from tokenmw.testing.provider_server import Fault, TokenEndpoint, json_response


async def test_token_is_issued_and_the_api_accepts_it(server: ProviderServer, client: Any) -> None:
    """Token endpoint and API answer as in RFC 6749 §5.1 and RFC 6750."""
    fields = await token_of(client, scope="a")
    assert {"token_type": "Bearer", "expires_in": 3600.0, "scope": "a"}.items() <= fields.items()
    headers = {"authorization": f"Bearer {fields['access_token']}"}
    answer = await client.post("/api/v1/things", headers=headers, content=b"12345")
    assert {"client": "crm", "scope": "a", "path": "/api/v1/things", "received": 5} == answer.json()
    assert {"oauth2": 1, ("oauth2", "crm"): 1, "api": 1} == dict(server.calls)
    assert 1 == len(server.issued)


async def test_each_token_is_another_one(client: Any) -> None:
    """Each fetch returns a new token, so a test can distinguish fetches."""
    assert 5 == len({(await token_of(client))["access_token"] for _ in range(5)})


async def test_api_rejects_invalid_tokens(server: ProviderServer, clock: ManualClock, client: Any) -> None:
    """An unknown, expired or revoked token is a 401 with the challenge of RFC 6750 §3."""

    async def status(value: str) -> tuple[int, bool]:
        answer = await client.get("/api/x", headers={"authorization": value} if value else {})
        return answer.status_code, 'error="invalid_token"' in answer.headers.get("www-authenticate", "")

    first, second = [(await token_of(client))["access_token"] for _ in range(2)]
    server.revoke(first)
    assert (401, True) == await status(f"Bearer {first}")
    assert (200, False) == await status(f"bearer {second}")
    server.revoke(make_token(second))
    assert (401, True) == await status(f"Bearer {second}")
    third = (await token_of(client))["access_token"]
    clock.advance(3599)
    assert (200, False) == await status(f"Bearer {third}")
    clock.advance(1)
    assert (401, True) == await status(f"Bearer {third}")
    assert (401, True) == await status("Bearer never-issued")
    assert (401, False) == await status("")
    with pytest.raises(KeyError):
        server.revoke("never-issued")


BASIC = {"authorization": "Basic " + b64encode(b"crm:s").decode()}


@pytest.mark.parametrize(
    ("form", "headers", "status", "error"),
    [
        (FORM | CRM, {}, 200, None),
        (FORM, BASIC, 200, None),
        (FORM | CRM, BASIC, 400, "invalid_request"),
        (FORM | {"client_id": "crm", "client_secret": "wrong"}, {}, 400, "invalid_client"),
        (FORM | {"client_id": "other", "client_secret": "s"}, {}, 400, "invalid_client"),
        (FORM, {"authorization": "Basic " + b64encode(b"crm:wrong").decode()}, 401, "invalid_client"),
        (FORM, {"authorization": "Basic !"}, 401, "invalid_client"),
        (FORM, {}, 400, "invalid_client"),
        (CRM, {}, 400, "invalid_request"),
        (CRM | {"grant_type": "password"}, {}, 400, "unsupported_grant_type"),
        (FORM | CRM, {"content-type": "application/json"}, 400, "invalid_request"),
    ],
)
async def test_invalid_requests_get_the_error_codes_of_the_rfc(
    client: Any, form: dict[str, str], headers: dict[str, str], status: int, error: str | None
) -> None:
    """Errors are those of RFC 6749 §5.2; a request with two authentication methods is invalid (§2.3)."""
    answer = await client.post("/oauth2/token", data=form, headers=headers)
    assert (status, error) == (answer.status_code, answer.json().get("error"))
    assert (status == 401) is ("www-authenticate" in answer.headers)


async def test_unknown_method_and_path_are_refused(client: Any) -> None:
    """An unknown path is a 404, an unsupported method a 405."""
    assert 405 == (await client.get("/oauth2/token")).status_code
    assert 404 == (await client.post("/oauth2/tokens")).status_code


async def test_same_token_comes_until_its_renewal_window(
    server: ProviderServer, clock: ManualClock, client: Any
) -> None:
    """The same token is returned with its remaining lifetime, as by Feishu (1800 s), WeChat (300 s) and WeCom (0)."""
    server.oauth2.renewal_window = 1800.0
    first = await token_of(client)
    clock.advance(1000)
    again = await token_of(client)
    assert (first["access_token"], 2600) == (again["access_token"], again["expires_in"])
    assert first["access_token"] != (await token_of(client, scope="other"))["access_token"]
    clock.advance(800)
    assert first["access_token"] != (await token_of(client))["access_token"]


async def test_server_can_run_again(server: ProviderServer) -> None:
    """Tokens issued in one run are valid in the next one."""
    tokens: list[str] = []
    for _ in range(2):
        with server.running() as base_url:
            async with httpx.AsyncClient(base_url=base_url, trust_env=False) as client:
                tokens.append((await token_of(client))["access_token"])
                headers = {"authorization": f"Bearer {tokens[0]}"}
                assert 200 == (await client.get("/api/x", headers=headers)).status_code


async def test_without_uvicorn_the_error_names_the_install_line(
    server: ProviderServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only `running` needs uvicorn, and its error names the extra."""
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    with pytest.raises(ConfigurationError, match=r"pip install 'tokenmw\[demo\]'"), server.running():
        pass


class Ticket(TokenEndpoint):
    """An endpoint of the test's own."""

    name = "ticket"
    path = "/ticket"

    async def answer(self, request: Request, fault: Fault) -> Response:
        value, life = self.grant((await request.json())["app"])
        return json_response(fault.change({"code": 0, "ticket": value, "expire": life}))


async def test_own_endpoint_is_a_small_class() -> None:
    """A subclass of TokenEndpoint gets faults, counting and tokens from its base."""
    server = ProviderServer(endpoints=[lambda server: Ticket(server, life=60)])
    async with httpx.AsyncClient(base_url=BASE, transport=server.transport()) as client:
        answer = (await client.post("/ticket", json={"app": "a"})).json()
        assert ("ticket-1", 60) == (answer["ticket"][:8], answer["expire"])
        headers = {"authorization": f"Bearer {answer['ticket']}"}
        assert "a" == (await client.get("/api/x", headers=headers)).json()["client"]
    assert 1 == server.calls["ticket"]


async def test_the_server_runs_over_tls() -> None:
    """A client that trusts its authority gets a token by its issuer; others refuse its certificate."""
    server = ProviderServer(clients={"crm": "s"}, tls=True)
    assert server.ca_file is not None
    other = ProviderServer(tls=True)
    with server.running() as base_url:
        assert base_url.startswith("https://127.0.0.1:")
        by_name = base_url.replace("127.0.0.1", "localhost")
        clients = [ClientCredentials(issuer=url, client_id="crm", client_secret="s") for url in (base_url, by_name)]
        for crm in clients:
            async with TokenBroker({"crm": crm}, http=HTTPOptions(ca_file=server.ca_file)) as broker:
                assert server.issued.find((await broker.token("crm")).value) is not None
        for options in (HTTPOptions(ca_file=other.ca_file), None):
            async with TokenBroker({"crm": clients[0]}, http=options) as broker:
                with pytest.raises(TokenUnavailable, match=r"certificate.*HTTPOptions\(ca_file=…\)"):
                    await broker.token("crm")
    assert 0o700 == Path(server.ca_file).parent.stat().st_mode & 0o777


def test_the_files_of_a_certificate_are_removed() -> None:
    """When the process ends."""
    program = "from tokenmw.testing import ProviderServer; print(ProviderServer(tls=True).ca_file)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert not Path(done.stdout.strip()).parent.exists()


def test_tls_needs_cryptography(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names the extra."""
    monkeypatch.setitem(sys.modules, "cryptography.hazmat.primitives.asymmetric", None)
    with pytest.raises(ConfigurationError, match=r"pip install 'tokenmw\[crypto\]'"):
        ProviderServer(tls=True)
