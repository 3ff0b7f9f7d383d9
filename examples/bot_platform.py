"""A bot platform: many agents, each with its own credentials for Feishu, WeCom, DingTalk and Teams.

    export AGENTS=agents.json REDIS_URL=redis://localhost:6379/0 SECRET_KEY=…
    pip install "tokenmw[crypto]" uvicorn
    uvicorn examples.bot_platform:app --workers 4

`agents.json` has the channels of each agent, and for each channel the provider's options:

    {"sales": {"feishu": {"app_id": "cli_a1", "app_secret": "…"},
               "wecom": {"corp_id": "ww1", "corp_secret": "…", "agent_id": 1000002},
               "dingtalk": {"app_key": "ding1", "app_secret": "…"},
               "teams": {"app_id": "00000000-…", "app_secret": "…", "tenant": "contoso.onmicrosoft.com"}}}

A platform posts events to `/agents/{agent}/{channel}`, and the reply is sent with that agent's token by an auth object.
Each platform signs or encrypts its events in its own way: check that before this application.
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
    """A user's message, and the address of the reply."""

    text: str
    sender: str
    address: str = ""


@dataclass(frozen=True)
class Channel:
    """The differences between platforms.

    Attributes:
        provider: Makes a credential from an agent's options.
        read: Reads the message of an event; None if the event is not a message.
        reply: Makes the URL and the JSON of the reply from the message, the text and the agent's options.
        failed: Returns whether the platform's response reports an error.
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
    """Reply to the chat of the message."""
    base_url = agent.get("base_url", "https://open.feishu.cn")
    content = {"receive_id": message.sender, "msg_type": "text", "content": json.dumps({"text": text})}
    return f"{base_url}/open-apis/im/v1/messages?receive_id_type=chat_id", content


def read_wecom(event: Any) -> Message | None:
    """Read a decrypted message, its XML as JSON."""
    return Message(event["Content"], event["FromUserName"]) if event.get("MsgType") == "text" else None


def reply_wecom(message: Message, text: str, agent: dict[str, Any]) -> tuple[str, Any]:
    """Reply to the member from the agent's application."""
    base_url = agent.get("base_url", "https://qyapi.weixin.qq.com")
    content = {"touser": message.sender, "msgtype": "text", "agentid": agent["agent_id"], "text": {"content": text}}
    return f"{base_url}/cgi-bin/message/send", content


def read_dingtalk(event: Any) -> Message | None:
    """Read a message to a robot."""
    return Message(event["text"]["content"], event["senderStaffId"]) if event.get("msgtype") == "text" else None


def reply_dingtalk(message: Message, text: str, agent: dict[str, Any]) -> tuple[str, Any]:
    """Reply to the member from the app's robot."""
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
    """Reply to the activity's service URL. The auth object adds the token only if that is a host of Microsoft's."""
    return f"{message.address}/v3/conversations/{message.sender}/activities", {"type": "message", "text": text}


CHANNELS: Final = {
    "feishu": Channel(FeishuTenant, read_feishu, reply_feishu, lambda body: body.get("code") != 0),
    "wecom": Channel(WeCom, read_wecom, reply_wecom, lambda body: body.get("errcode") != 0),
    "dingtalk": Channel(DingTalk, read_dingtalk, reply_dingtalk, lambda body: "code" in body),
    "teams": Channel(BotFramework, read_teams, reply_teams, lambda body: "id" not in body),
}


def options_of(connection: HTTPConnection, channel: str) -> dict[str, Any]:
    """Return an agent's options for a channel, or respond with 404."""
    try:
        return AGENTS[connection.path_params["agent"]][channel]
    except KeyError:
        raise HTTPException(404, "There is no such agent on this channel.") from None


def provider_of(channel: str) -> Callable[[HTTPConnection], Provider]:
    """Return a function that chooses a request's credential. Equal credentials share one token, others do not."""

    def choose(connection: HTTPConnection) -> Provider:
        options = options_of(connection, channel)
        return CHANNELS[channel].provider(**{name: options[name] for name in options if name not in NOT_CREDENTIALS})

    return choose


async def receive(request: Request) -> Response:
    """Receive an event, and send the reply."""
    name = request.path_params["channel"]
    options, channel = options_of(request, name), CHANNELS[name]
    event = await request.json()
    if event.get("type") == "url_verification":  # Feishu verifies the URL with it
        return JSONResponse({"challenge": event["challenge"]})
    message = channel.read(event)
    if message is None:
        return Response(status_code=204)
    url, content = channel.reply(message, reply_to(message.text), options)
    http: httpx.AsyncClient = request.state.http
    try:
        response = await http.post(url, json=content, auth=request.state.tokens.auth(name))
        sent = response.is_success and not channel.failed(response.json())
    except (httpx.HTTPError, ValueError):
        sent = False
    return Response(status_code=204) if sent else JSONResponse({"error": f"{name} did not accept the reply."}, 502)


def reply_to(text: str) -> str:
    """Return the reply; a real bot would call a model here."""
    return f"You said: {text.strip()}"


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncGenerator[dict[str, httpx.AsyncClient]]:
    """Share one client, and so its connections, between all agents and channels."""
    async with httpx.AsyncClient(timeout=10) as http:
        yield {"http": http}


broker = TokenBroker(
    {name: provider_of(name) for name in CHANNELS},
    redis=os.environ.get("REDIS_URL"),
    secret_key=os.environ.get("SECRET_KEY"),
)
app = Starlette(
    routes=[Route("/agents/{agent}/{channel}", receive, methods=["POST"])],
    # The platforms do not call with API keys, so there are no sessions.
    middleware=[Middleware(TokenMiddleware, broker=broker, sessions=False)],
    lifespan=lifespan,
)
