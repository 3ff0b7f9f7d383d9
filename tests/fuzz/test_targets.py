"""Each target runs in the ordinary tests, too: on its seeds, and on as many mutations as take no time."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from tests.fuzz import answers, callers, engines, grants, messages, urls
from tests.fuzz.engines import Finding, mutated, stretched, tried
from tests.fuzz.oracles import Target
from tests.fuzz.targets import TARGETS
from tokenmw import APIKeySource, Grant
from tokenmw.errors import ConfigurationError, TokenUnavailable
from tokenmw.providers.answer import Answer
from tokenmw.providers.client_auth import Proof
from tokenmw.redis.sealing import Sealer
from tokenmw.redis.token_store import TokenRecord
from tokenmw.tokens.failures import Failure

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.mark.parametrize("target", TARGETS.values(), ids=list(TARGETS))
def test_every_target_holds_for_its_seeds_and_their_neighbours(target: Any) -> None:
    """An input that once failed still passes, with the same mutations each time."""
    assert mutated(target, runs=len(target.seeds) + 60, seconds=0.0, seed=1) >= len(target.seeds)


@pytest.mark.parametrize("name", ["api_key", "life", "record", "retry_after"])
def test_long_inputs_take_no_more_than_their_length(name: str) -> None:
    """64 KiB of backslashes in a cookie once took eight seconds."""
    assert stretched(TARGETS[name]) < engines.SLOW


def grant_of(value: str, **options: Any) -> Any:
    """Return a grant that `Grant` itself would refuse."""
    grant = object.__new__(Grant)
    fields: dict[str, Any] = {"value": value, "expires_in": 60.0, "token_type": "Bearer", "extra": {}, **options}
    for name, given in fields.items():
        object.__setattr__(grant, name, given)
    return grant


def broken(place: Any, name: str, bug: Any) -> Callable[[pytest.MonkeyPatch], None]:
    """Return what plants a bug."""
    return lambda patch: patch.setattr(place, name, bug)


async def _fetched(*_: Any, grant: Any) -> Any:
    return grant


def _granting(grant: Any) -> Callable[[pytest.MonkeyPatch], None]:
    async def fetch(*_: Any) -> Any:
        return grant

    return broken(type(grants.KINDS["oauth2"].provider), "fetch", fetch)


def _raises(error: Exception) -> Callable[..., Any]:
    def fail(*_: Any, **__: Any) -> Any:
        raise error

    return fail


def _gives(*, value: Any) -> Callable[..., Any]:
    def give(*_: Any, **__: Any) -> Any:
        return value

    return give


def _same(_: Any, key: bytes) -> bytes:
    return key


def _repeats(text: str) -> Any:
    raise ConfigurationError(f"redis: {text}")


class Unchecked:
    """A provider that takes any URL."""

    token_url = "http://idp.example/token"


# What an oracle is for, the target that has it, and a bug that it must see.
BUGS: dict[str, tuple[str, Callable[[pytest.MonkeyPatch], None], str]] = {
    "another exception": ("json", broken(Answer, "json", _raises(OverflowError("x"))), "OverflowError"),
    "a line break in a token": ("grant.oauth2", _granting(grant_of("a\r\nx: y")), "breaks a header"),
    "an endless token": ("grant.oauth2", _granting(grant_of("t" * 20_000)), "more than 16 KiB"),
    "an endless life": ("grant.oauth2", _granting(grant_of("t-1", expires_in=float("inf"))), "no life"),
    "a life that is NaN": ("grant.oauth2", _granting(grant_of("t-1", expires_in=float("nan"))), "no life"),
    "a life below zero": ("life", broken(answers, "lifetime", _gives(value=-1.0)), "no life"),
    "a life of another unit": ("life", broken(answers, "lifetime", _gives(value=7.2)), "another life"),
    "a token from nowhere": ("grant.oauth2", _granting(grant_of("t-2")), "has not sent|answer that is|another life"),
    "a secret in an error": ("grant.oauth2", broken(Proof, "is_in", _gives(value=False)), "with the secret"),
    "a secret in a URL's error": (
        "redis_url",
        broken(urls, "checked_redis", _repeats),
        "with the secret",
    ),
    "an error of two lines": ("note", broken(Failure, "to_error", _gives(value=TokenUnavailable("a\nb"))), "forge"),
    "a pause of a day": ("retry_after", broken(answers, "retry_after", _gives(value=86_400.0)), "pause"),
    "a pause that is wrong": ("retry_after", broken(answers, "retry_after", _gives(value=1.0)), "another pause"),
    "a key without a bound": ("api_key", broken(APIKeySource, "_bounded", _same), "too long"),
    "one key of two": (
        "api_key",
        broken(APIKeySource, "find", _gives(value=b"k")),
        "one key of two|stands nowhere",
    ),
    "an envelope that opens anywhere": (
        "envelope",
        broken(Sealer, "open", _gives(value=(0, b""))),
        "nobody sealed here|another body",
    ),
    "a record that changes": (
        "record",
        broken(TokenRecord, "encode", _gives(value=b'["t-2","Bearer",1,null,{}]')),
        "a record that changes",
    ),
    "a body that is lost": ("rejected.wecom", broken(answers, "_raw", partial(_fetched, grant=b"")), "lost some"),
    "a verdict on anything": (
        "rejected.oauth2",
        broken(answers, "is_rejected", _gives(value=_fetched(grant=True))),
        "thrown",
    ),
    "a URL without TLS": (
        "token_url",
        broken(urls, "ClientCredentials", _gives(value=Unchecked())),
        "another URL|no TLS",
    ),
    "a host for everybody": ("hosts", broken(urls, "may_receive_token", _gives(value=True)), "was not named"),
    "a server that fails": (
        "provider_server",
        broken(callers, "_served", _gives(value=_fetched(grant=500))),
        "fails by itself",
    ),
}


@pytest.mark.parametrize(("name", "plant", "complaint"), BUGS.values(), ids=list(BUGS))
def test_every_oracle_sees_its_bug(
    name: str, plant: Callable[[pytest.MonkeyPatch], None], complaint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The seeds alone are enough, so no luck is needed."""
    plant(monkeypatch)
    with pytest.raises(Finding, match=complaint) as caught:
        mutated(TARGETS[name], runs=0, seconds=0.0, seed=1)
    assert str(caught.value).startswith(f"{name}: b")


def test_what_takes_the_square_of_its_length_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """By processor time, which other work on the machine does not lengthen."""
    monkeypatch.setattr(engines, "SLOW", -1.0)
    with pytest.raises(Finding, match="of processor time"):
        stretched(TARGETS["json"])


def test_the_same_seed_makes_the_same_inputs() -> None:
    """A finding of a run can be had again."""
    seen: list[list[bytes]] = []
    for seed in (1, 1, 2):
        inputs: list[bytes] = []
        target = Target("t", inputs.append, (b"ab", b"cd"), (b"w",))
        mutated(target, runs=50, seconds=0.0, seed=seed)
        seen.append(inputs)
    assert seen[0] == seen[1] != seen[2]


def test_an_input_is_any_message() -> None:
    """So no input is wasted on a form."""
    assert messages.read_message(b"") == (200, [], b"")
    assert messages.read_message(b"503\na: b\nc\n\nd\n\ne") == (503, [(b"a", b"b"), (b"c", b"")], b"d\n\ne")


def test_a_finding_shows_its_input() -> None:
    """It is what becomes a seed."""
    target = Target("t", _raises(TokenUnavailable("busy")), (b"",))
    with pytest.raises(Finding, match=r"t: b'abc'\n"):
        tried(target, b"abc")
