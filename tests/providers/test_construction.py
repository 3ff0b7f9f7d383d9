"""A provider that is made again, as a callable makes one in each request, costs no second check."""

from __future__ import annotations

import gc
import sys
import traceback
from collections import Counter
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

import httpx
import pytest

from tests.providers.microsoft import bot, entra
from tests.providers.platforms import PLATFORMS
from tests.providers.private_keys import make_key, pem_of
from tokenmw import TokenBroker
from tokenmw.errors import ConfigurationError
from tokenmw.providers import (
    ClientCredentials,
    EntraOnBehalfOf,
    FeishuStoreTenant,
    FeishuTicket,
    FileSecret,
    JWTBearer,
    ManagedIdentity,
    PrivateKeyJWT,
    Provider,
    SubjectToken,
    TokenExchange,
    urls,
)
from tokenmw.providers.construction import _checked
from tokenmw.testing import ProviderServer

SECRET = "s3cr3t-of-this-test"


OAUTH: dict[str, Any] = {"issuer": "https://idp.test", "client_id": "crm", "client_secret": SECRET}


def crm(**options: Any) -> ClientCredentials:
    """Make the client `crm`."""
    given: dict[str, Any] = {"token_url": "https://idp.test/oauth2/token", "client_id": "crm", "client_secret": SECRET}
    return ClientCredentials(**(given | options))


CALLER = SubjectToken()
FILE = FileSecret("/run/secrets/crm")
KEY = PrivateKeyJWT(pem_of(make_key("P-256")), key_id="k")
MADE: dict[str, Callable[[], Provider]] = {
    "crm": lambda: crm(scope="a", hosts=["api.example", ".b.example"], refresh_before=60),
    "crm, two secrets": lambda: crm(client_secret=["new secret", "old secret"]),
    "crm, assertion": lambda: crm(client_secret=None, client_assertion="jwt", auth_method="private_key_jwt"),
    "crm, file": lambda: crm(client_secret=FILE),
    "crm, key": lambda: crm(client_secret=None, client_assertion=KEY),
    "crm, issuer": lambda: crm(
        token_url=None, issuer="https://idp.test", resource=["https://a.test", "https://b.test"]
    ),
    "crm, fields": lambda: crm(params={"account_id": "a", "more": "b"}, json=True),
    "exchange": lambda: TokenExchange(**OAUTH, subject="eyJ", audience=["a", "b"], params={"a": "b"}),
    "exchange, each request": lambda: TokenExchange(**OAUTH, subject=CALLER),
    "assertion": lambda: JWTBearer(token_url="https://idp.test/oauth2/token", assertion="eyJ"),
    "on behalf of": lambda: EntraOnBehalfOf(tenant="a.test", client_id="a", client_secret="b", subject="eyJ"),
    "entra": entra,
    "bot": bot,
    "identity": lambda: ManagedIdentity(resource="https://graph.microsoft.com", client_id="a"),
    "ticket": lambda: FeishuTicket(app_id="cli_a1", app_secret=SECRET),
    "store": lambda: FeishuStoreTenant(app_id="cli_a1", app_secret=SECRET, tenant_key="t"),
    **{platform.name: platform.make for platform in PLATFORMS},
}


def calls_of(work: Callable[[], object]) -> Counter[str]:
    """Return the names of this package's functions that something calls."""
    found: Counter[str] = Counter()

    def count(frame: Any, event: str, _argument: object) -> None:
        if event == "call" and str(frame.f_globals.get("__name__")).startswith("tokenmw"):
            found[frame.f_code.co_name] += 1

    before = sys.getprofile()
    sys.setprofile(count)
    try:
        work()
    finally:
        sys.setprofile(before)
    return found


@pytest.mark.parametrize("name", MADE)
def test_equal_provider_is_made_again_without_a_check(name: str) -> None:
    """It has the attributes of the first one, and the two are equal and frozen."""
    first = MADE[name]()
    again: list[Provider] = []
    called = calls_of(lambda: again.append(MADE[name]()))
    assert {"initialise", "_key"} == set(called) - {"<genexpr>", "<listcomp>", "_texts_in", "__hash__"}
    second = again[0]
    assert first is not second
    if not first.depends_on_request:
        assert (first, hash(first), first.credential) == (second, hash(second), second.credential)
    for attribute in ("hosts", "allow_http", "refresh_before", "shareable", "scheme"):
        assert getattr(first, attribute) == getattr(second, attribute)
    with pytest.raises(AttributeError, match="cannot be changed"):
        second.hosts = None


def test_made_provider_cannot_be_made_over() -> None:
    """Its attributes are frozen, also if the same options were checked for a living one."""
    living, other = crm(client_id="other"), crm()
    with pytest.raises(AttributeError, match="cannot be changed"):
        other.__init__(token_url="https://idp.test/oauth2/token", client_id="other", client_secret=SECRET)  # type: ignore[misc]
    assert living != other == crm()


