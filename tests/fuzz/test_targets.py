"""Each target runs with its seeds and a few mutations; each oracle finds a bug."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from tests.fuzz import answers, callers, engines, grants, messages, outgoing, urls
from tests.fuzz.engines import Finding, run_long_inputs, run_mutations, run_one
from tests.fuzz.oracles import Target
from tests.fuzz.targets import TARGETS
from tokenmw import APIKeySource, Grant
from tokenmw.callers import api_key
from tokenmw.errors import ConfigurationError, TokenUnavailable
from tokenmw.outgoing import response, url_tokens
from tokenmw.outgoing.read_ahead import _Ahead
from tokenmw.providers import grant_reader
from tokenmw.providers.answer import Answer
from tokenmw.providers.proof import Proof
from tokenmw.redis.sealing import Sealer
from tokenmw.redis.token_store import TokenRecord
from tokenmw.tokens.failures import Failure

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable


@pytest.mark.parametrize("target", TARGETS.values(), ids=list(TARGETS))
def test_no_seed_or_mutation_violates_an_oracle(target: Any) -> None:
    """Seeds include the inputs of former findings; the mutations are the same in each run."""
    assert run_mutations(target, runs=len(target.seeds) + 60, seconds=0.0, seed=1) >= len(target.seeds)


@pytest.mark.parametrize("name", ["api_key", "lifetime", "record", "retry_after"])
def test_long_inputs_take_linear_time(name: str) -> None:
    """Inputs of the longest size are read in time; 64 KiB of backslashes in a cookie once took eight seconds."""
    assert run_long_inputs(TARGETS[name]) < engines.SLOW


def _of_any_length(_source: APIKeySource, key: bytes) -> bytes | None:
    return key if api_key._is_text(key) else None


def grant_of(value: str, **options: Any) -> Any:
    """Return a grant that the constructor of `Grant` would refuse."""
    grant = object.__new__(Grant)
    fields: dict[str, Any] = {"value": value, "expires_in": 60.0, "token_type": "Bearer", "extra": {}, **options}
    for name, given in fields.items():
        object.__setattr__(grant, name, given)
    return grant


def broken(owner: Any, name: str, bug: Any) -> Callable[[pytest.MonkeyPatch], None]:
    """Return a function that replaces an attribute by a bug."""
    return lambda patch: patch.setattr(owner, name, bug)


async def _return_later(*_: Any, value: Any) -> Any:
    return value


def _granting(grant: Any) -> Callable[[pytest.MonkeyPatch], None]:
    async def fetch(*_: Any) -> Any:
        return grant

    return broken(type(grants.KINDS["oauth2"].provider), "fetch", fetch)


def _raises(error: Exception) -> Callable[..., Any]:
    def fail(*_: Any, **__: Any) -> Any:
        raise error

    return fail


def _returns(*, value: Any) -> Callable[..., Any]:
    def return_value(*_: Any, **__: Any) -> Any:
        return value

    return return_value


def _decoded_whole(raw: bytes, _: Any) -> bytes:
    return outgoing._decoded(raw)


async def _other_body(_: Any) -> AsyncGenerator[bytes]:
    yield b"{}"


def _repeats(text: str) -> Any:
    raise ConfigurationError(f"redis: {text}")


class Unchecked:
    """A provider that accepts any URL."""

    token_url = "http://idp.example/token"


# What an oracle checks, the target that has it, a bug that it must find, and the complaint.
BUGS: dict[str, tuple[str, Callable[[pytest.MonkeyPatch], None], str]] = {
    "another exception": ("json", broken(Answer, "json", _raises(OverflowError("x"))), "OverflowError"),
    "a line break in a token": ("grant.oauth2", _granting(grant_of("a\r\nx: y")), "invalid in a header"),
    "a very long token": ("grant.oauth2", _granting(grant_of("t" * 20_000)), "more than 16 KiB"),
    "an infinite lifetime": ("grant.oauth2", _granting(grant_of("t-1", expires_in=float("inf"))), "invalid lifetime"),
    "a lifetime that is NaN": ("grant.oauth2", _granting(grant_of("t-1", expires_in=float("nan"))), "invalid lifetime"),
    "a negative lifetime": ("lifetime", broken(answers, "lifetime", _returns(value=-1.0)), "invalid lifetime"),
    "a lifetime in another unit": ("lifetime", broken(answers, "lifetime", _returns(value=7.2)), "another lifetime"),
    "a token from nowhere": ("grant.oauth2", _granting(grant_of("t-2")), "not in the response|for a|another lifetime"),
    "a secret in an error": ("grant.oauth2", broken(Proof, "has_piece_in", _returns(value=False)), "with the secret"),
    "a secret in extra": ("grant.feishu", broken(Proof, "has_piece_in", _returns(value=False)), "with the secret"),
    "a description": ("grant.oauth2_described", broken(Proof, "has_piece_in", Proof.is_in), "with the secret"),
    "a long extra": ("grant.oauth2", _granting(grant_of("t-1", extra={"a": "x" * 16_384})), "more than 16 KiB"),
    "a token of any type": ("grant.oauth2", broken(grant_reader, "bearer_type", _returns(value="MAC")), "another type"),
    "a step for each field": ("grant.oauth2", broken(grant_reader, "_MAX_FIELDS", 1 << 20), "steps for one response"),
    "a secret in a URL's error": (
        "redis_url",
        broken(urls, "checked_redis", _repeats),
        "with the secret",
    ),
    "an error of two lines": ("note", broken(Failure, "to_error", _returns(value=TokenUnavailable("a\nb"))), "forge"),
    "a retry_after of a day": ("retry_after", broken(answers, "retry_after", _returns(value=86_400.0)), "retry_after"),
    "a wrong retry_after": ("retry_after", broken(answers, "retry_after", _returns(value=1.0)), "another retry_after"),
    "a key of any length": ("api_key", broken(APIKeySource, "_usable", _of_any_length), "too long"),
    "a key that is no text": ("api_key", broken(api_key, "_is_text", _returns(value=True)), "no text"),
    "one of two keys": (
        "api_key",
        broken(APIKeySource, "find", _returns(value=b"k")),
        "one of two keys|in no header",
    ),
    "an envelope that every sealer opens": (
        "envelope",
        broken(Sealer, "open", _returns(value=(0, b""))),
        "was not sealed|another body",
    ),
    "a record that changes": (
        "record",
        broken(TokenRecord, "encode", _returns(value=b'["t-2","Bearer",1,null,{}]')),
        "a record that changes",
    ),
    "a body that is lost": (
        "rejected.wecom",
        broken(answers, "_raw", partial(_return_later, value=b"")),
        "has lost a part",
    ),
    "a rejection of every token": (
        "rejected.oauth2",
        broken(answers, "is_rejected", _returns(value=_return_later(value=True))),
        "rejected by",
    ),
    "a body that is inflated without bound": (
        "outgoing.wecom",
        broken(response, "decoded", _decoded_whole),
        "body above the limit",
    ),
    "an answer that is changed": ("outgoing.feishu", broken(_Ahead, "all", _other_body), "has lost a part"),
    "a redirect that repeats the token": (
        "redirect",
        broken(url_tokens, "repeats", _returns(value=False)),
        "the token in the",
    ),
    "a redirect that is checked once it is logged": (
        "redirect",
        broken(url_tokens.RedirectGuard, "_check_location", _returns(value=None)),
        "the token in the",
    ),
    "a URL without TLS": (
        "token_url",
        broken(urls, "ClientCredentials", _returns(value=Unchecked())),
        "another URL|no TLS",
    ),
    "a token for every host": ("hosts", broken(urls, "may_receive_token", _returns(value=True)), "was not named"),
    "a server that fails": (
        "provider_server",
        broken(callers, "_status", _returns(value=_return_later(value=500))),
        "internal error",
    ),
}


@pytest.mark.parametrize(("name", "add_bug", "complaint"), BUGS.values(), ids=list(BUGS))
def test_every_oracle_finds_its_bug(
    name: str, add_bug: Callable[[pytest.MonkeyPatch], None], complaint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The seeds alone are enough to find each bug."""
    add_bug(monkeypatch)
    with pytest.raises(Finding, match=complaint) as caught:
        run_mutations(TARGETS[name], runs=0, seconds=0.0, seed=1)
    assert str(caught.value).startswith(f"{name}: b")


