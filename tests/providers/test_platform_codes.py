from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from tests.providers.platforms import CLIENT, PLATFORMS, Platform
from tokenmw.clock import SYSTEM_CLOCK
from tokenmw.errors import CredentialRejected, TokenUnavailable
from tokenmw.limits import Limits
from tokenmw.providers import Answer, TokenHTTP
from tokenmw.testing import Fault, ProviderServer

BY_NAME = {platform.name: platform for platform in PLATFORMS}
BAN = {"status": 1111, "punish": "deny"}
JSON = "application/json; charset=utf-8"


async def failure(platform: Platform, fault: Fault) -> CredentialRejected | TokenUnavailable:
    """Return the error that a fault of the token endpoint causes."""
    server = ProviderServer()
    platform.endpoint(server).script.then(fault)
    async with httpx.AsyncClient(transport=server.transport()) as client:
        http = TokenHTTP(client, limits=Limits(), clock=SYSTEM_CLOCK)
        try:
            await platform.make().fetch(http)
        except (CredentialRejected, TokenUnavailable) as error:
            return error
    pytest.fail("The fetch succeeded.")


@pytest.mark.parametrize(
    ("name", "field", "codes", "status"),
    [
        ("feishu_tenant", "code", [10003, 10014, 99991543, 99991662, 99991673, "10014"], 200),
        ("feishu_app", "code", [10014, 99991662], 400),
        ("wecom", "errcode", [40001, 40013, 40091, 41002, 41004, "40013"], 200),
        ("dingtalk", "code", ["invalidClientIdOrSecret", "INVALIDCLIENTIDORSECRET"], 400),
        ("dingtalk_corp", "code", ["invalid.client"], 400),
        ("dingtalk_corp", "code", ["unauthorized.client"], 401),
        ("dingtalk_legacy", "errcode", [40096, 40089, 900103, 40035], 200),
    ],
)
async def test_permanent_codes_reject_the_credential(name: str, field: str, codes: list[Any], status: int) -> None:
    """Permanent codes are shared with all instances: WeCom bans for an hour after 2000 failing calls in an hour."""
    for code in codes:
        error = await failure(BY_NAME[name], Fault(status=status, body={field: code, "message": "x", "errmsg": "x"}))
        assert isinstance(error, CredentialRejected), error
        assert (str(code).lower(), True) == (error.code, error.said)


@pytest.mark.parametrize(
    ("name", "status", "body"),
    [
        ("feishu_tenant", 200, {"code": 2200, "msg": "internal error"}),
        ("feishu_tenant", 400, {"code": 99991400}),
        ("feishu_app", 504, {"code": 2200}),
        ("feishu_tenant", 200, {"code": 4711}),
        ("wecom", 200, {"errcode": -1}),
        ("wecom", 200, {"errcode": 45009}),
        ("wecom", 200, {"errcode": 45033}),
        ("wecom", 200, {"errcode": 6000}),
        ("dingtalk", 400, {"code": "qps.exceed.limit"}),
        ("dingtalk", 400, {"code": "request.overlimit"}),
        ("dingtalk", 403, {"code": "Forbidden.AccessDenied.QpsLimitForApi"}),
        ("dingtalk_corp", 500, {"code": "unknownError"}),
        ("dingtalk_legacy", 200, {"errcode": -1}),
        ("dingtalk_legacy", 200, {"errcode": 90002}),
        ("dingtalk_legacy", 200, {"errcode": "90014"}),
        ("wecom", 200, {"errcode": True}),
        ("wecom", 200, {"errcode": [1]}),
    ],
)
async def test_other_codes_are_transient(name: str, status: int, body: dict[str, Any]) -> None:
    """An unknown code is transient too, so that a working app is not rejected for a new code."""
    error = await failure(BY_NAME[name], Fault(status=status, body=body))
    assert isinstance(error, TokenUnavailable)
    assert error.said


