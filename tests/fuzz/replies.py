"""Replies of Redis, with values of any type under the keys of the package."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast
from uuid import UUID

from tests.fuzz.messages import run
from tests.fuzz.oracles import Target, require
from tests.fuzz.stored import RINGS, check_record
from tokenmw.redis.errors import RedisUnavailable
from tokenmw.redis.keys import KeyNames
from tokenmw.redis.sealing import Unreadable
from tokenmw.redis.session_store import UNAVAILABLE, RedisSessionStore
from tokenmw.redis.token_store import (
    Busy,
    ClockMismatch,
    FailureNoted,
    Found,
    Leased,
    RedisTokenStore,
    Stored,
    TokenKeys,
    TokenRecord,
    Tombstoned,
)
from tokenmw.sessions.derive import SessionIds

__all__ = ["TARGETS"]

NAMES = KeyNames("tokenmw", name_key="old-secret-0123456789")
IDS = SessionIds("old-secret-0123456789")
RECORD = b'["t-1","Bearer",7200.0,60.0,{}]'


class _Replies:
    """A connection that returns the replies of an input, and then valid ones."""

    def __init__(self, replies: list[Any], good: Any) -> None:
        self.replies = replies
        self.good = good

    async def run(self, *_: Any, **__: Any) -> Any:
        return self.replies.pop(0) if self.replies else self.good

    def server_deadline(self, _key: bytes) -> None:
        """Return nothing: the time of the server is not known."""

    async def pipeline(self, commands: Any, **_: Any) -> list[Any]:
        """Return a TTL for each PTTL, so that an upload runs the script and reads its replies."""
        return [1 if command[0] == "PTTL" else await self.run() for command in commands]

    async def run_for_each(self, _script: str, calls: Any, **_: Any) -> list[Any]:
        return [await self.run() for _ in calls]


def _ignore(_kind: str, _reason: str) -> None:
    pass


def _value(word: str, *, key: bytes) -> Any:
    """Return the value of a reply that a letter stands for."""
    ring, body = RINGS[0], word[1:].encode()
    values: dict[str, Any] = {
        "s": ring.seal(body, key=key, version=7),
        "f": RINGS[3].seal(body, key=key, version=7),
        "b": body,
        "n": None,
        "a": UNAVAILABLE,
        "u": ring.seal(UUID(int=7).bytes, key=key, version=0),
        "r": [body],
        "k": [IDS.reset(key)[1]],
    }
    return values.get(word[:1], ring.seal(RECORD, key=key, version=7))


def _tokens(data: bytes) -> None:
    """Read replies of the token scripts: a kind and a value in each line."""
    keys = TokenKeys.of(NAMES, "d")
    lines = data.decode("utf-8", "replace").split("\n")[:8]
    replies = [_token_reply(line, keys) for line in lines]
    record = TokenRecord("t-1", "Bearer", 7200.0, None, {})
    operations: list[tuple[list[Any], Callable[[RedisTokenStore], Any]]] = [
        ([b"lease", b"9", 0, 9], lambda store: store.acquire(keys, "me", known=0, seconds=6.0)),
        ([b"stored", b"", 0, 9], lambda store: store.commit(keys, "me", record, version=8, left=60.0)),
        ([b"tombstone", b"", 0, b"9", 9], lambda store: store.write_tombstone(keys, version=8, known=0, left=60.0)),
    ]
    for good, operation in operations:
        told = [[*reply[: len(good) - 1], 9] for reply in replies]
        store = RedisTokenStore(cast("Any", _Replies(told, good)), sealer=RINGS[0], on_unreadable=_ignore)
        try:
            outcome = run(operation(store))
        except Unreadable as error:
            require(error.reason == "unknown-key", "a damaged value that is not done away with")
            continue
        except RedisUnavailable as error:
            require(error.reason == "damaged" and len(replies) >= 4, "an outage that is none")
            continue
        outcomes = (Found, Leased, Busy, FailureNoted, Stored, Tombstoned, ClockMismatch)
        require(isinstance(outcome, outcomes), "an outcome that is none")
        if isinstance(outcome, Found):
            check_record(outcome.record)
            require(outcome.left <= outcome.record.lifetime, "a token that lives longer than it was granted")


def _token_reply(line: str, keys: TokenKeys) -> list[Any]:
    kind, _, word = line.partition(" ")
    left = len(line) * 1_000_003 % 10**9
    if kind in ("lease", "held", "stored", "tombstone", "clock"):
        return [kind.encode(), b"9", left, b"9"]
    key = keys.note if kind == "note" else keys.token
    return [b"note" if kind == "note" else b"newer", _text(word, key), left, b"9"]


def _text(word: str, key: bytes) -> bytes:
    value = _value(word, key=key)
    return value if isinstance(value, bytes) else b""


def _sessions(data: bytes) -> None:
    """Read session keys with values of any type."""
    lines = data.decode("utf-8", "replace").split("\n")[:8]
    key = b"tokenmw:v1:{d}:session"
    good = _value("u", key=key)
    values = [_value(line, key=key) for line in lines]
    store = _session_store([*values], good)
    answers = [*run(store.touch([key] * len(values)))]
    store = _session_store([*values], good)
    answers += run(store.upload([(key, str(UUID(int=9)), 1.0)] * len(values)))
    if isinstance(values[0], bytes | list):  # the script replaces values of other types
        store = _session_store(values[:1], good)
        (answer,) = run(store.get_or_create([(key, str(UUID(int=9)))]))
        if isinstance(answer, Unreadable):
            require(answer.reason == "unknown-key", "a damaged session that is not replaced")
        else:
            answers.append(answer)
    for answer in answers:
        require(
            answer is None or answer is UNAVAILABLE or str(UUID(str(answer))) == answer, "a session id that is none"
        )


def _session_store(replies: list[Any], good: Any) -> RedisSessionStore:
    connection = cast("Any", _Replies(replies, good))
    return RedisSessionStore(
        connection, names=NAMES, sealer=RINGS[0], ttl=3600.0, on_unreadable=_ignore, after_reset=IDS.after_reset
    )


_REPLIES = (
    b"newer t\nlease",
    b"held",
    b"note sbecause\nnote b\xff\nlease",
    b"newer f",
    b"newer b\x01",
    b"tombstone",
    b"clock",
    b"newer s[]",
)

TARGETS = (
    Target("replies.tokens", _tokens, _REPLIES, (b"newer ", b"note ", b"lease", b"held", b"\n", b"s", b"f"), 1 << 16),
    Target(
        "replies.sessions",
        _sessions,
        (b"u\nn\na\nb\x01\nf", b"f", b"sx", b"b", b"k", b"rx\nk\nu"),
        (b"\n", b"u", b"n", b"a", b"f", b"s", b"r", b"k"),
        1 << 16,
    ),
)
