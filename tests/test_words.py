"""The package uses the words of its field: comments, docstrings, texts and names are searched for those it avoids."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Word:
    """A word or phrase that is avoided.

    Attributes:
        pattern: How it is found in comments, docstrings and string constants; it ignores case.
        instead: What to write.
        allowed: The same text where it is right, each with a reason in a comment beside it.
    """

    pattern: str
    instead: str
    allowed: str = ""

    def found_in(self, text: str) -> Iterator[tuple[int, str]]:
        """Yield the position and text of each occurrence that is not a part of an allowed text."""
        allowed = (
            [found.span() for found in re.finditer(self.allowed, text, re.IGNORECASE | re.MULTILINE)]
            if self.allowed
            else []
        )
        for found in re.finditer(self.pattern, text, re.IGNORECASE | re.MULTILINE):
            if not any(begin <= found.start() and found.end() <= end for begin, end in allowed):
                yield found.start(), " ".join(found[0].split())


EVERYWHERE: Final = (
    Word(r"\bmend(s|ed|ing)?\b", "fix"),
    Word(r"\bwhoever\b", "the caller, the process, the task"),
    Word(r"\btold\b", "notified, logged, reported"),
    Word(r"\bslips?\b", "mistake"),
)
"""Avoided in the package and in its tests."""

IN_PACKAGE: Final = (
    *EVERYWHERE,
    # Without the noun that it belongs to: "Who asks for …", "… who asks gets a token". "a caller who …" is a clause.
    Word(r"(^\W*|[.:;!?]\s+|,\s+and\s+|\b(only|those|by|to|for|of)\s+)who\s", "the caller, the process, the task"),
    Word(
        r"\baway\b",
        "unavailable",
        # Adverbs of time and of throwing, no state of a server.
        r"\b(right|straight|(throw|threw|thrown|throws|throwing|take|takes|taken|go|goes)( \w+)?) away\b",
    ),
    Word(r"\b(is|are|was|were|be|been) had\b", "is available"),
    # The answers and the names of the Lua scripts are on the wire.
    Word(
        r"\bbur(y|ies|ied|ying)\b", "invalidate, write a tombstone", r"^bur(y|ied)(\.lua)?$|\bbury\.lua\b|`bur(y|ied)`"
    ),
    Word(r"\bcondemn\w*", "mark_invalid"),
    Word(r"\bdoubt(s|ed|ful|fully|ing)?\b", "mark_unshared, unconfirmed"),
    Word(r"\bslots?\b", "entry"),
    Word(r"\bcoherence\b", "sync"),
    Word(r"\bseats?\b", "limit, capacity"),
    Word(r"\bdial(s|led|ling)?\b", "connect"),
    Word(r"\bh[au]ng(s|ing)? up\b", "abort, close"),
    # The name of the HTTP status 410.
    Word(r"\bgone\b", "expired, evicted, closed, lost", r"\b410 Gone\b"),
    Word(r"\bat its end\b|\b(come|comes|came|coming) to (its|an|the) end\b", "expired, finished"),
    # A parameter of the test server's methods, in a text about it.
    Word(r"\bend of (its |a |the )?life\b|\blife\b", "expiry, lifetime", r"`life`|^\s*life: "),
    Word(r"\bdeaf\b", "ignores reports"),
    Word(r"\blean(s|ing|ed)? on\b", "depends on"),
    Word(r"\b(a|the|first|second|next|last|each|one|quick) looks?\b", "check, read, lookup"),
    Word(r"\bso many (seconds|bytes|milliseconds)\b", "for `seconds`"),
    Word(r"\bone of all asks\b", "one caller fetches"),
)
"""Avoided in the package."""

NAMES: Final = {
    "admit": "authenticate_connection",
    "allowance": "TokenBucket",
    "asking": "Refresher",
    "away": "unavailable",
    "buried": "tombstone",
    "bury": "invalidate, tombstone",
    "coherence": "TokenSync",
    "condemn": "mark_invalid",
    "deaf": "ignore_reports_until",
    "dialled": "BackgroundConnection",
    "dialling": "BackgroundConnection",
    "doubt": "mark_unshared",
    "doubtful": "mark_unshared",
    "generation": "CachedToken",
    "gone": "expired, evicted, closed",
    "guarded": "requires_authentication",
    "hangup": "abort",
    "lasting": "TTLCache",
    "mend": "fix",
    "moment": "Instant",
    "primaries": "Servers",
    "renewal": "LeasedRefresh",
    "seats": "CommandLimiter",
    "slip": "mistake",
    "slips": "mistakes",
    "slot": "entry",
    "slots": "entries",
    "told": "notified",
    "whoever": "caller",
    "word": "reason",
}
"""Words of function, class, parameter, attribute and variable names that are avoided in the package."""

COMPOUND_NAMES: Final = {
    "hang_up": "abort",
    "hung_up": "aborted",
    "quiet_left": "no_refresh_until",
    "other_tokens": "NestedTokens",
}
"""Names, and parts of names, of several words."""

CLASSES: Final = {
    "Choice": "RequestCredential",
    "Markers": "EpochMarkers",
    "Offers": "reupload",
    "Primary": "Server",
    "Recent": "LRUCache",
    "Sources": "Credentials",
    "Source": "cause",
}
"""Class names that are avoided in the package; as other names, the words are good."""

ALLOWED_NAMES: Final = {
    "__slots__",  # Python's own
    "_is_word",  # a token type is one word
    "renewal_window",  # public: an attribute of `Provider`
}

EXCEPTIONS: Final = {
    # Redis Cluster assigns hash slots to its servers.
    "tokenmw/redis/": r"\bslots?\b|_slots?\b",
    # The descriptor of one of a class's `__slots__`.
    "tokenmw/providers/base.py": r"\bslot\b",
    # A public option of the test server's endpoints.
    "tokenmw/testing/provider_server/endpoint.py": r"\blife\b",
}
"""What is right in some files: the beginning of their path, and the words or names."""


@dataclass(frozen=True)
class Text:
    """A comment, docstring or string constant, and the line where it begins."""

    text: str
    line: int

    def line_of(self, position: int) -> int:
        """Return the line of a position in the text. In a string of several lines it is the nearest that is known."""
        return self.line + self.text.count("\n", 0, position)


def texts_of(source: str) -> list[Text]:
    """Return the comments of a module and its strings: docstrings, error texts, log lines, and the rest."""
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    comments = [(token.start[0], token.string) for token in tokens if token.type == tokenize.COMMENT]
    texts: list[Text] = []
    for line, comment in comments:
        text = comment.lstrip("#: ")
        # A comment of several lines is one text: a sentence goes on in the next line.
        if texts and texts[-1].line + texts[-1].text.count("\n") + 1 == line and (line - 1) in dict(comments):
            texts[-1] = Text(f"{texts[-1].text}\n{text}", texts[-1].line)
        else:
            texts.append(Text(text, line))
    nodes = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Constant)]
    return texts + [Text(node.value, node.lineno) for node in nodes if isinstance(node.value, str)]


def names_of(source: str) -> Iterator[tuple[int, str, bool]]:
    """Yield each name that a module gives, its line, and whether it is a class's."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.ClassDef():
                yield node.lineno, node.name, True
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                yield node.lineno, node.name, False
            case ast.arg():
                yield node.lineno, node.arg, False
            case ast.Name(ctx=ast.Store()):
                yield node.lineno, node.id, False
            case ast.Attribute(ctx=ast.Store()):
                yield node.lineno, node.attr, False
            case _:
                pass


