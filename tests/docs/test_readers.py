"""What reads documents, docstrings and source finds what it is to find, and fails where it cannot read."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.docs import options_page
from tests.docs.commands import commands
from tests.docs.log_texts import log_texts, specific_match
from tests.docs.pages import Page
from tokenmw import Limits

if TYPE_CHECKING:
    from pathlib import Path

LOGGED = """
_TEXT = "A text that is named."


class Part:
    def work(self):
        self._log.failed("kind", "One thing failed (%s).", "why")
        self._parts.log.recovered(f"kind:{1}", "It is over.")
        LOGGER.info(_TEXT)
        self._log.flush()
        self.catalog.failed("kind", "This is no log line.")
"""


def test_log_calls_are_found_by_what_they_are_on(tmp_path: Path) -> None:
    """The name of the method does not matter, and a named constant is read."""
    (tmp_path / "part.py").write_text(LOGGED)
    assert {"One thing failed (%s).", "It is over.", "A text that is named."} == log_texts(tmp_path)


def test_a_log_text_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    """Else a line would be missing in the table unnoticed."""
    (tmp_path / "part.py").write_text("def work(log, text):\n    log.failed('kind', text)\n")
    with pytest.raises(ValueError, match=r"part.py:2: .* not a constant"):
        log_texts(tmp_path)


@pytest.mark.parametrize(
    ("row", "text"),
    [
        ("One thing failed (…).", "One thing failed (%s)."),
        ("crm: no token: REASON", "%s: %s: %s%s"),
        ("crm: it is over: 5 s", "%s: it is over: %d s"),
        ("A long text …", "A long text that ends: somewhere."),
        ("A line of before.", None),
    ],
)
def test_a_row_stands_for_the_most_specific_text(row: str, text: str | None) -> None:
    """A text that is nearly all placeholders does not take the rows of others."""
    texts = {"One thing failed (%s).", "%s: %s: %s%s", "%s: it is over: %d s", "A long text that ends: somewhere."}
    assert text == specific_match(row, texts)


class _Undescribed:
    """Has an option that is not described.

    Args:
        one: The first.
    """

    def __init__(self, one: int, *, two: str = "") -> None: ...


class _Stale:
    """Describes an option that is gone.

    Args:
        one (int): The first,
            in two lines.
        two: Gone.
    """

    def __init__(self, one: int) -> None: ...


def test_an_option_without_a_description_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the page would have an empty cell."""
    monkeypatch.setattr(options_page, "CLASSES", (_Undescribed,))
    with pytest.raises(ValueError, match="_Undescribed: the docstring does not describe 'two'"):
        options_page.render()


def test_a_description_without_an_option_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a docstring would go on about an option that was removed."""
    monkeypatch.setattr(options_page, "CLASSES", (_Stale,))
    with pytest.raises(ValueError, match=r"_Stale: .* do not exist: \['two'\]"):
        options_page.render()


def test_an_entry_may_have_several_lines_and_a_type() -> None:
    """Descriptions become one line each."""
    found = options_page._entries("Summary.\n\nArgs:\n    one (int): The first,\n        in two lines.\n    two: 2.\n")
    assert {"one", "two"} == set(found)
    assert "The first, in two lines." == options_page._markdown(found["one"])
    assert {"tokens", "flights"} <= set(options_page._described(Limits))


def test_blocks_have_their_section_and_their_reason(tmp_path: Path) -> None:
    """A directive belongs to the block below it, a comment in a block is no heading."""
    reason = "<!-- not run: it needs a cloud -->"
    text = f"# Page\n\n## One\n\n{reason}\n```python\n## no heading\nx\n```\n\n```python\ny\n```\n"
    (tmp_path / "page.md").write_text(text)
    one, two = Page(tmp_path / "page.md").blocks
    assert (one.section, one.not_run, one.line, one.text) == ("One", "it needs a cloud", 7, "## no heading\nx\n")
    assert (two.section, two.not_run, two.continues) == ("One", "", "")


def test_commands_of_the_readme_are_found_by_their_last_line() -> None:
    """CI runs the only block that fits, without comments and prompts."""
    text = "```bash\n# first\n$ pip install .\ntokenmw demo  # now\n```\n```bash\npytest\n```\n"
    assert commands(text, "demo") == "pip install .\ntokenmw demo"
    with pytest.raises(ValueError, match="0 of 2"):
        commands(text, "nothing")