@pytest.mark.parametrize(
    ("name", "status", "body"),
    [
        ("wecom", 200, {"errcode": 60020, "errmsg": "not allow to access from your ip"}),
        ("feishu_app", 400, {"code": 99991401}),
        ("dingtalk", 403, {"code": "Forbidden.AccessDenied.IpNotInWhiteList"}),
        ("dingtalk_legacy", 200, {"errcode": 60020}),
        ("dingtalk", 200, BAN),
        ("dingtalk_corp", 403, BAN),
        ("dingtalk_legacy", 200, BAN),
        ("dingtalk", 403, "<html>blocked"),
    ],
)
async def test_errors_about_this_machine_are_not_shared(name: str, status: int, body: object) -> None:
    """A machine with a wrong address does not stop the others."""
    error = await failure(BY_NAME[name], Fault(status=status, body=body))
    assert not error.said
    assert (300.0 if body == BAN else None) == error.retry_after


@pytest.mark.parametrize(
    ("status", "headers", "seconds"),
    [
        (429, {"x-ogw-ratelimit-reset": "3"}, 3.0),
        (400, {"X-Ogw-Ratelimit-Reset": "3"}, 3.0),
        (429, {"x-ogw-ratelimit-reset": "3", "Retry-After": "7"}, 7.0),
        (429, {"x-ogw-ratelimit-reset": "99999"}, 3600.0),
        (429, {"x-ogw-ratelimit-reset": "-1"}, None),
        (429, {"x-ogw-ratelimit-reset": "soon"}, None),
        (429, {}, None),
    ],
)
async def test_feishu_s_rate_limit_header_is_read(status: int, headers: dict[str, str], seconds: float | None) -> None:
    """Feishu's gateway has its own header, in seconds; `Retry-After` takes precedence."""
    error = await failure(BY_NAME["feishu_tenant"], Fault(status=status, headers=headers, body={"code": 99991400}))
    assert (True, seconds) == (error.said, error.retry_after)


@pytest.mark.parametrize(
    ("name", "status", "code"),
    [("dingtalk", 400, "some.new.Code"), ("dingtalk_corp", 403, "forbidden.access-denied"), ("wecom", 200, 45009)],
)
async def test_unknown_code_is_shown(name: str, status: int, code: object) -> None:
    """The platform's list of codes explains it."""
    field = "code" if name.startswith("dingtalk") else "errcode"
    error = await failure(BY_NAME[name], Fault(status=status, body={field: code, "message": "x"}))
    assert f"({str(code).lower()}, HTTP {status}): see the platform's list of codes" in str(error)


async def test_retry_after_of_a_refusal_is_kept() -> None:
    """The platform knows when another attempt may succeed."""
    refused = Fault(status=400, headers={"Retry-After": "7"}, body={"code": "invalidClientIdOrSecret"})
    error = await failure(BY_NAME["dingtalk"], refused)
    assert isinstance(error, CredentialRejected)
    assert 7.0 == error.retry_after


async def test_error_without_the_other_fields_is_an_error() -> None:
    """An error body without a lifetime is reported by its code."""
    error = await failure(BY_NAME["feishu_tenant"], Fault(body={"code": 10014}))
    assert "refuses app_id=client-1 (10014, HTTP 200): check app_id and app_secret" in str(error)


async def test_missing_code_is_no_error() -> None:
    """Some deployments leave `errcode` out of a successful response."""
    server = ProviderServer()
    server.wecom.script.then(Fault(without=["errcode", "errmsg"]), Fault(fields={"errcode": "0"}))
    async with httpx.AsyncClient(transport=server.transport()) as client:
        http = TokenHTTP(client, limits=Limits(), clock=SYSTEM_CLOCK)
        for _ in range(2):
            assert (await BY_NAME["wecom"].make().fetch(http)).value


def api(status: int, body: object = None, *, kind: str = JSON, length: int | None = None) -> Answer:
    """Make an API's response whose body was read."""
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    size = {} if length is None else {"content-length": str(length)}
    return Answer(status, headers={"Content-Type": kind, **size}, body=raw)


