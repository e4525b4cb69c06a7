"""A `compress` that was killed, or interrupted, in every stage and resumed leaves what one without a stop leaves."""

from __future__ import annotations

import json
import shutil
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from mggc_edge.artifacts import sha256_of
from tests.jobs.job_processes import QUICK, STAGES, Done, JobServer, Stop, leaves, steps_logged

KILL, CTRL_C, TERM = signal.SIGKILL, signal.SIGINT, signal.SIGTERM
# Without pictures; with a pair's own discriminator, batch norm and truths; with a partner and targets;
# with weights that are not slices of the original's, and without distillation.
KINDS = {
    "built-in": ("generator.pth",),
    "paired": ("batch.pth", "--discriminator", "pair.pth", "--data", "pairs"),
    "unpaired": ("generator.pth", "--partner", "partner.pth", "--data", "unpaired"),
    "scratch": (
        "batch.pth", "--discriminator", "pair.pth", "--data", "pairs", "--method", "uniform", "--set",
        "uniform.weights=scratch", "--set", "distill.enabled=false",
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Whole:
    """A job that nothing stopped."""

    words: tuple[str, ...]
    done: Done
    run: Path


def whole(jobs: JobServer, given: Path, folder: Path, kind: str) -> Whole:
    model, *more = (str(given / word) if (given / word).exists() else word for word in KINDS[kind])
    words = ("--model", model, "--budget", "0.5", *more, *QUICK)
    done = jobs.run(folder, "compress", *words, "--out", "whole")
    assert done.code == 0, done.err
    return Whole(words, done, folder / "whole")


def assert_equal_runs(stopped: Path, whole: Path) -> None:
    """Equal bytes, no step twice or missing, every file as the manifest says, and nothing left over."""
    assert steps_logged(stopped) == steps_logged(whole)
    mine, its = leaves(stopped), leaves(whole)
    assert sorted(mine) == sorted(its)
    assert [name for name in its if mine[name] != its[name]] == []
    manifest = json.loads((stopped / "manifest.json").read_text())
    assert manifest["complete"] is True
    assert {entry["path"]: entry["sha256"] for entry in manifest["files"]} == {
        path.relative_to(stopped).as_posix(): sha256_of(path)
        for path in stopped.rglob("*")
        if path.is_file() and path.name != "manifest.json"
    }
    assert "report.html" in {entry["path"] for entry in manifest["files"]}
    assert not (stopped / "work").exists()


def assert_stopped_as_meant(runs: Sequence[Done], stops: Sequence[Stop]) -> None:
    """Killed, or ended by itself with a sentence that says how to go on; and the last one is done."""
    for done, (_, how) in zip(runs, stops, strict=False):
        assert done.code == (-how if how == signal.SIGKILL else 130), done.err
        assert done.out == ""
        assert "Traceback" not in done.err
        if how != signal.SIGKILL:
            assert done.err.splitlines()[-2:] == [
                "error: interrupted; what was done is kept in 'RUN'",
                "hint: go on with: mggc-edge compress --resume RUN",
            ]
    assert len(runs) == len(stops) + 1
    assert runs[-1].code == 0, runs[-1].err


@pytest.fixture(scope="module")
def built_in(jobs: JobServer, given: Path, tmp_path_factory: pytest.TempPathFactory) -> Whole:
    return whole(jobs, given, tmp_path_factory.mktemp("whole"), "built-in")


@pytest.mark.parametrize(
    ("removed", "again"),
    [
        (("slim/spec.json",), ["finetune", "export", "quality", "bench"]),
        (("plan.json",), ["outputs", "prune", "finetune", "export", "quality", "bench"]),
    ],
)
def test_what_is_made_again_and_all_that_follows_from_it_are_as_before(
    jobs: JobServer, built_in: Whole, tmp_path: Path, removed: tuple[str, ...], again: list[str]
) -> None:
    run = tmp_path / "RUN"
    shutil.copytree(built_in.run, run)
    for name in ("manifest.json", "report.html", *removed):
        (run / name).unlink()
    # Of another choice: were it kept, it would be seen.
    for name in ("quality.json", "samples/index.json"):
        (run / name).write_text("{}")
    done = jobs.run(tmp_path, "compress", "--resume", "RUN")
    assert done.code == 0, done.err
    assert_equal_runs(run, built_in.run)
    before, after = (json.loads((folder / "job.json").read_text())["timings_s"] for folder in (built_in.run, run))
    assert sorted(name for name in after if after[name] != before[name]) == sorted(again)


def test_a_damaged_state_is_removed_as_the_hint_says_and_no_step_is_logged_twice(
    jobs: JobServer, built_in: Whole, tmp_path: Path
) -> None:
    stop = {"stage": "prune", "after_s": 0.5 * built_in.done.seconds["prune"], "signal": KILL}
    assert jobs.run(tmp_path, "compress", *built_in.words, "--out", "RUN", stop=stop).code == -KILL
    state = tmp_path / "RUN/work/prune.state"
    state.write_bytes(b"damaged")
    done = jobs.run(tmp_path, "compress", "--resume", "RUN")
    assert (done.code, done.err.splitlines()[-1]) == (1, "hint: remove it to do this stage again")
    state.unlink()
    done = jobs.run(tmp_path, "compress", "--resume", "RUN")
    assert done.code == 0, done.err
    assert_equal_runs(tmp_path / "RUN", built_in.run)


def test_a_job_stopped_in_every_stage_ends_as_if_nothing_had_happened(
    jobs: JobServer, built_in: Whole, tmp_path: Path
) -> None:
    expected = built_in
    stops = [
        ("outputs", KILL), ("outputs", CTRL_C), ("discriminator", KILL), ("discriminator", TERM), ("encoder", KILL),
        ("encoder", CTRL_C), ("prune", KILL), ("prune", TERM), ("finetune", KILL), ("finetune", CTRL_C),
        ("export", KILL), ("quality", KILL), ("bench", KILL), ("report", KILL),
    ]  # fmt: skip
    runs = jobs.stopped(tmp_path, "compress", expected.words, expected.done, stops, seed=0)
    assert_stopped_as_meant(runs, stops)
    assert_equal_runs(tmp_path / "RUN", expected.run)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_five_random_moments_of_every_stage(jobs: JobServer, given: Path, tmp_path: Path, kind: str) -> None:
    expected = whole(jobs, given, tmp_path, kind)
    stages = [stage for stage in STAGES if stage in expected.done.seconds]
    for seed in range(7):
        (folder := tmp_path / str(seed)).mkdir()
        stops = [(stage, {5: CTRL_C, 6: TERM}.get(seed, KILL)) for stage in stages]
        runs = jobs.stopped(folder, "compress", expected.words, expected.done, stops, seed)
        assert_stopped_as_meant(runs, stops)
        assert_equal_runs(folder / "RUN", expected.run)