def avoided_texts(source: str, words: tuple[Word, ...]) -> list[str]:
    """List the avoided words in the texts of a module, as `line: word (instead)`."""
    found = {
        (text.line_of(position), match, word.instead)
        for text in texts_of(source)
        for word in words
        for position, match in word.found_in(text.text)
    }
    return [f"{line}: {match} (write: {instead})" for line, match, instead in sorted(found)]


def avoided_names(source: str) -> list[str]:
    """List the names of a module that have an avoided word in them, as `line: name (instead)`."""
    found: set[tuple[int, str, str]] = set()
    for line, name, is_class in names_of(source):
        if name in ALLOWED_NAMES:
            continue
        # CamelCase and snake_case alike.
        words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower().strip("_").split("_")
        found |= {(line, name, NAMES[word]) for word in words if word in NAMES}
        found |= {(line, name, instead) for part, instead in COMPOUND_NAMES.items() if part in "_".join(words)}
        if is_class and name.lstrip("_") in CLASSES:
            found.add((line, name, CLASSES[name.lstrip("_")]))
    return [f"{line}: {name} (write: {instead})" for line, name, instead in sorted(found)]


def modules(directory: str) -> list[Path]:
    """Return the modules of a directory of the tree, without this one, which lists the words."""
    return [file for file in sorted((ROOT / directory).rglob("*.py")) if file != Path(__file__)]