@pytest.mark.parametrize(
    ("name", "status", "body", "rejected"),
    [
        *(("feishu_tenant", s, {"code": c}, True) for s in (200, 400, 401) for c in (99991663, 99991664, 99991671)),
        ("feishu_app", 400, {"code": "99991661"}, True),
        ("feishu_tenant", 401, b"<html>", True),
        *(("feishu_tenant", 400, {"code": c}, False) for c in (99991672, 99991676, 99991679, 99991400, 230002)),
        ("feishu_tenant", 401, {"code": 99991672}, False),
        ("feishu_tenant", 403, {"code": 99991663}, False),
        ("feishu_tenant", 200, {"code": 0, "data": {"code": 99991663}}, False),
        *(("wecom", 200, {"errcode": c}, True) for c in (40014, 42001, 40001, "42001")),
        *(("wecom", 200, {"errcode": c}, False) for c in (0, 301002, 48002, 48009, 60011, 41001, 45009)),
        ("wecom", 500, {"errcode": 42001}, False),
        ("wecom", 200, [42001], False),
        ("wecom", 200, b"", False),
        *(("dingtalk", s, {"code": "InvalidAuthentication"}, True) for s in (400, 401)),
        ("dingtalk_corp", 400, {"code": "accesstoken.expired"}, True),
        ("dingtalk", 401, {}, True),
        ("dingtalk", 400, {"code": "AuthenticationFailed.MissingParameter"}, False),
        ("dingtalk", 400, {"code": "qps.exceed.limit"}, False),
        ("dingtalk", 403, {"code": "Forbidden.AccessDenied.AccessTokenPermissionDenied"}, False),
        ("dingtalk", 200, {"code": "InvalidAuthentication"}, False),
        *(("dingtalk_legacy", 200, {"errcode": 88, "sub_code": c}, True) for c in ("40014", "42001", 40014)),
        *(("dingtalk_legacy", 200, {"errcode": c}, True) for c in (40014, 42001, 40001, 33001)),
        ("dingtalk_legacy", 200, {"errcode": 88, "sub_code": "60011"}, False),
        ("dingtalk_legacy", 200, {"errcode": 88}, False),
        ("dingtalk_legacy", 200, {"errcode": 40000}, False),
        ("dingtalk_legacy", 200, {"errcode": 0, "sub_code": "40014"}, False),
    ],
)
def test_only_an_invalid_token_is_rejected(name: str, status: int, body: object, *, rejected: bool) -> None:
    """Errors about permissions, quotas and other applications are no rejections: a new token would not help."""
    assert rejected is BY_NAME[name].make().is_rejected(api(status, body))


@pytest.mark.parametrize("platform", PLATFORMS, ids=str)
@pytest.mark.parametrize(
    ("kind", "length", "needed"),
    [
        (JSON, None, True),
        (JSON, 100, True),
        (JSON, 10_000_000, False),
        ("text/plain", 100, True),
        ("text/plain", None, False),
        ("", 100, True),
        ("text/event-stream", 100, False),
        ("application/octet-stream", 100, False),
        ("application/x-ndjson", None, False),
    ],
)
def test_body_is_requested_only_where_it_may_be_a_rejection(
    platform: Platform, kind: str, length: int | None, *, needed: bool
) -> None:
    """The body of a download or an event stream is not read."""
    status = 400 if platform.name in ("dingtalk", "dingtalk_corp") else 200
    unread = Unread(status, {"content-type": kind} | ({} if length is None else {"content-length": str(length)}))
    assert (None if needed else False) is platform.make().is_rejected(unread)
    assert CLIENT not in repr(platform.make())


class Unread:
    """An API's response whose body has not been read."""

    body = None

    def __init__(self, status: int, headers: dict[str, str]) -> None:
        self.status = status
        self.headers = headers
