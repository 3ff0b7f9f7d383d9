"""The documents are short, linked, written in plain words, and each block in them is run or has a reason."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import tokenmw
from tests.docs.pages import GUIDES, PAGES, README, ROOT, Page, page
from tests.docs.project import BLOB, PROJECT, SDIST
from tests.test_words import EVERYWHERE

# The other blocks that a test reads, by document, language and beginning.
READ_BY_TESTS = {
    ("README.md", "bash", "python3 -m venv "),
    ("README.md", "console", "$ pip install "),
    ("README.md", "console", "$ uvicorn "),
    ("README.md", "text", "API key "),
    ("README.md", "text", "request ──"),
    *(("command_line.md", "console", f"$ tokenmw {name} ") for name in ("check", "inspect", "watch", "retry")),
    *(("command_line.md", "console", f"$ tokenmw {name} ") for name in ("invalidate", "rotate")),
    ("command_line.md", "console", "$ printenv THE_API_KEY | "),
    ("observability.md", "text", "tokenmw: Redis unavailable "),
    ("performance.md", "console", "$ pip install "),
    ("troubleshooting.md", "text", "ACL SETUSER "),
    ("testing.md", "toml", "[tool.pytest.ini_options]"),
}
# Words that a native reader stumbles over, with the word to use in their place.
FORBIDDEN = {
    **{word.pattern: word.instead for word in EVERYWHERE},
    r"\bwho comes\b": "a later caller",
    r"\b(is|are|be) had\b": "is available",
    r"\bis away\b": "unavailable",
    r"\bleans? on\b": "depends on",
    r"\bcomes? to (its|their) end\b": "ends",
    r"\bso many seconds\b": "for `seconds`",
    r"\ba look\b": "a check, a read",
    r"\b(bury|buries|buried|condemn(s|ed)?)\b": "invalidate",
    r"\bhang(s)? up\b": "abort",
    r"\bpassed over\b": "skipped",
    r"\b(nobody|anybody)\b": "no process, no caller",
    r"\bone of all asks\b": "single flight",
}
_LINK = re.compile(r"\]\(([^)\s]+)\)|(?<![(<])\b(https://github\.com/tokenmw/[^\s)\"]+)")
PAGE_NAMES = sorted(PAGES)


def test_the_readme_is_short() -> None:
    """At most 300 lines and 2 000 words; everything else is in the guides."""
    assert len(README.text.splitlines()) <= 300
    assert len(README.text.split()) <= 2000


@pytest.mark.parametrize("name", [name for name in PAGE_NAMES if name != "options.md"])  # a script writes that one
def test_lines_are_wrapped(name: str) -> None:
    """Prose has at most 120 columns, so that a change is a small difference; tables, links and output may be longer."""
    output = {line for block in page(name).blocks if block.language == "text" for line in block.text.splitlines()}
    long = [line for line in page(name).text.splitlines() if len(line) > 120 and line not in output]
    assert [line for line in long if not line.startswith("|") and "](" not in line] == []


@pytest.mark.parametrize("name", PAGE_NAMES)
def test_every_block_is_run_or_has_a_reason(name: str) -> None:
    """Python blocks run; any other block is read by a test, or says in a comment why it is not."""
    for block in page(name).blocks:
        known = any((name, block.language) == entry[:2] and block.text.startswith(entry[2]) for entry in READ_BY_TESTS)
        assert block.language in {"python", "bash", "console", "text", "toml"}, f"{name}:{block.line}"
        assert block.language == "python" or known or block.not_run, f"{name}:{block.line} is read by no test"
        assert not block.not_run or len(block.not_run.split()) > 2, f"{name}:{block.line} needs a reason"


def _targets(of: Page) -> list[str]:
    """Return what a document links to, addresses that stand in its prose among it."""
    return [(match[1] or match[2]).rstrip(".,") for match in _LINK.finditer(of.text)]


def test_links_lead_somewhere() -> None:
    """Each relative link has its file and its heading, each link into the repository its path in this tree."""
    checked = 0
    lost: list[str] = []
    for name, of in PAGES.items():
        for target in _targets(of):
            checked += 1
            if target.startswith(BLOB):
                path, _, anchor = target.removeprefix(BLOB).partition("#")
                base = ROOT
            elif re.match(r"https?://", target):
                continue  # of another site, or of this project's but no file
            else:
                path, _, anchor = target.partition("#")
                base = of.path.parent
            file = (base / path).resolve() if path else of.path
            if not file.is_relative_to(ROOT) or not file.exists():
                lost.append(f"{name}: {target}")
            elif anchor and file.suffix == ".md" and anchor not in page(file.name).anchors:
                lost.append(f"{name}: no heading for {target}")
    assert checked > 60
    assert lost == []


def test_links_of_the_readme_work_on_a_package_index() -> None:
    """They are absolute: a package index shows the README alone."""
    targets = _targets(README)
    assert [target for target in targets if not target.startswith("https://")] == []
    assert sum(target.startswith(BLOB) for target in targets) > 15


def test_every_guide_is_in_the_index_and_in_the_readme() -> None:
    """No page is orphaned."""
    guides = {path.name for path in GUIDES.glob("*.md")} - {"index.md"}
    assert len(guides) > 12
    assert sorted(guides) == sorted(row[0].split("](")[1].rstrip(")") for row in _rows("index.md"))
    assert [name for name in guides if f"{BLOB}examples/guides/{name}" not in README.text] == []


def _rows(name: str) -> list[list[str]]:
    lines = [line for line in page(name).text.splitlines() if line.startswith("| [")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


@pytest.mark.parametrize("name", PAGE_NAMES)
def test_the_prose_is_plain(name: str) -> None:
    """Words of our own are replaced by the field's; quoted code, log lines and words of the status are exempt."""
    found = [
        f"{word[0]!r}: say {better!r}"
        for pattern, better in FORBIDDEN.items()
        for word in re.finditer(pattern, page(name).prose, re.IGNORECASE)
    ]
    assert found == []


