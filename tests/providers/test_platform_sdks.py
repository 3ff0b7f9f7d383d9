"""The platforms' own SDKs as clients of the test server, to check that it behaves as the platforms do."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from tests.interop.running import unavailable
from tests.providers.platforms import CLIENT, SECRET
from tokenmw.testing import ProviderServer

if TYPE_CHECKING:
    from collections.abc import Generator

pytestmark = pytest.mark.sdk

# Each program prints two tokens, the second one fetched after the first was refused, and an error's code.
LARK = """
import lark_oapi as lark
from lark_oapi.core.exception import ObtainAccessTokenException
from lark_oapi.core.token import TokenManager

def config(secret):
    built = lark.Client.builder().app_id(client).app_secret(secret).domain(base_url).build()
    return built._config

good = config(secret)
tokens = [TokenManager.get_self_tenant_token(good), TokenManager.get_self_app_token(good)]

def call(token):
    request = lark.BaseRequest.builder().http_method(lark.HttpMethod.POST).uri("/open-apis/im/v1/messages")
    request = request.token_types({lark.AccessTokenType.TENANT}).body({"text": "hi"}).build()
    option = lark.RequestOption.builder().tenant_access_token(token).build()
    return json.loads(lark.Client.builder().enable_set_token(True).domain(base_url).build()
                      .request(request, option).raw.content)

answer, refused = call(tokens[0]), call("t-unknown")
try:
    TokenManager.cache.set(f"self_app_token:{client}", "", 0)  # the SDK's key has no secret
    TokenManager.get_self_app_token(config("wrong"))
    code = 0
except ObtainAccessTokenException as error:
    code = error.code
print(json.dumps([tokens, answer["data"]["client"], refused["code"], code]))
"""

WECHATPY = """
from wechatpy.enterprise import WeChatClient
from wechatpy.exceptions import WeChatClientException

class Client(WeChatClient):
    API_BASE_URL = base_url + "/cgi-bin/"
    def fetch_access_token(self):
        # The SDK hard-codes this URL.
        return self._fetch_access_token(
            url=base_url + "/cgi-bin/gettoken", params={"corpid": self.corp_id, "corpsecret": self.secret})

one = Client(client, secret)
tokens = [one.access_token, Client(client, secret).access_token]
answer = one.get("message/send")
refused = one.get("message/send", params={"access_token": "unknown"})  # replaced by the SDK, by its own code
try:
    Client(client, "wrong").access_token
    code = 0
except WeChatClientException as error:
    code = error.errcode
print(json.dumps([tokens, answer["client"], refused["client"], code]))
"""

DINGTALK = """
import dingtalk_stream

def stream(secret):
    return dingtalk_stream.DingTalkStreamClient(dingtalk_stream.Credential(client, secret))

one = stream(secret)
print(json.dumps([[one.get_access_token(), stream(secret).get_access_token()], one._access_token["expireIn"],
                  stream("wrong").get_access_token(), 0]))
"""


@pytest.fixture
def server() -> ProviderServer:
    """A server that knows one client."""
    return ProviderServer(clients={CLIENT: SECRET})


@pytest.fixture
def base_url(server: ProviderServer) -> Generator[str]:
    """The server's base URL, over real HTTP."""
    with server.running() as base_url:
        yield base_url


def run(module: str, program: str, base_url: str) -> Any:
    """Run a program that uses an SDK in its own process, because SDKs warn, log and patch globally."""
    if importlib.util.find_spec(module) is None:
        unavailable(f"{module} is not installed: pip install -e '.[sdk]'")
    prelude = f"import json; base_url, client, secret = {(base_url, CLIENT, SECRET)!r}\n"
    environment = {**os.environ, "DINGTALK_OPENAPI_ENDPOINT": base_url, "NO_PROXY": "*", "no_proxy": "*"}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", prelude + program],
        env=environment,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert 0 == done.returncode, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_feishu_s_sdk_gets_its_tokens(server: ProviderServer, base_url: str) -> None:
    """Both endpoints return one value, a message is accepted, and a wrong token and a wrong secret are refused."""
    tokens, client, refused, code = run("lark_oapi", LARK, base_url)
    assert (1, CLIENT, 99991663, 10014) == (len(set(tokens)), client, refused, code)
    assert server.issued.find(tokens[0])
    assert (1, 2, 2) == tuple(server.calls[name] for name in ("feishu_tenant", "feishu_app", "feishu_api"))


def test_wecom_s_sdk_gets_its_tokens(server: ProviderServer, base_url: str) -> None:
    """A second client gets the same token, and the SDK replaces a refused token by its code."""
    tokens, client, again, code = run("wechatpy", WECHATPY, base_url)
    assert (1, CLIENT, CLIENT, 40001) == (len(set(tokens)), client, again, code)
    assert server.calls["wecom_api"] == 3


def test_dingtalk_s_sdk_gets_its_tokens(server: ProviderServer, base_url: str) -> None:
    """A second client gets the same token, and a wrong secret gets none."""
    tokens, life, refused, _ = run("dingtalk_stream", DINGTALK, base_url)
    assert (1, 7200, None) == (len(set(tokens)), life, refused)
    assert 3 == server.calls["dingtalk"]