@pytest.mark.parametrize(
    "options",
    [
        {"client_secret": "another"},
        {"client_secret": [SECRET, "old"]},
        {"client_secret": ["old", SECRET]},
        {"scope": "b"},
        {"token_url": "https://other.test/oauth2/token"},
        {"scheme": "Acme"},
    ],
)
def test_another_option_is_another_credential(options: dict[str, Any]) -> None:
    """Every option counts."""
    assert crm() != (made := crm(**options)) == crm(**options)
    assert made.token_url == options.get("token_url", "https://idp.test/oauth2/token")


def test_options_that_are_no_part_of_the_credential_are_kept_apart() -> None:
    """Hosts of one object are not those of another, equal one."""
    narrow, wide = crm(hosts=["api.example"]), crm()
    assert narrow == wide
    assert (frozenset({"api.example"}), None) == (crm(hosts=["api.example"]).hosts, crm().hosts)
    assert (60.0, None) == (crm(refresh_before=60).refresh_before, crm().refresh_before)


class Text(str):
    """A text that says it is another one."""

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        return True

    def __hash__(self) -> int:
        return hash("crm")


def test_value_of_another_type_is_checked() -> None:
    """1 is equal to True, and a subclass of str may be equal to anything; neither is taken for a checked value."""
    living = crm(allow_http=True), crm(log_description=False), crm()
    for name, value in (("allow_http", 1), ("log_description", 0)):
        with pytest.raises(ConfigurationError, match=f"{name}=…. must be True or False"):
            crm(**{name: value})
    assert "_key" in calls_of(lambda: crm(client_id=Text("other")))
    assert crm(client_id=Text("other")) is not None
    assert "other" == repr(crm(client_id=Text("other")).credential[2]).strip("'")
    assert len(living) == 3


def test_functions_are_not_compared() -> None:
    """Two objects with one function have tokens of their own, unless they name its key."""

    def assertion() -> str:
        return "jwt"

    options: dict[str, Any] = {"client_secret": None, "auth_method": "private_key_jwt", "client_assertion": assertion}
    assert crm(**options) != crm(**options)
    assert crm(**options, credential_id="k") == crm(**options, credential_id="k")


def test_subclass_is_checked_each_time() -> None:
    """Its credential may depend on anything."""
    tenant = ContextVar[str]("tenant")

    class Tenant(ClientCredentials):
        __slots__ = ()

        def identity(self) -> tuple[object, ...]:
            return (*super().identity(), tenant.get())

    def of(name: str) -> Provider:
        tenant.set(name)
        made = Tenant(token_url="https://idp.test/token", client_id="crm", client_secret=SECRET)
        assert made.credential
        return made

    assert of("a") == of("a") != of("b")


def test_checked_options_are_forgotten_with_the_last_provider() -> None:
    """No secret stays in memory because a provider was made with it once."""
    gc.collect()
    before = len(_checked)
    made = [crm(client_id=f"tenant-{number % 5}") for number in range(20)]
    assert before + 5 == len(_checked)
    made.clear()
    gc.collect()
    assert before == len(_checked)


def test_refused_options_are_refused_again_and_not_shown() -> None:
    """A refusal is not kept, and no frame of its traceback has the secret."""
    for _ in range(2):
        with pytest.raises(ConfigurationError, match="without TLS") as caught:
            crm(token_url="http://idp.example/token")
        ours = [frame for frame, _ in traceback.walk_tb(caught.tb) if "/tokenmw/" in frame.f_code.co_filename]
        assert ours
        assert SECRET not in "".join(map(str, (frame.f_locals for frame in ours)))


def test_checks_of_urls_and_hosts_are_cached_within_bounds() -> None:
    """By their text: another secret for the same URL costs no second check of the URL."""
    crm(hosts=["api.example"])
    called = calls_of(lambda: crm(client_secret="another secret", hosts=["api.example"]))
    assert not {"_has_valid_host", "read_url", "_query_names", "_on_the_wire", "_is_host"} & set(called)
    cached = (urls._checked_url, urls._in_one_spelling, urls._hosts_of, urls.host_of)
    for number in range(600):
        urls.checked_base_url(f"https://{number}.example", option="o", allow_http=False)
        urls.checked_hosts([f"{number}.example"], option="o")
        urls.host_of(f"https://{number}.example")
    assert [512] * 4 == [one.cache_info().currsize for one in cached]


async def test_broker_s_token_of_an_equal_provider_costs_no_second_check() -> None:
    """Neither does an auth object with it."""
    server = ProviderServer()
    async with httpx.AsyncClient(transport=server.transport()) as http, TokenBroker({}, http=http) as broker:
        first = await broker.token(crm())
        before = sys.getprofile()
        found: Counter[str] = Counter()
        sys.setprofile(lambda frame, event, _: found.update([frame.f_code.co_name]) if event == "call" else None)
        try:
            assert first.value == (await broker.token(crm())).value
            flow = broker.auth(crm()).async_auth_flow(httpx.Request("GET", "https://api.example/x"))
            request = await anext(flow)
        finally:
            sys.setprofile(before)
        await flow.aclose()
        assert f"Bearer {first.value}" == request.headers["authorization"]
    assert 1 == server.calls["oauth2"]
    assert not {"checked_flag", "_checked_identity", "_check_methods", "checked_hosts", "identity"} & set(found)
