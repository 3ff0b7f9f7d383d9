"""Makes the inputs: with atheris, which is guided by coverage, or with random mutations."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import io
import mmap
import os
import random
import tempfile
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from tests.fuzz.oracles import Target

__all__ = [
    "Finding",
    "has_atheris",
    "instrumented",
    "run_guided",
    "run_long_inputs",
    "run_mutations",
    "run_one",
]

SLOW: Final = 5.0
"""The most processor seconds for an input of the longest size; a linear reader needs a hundredth of it."""

_HUNG: Final = 60  # seconds; an input that takes longer hangs


class Finding(Exception):
    """Raised for an input that violates an oracle; the text has the input and the violation."""


def has_atheris() -> bool:
    """Return whether atheris is installed."""
    return importlib.util.find_spec("atheris") is not None


@contextlib.contextmanager
def instrumented() -> Generator[None]:
    """Instrument the modules of this package that are imported in the block; branches of libraries do not count."""
    if not has_atheris():
        yield
        return
    atheris: Any = importlib.import_module("atheris")
    instruments = atheris.instrument_imports(include=["tokenmw"], enable_loader_override=False)
    with contextlib.redirect_stderr(io.StringIO()), instruments:  # it writes a line for each module
        yield


def run_one(target: Target, data: bytes) -> None:
    """Run a target with one input.

    Raises:
        Finding: The input violates an oracle.
    """
    try:
        target.run(data)
    except Exception as error:
        shown = repr(data if len(data) <= 2_000 else data[:2_000] + b"...")
        text = "".join(traceback.format_exception(error)).rstrip()
        raise Finding(f"{target.name}: {shown}\n{text}") from error


def run_guided(target: Target, *, runs: int, seconds: float, seed: int, corpus: Path | None) -> int:
    """Run a target under atheris, in a child process, because atheris exits the process in which it runs.

    Return the number of inputs.

    Raises:
        Finding: An input violates an oracle.
    """
    with tempfile.TemporaryDirectory() as directory:
        own = Path(directory)
        seeds, log, found = own / "seeds", own / "log", own / "found"
        seeds.mkdir()
        for number, data in enumerate(target.seeds):
            (seeds / f"{number:03}").write_bytes(data)
        words = own / "words"
        words.write_text("".join(_dictionary_line(word) for word in target.words))
        corpora = [] if corpus is None else [str(corpus)]
        flags = [f"-seed={seed}", f"-runs={runs}", f"-max_total_time={int(seconds)}", f"-timeout={_HUNG}"]
        flags += [f"-dict={words}", "-max_len=4096", f"-artifact_prefix={own}/", "-verbosity=0"]
        flags += ["-reload=0"]  # rereading its corpus each second would make the inputs depend on the speed
        count = memoryview(mmap.mmap(-1, 8)).cast("Q")  # shared by both processes
        child = os.fork()
        if child == 0:
            _fuzz(target, ["fuzz", *flags, *corpora, str(seeds)], log=log, found=found, count=count)
        _, status = os.waitpid(child, 0)
        if found.exists():
            raise Finding(found.read_text())
        if status != 0:
            inputs = [f"{file.name}: {file.read_bytes()[:2_000]!r}" for file in own.glob("*-*")]
            raise Finding(
                "\n".join([f"{target.name}: atheris exited with {status}", *inputs, log.read_text()[-4_000:]])
            )
        return count[0]


def _dictionary_line(word: bytes) -> str:
    return '"' + "".join(f"\\x{byte:02x}" for byte in word) + '"\n'


def _fuzz(target: Target, arguments: list[str], *, log: Path, found: Path, count: memoryview[int]) -> None:
    atheris: Any = importlib.import_module("atheris")
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)

    def run(data: bytes) -> None:
        count[0] += 1
        try:
            run_one(target, data)
        except Finding as finding:
            found.write_text(str(finding))
            raise

    try:
        atheris.Setup(arguments, run, enable_python_coverage=True)
        atheris.Fuzz()  # exits the process
    except BaseException:
        traceback.print_exc()
        raise
    finally:
        os._exit(1)  # without clean-up, because the parent owns what it has opened


def run_mutations(target: Target, *, runs: int, seconds: float, seed: int) -> int:
    """Run a target with its seeds and random mutations of them. Return the number of inputs.

    Raises:
        Finding: An input violates an oracle.
    """
    source = random.Random(f"{seed} {target.name}")
    until = time.monotonic() + seconds if seconds else float("inf")
    done = 0
    for data in target.seeds:
        run_one(target, data)
        done += 1
    while done < runs and time.monotonic() < until:
        run_one(target, mutation(source, target))
        done += 1
    return done


def mutation(source: random.Random, target: Target) -> bytes:
    """Return a seed in which some pieces are removed, repeated, replaced, or taken from another seed."""
    data = source.choice(target.seeds)
    for _ in range(source.randint(1, 4)):
        begin = source.randint(0, len(data))
        end = min(len(data), begin + source.choice((0, 1, 2, 4, 16, len(data))))
        other = source.choice(target.seeds)
        cut = source.randint(0, len(other))
        pieces = [
            b"",
            source.randbytes(source.randint(1, 4)),
            data[begin:end] * source.choice((2, 9)),
            other[cut : cut + source.randint(1, 24)],
            source.choice(target.words or (b"\0",)),
        ]
        data = data[:begin] + source.choice(pieces) + data[end:]
    return data[: target.max_bytes]


def run_long_inputs(target: Target) -> float:
    """Run a target with inputs of the longest size, each made of one piece that is repeated.

    Return the processor seconds of the slowest input.

    Raises:
        Finding: An input violates an oracle, or takes longer than linear time.
    """
    slowest = 0.0
    for data in long_inputs(target):
        begin = time.process_time()
        run_one(target, data)
        took = time.process_time() - begin
        slowest = max(slowest, took)
        if took > SLOW:
            raise Finding(f"{target.name}: {len(data)} bytes, {data[:200]!r}..., took {took:.1f} s of processor time")
    return slowest


def long_inputs(target: Target) -> Iterator[bytes]:
    """Yield inputs of about `max_bytes` bytes."""
    pieces = dict.fromkeys((*target.words, b"\\", b" ", b"[", b'{"a":', b"1", b"a"))
    for opening in (b"", *(target.openings or target.seeds[:1])):
        closing = b'"' if opening.endswith(b'"') else b""
        for piece in pieces:
            yield opening + piece * ((target.max_bytes - len(opening)) // len(piece)) + closing
