"""No object of the flows shows a secret: not by `repr`, a pickle, an encoder, or the frames of an error."""

from __future__ import annotations

import copy
import json
import pickle
import traceback
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from fastapi.encoders import jsonable_encoder

from tests.connections.memory_users import SECRET as SEALS
from tests.connections.memory_users import MemoryUsers
from tests.connections.over_http import http_over
from tokenmw.connections.app import OAuthApp
from tokenmw.connections.authorize import PendingFlow
from tokenmw.connections.browser_cookie import FlowCookies
from tokenmw.connections.connect_app import ConnectApp
from tokenmw.connections.device_codes import DeviceCodes
from tokenmw.connections.pair import TokenPair
from tokenmw.providers.answer import Answer
from tokenmw.redis.sealing import Sealer

if TYPE_CHECKING:
    from collections.abc import Callable

SECRET = "hidden-7f3a9c51"


def app() -> OAuthApp:
    """Make an app with a secret in each place."""
    urls: dict[str, Any] = {"authorize_url": "https://idp.example/a", "token_url": "https://idp.example/t"}
    return OAuthApp(**urls, client_id="crm", client_secret=SECRET, token_params={"api_key": SECRET})


def flow() -> PendingFlow:
    """Make a flow whose parts are secrets."""
    texts = dict.fromkeys(
        ("app", "subject", "state", "verifier", "nonce", "redirect_uri", "scope", "return_to"), SECRET
    )
    return PendingFlow(**texts, begun=1.0)


def device_codes() -> DeviceCodes:
    """Make the answer of a device authorization endpoint."""
    fields = {"device_code": SECRET, "user_code": "A-B", "verification_uri": "https://idp.example/d", "expires_in": 9}
    return DeviceCodes(Answer(200), fields)


MADE: dict[str, Callable[[], Any]] = {
    "OAuthApp": app,
    "PendingFlow": flow,
    "DeviceCodes": device_codes,
    "TokenPair": lambda: TokenPair(access_token=SECRET, refresh_token=SECRET, id_token=SECRET, expires_in=1.0),
    "FlowCookies": lambda: FlowCookies(Sealer([f"{SECRET}{SEALS}"]), secure=True),
    "ConnectApp": lambda: ConnectApp(MemoryUsers({"crm": app()}, None), allow=lambda _connection: True),
}


@pytest.mark.parametrize("name", MADE)
def test_objects_show_no_secret(name: str) -> None:
    """By no way in which a log, an error report or a response might."""
    made = MADE[name]()
    assert SECRET not in repr(made) + str(made) + f"{made!r:>20}"
    assert copy.copy(made) is made
    assert copy.deepcopy(made) is made
    with pytest.raises(TypeError):
        pickle.dumps(made)
    with pytest.raises(TypeError):
        json.dumps(made)
    encoded = ""
    try:
        encoded = repr(jsonable_encoder(made))
    except Exception as error:  # noqa: BLE001  whatever the encoder raises
        encoded = repr(error)
    assert SECRET not in encoded


@pytest.mark.parametrize("call", ["refresh", "code", "device", "revoke"])
async def test_the_frames_of_an_error_show_no_secret(call: str) -> None:
    """Error reports show the variables of each frame."""
    urls: dict[str, Any] = {"authorize_url": "https://idp.example/a", "token_url": "https://idp.example/t"}
    urls["revoke_url"] = "https://idp.example/r"
    made = OAuthApp(**urls, client_id="crm", client_secret=SECRET)
    answer = httpx.MockTransport(lambda _request: httpx.Response(400, json={"error": "invalid_grant"}))
    async with httpx.AsyncClient(transport=answer) as client:
        http = http_over(client)
        calls: dict[str, Any] = {
            "refresh": lambda: made.refresh(http, SECRET),
            "code": lambda: made.exchange_code(http, SECRET, verifier=SECRET, redirect_uri="https://a.example/c"),
            "device": lambda: made.exchange_device_code(http, SECRET),
            "revoke": lambda: made.revoke(http, SECRET, hint="refresh_token"),
        }
        try:
            await calls[call]()
        except Exception as error:  # noqa: BLE001  the report is what is tested
            report = "".join(traceback.TracebackException.from_exception(error, capture_locals=True).format())
        else:
            raise AssertionError("no error")
    # This test's own frame has a lambda, and no variable with the secret.
    assert SECRET not in report
