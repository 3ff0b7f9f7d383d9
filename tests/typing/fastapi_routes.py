"""FastAPI routes as programs write them. Never executed: mypy and pyright check them."""

# pyright: reportUnnecessaryTypeIgnoreComment=true

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Annotated, assert_type

from fastapi import Depends, FastAPI, WebSocket

from tokenmw import RequestTokens, Token, TokenBroker, TokenMiddleware, provider_token, request_tokens, session_id
from tokenmw.errors import RequestError
from tokenmw.fastapi import SessionID, Tokens, token_from
from tokenmw.problems import add_problem_handlers, problem_response
from tokenmw.providers import Provider, StaticToken
from tokenmw.testing import make_token

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

broker = TokenBroker({"feishu": StaticToken("…")})


@asynccontextmanager
async def mine(_app: FastAPI) -> AsyncGenerator[dict[str, str]]:
    """The program's own lifespan."""
    yield {"mine": "kept"}


async def crm_of_tenant(tenant: str) -> Provider:
    """Choose credentials by a path parameter."""
    return StaticToken(tenant)


app = FastAPI(lifespan=broker.lifespan_with(mine))
app.add_middleware(TokenMiddleware, broker=broker, inject=["feishu"], on_error=problem_response)
app.add_exception_handler(RequestError, problem_response)
assert_type(add_problem_handlers(app), FastAPI)
CRM = Annotated[Token, Depends(token_from(crm_of_tenant))]
Feishu = Annotated[Token, Depends(provider_token("feishu"))]


@app.get("/{tenant}")  # noqa: FAST003  a dependency takes it
async def route(session: SessionID, tokens: Tokens, crm: CRM, feishu: Feishu) -> str:
    """Use every dependency."""
    assert_type(session, str)
    assert_type(tokens, RequestTokens)
    assert_type(crm, Token)
    assert_type(feishu, Token)
    return (await tokens.resolve("feishu")).authorization


@app.get("/sync")
def sync_route(session: Annotated[str, Depends(session_id)]) -> str:
    """Use the function behind the alias `SessionID`."""
    return session


@app.websocket("/ws")
async def socket(websocket: WebSocket, tokens: Annotated[RequestTokens, Depends(request_tokens)]) -> None:
    """Use the dependencies in a WebSocket."""
    await websocket.send_text(tokens["feishu"].value)


app.dependency_overrides[provider_token("feishu")] = lambda: make_token("fake")
app.dependency_overrides[session_id] = lambda: "session-1"
token_from(StaticToken("…"))  # type: ignore[arg-type]
provider_token(5)  # type: ignore[arg-type]
