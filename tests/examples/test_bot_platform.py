"""The bot platform example replies on all four channels, each agent with its own tokens."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from tokenmw.testing import Fault, ProviderServer

TOKENS = {"feishu": "feishu_tenant", "wecom": "wecom", "dingtalk": "dingtalk", "teams": "entra"}
SENDS = {"feishu": "feishu_api", "wecom": "wecom_api", "dingtalk": "dingtalk_api", "teams": "bot_connector"}


def agent(name: str, base_url: str) -> dict[str, Any]:
    """Return an agent's entry in `agents.json`."""
    secret = f"secret of {name}"
    return {
        "feishu": {"app_id": f"cli_{name}", "app_secret": secret, "base_url": base_url},
        "wecom": {"corp_id": f"ww_{name}", "corp_secret": secret, "agent_id": 1000002, "base_url": base_url},
        "dingtalk": {"app_key": f"ding_{name}", "app_secret": secret, "base_url": base_url},
        "teams": {"app_id": f"bot_{name}", "app_secret": secret, "base_url": base_url},
    }


def event(channel: str, base_url: str) -> dict[str, Any]:
    """Return the event that a platform sends for the message "hello"."""
    message = {"chat_id": "oc_1", "content": json.dumps({"text": "hello"})}
    conversation = {"serviceUrl": f"{base_url}/", "conversation": {"id": "19:abc@thread.v2"}}
    events: dict[str, dict[str, Any]] = {
        "feishu": {"header": {"event_type": "im.message.receive_v1"}, "event": {"message": message}},
        "wecom": {"MsgType": "text", "Content": "hello", "FromUserName": "zhangsan"},
        "dingtalk": {"msgtype": "text", "text": {"content": "hello"}, "senderStaffId": "manager1"},
        "teams": {"type": "message", "text": "hello", **conversation},
    }
    return events[channel]


@pytest.fixture
def server() -> ProviderServer:
    """The four platforms."""
    return ProviderServer()


@pytest.fixture
def base_url(server: ProviderServer) -> Iterator[str]:
    """Their address."""
    with server.running() as url:
        yield url


@pytest.fixture
def platform(base_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[TestClient]:
    """The running example, with two agents."""
    agents = tmp_path / "agents.json"
    agents.write_text(json.dumps({name: agent(name, base_url) for name in ("sales", "support")}), encoding="utf-8")
    monkeypatch.setenv("AGENTS", str(agents))
    monkeypatch.delenv("REDIS_URL", raising=False)
    monkeypatch.delitem(sys.modules, "examples.bot_platform", raising=False)
    with TestClient(importlib.import_module("examples.bot_platform").app) as client:
        yield client


@pytest.mark.parametrize("channel", TOKENS)
def test_reply_is_sent_with_the_agent_s_token(
    platform: TestClient, server: ProviderServer, base_url: str, channel: str
) -> None:
    """Three messages to each of two agents cause one token per agent and six replies."""
    for name in ("sales", "support"):
        for _ in range(3):
            assert 204 == platform.post(f"/agents/{name}/{channel}", json=event(channel, base_url)).status_code
    assert (2, 6) == (server.calls[TOKENS[channel]], server.calls[SENDS[channel]])
    assert 2 == len(server.issued)


def test_reply_goes_to_the_conversation_of_the_message(
    platform: TestClient, server: ProviderServer, base_url: str
) -> None:
    """A Teams message gets its reply in its own conversation, from the agent's bot."""
    platform.post("/agents/sales/teams", json=event("teams", base_url))
    ((client, conversation, activity),) = server.bot_connector.activities
    assert ("bot_sales", "19:abc@thread.v2", "You said: hello") == (client, conversation, activity["text"])


@pytest.mark.parametrize("channel", TOKENS)
def test_platform_that_does_not_accept_the_reply_causes_502(
    platform: TestClient, server: ProviderServer, base_url: str, channel: str
) -> None:
    """A quota error is a 502 for the sender of the event, and does not cause another token fetch."""
    quota = {"code": 99991400, "errcode": 45009, "message": "too many"}
    getattr(server, SENDS[channel]).script.then(Fault(status=200, body=quota))
    assert 502 == platform.post(f"/agents/sales/{channel}", json=event(channel, base_url)).status_code
    assert (1, 1) == (server.calls[TOKENS[channel]], server.calls[SENDS[channel]])


def test_forged_service_url_gets_no_token(platform: TestClient, server: ProviderServer, base_url: str) -> None:
    """A bot's token is not sent to a foreign host that an activity names."""
    forged = event("teams", base_url.replace("127.0.0.1", "localhost"))
    assert 502 == platform.post("/agents/sales/teams", json=forged).status_code
    assert (0, 1) == (server.calls["entra"], server.calls["bot_connector"])


def test_no_token_is_503(platform: TestClient, server: ProviderServer, base_url: str) -> None:
    """Without a token, the platform gets 503 with `Retry-After`."""
    server.wecom.script.always = Fault(body={"errcode": -1, "errmsg": "system busy"})
    answer = platform.post("/agents/sales/wecom", json=event("wecom", base_url))
    assert 503 == answer.status_code
    assert "retry-after" in answer.headers


def test_other_events_are_accepted_and_unknown_agents_are_not(platform: TestClient, server: ProviderServer) -> None:
    """Events that are not messages get 204, unknown agents and channels 404, and none causes a fetch."""
    challenge = {"type": "url_verification", "challenge": "c-1"}
    assert {"challenge": "c-1"} == platform.post("/agents/sales/feishu", json=challenge).json()
    for channel in TOKENS:
        assert 204 == platform.post(f"/agents/sales/{channel}", json={"type": "typing"}).status_code
    assert 404 == platform.post("/agents/nobody/feishu", json=challenge).status_code
    assert 404 == platform.post("/agents/sales/slack", json=challenge).status_code
    assert 0 == len(server.issued)
