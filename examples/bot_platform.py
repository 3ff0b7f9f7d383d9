"""A bot platform: many agents, each with credentials of its own for Feishu, WeCom, DingTalk and Teams.

    export AGENTS=agents.json REDIS_URL=redis://localhost:6379/0 SECRET_KEY=…
    pip install "tokenmw[crypto]" uvicorn
    uvicorn examples.bot_platform:app --workers 4

`agents.json` has for each agent its channels, and for each of these the options of the provider:

    {"sales": {"feishu": {"app_id": "cli_a1", "app_secret": "…"},
               "wecom": {"corp_id": "ww1", "corp_secret": "…", "agent_id": 1000002},
               "dingtalk": {"app_key": "ding1", "app_secret": "…"},
               "teams": {"app_id": "00000000-…", "app_secret": "…", "tenant": "contoso.onmicrosoft.com"}}}

A message comes in at `/agents/{agent}/{channel}`; the answer goes out through an auth object with that agent's token.
Each platform signs or encrypts what it sends, each in its own way: that has to be checked in front of this.
"""

from __future__ import annotations

import json
import os
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import HTTPConnection, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from tokenmw import Provider, TokenBroker, TokenMiddleware
from tokenmw.providers import BotFramework, DingTalk, FeishuTenant, WeCom

AGENTS: Final[dict[str, dict[str, dict[str, Any]]]] = json.loads(
    Path(os.environ["AGENTS"]).read_text(encoding="utf-8"),
)
NOT_CREDENTIALS: Final = ("agent_id", "robot_code")


@dataclass(frozen=True)
class Message:
    """What somebody wrote, and to whom the answer goes."""

    text: str
    sender: str
    address: str = ""


@dataclass(frozen=True)
class Channel:
    """What one platform differs in.

    Attributes:
        provider: Turns an agent's options into a credential.
        read: Takes the message out of an event; None if the event is no message.
        reply: Makes URL and JSON of the answer, out of the message, the text and the agent's options.
        failed: Tells from the platform's answer whether it was not taken.
    """

    provider: Callable[..., Provider]
    read: Callable[[Any], Message | None]
    reply: Callable[[Message, str, dict[str, Any]], tuple[str, Any]]
    failed: Callable[[Any], bool]


def read_feishu(event: Any) -> Message | None:
    """Read an event of version 2.0."""
    if event.get("header", {}).get("event_type") != "im.message.receive_v1":
        return None
    message = event["event"]["message"]
    return Message(json.loads(message["content"]).get("text", ""), message["chat_id"])


def reply_feishu(message: Message, text: str, agent: dict[str, Any]) -> tuple[str, Any]:
    """Send to the chat that the message came from."""
    base_url = agent.get("base_url", "https://open.feishu.cn")
    content = {"receive_id": message.sender, "msg_type": "text", "content": json.dumps({"text": text})}
    return f"{base_url}/open-apis/im/v1/messages?receive_id_type=chat_id", content


def read_wecom(event: Any) -> Message | None:
    """Read a decrypted message, its XML as JSON."""
    return Message(event["Content"], event["FromUserName"]) if event.get("MsgType") == "text" else None


def reply_wecom(message: Message, text: str, agent: dict[str, Any]) -> tuple[str, Any]:
    """Send to the member, from the agent's application."""
    base_url = agent.get("base_url", "https://qyapi.weixin.qq.com")
    content = {"touser": message.sender, "msgtype": "text", "agentid": agent["agent_id"], "text": {"content": text}}
    return f"{base_url}/cgi-bin/message/send", content


def read_dingtalk(event: Any) -> Message | None:
    """Read what was sent to a robot."""
    return Message(event["text"]["content"], event["senderStaffId"]) if event.get("msgtype") == "text" else None


def reply_dingtalk(message: Message, text: str, agent: dict[str, Any]) -> tuple[str, Any]:
    """Send to the member, from the app's robot."""
    base_url = agent.get("base_url", "https://api.dingtalk.com")
    robot = agent.get("robot_code", agent["app_key"])
    content = {"robotCode": robot, "userIds": [message.sender], "msgKey": "sampleText"}
    return f"{base_url}/v1.0/robot/oToMessages/batchSend", {**content, "msgParam": json.dumps({"content": text})}


def read_teams(event: Any) -> Message | None:
    """Read an activity."""
    if event.get("type") != "message":
        return None
    return Message(event.get("text", ""), event["conversation"]["id"], event["serviceUrl"].rstrip("/"))


def reply_teams(message: Message, text: str, agent: dict[str, Any]) -> tuple[str, Any]:
    """Send to where the activity says. If that is no host of Microsoft's, the auth object leaves the token off."""
    return f"{message.address}/v3/conversations/{message.sender}/activities", {"type": "message", "text": text}


CHANNELS: Final = {
    "feishu": Channel(FeishuTenant, read_feishu, reply_feishu, lambda answer: answer.get("code") != 0),
    "wecom": Channel(WeCom, read_wecom, reply_wecom, lambda answer: answer.get("errcode") != 0),
    "dingtalk": Channel(DingTalk, read_dingtalk, reply_dingtalk, lambda answer: "code" in answer),
    "teams": Channel(BotFramework, read_teams, reply_teams, lambda answer: "id" not in answer),
}


def options_of(connection: HTTPConnection, channel: str) -> dict[str, Any]:
    """Return an agent's options for a channel, or answer 404."""
    try:
        return AGENTS[connection.path_params["agent"]][channel]
    except KeyError:
        raise HTTPException(404, "There is no such agent on this channel.") from None


def provider_of(channel: str) -> Callable[[HTTPConnection], Provider]:
    """Return what chooses the credential for a request: equal ones share one token, different ones never do."""

    def choose(connection: HTTPConnection) -> Provider:
        options = options_of(connection, channel)
        return CHANNELS[channel].provider(**{name: options[name] for name in options if name not in NOT_CREDENTIALS})

    return choose


async def take(request: Request) -> Response:
    """Take an event in, and send the answer out."""
    name = request.path_params["channel"]
    options, channel = options_of(request, name), CHANNELS[name]
    event = await request.json()
    if event.get("type") == "url_verification":  # Feishu asks so whether it has the right address
        return JSONResponse({"challenge": event["challenge"]})
    message = channel.read(event)
    if message is None:
        return Response(status_code=204)
    url, content = channel.reply(message, answer_to(message.text), options)
    http: httpx.AsyncClient = request.state.http
    try:
        answer = await http.post(url, json=content, auth=request.state.tokens.auth(name))
        sent = answer.is_success and not channel.failed(answer.json())
    except (httpx.HTTPError, ValueError):
        sent = False
    return Response(status_code=204) if sent else JSONResponse({"error": f"{name} has not taken the answer."}, 502)


def answer_to(text: str) -> str:
    """Think. Here would be a model."""
    return f"You said: {text.strip()}"


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncGenerator[dict[str, httpx.AsyncClient]]:
    """Keep one client, and so its connections, for all agents and channels."""
    async with httpx.AsyncClient(timeout=10) as http:
        yield {"http": http}


broker = TokenBroker(
    {name: provider_of(name) for name in CHANNELS},
    redis=os.environ.get("REDIS_URL"),
    secret_key=os.environ.get("SECRET_KEY"),
)
app = Starlette(
    routes=[Route("/agents/{agent}/{channel}", take, methods=["POST"])],
    # The platforms are no callers with API keys, so there are no sessions.
    middleware=[Middleware(TokenMiddleware, broker=broker, sessions=False)],
    lifespan=lifespan,
)