def problems(directory: str, find: Callable[[str], list[str]]) -> list[str]:
    """List what is found in the modules of a directory, as `file:line: word (instead)`, without the exceptions."""
    found: list[str] = []
    for file in modules(directory):
        path = file.relative_to(ROOT).as_posix()
        right = "|".join(words for begin, words in EXCEPTIONS.items() if path.startswith(begin)) or r"(?!)"
        lines = find(file.read_text(encoding="utf-8"))
        found += [f"{path}:{line}" for line in lines if not re.search(right, line.partition(" (write: ")[0])]
    return found


def test_the_package_uses_the_words_of_its_field() -> None:
    """No comment, docstring or text of the package has a word that it avoids."""
    found = problems("tokenmw", lambda source: avoided_texts(source, IN_PACKAGE))
    assert not found, "\n".join(found)


def test_names_in_the_package_use_the_words_of_its_field() -> None:
    """No function, class, parameter, attribute or variable of the package has an avoided word in its name."""
    found = problems("tokenmw", avoided_names)
    assert not found, "\n".join(found)


@pytest.mark.parametrize("directory", ["tests", "examples"])
def test_tests_and_examples_use_plain_words(directory: str) -> None:
    """No comment, docstring or text of a test or example has a word that is avoided everywhere."""
    found = problems(directory, lambda source: avoided_texts(source, EVERYWHERE))
    assert not found, "\n".join(found)


AVOIDED = {
    '"""Mend it."""': "Mend",
    "# a slip": "slip",
    'raise ValueError(f"The operator was told {x}.")': "told",
    "# Whoever asks": "Whoever",
    '"""Who asks first gets it."""': "Who",
    "# One fetches, and who waits gets the token.": "and who",
    'log.warning("Redis is away")': "away",
    '"""Return what is had."""': "is had",
    "# The token is buried.": "buried",
    "x = 'the slot of a token'": "slot",
    '"""A token at the end of its life."""': "end of its life",
    "# a comment\n# that says that it\n# comes to its end": "comes to its end",
    "# at the second look": "second look",
    "'waits for so many seconds'": "so many seconds",
}


@pytest.mark.parametrize("source", AVOIDED)
def test_an_avoided_word_is_found(source: str) -> None:
    """It is found in comments, docstrings and parts of f-strings, also at the beginning of a sentence."""
    found = avoided_texts(source, IN_PACKAGE)
    assert [AVOIDED[source]] == [problem.partition(": ")[2].partition(" (write")[0].strip(" ,.") for problem in found]


@pytest.mark.parametrize(
    "source",
    [
        '"""Recommend a fix to a caller who waits."""',
        "# The caller is answered right away; what was thrown away is not kept.",
        'NAMES = ("bury", "buried", "bury.lua")',
        "class A:\n    __slots__ = ('entry',)",
        "# A server whose name is a lifetime.",
        "server = ProviderServer(token_life=60)",
        "# The status is 410 Gone.",
        "slippage = 1  # a tolerance",
    ],
)
def test_a_good_word_is_not_found(source: str) -> None:
    """Words that contain an avoided one, and texts of Python, HTTP and Redis, are no findings."""
    assert [] == avoided_texts(source, IN_PACKAGE)


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("class Slot: pass", "Slot"),
        ("class TokenCoherence: pass", "TokenCoherence"),
        ("class _Primary: pass", "_Primary"),
        ("def hang_up(): pass", "hang_up"),
        ("def f(*, word): pass", "word"),
        ("self._deaf_until = 1", "_deaf_until"),
        ("for slot in entries: pass", "slot"),
    ],
)
def test_an_avoided_name_is_found(source: str, name: str) -> None:
    """It is found as a class, function, parameter, attribute or variable, alone or as one word of several."""
    assert [name] == [problem.partition(": ")[2].partition(" (write")[0] for problem in avoided_names(source)]


def test_redis_cluster_has_slots() -> None:
    """In the folder for Redis, "slot" is the word of its field; elsewhere it is not."""
    found = problems("tokenmw", lambda _source: ["1: slot (write: entry)", "2: _slots (write: entry)"])
    assert found
    assert not [problem for problem in found if problem.startswith("tokenmw/redis/")]


@pytest.mark.parametrize("source", ["password = keyword = 1", "primary = servers[0]", "class A:\n    __slots__ = ()"])
def test_a_good_name_is_not_found(source: str) -> None:
    """Names that contain an avoided word as a part of another word are no findings."""
    assert [] == avoided_names(source)
