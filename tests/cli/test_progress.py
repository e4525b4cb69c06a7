"""Progress of long work."""

from __future__ import annotations

import re
import sys
import time

import pytest

from mggc_edge.cli import progress as module
from mggc_edge.cli.output import Output
from mggc_edge.cli.progress import StageProgress, summary, time_left
from mggc_edge.training.loop import Progress


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    return clock


def test_without_a_terminal_there_is_a_line_every_ten_seconds(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    with StageProgress(Output()) as progress:
        for done in range(1, 26):
            clock.now += 1
            left = 3725.0 if done < 15 else 42.0
            progress.watch(Progress("prune", done, 25, {"loss_g": 1.23456, "learning_rate": 1.0}, left))
        progress.tell("next")
        for _ in progress.track(range(5), 5):
            clock.now += 4
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == (
        "prune: 11 of 25, 1:02:05 left, g 1.23\nprune: 21 of 25, 0:42 left, g 1.23\nnext\nreading: 4 of 5\n"
    )


def test_quiet_says_nothing(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    with StageProgress(Output(quiet=True)) as progress:
        clock.now += 1000
        progress.tell("a line")
        progress.watch(Progress("prune", 1, 2, {}, None))
        assert list(progress.track(range(3), 3)) == [0, 1, 2]
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "")


def test_on_a_terminal_there_is_a_bar_with_losses_and_time_left(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with StageProgress(Output(color=False)) as progress:
        progress.watch(Progress("finetune", 3, 9, {"loss_g": 2.0, "loss_d": 0.5}, 65.0))
        progress.tell("a [red]line")
        assert progress._bars is not None
        progress._bars.refresh()
        assert [(task.description, task.completed, task.total) for task in progress._bars.tasks] == [("finetune", 3, 9)]
        progress.watch(Progress("export", 1, 2, {}, None))
        assert [task.description for task in progress._bars.tasks] == ["export"]
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "a [red]line" in captured.err
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", captured.err)
    assert "3/9 1:05 left g 2  d 0.5" in shown


def test_without_a_terminal_a_stage_of_one_item_and_the_first_item_of_any_say_nothing(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    with StageProgress(Output()) as progress:
        for stage, done in (("outputs", 1), ("quality", 1), ("quality", 1), ("prune", 7), ("prune", 8)):
            clock.now += 60
            progress.watch(Progress(stage, done, 9, {}, None))
    assert capsys.readouterr().err == "prune: 8 of 9\n"


METRICS = {"macs_fraction": 0.51234, "regularizer": 0.25, "loss_g": 2.0, "loss_d": 0.5, "loss_l1": 3.0}


@pytest.mark.parametrize(
    ("columns", "shown"),
    [
        (120, "10000/20000 1:02:05 left kept 0.512  R 0.25  g 2  d 0.5"),
        (80, "10000/20000 1:02:05 left kept 0.512  R 0.25"),
        (70, "10000/20000 1:02:05 left kept 0.51\N{HORIZONTAL ELLIPSIS}"),
    ],
)
def test_the_count_is_whole_at_every_width_and_numbers_are_cut_with_an_ellipsis(
    columns: int, shown: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with StageProgress(Output(color=False)) as progress:
        progress.watch(Progress("discriminator", 10000, 20000, METRICS, 3725.0))
    lines = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", capsys.readouterr().err).replace("\r", "\n").splitlines()
    assert [line.rstrip().endswith(shown) for line in lines if "discriminator" in line][-1], lines


def test_the_bar_of_a_finished_stage_goes_when_the_next_is_announced(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with StageProgress(Output(color=False)) as progress:
        assert progress._bars is not None
        for done, left in ((8, ["prune"]), (9, [])):
            progress.watch(Progress("prune", done, 9, {}, None))
            progress.tell("a line")
            assert [task.description for task in progress._bars.tasks] == left
        progress.watch(Progress("finetune", 1, 9, {}, None))
        assert [task.description for task in progress._bars.tasks] == ["finetune"]
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0:00"), (42.0, "0:42"), (59.6, "1:00"), (725.0, "12:05"), (5700.0, "1:35:00")]
)
def test_durations(seconds: float, text: str) -> None:
    assert time_left(seconds) == text


def test_a_line_has_room_for_four_numbers() -> None:
    metrics = {"loss_cycle": 1.0, "loss_g": 2.0, "loss_d_a": 3.0, "loss_d_b": 4.0, "loss": 5.0, "other": 6.0}
    assert summary(metrics) == "loss 5  g 2  d_a 3  d_b 4"


def test_the_first_line_comes_after_ten_seconds_of_the_real_clock(capsys: pytest.CaptureFixture[str]) -> None:
    start = time.monotonic()
    with StageProgress(Output()) as progress:
        progress.watch(Progress("prune", 1, 2, {}, None))
    assert time.monotonic() - start < 10
    assert capsys.readouterr().err == ""
