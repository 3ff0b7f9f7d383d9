"""A backend for a front end: users sign in, connect an account, and pages call its API through this program.

    export LOGIN_ISSUER=https://login.example LOGIN_CLIENT_ID=web LOGIN_CLIENT_SECRET=…
    export CRM_ISSUER=https://idp.example CRM_CLIENT_ID=crm CRM_CLIENT_SECRET=… CRM_API=https://api.example/me
    export SECRET_KEY=… DATABASE=sqlite+aiosqlite:///connections.db PUBLIC_URL=https://app.example
    pip install "tokenmw[fastapi,crypto,sql]" authlib itsdangerous uvicorn
    uvicorn examples.connections.app:app --workers 2

Register PUBLIC_URL/login/callback at the login server, and PUBLIC_URL/connect/crm/callback at the other one. The
browser has a session cookie and no token; the tokens are in the database, sealed. With REDIS_URL the workers share
access tokens, so that one of them fetches for all.
"""

# pyright: basic, reportMissingImports=false
# Authlib has no types, and is needed by this example only.

from __future__ import annotations

import os
from typing import Any, Final

import httpx
from authlib.integrations.starlette_client import OAuth
from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse, RedirectResponse
from starlette.middleware.sessions import SessionMiddleware
from starlette.requests import HTTPConnection

from tokenmw import TokenBroker, TokenMiddleware
from tokenmw.connections import ConnectApp, Connections, OAuthApp, SQLStore
from tokenmw.problems import add_problem_handlers

PUBLIC_URL: Final = os.environ["PUBLIC_URL"]
CRM_API: Final = os.environ["CRM_API"]


def user_of(connection: HTTPConnection) -> str | None:
    """Return the user who is signed in."""
    user: str | None = connection.session.get("user")
    return user


def signed_in(connection: HTTPConnection) -> bool:
    """Return whether somebody is signed in."""
    return user_of(connection) is not None


connections = Connections(
    {
        "crm": OAuthApp(
            issuer=os.environ["CRM_ISSUER"],
            client_id=os.environ["CRM_CLIENT_ID"],
            client_secret=os.environ["CRM_CLIENT_SECRET"],
            scope="openid offline_access",
            params={"prompt": "consent"},
        )
    },
    store=SQLStore(os.environ["DATABASE"], create=True),
    subject=user_of,
)
broker = TokenBroker(
    {}, connections=connections, redis=os.environ.get("REDIS_URL"), secret_key=os.environ["SECRET_KEY"]
)
login = OAuth().register(
    "login",
    server_metadata_url=f"{os.environ['LOGIN_ISSUER']}/.well-known/openid-configuration",
    client_id=os.environ["LOGIN_CLIENT_ID"],
    client_secret=os.environ["LOGIN_CLIENT_SECRET"],
    client_kwargs={"scope": "openid", "code_challenge_method": "S256"},
)

app = add_problem_handlers(FastAPI())
app.add_middleware(TokenMiddleware, broker=broker, sessions=False)
# The outermost: `subject` and `allow` read the session. `lax`, because the servers redirect back to this site.
app.add_middleware(
    SessionMiddleware,
    secret_key=os.environ["SECRET_KEY"],
    same_site="lax",
    https_only=PUBLIC_URL.startswith("https://"),
)
app.mount("/connect", ConnectApp(broker, allow=signed_in, return_to=("/",), public_url=f"{PUBLIC_URL}/connect"))

PAGE: Final = """<!doctype html><html lang="en"><meta charset="utf-8"><title>Contacts</title>
<p>Signed in as <b id="user">{user}</b></p><p id="state">{state}</p>
<p><a id="connect" href="/connect/crm">Connect</a></p>
<form method="post" action="/connect/crm/disconnect"><button id="disconnect">Disconnect</button></form></html>"""


@app.get("/")
async def index(request: Request) -> Any:
    """Show the user and the state of the connection."""
    user = user_of(request)
    if user is None:
        return RedirectResponse("/login")
    state = await broker.connections.state("crm", user)
    return HTMLResponse(PAGE.format(user=user, state="none" if state is None else state.state))


@app.get("/login")
async def begin_login(request: Request) -> Any:
    """Send the browser to the login server."""
    return await login.authorize_redirect(request, f"{PUBLIC_URL}/login/callback")


@app.get("/login/callback")
async def finish_login(request: Request) -> RedirectResponse:
    """Keep the user in the session; the tokens of the login are not needed."""
    token = await login.authorize_access_token(request)
    request.session.clear()
    request.session["user"] = str(token["userinfo"]["sub"])
    return RedirectResponse("/", status_code=303)


@app.get("/api/me")
async def me(request: Request) -> Any:
    """Call the API for the user; without a connection, 403 with `connect_url`."""
    async with httpx.AsyncClient(auth=request.state.tokens.auth("crm")) as http:
        answer = await http.get(CRM_API)
    answer.raise_for_status()
    return {"worker": os.getpid(), "crm": answer.json()}
