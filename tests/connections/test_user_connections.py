"""`broker.connections` and its configuration: states, re-sealing, and options that cannot work."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.connections.memory_store import MemoryStore
from tests.connections.world import LIFETIME, SECRET, World, app, documents_of
from tokenmw import ConfigurationError, TokenBroker
from tokenmw.connections import Connections, ConnectionStore
from tokenmw.providers import StaticToken

if TYPE_CHECKING:
    from collections.abc import Callable

NEW_SECRET = "another secret for the tests"


async def test_the_states_of_a_user(world: World) -> None:
    """`list` has the connections that there are; `state` is None without one."""
    connections = world.broker.connections
    assert {} == await connections.list("user-1")
    assert await connections.state("crm", "user-1") is None
    await world.connect()
    states = await connections.list("user-1")
    assert ["crm"] == list(states)
    assert ("ok", "", None) == (states["crm"].state, states["crm"].reason, states["crm"].since)
    now = world.clock.time()
    assert (now, now, now + LIFETIME) == (
        states["crm"].connected_at,
        states["crm"].refreshed_at,
        states["crm"].expires_at,
    )


async def test_connections_are_sealed_again_after_a_rotation(world: World) -> None:
    """`reseal` replaces each value of an old secret, so that the secret can be removed."""
    families = {subject: await world.connect(subject) for subject in ("user-1", "user-2")}
    broker = world.make_broker(secret_key=[NEW_SECRET, SECRET], name_key=SECRET)
    async with broker:
        assert 2 == await broker.connections.reseal()
        assert 0 == await broker.connections.reseal()
    for subject, family in families.items():
        found = await documents_of(world.store, secrets=(NEW_SECRET,)).load(world.key(subject=subject))
        assert found is not None
        assert found.document.refresh_token == family.refresh_tokens[-1]


async def test_nothing_of_a_user_is_readable(world: World) -> None:
    """No token is in the store's value, and none in a `repr`."""
    family = await world.connect()
    row = world.store.rows[world.key()]
    for secret in (*family.refresh_tokens, *family.access_tokens):
        assert secret.encode() not in row.value
    shown = repr([row, await world.stored(), world.broker.connections, world.broker.connections.config])
    assert family.refresh_tokens[-1] not in shown
    assert "user-1" not in shown


def _one_user(_connection: object) -> str:
    return "user-1"


def _connections(**changes: Any) -> Connections:
    options: dict[str, Any] = {"store": MemoryStore(), "subject": _one_user, **changes}
    return Connections(options.pop("apps", {"crm": app("crm")}), **options)


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: _connections(apps={}), "dict of names to apps"),
        (lambda: _connections(apps=[app("crm")]), "dict of names to apps"),
        (lambda: _connections(apps={"crm": StaticToken("t")}), "must be an OAuthApp"),
        (lambda: _connections(apps={"a/b": app("crm")}), "without a slash"),
        (lambda: _connections(store=MemoryStore), "must be a ConnectionStore"),
        (lambda: _connections(store={}), "must be a ConnectionStore"),
        (lambda: _connections(subject="user-1"), "must be a callable"),
        (lambda: _connections(subject=lambda: "user-1"), "must be a callable"),
        (lambda: _connections(connect_path="connect"), "must be a path or URL"),
        (lambda: TokenBroker({}, connections=_connections()), "needs a secret_key"),
        (lambda: TokenBroker({}, connections=_connections(), secret_key=SECRET, seal=False), "needs a secret_key"),
        (lambda: TokenBroker({"crm": StaticToken("t")}, connections=_connections(), secret_key=SECRET), "both have"),
        (lambda: TokenBroker({}, connections={"crm": app("crm")}, secret_key=SECRET), "must be a Connections"),  # type: ignore[arg-type]
    ],
)
def test_an_option_that_cannot_work(make: Callable[[], object], text: str) -> None:
    """It is reported when the object is made, with the option's name."""
    with pytest.raises(ConfigurationError, match=text):
        make()


@pytest.mark.parametrize("subject", ["", "a\nb", "x" * 501, 17, None])
async def test_a_subject_that_cannot_be_one(world: World, subject: Any) -> None:
    """It is refused without being shown."""
    with pytest.raises(ConfigurationError, match="subject must") as raised:
        await world.broker.connections.token("crm", subject)
    assert "xxx" not in str(raised.value)


async def test_an_unknown_app(world: World) -> None:
    """The error has the name that was perhaps meant."""
    with pytest.raises(ConfigurationError, match="did you mean 'crm'"):
        await world.broker.connections.token("crn", "user-1")


async def test_a_broker_without_connections() -> None:
    """Its `connections` say what is missing."""
    async with TokenBroker({"crm": StaticToken("t")}) as broker:
        with pytest.raises(ConfigurationError, match="no connections of users"):
            await broker.connections.token("crm", "user-1")


def test_the_stores_of_tests_are_stores() -> None:
    """The protocol can be checked at run time."""
    assert isinstance(MemoryStore(), ConnectionStore)
