from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from mggc_edge.benchmarks.experiments import stability
from mggc_edge.benchmarks.experiments.study.losses import pruning_losses, stretches
from mggc_edge.benchmarks.experiments.study.table import Study, read_study
from mggc_edge.errors import ArtifactError, InputError
from tests.experiments.study_helpers import record, write_study


def write_log(folder: Path, penalties: list[float]) -> Path:
    """Write a log in which L_G is 1, 2, 3, ... and L_D is 0.5 before the penalties are added (lambdas 3 and 0.1)."""
    lines = [{"stage": "encoder", "step": 0, "loss": 1.0}]
    for step, r in enumerate(penalties):
        loss_g, loss_d = step + 1 + 3 * r, 0.5 + 0.1 * 0.25
        values = {"loss_g": loss_g, "loss_d": loss_d, "regularizer": r, "discriminator_kept": 0.25, "budget": 0.1}
        lines.append({"stage": "prune", "step": step, **values})
    path = folder / "metrics.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_the_gap_is_the_mean_distance_of_the_losses_after_r_first_came_near_zero(tmp_path: Path) -> None:
    found = pruning_losses(write_log(tmp_path, [math.log(10), 0.04, 0.5, 0.0]), lambda_1=3, lambda_2=0.1)
    assert found is not None
    assert (found["steps"], found["reached"]) == (4, 1)
    assert found["gap"] == pytest.approx((2.5 + 3.5) / 2)  # |3 - 0.5| and |4 - 0.5|
    assert found["curves"]["step"] == [0, 1, 2, 3]
    assert found["curves"]["loss_g"] == pytest.approx([1, 2, 3, 4])
    assert found["curves"]["loss_d"] == pytest.approx([0.5] * 4)
    assert found["curves"]["r"] == pytest.approx([1, 0.01737, 0.2171, 0], abs=1e-4)


@pytest.mark.parametrize(("penalties", "reached"), [([1.0, 0.5], None), ([1.0, 0.0], 1)])
def test_there_is_no_gap_where_no_step_follows(tmp_path: Path, penalties: list[float], reached: int | None) -> None:
    found = pruning_losses(write_log(tmp_path, penalties), lambda_1=3, lambda_2=0.1)
    assert found is not None
    assert (found["reached"], found["gap"]) == (reached, None)


def test_a_run_without_a_pruning_stage_has_no_losses(tmp_path: Path) -> None:
    assert pruning_losses(write_log(tmp_path, []), lambda_1=3, lambda_2=0.1) is None


def test_a_run_of_gan_slimming_has_no_game_whose_losses_could_be_told(tmp_path: Path) -> None:
    log = tmp_path / "metrics.jsonl"
    log.write_text(json.dumps({"stage": "prune", "step": 0, "loss_g": 1.0, "scales_l1": 2.0, "budget": 0.1}) + "\n")
    assert pruning_losses(log, lambda_1=3, lambda_2=0.1) is None


def test_a_damaged_log_is_named(tmp_path: Path) -> None:
    path = write_log(tmp_path, [1.0])
    path.write_text(path.read_text() + '{"stage": "prune"}\n')
    with pytest.raises(ArtifactError, match="is damaged: line 3 is none of a pruning stage"):
        pruning_losses(path, lambda_1=3, lambda_2=0.1)


def test_stretches_are_means_of_neighbours_and_leave_nothing_out() -> None:
    assert stretches([1, 2, 3], 5) == [1, 2, 3]
    assert stretches([1, 3, 5, 7, 9], 2) == [2, 7]


def a_study_with_losses(folder: Path) -> Study:
    study = read_study(write_study(folder))
    lines = []
    for run in study.runs:
        one = record(run.row.name, run.seed, list(study.flags(run)), compressed={})
        one["settings"] |= {
            "mggc.lambda_1": 3.0 - run.seed, "mggc.agent": "gru" if run.row.name == "ours" else "free",
        }  # fmt: skip
        one["losses"] = pruning_losses(write_log(folder, [1.0, 0.0, 0.0]), lambda_1=3, lambda_2=0.1)
        lines.append(json.dumps(one) + "\n")
    (folder / "a-study.jsonl").write_text("".join(lines))
    return study


def test_the_page_of_stability_lists_the_gap_of_every_run_by_rising_lambda(tmp_path: Path) -> None:
    a_study_with_losses(tmp_path)
    text = stability.page(stability.read([str(tmp_path / "a-study.toml")], tmp_path), "stability.svg")
    head, *rows = text[text.index("| study |") :].splitlines()
    assert head == "| study | chosen by | lambda_1 | seed | first step with R near 0 | steps after it | gap |"
    assert rows[1:] == [
        "| A study | agents | 2 | 1 | 1 | 1 | 2.500 |",
        "| A study | free logits | 2 | 1 | 1 | 1 | 2.500 |",
        "| A study | agents | 3 | 0 | 1 | 1 | 2.500 |",
        "| A study | free logits | 3 | 0 | 1 | 1 | 2.500 |",
    ]


def test_the_picture_of_stability_has_a_line_for_each_kind_of_agent(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    a_study_with_losses(tmp_path)
    studies = stability.read([str(tmp_path / "a-study.toml")], tmp_path)
    stability.draw(studies, tmp_path / "a.svg")
    assert (tmp_path / "a.svg").read_bytes().count(b'<g id="axes_') == 6


def test_studies_without_curves_cannot_be_drawn(tmp_path: Path) -> None:
    write_study(tmp_path)
    with pytest.raises(InputError, match="no run of these studies has curves"):
        stability.read([str(tmp_path / "a-study.toml")], tmp_path)
