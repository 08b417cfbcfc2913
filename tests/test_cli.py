"""The command line: exit status, one-line errors, verbs."""

import errno
import subprocess
import sys

import pytest

from vidcomp.cli import command
from vidcomp.config import UserError

Call = tuple[str, str, list[str]]


def run(
    *argv: str, raises: BaseException | None = None, positional: str | None = "CONFIG"
) -> tuple[int, list[Call]]:
    """The exit status of a tool with the verb `verify`, and the calls of its `main`."""
    calls: list[Call] = []

    def main(verb: str, first: str, overrides: list[str]) -> None:
        calls.append((verb, first, overrides))
        if raises:
            raise raises

    with pytest.raises(SystemExit) as end:
        command("A tool.", main, positional=positional, verbs=("verify",), argv=list(argv))
    assert isinstance(end.value.code, int)
    return end.value.code, calls


@pytest.mark.parametrize(
    "argv, call",
    [
        (["c.yaml"], ("", "c.yaml", [])),
        (["c.yaml", "a=1", "b.c=-2"], ("", "c.yaml", ["a=1", "b.c=-2"])),
        (["verify", "runs/x", "a=1"], ("verify", "runs/x", ["a=1"])),
    ],
)
def test_words_are_verb_positional_overrides(argv: list[str], call: Call) -> None:
    assert run(*argv) == (0, [call])


def test_a_tool_may_have_no_positional() -> None:
    assert run("a=1", positional=None) == (0, [("", "", ["a=1"])])
    assert run("verify", "a=1", positional=None) == (0, [("verify", "", ["a=1"])])


@pytest.mark.parametrize(
    "argv, words",
    [
        ([], "CONFIG is missing"),
        (["verify"], "CONFIG is missing"),
        (["a=1"], "CONFIG is missing"),
        (["c.yaml", "steps"], "'steps' is not key=value"),
        (["verfy", "runs/x"], "verbs: verify"),
        (["c.yaml", "--steps", "3"], "--steps"),
    ],
)
def test_a_wrong_command_line_calls_nothing(
    argv: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*argv) == (2, [])
    captured = capsys.readouterr()
    assert words in captured.err and captured.out == ""


@pytest.mark.parametrize(
    "error, status, words",
    [
        (UserError("no 'fqs'; legal:\n fsq, vq"), 2, "error: no 'fqs'; legal: fsq, vq"),
        (KeyboardInterrupt(), 130, "error: interrupted; the same command goes on"),
        (OSError(errno.ENOSPC, "No space", "runs/x/a.mp4"), 2, "full while writing runs/x/a.mp4;"),
        (OSError(errno.ENOSPC, "No space"), 2, "error: the disk is full; free some room"),
    ],
)
def test_an_expected_failure_is_one_line(
    error: BaseException, status: int, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("c.yaml", raises=error)[0] == status
    captured = capsys.readouterr()
    assert words in captured.err and captured.err.count("\n") == 1 and captured.out == ""


@pytest.mark.parametrize("error", [OSError(errno.EACCES, "denied"), RuntimeError("a bug")])
def test_an_unexpected_failure_keeps_its_traceback(error: Exception) -> None:
    with pytest.raises(type(error)) as raised:
        command(None, lambda *_: (_ for _ in ()).throw(error), argv=["c.yaml"])
    assert raised.value is error


def test_help_shows_the_description_and_the_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--help") == (0, [])
    shown = capsys.readouterr().out
    assert "A tool." in shown and "[verify] CONFIG [key=value ...]" in shown


def test_the_command_line_imports_no_torch() -> None:
    code = "import sys, vidcomp, vidcomp.cli; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
