"""A flow that is disturbed, by an attacker or by the user's own browser, connects nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.connections.connecting import Connecting, changed, kind_of
from tokenmw.redis.sealing import Sealer
from tokenmw.testing import Fault

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator


@pytest.fixture
async def world() -> AsyncGenerator[Connecting]:
    """A browser in front of the program."""
    made = Connecting()
    async with made.browser, made.idp:
        yield made


async def test_the_back_button_and_a_replayed_callback(world: Connecting) -> None:
    """The browser has forgotten the cookie; with a copy of it the flow is refused too, and the code not sent again."""
    url = await world.begin()
    cookies = dict(world.browser.cookies)
    callback = await world.consent(url)
    assert 303 == (await world.back(callback)).status_code
    posts = len(world.server.users.posts)
    assert "expired" == kind_of(await world.back(callback))
    line = "; ".join(f"{name}={value}" for name, value in cookies.items())
    assert "expired" == kind_of(await world.back(callback, cookie=line))
    assert posts == len(world.server.users.posts)
    family = world.server.users.family_of(world.users.pairs["crm", "ada"].refresh_token or "")
    assert family.alive


async def test_a_foreign_state_is_refused(world: Connecting) -> None:
    """Also if the browser has a flow: an attacker's callback in the user's browser connects nothing."""
    await world.begin()
    victim = world.browser.cookies
    attacker = Connecting()
    async with attacker.browser, attacker.idp:
        callback = await attacker.consent(await attacker.begin())
    assert "expired" == kind_of(await world.back(callback))
    own = next(iter(victim.jar))
    line = f"{own.name}={own.value}"
    assert "expired" == kind_of(await world.back(changed(callback, state="x" * 43), cookie=line))
    assert "expired" == kind_of(await world.back(changed(callback, state=""), cookie=line))
    assert not world.users.pairs


async def test_a_cookie_under_another_name_does_not_open(world: Connecting) -> None:
    """It is bound to its name, which is that of its state."""
    one, two = await world.begin(), await world.begin()
    names = list(world.browser.cookies)
    swapped = "; ".join(f"{names[index]}={world.browser.cookies[names[1 - index]]}" for index in range(2))
    for url in (one, two):
        assert "expired" == kind_of(await world.back(await world.consent(url), cookie=swapped))


@pytest.mark.parametrize("change", ["cut", "flip", "empty", "other secret"])
async def test_a_changed_cookie_does_not_open(world: Connecting, change: str) -> None:
    """Whatever was changed; a cookie that another secret sealed counts as none."""
    callback = await world.consent(await world.begin())
    ((name, value),) = world.browser.cookies.items()
    if change == "other secret":
        world.users.sealer = Sealer(["another-secret-of-a-sealer-7"])
    flipped = ("A" if value[20] != "A" else "B").join((value[:20], value[21:]))
    changed_value = {"cut": value[:-9], "flip": flipped, "empty": "", "other secret": value}[change]
    assert "expired" == kind_of(await world.back(callback, cookie=f"{name}={changed_value}"))


async def test_a_flow_ends_after_ten_minutes(world: Connecting) -> None:
    """A browser that keeps the cookie longer is refused all the same."""
    callback = await world.consent(await world.begin())
    line = "; ".join(f"{name}={value}" for name, value in world.browser.cookies.items())
    world.clock.advance(601.0)
    assert "expired" == kind_of(await world.back(callback, cookie=line))


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        pytest.param(Fault(fields={"iss": "https://evil.example"}), "foreign", id="foreign iss"),
        pytest.param(Fault(without=["iss"]), "foreign", id="no iss"),
        pytest.param(Fault(fields={"state": "x" * 43}), "expired", id="foreign state"),
        pytest.param(Fault(without=["code"]), "invalid", id="no code"),
        pytest.param(Fault(fields={"code": "foreign"}), "refused", id="foreign code"),
    ],
)
async def test_responses_of_others_are_refused(world: Connecting, fault: Fault, kind: str) -> None:
    """RFC 9207, RFC 9700 §4.4, §4.5 and §4.7."""
    url = await world.begin()
    world.server.authorize.script.then(fault)
    assert kind == kind_of(await world.back(await world.consent(url)))
    assert not world.users.pairs


async def test_an_error_of_another_server_is_foreign(world: Connecting) -> None:
    """The issuer is compared before the error is believed."""
    world.server.users.denies = "access_denied"
    url = await world.begin()
    world.server.authorize.script.then(Fault(fields={"iss": "https://evil.example"}))
    assert "foreign" == kind_of(await world.back(await world.consent(url)))


@pytest.mark.parametrize("name", ["state", "code", "iss"])
async def test_a_parameter_may_not_come_twice(world: Connecting, name: str) -> None:
    """RFC 6749 §3.1."""
    callback = await world.consent(await world.begin())
    doubled = callback.copy_add_param(name, callback.params[name])
    assert "invalid" == kind_of(await world.back(doubled))


async def test_a_foreign_nonce_is_refused(world: Connecting) -> None:
    """A code that was injected belongs to another flow, and its id token shows that."""
    url = await world.begin()
    callback = await world.consent(changed(url, nonce="n" * 43))
    assert "foreign" == kind_of(await world.back(callback))
    assert not world.users.pairs
    (family,) = world.server.users.families.all()
    assert family.alive  # to revoke it could end what its owner has connected before


async def test_another_user_cannot_finish_a_flow(world: Connecting) -> None:
    """The browser has the cookie, but another user has signed in meanwhile."""
    callback = await world.consent(await world.begin())
    assert "other_user" == kind_of(await world.back(callback, **{"x-user": "mallory"}))
    assert not world.users.pairs


async def test_apps_that_are_mixed_up(world: Connecting) -> None:
    """A response at the redirect URI of another app is refused before its code is sent anywhere."""
    callback = await world.consent(await world.begin())
    assert "foreign" == kind_of(await world.back(callback.copy_with(path="/connect/mail/callback")))
    assert not world.server.users.posts
