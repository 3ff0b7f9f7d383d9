"""The tables of the documents are those of the package: extras, errors, events, status, options, figures."""

from __future__ import annotations

import pkgutil
import re
import typing
from dataclasses import fields, is_dataclass

import pytest

import tokenmw
from tests.benchmarks.__main__ import NAMES
from tests.docs.options_page import CLASSES, PATH, render
from tests.docs.pages import PAGES, README, page
from tests.docs.project import PROJECT
from tokenmw import errors, observe, problems, providers
from tokenmw.observe.metrics import METRICS

ALL_TEXT = "\n".join(of.text for of in PAGES.values())


def test_the_page_of_options_is_what_the_script_writes() -> None:
    """A changed option or docstring changes the page: run `python -m tests.docs.options_page`."""
    assert PATH.read_text(encoding="utf-8") == render()


def test_the_page_of_options_has_every_provider() -> None:
    """Each public class that is a provider is on it, and the core, connections and three of providers are."""
    public = {name for name in providers.__all__ if isinstance(getattr(providers, name), type)}
    made = {name for name in public if issubclass(getattr(providers, name), tokenmw.Provider)} - {"Provider"}
    others = {"TokenBroker", "TokenMiddleware", "APIKeySource", "Limits", "HTTPOptions", "PrivateKeyJWT", "DPoPKey"}
    others |= {"Connections", "OAuthApp", "ConnectApp", "SQLStore", "RedisStore", "StatusApp"}
    assert made | others == {one.__name__ for one in CLASSES}


def test_the_extras_are_those_of_the_project() -> None:
    """The table names each extra once, and every `tokenmw[…]` in a document is one of them."""
    extras = set(PROJECT["optional-dependencies"])
    named = [name for row in README.rows("Install") for name in re.findall(r"`([a-z0-9]+)`", row[0])]
    assert sorted(extras) == sorted(named)
    wanted = {name for names in re.findall(r"(?:tokenmw|\.)\[([a-z0-9,]+)\]", ALL_TEXT) for name in names.split(",")}
    assert wanted <= extras
    assert {"crypto", "demo", "test", "bench"} <= wanted


@pytest.mark.parametrize(("extra", "last"), [("demo", "tokenmw demo"), ("test", "python -m pytest")])
def test_the_two_commands_have_their_shape(extra: str, last: str) -> None:
    """Each block is enough on a fresh machine; CI runs them as they stand."""
    lines = ["python3 -m venv .venv", f'.venv/bin/pip install -e ".[{extra}]"', f".venv/bin/{last}"]
    found = [block.text.splitlines() for block in README.blocks if block.language == "bash"]
    assert len(found) == 2
    assert lines in found


def test_the_errors_are_answered_as_the_table_says() -> None:
    """Status and close code of each error are the code's."""
    kinds = [getattr(errors, name) for name in errors.__all__]
    answered = [kind for kind in kinds if issubclass(kind, errors.RequestError) and kind is not errors.RequestError]
    expected = {kind.__name__: (str(kind.status), str(kind.close_code)) for kind in answered}
    assert expected == {
        row[0].strip("`"): (row[1], row[2]) for row in page("errors.md").rows("The errors of a request")
    }
    assert all(kind.close_code == problems.close_code(kind.status) for kind in answered)


def test_the_events_are_those_of_the_package() -> None:
    """The table has each event with its fields."""
    kinds = [getattr(observe, name) for name in observe.__all__]
    events = [kind for kind in kinds if is_dataclass(kind) and isinstance(kind, type)]
    expected = {event.__name__: [f"`{f.name}`" for f in fields(event)] or ["none"] for event in events}
    del expected["Event"]
    assert expected == {row[0].strip("`"): row[1].split(", ") for row in page("observability.md").rows("Events")}


def test_the_status_is_explained() -> None:
    """The guide names every field of the status and of a provider in it."""
    provider = typing.get_args(typing.get_type_hints(tokenmw.Status)["providers"])[1]
    names = [field.name for kind in (tokenmw.Status, provider) for field in fields(kind)]
    assert len(names) > 12
    assert [name for name in names if f"`{name}`" not in page("operations.md").sections["Status"]] == []


def test_every_public_name_is_explained() -> None:
    """What can be imported from the package is in some document."""
    assert [name for name in tokenmw.__all__ if not re.search(rf"\b{name}\b", ALL_TEXT)] == []


LOG_FIELDS = ("kind", "suppressed", "provider", "credential", "server", "reason", "duration")
TRACED = ("token.fetch", "token.waited", "outcome", "token_fetched")
"""The names of a span, its events and attributes, and of an event in the log."""


def test_every_dotted_name_is_there() -> None:
    """What is written as `tokenmw.….…` can be imported, and no internal module is named."""
    names = set(re.findall(r"(?<![/\w-])(tokenmw(?:\.\w+)+)", ALL_TEXT))
    names -= {metric.dotted for metric in METRICS} | {f"tokenmw.{field}" for field in (*LOG_FIELDS, *TRACED)}
    assert len(names) > 5
    for name in names:
        assert pkgutil.resolve_name(re.sub(r"\.(?=[A-Z])", ":", name)) is not None
        assert name.split(".")[1] in {
            *tokenmw.__all__,
            "connections",
            "errors",
            "providers",
            "status_app",
            "fastapi",
            "testing",
            "observe",
            "problems",
        }


def test_every_figure_names_its_benchmark() -> None:
    """Each row of the figures has the benchmark that prints it, and each benchmark with figures has a row."""
    named = [row[1].strip("`") for row in page("performance.md").rows("Figures")]
    assert len(named) > 15
    assert {*NAMES} - {"steps"} == set(named)
