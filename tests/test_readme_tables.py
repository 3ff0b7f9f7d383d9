"""README.md is true: its tables, commands, log lines and links are those of the project."""

from __future__ import annotations

import inspect
import pkgutil
import re
import sys
import tomllib
from dataclasses import fields, is_dataclass

import pytest

import tokenmw
from tests.readme_blocks import README, TEXT, block, blocks, rows, sections
from tokenmw import errors, observe, problems
from tokenmw.clock import SYSTEM_CLOCK
from tokenmw.observe.throttle import ThrottledLog
from tokenmw.providers import (
    BotFramework,
    ClientCredentials,
    DingTalk,
    DingTalkLegacy,
    Entra,
    FeishuApp,
    FeishuStoreApp,
    FeishuStoreTenant,
    FeishuTenant,
    FeishuTicket,
    ManagedIdentity,
    StaticToken,
    WeCom,
)
from tokenmw.status import ProviderStatus, Status
from tokenmw.testing import ManualClock

PROJECT = tomllib.loads((README.parent / "pyproject.toml").read_text(encoding="utf-8"))["project"]
OPTIONS = [
    tokenmw.TokenBroker,
    tokenmw.TokenMiddleware,
    tokenmw.APIKeySource,
    ClientCredentials,
    FeishuTenant,
    FeishuApp,
    FeishuStoreTenant,
    FeishuStoreApp,
    FeishuTicket,
    WeCom,
    DingTalk,
    DingTalkLegacy,
    Entra,
    BotFramework,
    ManagedIdentity,
    StaticToken,
    tokenmw.Limits,
]
# What the column "Default" may name.
DEFAULTS = {**vars(tokenmw), "SYSTEM_CLOCK": SYSTEM_CLOCK, "problem_response": problems.problem_response}


@pytest.mark.parametrize("made", OPTIONS, ids=lambda made: made.__name__)
def test_every_option_is_there_with_its_default(made: type) -> None:
    """The table of each class has the parameters of its signature, in order, with their defaults."""
    signature = [
        (name, "required" if parameter.default is parameter.empty else repr(parameter.default))
        for name, parameter in inspect.signature(made).parameters.items()
    ]
    written = [
        (option.strip("`"), default if default == "required" else repr(eval(default.strip("`"), DEFAULTS)))
        for option, _type, default, _meaning in rows(made.__name__)
    ]
    assert signature == written


def test_the_extras_are_those_of_the_project() -> None:
    """The table names each extra once, and every `tokenmw[…]` in the text is one of them."""
    extras = set(PROJECT["optional-dependencies"])
    assert sorted(extras) == sorted(row[0].strip("`") for row in rows("Install"))
    wanted = {name for names in re.findall(r"(?:tokenmw|\.)\[([a-z0-9,]+)\]", TEXT) for name in names.split(",")}
    assert wanted <= extras
    assert {"crypto", "demo", "test"} <= wanted


@pytest.mark.parametrize(("extra", "last"), [("demo", "tokenmw demo"), ("test", "python -m pytest")])
def test_the_two_commands_have_their_shape(extra: str, last: str) -> None:
    """Each block is enough on a fresh machine; CI runs them as they stand."""
    lines = ["python3 -m venv .venv", f'.venv/bin/pip install -e ".[{extra}]"', f".venv/bin/{last}"]
    found = [block.text.splitlines() for block in blocks() if block.language == "bash"]
    assert len(found) == 2
    assert lines in found


def test_the_errors_are_answered_as_the_table_says() -> None:
    """Status and close code of each error are the code's."""
    kinds = [getattr(errors, name) for name in errors.__all__]
    answered = [kind for kind in kinds if issubclass(kind, errors.RequestError) and kind is not errors.RequestError]
    expected = {kind.__name__: (str(kind.status), str(kind.close_code)) for kind in answered}
    assert expected == {row[0].strip("`"): (row[1], row[2]) for row in rows("Errors")}
    assert all(kind.close_code == problems.close_code(kind.status) for kind in answered)


def test_the_events_are_those_of_the_package() -> None:
    """The table has each event with its fields."""
    kinds = [getattr(observe, name) for name in observe.__all__]
    events = [kind for kind in kinds if is_dataclass(kind) and isinstance(kind, type)]
    expected = {event.__name__: [f"`{f.name}`" for f in fields(event)] for event in events}
    del expected["Event"]
    assert expected == {row[0].strip("`"): row[1].split(", ") for row in rows("Status, log and metrics")}


def test_the_status_is_explained() -> None:
    """The text names every field, and every word that a state can be."""
    annotations = f"{Status.__annotations__['shared']} {ProviderStatus.__annotations__['state']}"
    words = [field.name for kind in (Status, ProviderStatus) for field in fields(kind)]
    words += re.findall(r"[\"']([a-z ]+)[\"']", annotations)
    assert len(words) > 20
    assert [word for word in words if f"`{word}`" not in sections()["Status, log and metrics"]] == []


def test_every_public_name_is_explained() -> None:
    """What can be imported is in the README, apart from base classes of things that are."""
    missing = [name for name in tokenmw.__all__ if not re.search(rf"\b{name}\b", TEXT)]
    assert missing == []


def test_every_dotted_name_is_there() -> None:
    """What is written as `tokenmw.….…` can be imported."""
    names = set(re.findall(r"`?\b(tokenmw(?:\.\w+)+)", TEXT)) - {"tokenmw.token.fetches"}  # a metric
    assert len(names) > 5
    for name in names:
        assert pkgutil.resolve_name(re.sub(r"\.(?=[A-Z])", ":", name)) is not None


def test_the_log_lines_are_those_of_an_outage(caplog: pytest.LogCaptureFixture) -> None:
    """An outage of 95 s with 2015 failures is three lines, and they are the README's."""
    clock = ManualClock()
    log = ThrottledLog(clock)
    unavailable, recovered = "Redis unavailable (%s, %s); serving from local caches", "Redis recovered"
    for failures, pause in ((1 + 1311, 60), (1 + 702, 35)):
        for _ in range(failures):
            log.problem("redis", unavailable, "timeout", "10.0.0.5:6379")
        clock.advance(pause)
    log.over("redis", recovered)
    assert caplog.messages == block("text", "Redis unavailable").splitlines()
    modules = [sys.modules[f"tokenmw.redis.{name}"] for name in ("connection", "guard")]
    source = "".join(map(inspect.getsource, modules))
    assert [f'"{line}"' in source for line in (unavailable, recovered)] == [True, True]


def test_no_block_is_passed_over() -> None:
    """Python blocks run, and each other block is one of those that the tests here know by how it begins."""
    known = {
        "bash": ("python3 -m venv ",),
        "console": ("$ pip install ", "$ uvicorn "),
        "text": ("API key ", "Redis unavailable "),
    }
    others = [one for one in blocks() if one.language != "python"]
    assert [one.line for one in others if not one.text.startswith(known.get(one.language, ()))] == []
    assert len(others) == sum(map(len, known.values())) + 1  # two blocks begin with the same command


def test_links_lead_somewhere() -> None:
    """Each link within the README has its heading, each path its file."""
    anchors = {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in sections()}
    targets = re.findall(r"\]\(([^)]+)\)", TEXT)
    assert len(targets) > 10
    lost = [t for t in targets if not (t[1:] in anchors if t[0] == "#" else (README.parent / t).exists())]
    assert lost == []