def test_the_changelog_is_kept() -> None:
    """It has the format of Keep a Changelog 1.1, an Unreleased part, and the version of the package."""
    text = page("CHANGELOG.md").text
    headings = re.findall(r"^## \[(.+?)\](?: - (\d{4}-\d\d-\d\d))?$", text, re.MULTILINE)
    assert headings[0] == ("Unreleased", "")
    assert headings[1][0] == tokenmw.__version__
    assert all(date for _, date in headings[1:])
    kinds = set(re.findall(r"^### (.+)$", text, re.MULTILINE))
    assert kinds <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}
    assert [version for version, _ in headings if f"\n[{version}]: https://" not in text] == []


def test_the_security_policy_is_of_this_version() -> None:
    """The table of supported versions has the package's, and the policy says how to report."""
    minor = ".".join(tokenmw.__version__.split(".")[:2])
    assert (f"{minor}.x", "yes") in [tuple(row) for row in page("SECURITY.md").rows("Supported versions")]
    assert f"{PROJECT['urls']['Homepage']}/security/advisories/new" in page("SECURITY.md").text


def test_the_metadata_links_to_the_documents() -> None:
    """`project.urls` are of one project, and those that name a file name one of this tree."""
    urls = PROJECT["urls"]
    assert {"Homepage", "Documentation", "Changelog", "Issues"} <= set(urls)
    assert [url for url in urls.values() if not url.startswith(urls["Homepage"])] == []
    files = [url.removeprefix(BLOB) for url in urls.values() if url.startswith(BLOB)]
    assert [name for name in files if not (ROOT / name).is_file()] == []


def test_the_sdist_has_the_documents() -> None:
    """What is included exists, and the documents, the guides and the licence are included."""
    assert [name for name in SDIST if not (ROOT / name.lstrip("/")).exists()] == []
    assert {"/README.md", "/CHANGELOG.md", "/SECURITY.md", "/LICENSE", "/examples"} <= set(SDIST)
    assert Path(PROJECT["readme"]) == Path(README.name)
