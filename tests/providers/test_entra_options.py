from __future__ import annotations

from typing import Any

import pytest

from tests.providers.microsoft import TENANT, bot, entra
from tokenmw.errors import ConfigurationError
from tokenmw.providers import EntraOnBehalfOf, SubjectToken


def on_behalf_of(**options: Any) -> EntraOnBehalfOf:
    """Make an app that acts for its callers."""
    return EntraOnBehalfOf(tenant=TENANT, client_id="app", client_secret="s", subject=SubjectToken(), **options)


@pytest.mark.parametrize("tenant", ["common", "Organizations", "consumers"])
@pytest.mark.parametrize("make", [entra, bot])
def test_common_is_refused_with_the_reason(make: Any, tenant: str) -> None:
    """An app signs in without a user, so `common` names no tenant."""
    with pytest.raises(ConfigurationError, match="No user signs in here"):
        make(tenant=tenant)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"tenant": ""}, r"Entra\(tenant=…\) must be a tenant's id or domain"),
        ({"tenant": "a/b"}, r"Entra\(tenant=…\) must be"),
        ({"tenant": None}, r"Entra\(tenant=…\) must be"),
        ({"cloud": "germany"}, "must be one of public, usgov, usdod, china"),
        ({"scope": "User.Read"}, r'followed by "/.default"'),
        ({"scope": "a/.default b/.default"}, r'followed by "/.default"'),
        ({"client_secret": None}, "needs client_secret=…"),
        ({"client_assertion": "jwt"}, "not both"),
        ({"client_secret": 5}, r"\(client_secret=…\) must be a str"),
        ({"base_url": "http://login.example"}, r"Entra\(base_url=…\) would send the credential without TLS"),
        ({"refresh_before": -1}, r"\(refresh_before=…\) must be a positive"),
        ({"hosts": "graph.example"}, r"\(hosts=…\) must be a list"),
    ],
)
def test_options_that_cannot_work_are_refused_at_construction(options: dict[str, Any], text: str) -> None:
    """The text names the option."""
    with pytest.raises(ConfigurationError, match=text):
        entra(**options)


@pytest.mark.parametrize("make", [entra, bot, on_behalf_of])
def test_the_login_host_of_another_cloud_is_refused(make: Any) -> None:
    """Its tokens are for other APIs than those of `cloud`, by which scope and hosts are chosen."""
    other = r'\(base_url=…\) is the login host of cloud="{}", and cloud is "{}".*: give cloud="{}" alone'
    for cloud, named, url in (
        ("public", "usgov", "https://login.microsoftonline.us"),
        ("china", "public", "https://LOGIN.microsoftonline.com:443/"),
        ("usdod", "china", "https://login.partner.microsoftonline.cn"),
    ):
        with pytest.raises(ConfigurationError, match=other.format(named, cloud, named)):
            make(cloud=cloud, base_url=url)
    with pytest.raises(ConfigurationError, match=r"\(base_url=…\) has a path, which begins with tenant=…: leave"):
        make(base_url="https://login.microsoftonline.com/contoso")
    for cloud in ("usgov", "usdod"):  # they share one
        make(cloud=cloud, base_url="https://login.microsoftonline.us")
    elsewhere = make(cloud="china", base_url="https://login.test")
    assert elsewhere.token_url.startswith("https://login.test/")
    assert "login.test" in elsewhere.hosts
    assert elsewhere.hosts & make(cloud="china").hosts


def test_error_texts_of_a_bot_name_the_bot_s_options() -> None:
    """The texts say `app_id` and `app_secret`, not Entra's `client_id` and `client_secret`."""
    for options, text in (({"app_id": ""}, "app_id"), ({"app_secret": None}, "app_secret"), ({"cloud": ""}, "cloud")):
        with pytest.raises(ConfigurationError, match=rf"BotFramework\({text}=…\)"):
            bot(**options)


@pytest.mark.parametrize(
    ("cloud", "login", "tenant", "bot_host"),
    [
        ("public", "login.microsoftonline.com", "botframework.com", "smba.trafficmanager.net"),
        ("usgov", "login.microsoftonline.us", "microsoftservices.onmicrosoft.us", "smba.infra.gov.teams.microsoft.us"),
        ("usdod", "login.microsoftonline.us", "microsoftservices.onmicrosoft.us", "smba.infra.dod.teams.microsoft.us"),
        (
            "china",
            "login.partner.microsoftonline.cn",
            "microsoftservices.partner.onmschina.cn",
            ".botframework.azure.cn",
        ),
    ],
)
def test_each_cloud_has_its_hosts(cloud: Any, login: str, tenant: str, bot_host: str) -> None:
    """Each cloud has its own login host, bot tenant and channels, and no token goes to another cloud."""
    one = bot(cloud=cloud, base_url=None)
    assert f"https://{login}/{tenant}/oauth2/v2.0/token" == one.token_url
    assert one.hosts is not None
    assert bot_host in one.hosts
    # The two US government clouds share one login host, and so one credential.
    others = [bot(cloud=other, base_url=None) for other in ("public", "usgov", "china") if other[:2] != cloud[:2]]
    assert all(other.hosts is not None and not other.hosts & one.hosts for other in others)
    assert all(other != one for other in others)


def test_hosts_are_those_of_the_scope() -> None:
    """Graph's scope restricts the token to Graph's host; a scope of an unknown API does not restrict it."""
    assert frozenset({"graph.microsoft.com"}) == entra(base_url=None).hosts
    assert frozenset({"dod-graph.microsoft.us"}) == entra(base_url=None, cloud="usdod").hosts
    assert frozenset({"graph.microsoft.com", "localhost"}) == entra().hosts
    assert entra(scope="api://crm/.default").hosts is None
    assert frozenset({"skype.example"}) == bot(hosts=["skype.example"]).hosts
    assert frozenset({"crm.example"}) == entra(scope="api://crm/.default", hosts=["CRM.example"]).hosts


@pytest.mark.parametrize(
    ("other", "same"),
    [
        ({"tenant": "fabrikam.com"}, False),
        ({"client_id": "b"}, False),
        ({"client_secret": "t"}, False),
        ({"scope": "api://crm/.default"}, False),
        ({"cloud": "usgov"}, False),
        ({"base_url": "http://127.0.0.1"}, False),
        ({"tenant": TENANT.upper(), "hosts": ["a.example"], "refresh_before": 60}, True),
    ],
)
def test_equality_is_the_credential(other: dict[str, Any], *, same: bool) -> None:
    """Tenant, app, secret, scope and cloud each make another credential; `hosts` and `refresh_before` do not."""
    assert same is (entra() == entra(**other))
    assert entra() != bot()
