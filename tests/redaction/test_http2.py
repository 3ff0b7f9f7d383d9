"""HTTP/2: the header compression logs each header with its value at DEBUG, which must show no credential."""

from __future__ import annotations

import base64
import json
import logging
from typing import Any

import httpx
import httpx2
import pytest

from tests.redaction.http2_server import http2_server
from tests.redaction.test_tracebacks import KEY, SECRET
from tokenmw import TokenBroker
from tokenmw.providers import ClientCredentials

TOKEN = "t0k3n-of-this-test"
GRANT = json.dumps({"access_token": TOKEN, "token_type": "Bearer", "expires_in": 3600}).encode()


@pytest.mark.parametrize("library", [httpx, httpx2])
async def test_a_client_with_http2_logs_no_credential(library: Any, caplog: pytest.LogCaptureFixture) -> None:
    """A token request and a request with the token, by a client with HTTP/2, log neither secret nor token."""
    caplog.set_level(logging.DEBUG)
    async with http2_server(GRANT) as (port, received), library.AsyncClient(http1=False, http2=True) as http:
        url = f"http://127.0.0.1:{port}"
        provider = ClientCredentials(token_url=f"{url}/token", client_id="c", client_secret=SECRET)
        async with TokenBroker({"crm": provider}, http=http) as broker:
            response = await http.get(f"{url}/api", auth=broker.auth("crm"))
    assert (200, "HTTP/2") == (response.status_code, response.http_version)
    basic = base64.b64encode(b"c:" + KEY)
    # It was HTTP/2, with the credentials in the headers.
    assert {b"Basic " + basic, b"Bearer " + TOKEN.encode()} <= {bytes(value) for value in received}
    for record in caplog.records:
        text = f"{record.getMessage()} {record.args!r}"
        assert not any(secret in text for secret in (SECRET, TOKEN, basic.decode())), record.name
    assert any(record.name.startswith(library.__name__) for record in caplog.records)
