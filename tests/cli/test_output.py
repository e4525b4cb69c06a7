"""Lines for people: whole in a pipe, broken between words on a terminal."""

from __future__ import annotations

import sys

import pytest

from mggc_edge.cli.output import Output, wrapped
from mggc_edge.cli.progress import StageProgress

LONG = (
    "about 50 min on this machine with 1 thread, training in bf16; it can be stopped and resumed at any time, and "
    "goes on"
)


def on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have stderr be one of 80 columns; each phase of a test has a stderr of its own."""
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)


def test_on_a_terminal_lines_break_between_words_and_a_command_stays_whole(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    on_a_terminal(monkeypatch)
    command = f"mggc-edge compress --resume {'runs/horse2zebra-0.05-' * 4}7 --set finetune.learning_rate=2e-05"
    out = Output(color=False)
    out.error(LONG, f"lower --set finetune.learning_rate=, and go on with: {command}")
    out.remark(LONG)
    assert capsys.readouterr().err.splitlines() == [
        "error: about 50 min on this machine with 1 thread, training in bf16; it can be",
        "stopped and resumed at any time, and goes on",
        "hint: lower --set finetune.learning_rate=, and go on with:",
        command,
        "about 50 min on this machine with 1 thread, training in bf16; it can be stopped",
        "and resumed at any time, and goes on",
    ]


def test_lines_of_a_job_break_between_words_too(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    on_a_terminal(monkeypatch)
    with StageProgress(Output(color=False)) as progress:
        progress.tell(LONG)
    lines = capsys.readouterr().err.splitlines()
    assert "about 50 min on this machine with 1 thread, training in bf16; it can be stopped" in lines
    assert "and resumed at any time, and goes on" in lines


def test_without_a_terminal_a_line_stays_whole(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    out = Output(color=False)
    out.error(LONG, LONG)
    out.remark(LONG)
    assert capsys.readouterr().err == f"error: {LONG}\nhint: {LONG}\n{LONG}\n"


def test_what_fits_and_what_has_no_spaces_stays_as_it_is() -> None:
    for text in ("", "a  b", "x" * 200):
        assert wrapped(text, 80) == text
    assert wrapped(f"'{'x' * 90}' is no run folder", 80) == f"'{'x' * 90}'\nis no run folder"