def test_slow_input_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is found by processor time, which does not depend on other processes."""
    monkeypatch.setattr(engines, "SLOW", -1.0)
    with pytest.raises(Finding, match="of processor time"):
        run_long_inputs(TARGETS["json"])


def test_the_same_seed_makes_the_same_inputs() -> None:
    """The inputs of a run can be repeated, so a finding can be reproduced."""
    seen: list[list[bytes]] = []
    for seed in (1, 1, 2):
        inputs: list[bytes] = []
        target = Target("t", inputs.append, (b"ab", b"cd"), (b"w",))
        run_mutations(target, runs=50, seconds=0.0, seed=seed)
        seen.append(inputs)
    assert seen[0] == seen[1] != seen[2]


def test_every_input_is_a_message() -> None:
    """Any bytes are parsed as a response, so no input is wasted."""
    assert messages.read_message(b"") == (200, [], b"")
    assert messages.read_message(b"503\na: b\nc\n\nd\n\ne") == (503, [(b"a", b"b"), (b"c", b"")], b"d\n\ne")


def test_a_finding_shows_its_input() -> None:
    """The text of a finding has the input, which becomes a seed."""
    target = Target("t", _raises(TokenUnavailable("busy")), (b"",))
    with pytest.raises(Finding, match=r"t: b'abc'\n"):
        run_one(target, b"abc")
