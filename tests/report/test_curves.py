"""Curves of a log: thinned without losing an extreme, bounded, and honest about damage."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mggc_edge.errors import ArtifactError
from mggc_edge.report import curves
from mggc_edge.report.curves import MAX_BUCKETS, Curve, Log, Thinner, read_log


@pytest.mark.parametrize("count", [1, 2, 298, 299, 5000, 100_000])
def test_a_curve_keeps_its_ends_and_extremes_in_at_most_600_points(count: int) -> None:
    values = [float(step * 7919 % 1009) for step in range(count)]
    thinner = Thinner()
    if count > 2:
        values[count // 3], values[count // 2] = -5.0, 5000.0
    for step, value in enumerate(values):
        thinner.add(float(step), value)
    curve = thinner.curve("x")
    assert len(curve.points) <= 600
    assert curve.points[0] == (0.0, values[0])
    assert curve.points[-1] == (float(count - 1), values[-1])
    assert {value for _, value in curve.points} >= {min(values), max(values)}
    assert all(values[int(step)] == value for step, value in curve.points)
    assert [step for step, _ in curve.points] == sorted({step for step, _ in curve.points})
    assert len(thinner.buckets) <= MAX_BUCKETS


def test_a_short_curve_is_kept_as_it_is() -> None:
    thinner = Thinner()
    points = tuple((float(step), float(step % 3)) for step in range(200))
    for point in points:
        thinner.add(*point)
    assert thinner.curve("x") == Curve("x", points)


def test_the_means_of_a_thinned_curve_are_those_of_all_points() -> None:
    thinner = Thinner()
    for step in range(4 * MAX_BUCKETS):
        thinner.add(float(step), float(step % 4))
    means = thinner.curve("x").means
    assert len(means) == MAX_BUCKETS
    assert {value for _, value in means} == {1.5}
    assert means[0][0] == 1.5


def test_steps_that_a_resumed_run_repeats_are_taken_once() -> None:
    thinner = Thinner()
    for step, value in ((1, 1.0), (2, 2.0), (3, 3.0), (2, 9.0), (3, 9.0), (4, 4.0)):
        thinner.add(step, value)
    assert thinner.curve("x").points == ((1, 1.0), (2, 2.0), (3, 3.0), (4, 4.0))


def log(folder: Path, text: str) -> Path:
    path = folder / "metrics.jsonl"
    path.write_text(text)
    return path


def test_stages_and_curves_come_in_the_order_of_the_log(tmp_path: Path) -> None:
    lines = [
        {"stage": "prune", "step": 1, "loss_g": 2, "widths": {"a": 3}, "note": "x", "done": True},
        {"stage": "finetune", "step": 1, "held_out": {"psnr": 20.5, "name": "x"}},
        {"stage": "prune", "step": 2, "loss_g": 1.5, "loss_d": 0.5},
        {"stage": "prune", "loss_g": 7},
        {"stage": "empty"},
    ]
    stages = read_log(log(tmp_path, "".join(json.dumps(line) + "\n" for line in lines))).stages
    assert [(stage.name, [curve.name for curve in stage.curves]) for stage in stages] == [
        ("prune", ["loss_g", "loss_d"]),
        ("finetune", ["held_out.psnr"]),
    ]
    assert stages[0].curves[0].points == ((1.0, 2.0), (2.0, 1.5))
    assert stages[0].curve("loss_x") is None


def test_a_run_without_a_log_has_no_stages(tmp_path: Path) -> None:
    assert read_log(tmp_path / "none.jsonl") == Log((), whole=True)


def test_values_that_are_no_numbers_are_left_out(tmp_path: Path) -> None:
    text = '{"stage":"a","step":1,"x":NaN}\n{"stage":"a","step":2,"x":1e999}\n{"stage":"a","step":3,"x":4}\n'
    text += '{"stage":"a","step":4,"x":1' + "0" * 400 + '}\n{"stage":"a","step":true,"x":1}\n'
    (stage,) = read_log(log(tmp_path, text)).stages
    assert stage.curves == (Curve("x", ((3, 4.0),)),)


def test_a_last_line_that_was_cut_off_is_left_out(tmp_path: Path) -> None:
    (stage,) = read_log(log(tmp_path, '{"stage":"a","step":1,"x":4}\n{"stage":"a","st')).stages
    assert stage.curves == (Curve("x", ((1, 4.0),)),)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"stage":"a","st\n{"stage":"a"}\n', "line 1 is no JSON ("),
        ('{"stage":"a"}\n[1]\n', "line 2 is no JSON object"),
        ('{"step":1}\n', "line 1 names no stage"),
        ("[" * 100_000 + "\n", "line 1 is no JSON ("),
        (" " * 2**20 + "\n", "line 1 is longer than a line of any log"),
        ("".join(f'{{"stage":"{n}","step":1,"x":1}}\n' for n in range(13)), "it has more than 12 stages"),
    ],
)
def test_a_damaged_log_is_named_with_its_line(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(ArtifactError) as caught:
        read_log(log(tmp_path, text))
    assert caught.value.message.startswith(f"'{tmp_path / 'metrics.jsonl'}' is damaged: {words}")


def test_a_log_that_is_a_folder_is_no_log(tmp_path: Path) -> None:
    assert read_log(tmp_path) == Log()


def test_no_stage_has_more_than_40_curves(tmp_path: Path) -> None:
    line = {"stage": "a", "step": 1, **{f"loss_{number}": number for number in range(100)}}
    (stage,) = read_log(log(tmp_path, json.dumps(line) + "\n")).stages
    assert len(stage.curves) == 40


@pytest.mark.parametrize(("lines", "whole", "last"), [(3, True, 3.0), (4, False, 3.0)])
def test_a_very_long_log_is_read_to_the_bound_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lines: int, whole: bool, last: float
) -> None:
    monkeypatch.setattr(curves, "MAX_LINES", 3)
    text = "".join(f'{{"stage":"a","step":{step},"x":{step}}}\n' for step in range(1, lines + 1))
    found = read_log(log(tmp_path, text))
    assert found.whole is whole
    assert found.stages[0].curves[0].points[-1] == (last, last)
