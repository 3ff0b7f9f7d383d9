"""The project's documents as tests see them: their text, headings, tables and fenced blocks."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final

__all__ = ["GUIDES", "PAGES", "README", "ROOT", "Block", "Page", "page", "program"]

ROOT: Final = Path(__file__).parents[2]
GUIDES: Final = ROOT / "examples" / "guides"

_FENCE: Final = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_HEADING: Final = re.compile(r"^#+ (.+)$", re.MULTILINE)
_SECTION: Final = re.compile(r"^##+ (.+)$", re.MULTILINE)
_DIRECTIVE: Final = re.compile(r"<!-- (continues|not run): (.+) -->\n\Z")


@dataclass(frozen=True)
class Block:
    """One fenced block.

    Attributes:
        page: The name of its document, such as "tenants.md".
        language: The word behind the opening fence.
        text: The lines between the fences.
        line: The line of the document in which the text begins.
        section: The heading above it.
        continues: The section whose program runs first, as "section" or "document: section", or "".
        not_run: The reason why no test runs the block, or "".
    """

    page: str
    language: str
    text: str
    line: int
    section: str
    continues: str
    not_run: str


@dataclass(frozen=True)
class Page:
    """One document.

    Attributes:
        path: Its file.
    """

    path: Path

    @property
    def name(self) -> str:
        """The name of its file."""
        return self.path.name

    @cached_property
    def text(self) -> str:
        """The whole text."""
        return self.path.read_text(encoding="utf-8")

    @cached_property
    def prose(self) -> str:
        """The text without fenced blocks and code spans."""
        return re.sub(r"`[^`]+`", "` `", _FENCE.sub("", self.text))

    @cached_property
    def anchors(self) -> set[str]:
        """The fragments that a link to this document may name."""
        headings = _HEADING.findall(_FENCE.sub("", self.text))
        return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}

    @cached_property
    def blocks(self) -> list[Block]:
        """All fenced blocks, in order."""
        found: list[Block] = []
        for match in _FENCE.finditer(self.text):
            before = self.text[: match.start()]
            directive = _DIRECTIVE.search(before)
            kind, value = directive.groups() if directive else ("", "")
            found.append(
                Block(
                    page=self.name,
                    language=match[1],
                    text=match[2],
                    line=before.count("\n") + 2,
                    section=(_SECTION.findall(_FENCE.sub("", before)) or [""])[-1],
                    continues=value if kind == "continues" else "",
                    not_run=value if kind == "not run" else "",
                )
            )
        return found

    def block(self, language: str, start: str) -> str:
        """Return the text of the only block of a language that begins with `start`."""
        (found,) = (one.text for one in self.blocks if one.language == language and one.text.startswith(start))
        return found

    @cached_property
    def sections(self) -> dict[str, str]:
        """The text under each heading, without fenced blocks and without the sections below it."""
        parts = _SECTION.split(_FENCE.sub("", self.text))
        return dict(zip(parts[1::2], parts[2::2], strict=True))

    def rows(self, section: str) -> list[list[str]]:
        """Return the cells of the tables under a heading, without their heads."""
        return [row for table in self.tables(section) for row in table]

    def tables(self, section: str) -> list[list[list[str]]]:
        """Return the tables under a heading as rows of cells, without their heads."""
        found: list[list[list[str]]] = []
        for table in re.findall(r"(?:^\|.*\n)+", self.sections[section] + "\n", re.MULTILINE):
            lines = table.splitlines()[2:]
            found.append([[cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip("|"))] for line in lines])
        return found


README: Final = Page(ROOT / "README.md")
PAGES: Final = {
    one.name: one
    for one in (
        README,
        Page(ROOT / "CHANGELOG.md"),
        Page(ROOT / "SECURITY.md"),
        *(Page(path) for path in sorted(GUIDES.glob("*.md"))),
    )
}


def page(name: str) -> Page:
    """Return the document of this file name."""
    return PAGES[name]


def program(of: Page, section: str) -> list[Block]:
    """Return the python blocks of a section that run as one program, those it continues first."""
    own = [one for one in of.blocks if one.language == "python" and one.section == section and not one.not_run]
    before: list[Block] = []
    for one in own:
        if one.continues:
            document, _, name = one.continues.rpartition(": ")
            before += program(page(document) if document else of, name)
    return before + own
