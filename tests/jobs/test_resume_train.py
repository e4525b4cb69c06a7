"""A `train` that was stopped and resumed leaves what one without a stop leaves."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest

from tests.jobs.job_processes import JobServer, leaves, steps_logged

KILL, CTRL_C, TERM = signal.SIGKILL, signal.SIGINT, signal.SIGTERM
SMALL = ("--family", "resnet_6blocks", "--ngf", "4", "--ndf", "4", "--image-size", "32", "--threads", "1")
RECIPES = {
    "pix2pix": ("--recipe", "pix2pix", "--data", "pairs", "--epochs", "2"),
    "cyclegan": ("--recipe", "cyclegan", "--data", "unpaired", "--epochs", "2", "--set", "train.pool=3"),
}
WEIGHTS = {"pix2pix": ["D", "G"], "cyclegan": ["D_A", "D_B", "G_A", "G_B"]}


def stopped_and_whole(
    jobs: JobServer, given: Path, folder: Path, recipe: str, signals: list[signal.Signals], seed: int
) -> None:
    words = [given / word if (given / word).exists() else word for word in RECIPES[recipe]]
    whole = jobs.run(folder, "train", *words, *SMALL, "--out", "whole")
    assert whole.code == 0, whole.err
    stops = [("train", how) for how in signals]
    runs = jobs.stopped(folder, "train", [*words, *SMALL], whole, stops, seed)
    for done, how in zip(runs, signals, strict=False):
        assert done.code == (-how if how == KILL else 130), done.err
        if how != KILL:
            assert done.err.splitlines()[-1] == "hint: go on with: mggc-edge train --resume RUN"
    assert runs[-1].code == 0, runs[-1].err
    run, names = folder / "RUN", [f"latest_net_{name}.pth" for name in WEIGHTS[recipe]]
    mine, its = (leaves(place, (*names, "samples.png", "logs")) for place in (run, folder / "whole"))
    assert sorted(its) == sorted([*names, "samples.png", "logs/metrics.jsonl"])
    assert [name for name in its if mine[name] != its[name]] == []
    result = json.loads((run / "manifest.json").read_text())["result"]
    assert steps_logged(run) == {"train": list(range(result["steps"]))}
    assert not (run / "work").exists()


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_training_stopped_three_times_ends_as_if_nothing_had_happened(
    jobs: JobServer, given: Path, tmp_path: Path, recipe: str
) -> None:
    stopped_and_whole(jobs, given, tmp_path, recipe, [KILL, CTRL_C, TERM], seed=0)


@pytest.mark.slow
@pytest.mark.parametrize("recipe", RECIPES)
def test_five_random_moments_of_a_training(jobs: JobServer, given: Path, tmp_path: Path, recipe: str) -> None:
    stopped_and_whole(jobs, given, tmp_path, recipe, [KILL] * 5, seed=1)
