"""A `compress` that was killed, or interrupted, in every stage and resumed leaves what one without a stop leaves."""

from __future__ import annotations

import json
import re
import shutil
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from mggc_edge.artifacts import sha256_of
from mggc_edge.jobs.changes import READERS, may_be_set
from mggc_edge.jobs.folder import resume_job
from mggc_edge.settings import SETTINGS
from tests.jobs.job_processes import QUICK, STAGES, Done, JobServer, Stop, leaves, steps_logged

KILL, CTRL_C, TERM = signal.SIGKILL, signal.SIGINT, signal.SIGTERM
# Without pictures; with a pair's own discriminator, batch norm and truths; with a partner and targets;
# by GAN Slimming; with weights that are not slices of the original's, and without distillation; on 8-bit grids that are
# learned; by GAN Slimming on such grids.
KINDS = {
    "built-in": ("generator.pth",),
    "paired": ("batch.pth", "--discriminator", "pair.pth", "--data", "pairs"),
    "unpaired": ("generator.pth", "--partner", "partner.pth", "--data", "unpaired"),
    "slimming": (
        "generator.pth", "--discriminator", "discriminator.pth", "--data", "unpaired", "--method", "gan-slimming",
    ),
    "scratch": (
        "batch.pth", "--discriminator", "pair.pth", "--data", "pairs", "--method", "uniform", "--set",
        "uniform.weights=scratch", "--set", "distill.enabled=false",
    ),
    "quantized": (
        "batch.pth", "--discriminator", "pair.pth", "--data", "pairs", "--method", "uniform", "--quantize", "8",
        "--set", "quantize.ranges=learned", "--set", "quantize.pictures=3",
    ),
    "joint": (
        "batch.pth", "--discriminator", "pair.pth", "--data", "pairs", "--method", "gan-slimming", "--quantize", "8",
        "--set", "quantize.ranges=learned", "--set", "quantize.pictures=3",
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
    job = json.loads((run / "job.json").read_text())
    never = -1.0  # no stage takes so long
    (run / "job.json").write_text(json.dumps({**job, "timings_s": dict.fromkeys(job["timings_s"], never)}))
    done = jobs.run(tmp_path, "compress", "--resume", "RUN")
    assert done.code == 0, done.err
    assert_equal_runs(run, built_in.run)
    timings = json.loads((run / "job.json").read_text())["timings_s"]
    assert sorted(name for name, seconds in timings.items() if seconds != never) == sorted(again)


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
def test_a_quantized_job_stopped_in_finetuning_and_export_ends_as_if_nothing_had_happened(
    jobs: JobServer, given: Path, tmp_path: Path
) -> None:
    expected = whole(jobs, given, tmp_path, "quantized")
    stops = [("finetune", KILL), ("finetune", CTRL_C), ("export", KILL)]
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


# --- settings that change ---


def kept(run: Path, part: str) -> dict[str, object]:
    found: dict[str, object] = json.loads((run / "job.json").read_text())[part]
    return found


@pytest.mark.parametrize(
    ("stage", "setting", "before", "now", "again"),
    [
        pytest.param("prune", "mggc.learning_rate", "0.01", "0.001", True, marks=pytest.mark.slow),
        ("finetune", "finetune.learning_rate", "0.002", "-1.0", True),
        # The game has not begun.
        pytest.param("encoder", "mggc.learning_rate", "0.01", "0.001", False, marks=pytest.mark.slow),
    ],
)
def test_a_job_that_goes_on_with_another_setting_equals_one_that_was_started_with_it(
    jobs: JobServer, built_in: Whole, tmp_path: Path, stage: str, setting: str, before: str, now: str, again: bool
) -> None:
    run, words = tmp_path / "RUN", (*built_in.words, "--set", f"{setting}={before}", "--out", "RUN")
    stop = {"stage": stage, "after_s": 0.6 * built_in.done.seconds[stage], "signal": KILL}
    assert jobs.run(tmp_path, "compress", *words, stop=stop).code == -KILL
    seconds = kept(run, "timings_s")
    done = jobs.run(tmp_path, "compress", "--resume", "RUN", "--set", f"{setting}={now}")
    assert done.code == 0, done.err
    assert (f"note: a setting of '{stage}' is another one; it begins anew\n" in done.err) is again
    assert_equal_runs(run, built_in.run)
    assert kept(run, "settings") == kept(built_in.run, "settings")
    settings, its = (json.loads((at / "manifest.json").read_text())["settings"] for at in (run, built_in.run))
    assert settings == its
    for name in ("discriminator", *(("prune",) if stage == "finetune" else ())):
        assert kept(run, "timings_s")[name] == seconds[name]
    done = jobs.run(tmp_path, "compress", "--resume", "RUN", "--set", f"{setting}={before}")
    assert (done.code, done.err.splitlines()) == (
        1,
        [
            f"error: 'RUN' was started with --set {setting}={now}, not with --set {setting}={before}",
            "hint: resume with the same flags, or with none but --resume and the folder",
        ],
    )


def test_values_that_are_no_numbers_in_finetuning_cost_only_the_finetuning(
    jobs: JobServer, built_in: Whole, tmp_path: Path
) -> None:
    done = jobs.run(tmp_path, "compress", *built_in.words, "--set", "distill.style=1e300", "--out", "RUN")
    assert done.code == 1
    advice = "lower --set distill.style= if it was raised, else the values of the networks that were given are"
    command = "mggc-edge compress --resume RUN --set distill.style=VALUE"
    assert done.err.splitlines()[-2:] == [
        "error: step 0 of stage 'finetune': loss_distill_style is no longer a number; the last good state is kept",
        f"hint: nothing was learnt yet: {advice} too large; go on with: {command}",
    ]
    seconds = kept(tmp_path / "RUN", "timings_s")
    done = jobs.run(tmp_path, "compress", "--resume", "RUN", "--set", "distill.style=-1")
    assert done.code == 0, done.err
    assert_equal_runs(tmp_path / "RUN", built_in.run)
    assert kept(tmp_path / "RUN", "timings_s")["prune"] == seconds["prune"]


def test_only_what_no_finished_stage_has_read_may_change(built_in: Whole, tmp_path: Path) -> None:
    names = [setting.name for setting in SETTINGS]
    for reader in READERS.values():
        for pattern in reader.settings:
            assert any(re.fullmatch(pattern.replace(".", r"\.").replace("*", ".*"), name) for name in names), pattern
    shutil.copytree(built_in.run, tmp_path / "RUN")
    job = resume_job(tmp_path / "RUN", "compress")
    assert [name for name in names if may_be_set(job, name)] == []
    (tmp_path / "RUN/bench.json").unlink()
    bench = [name for name in names if name.startswith("bench.")]
    assert [name for name in names if may_be_set(job, name)] == [*bench, "quick.bench_pairs"]
    (tmp_path / "RUN/slim/spec.json").unlink()
    assert may_be_set(job, "train.lambda_l1")
    assert not may_be_set(job, "mggc.loss")  # the game has read it as well
    for name in ("plan.json", "discriminator-plan.json"):
        (tmp_path / "RUN" / name).unlink()
    assert not may_be_set(job, "mggc.loss")  # and the discriminator that was fitted
    assert may_be_set(job, "mggc.lambda_1")
    (tmp_path / "RUN/original/discriminator/spec.json").unlink()
    assert [may_be_set(job, name) for name in ("mggc.loss", "mggc.k", "data.held_out")] == [True, False, False]
    job.command = "train"
    assert not may_be_set(job, "train.lambda_l1")


def test_gan_slimming_in_8_bit_reads_the_settings_of_the_grids_as_well(built_in: Whole, tmp_path: Path) -> None:
    shutil.copytree(built_in.run, tmp_path / "RUN")
    (tmp_path / "RUN/slim/spec.json").unlink()
    job = resume_job(tmp_path / "RUN", "compress")
    names = ("quantize.weights", "quantize.ranges", "quantize.calibration", "quantize.pictures")
    assert all(may_be_set(job, name) for name in (*names, "quantize.floats"))
    job.request = {**job.request, "method": "gan-slimming"}
    assert all(may_be_set(job, name) for name in names)
    job.request = {**job.request, "quantize": "8"}
    assert not any(may_be_set(job, name) for name in names)  # its channels were chosen on those grids
    assert may_be_set(job, "quantize.floats")  # finetuning alone
    for name in ("plan.json", "discriminator-plan.json"):
        (tmp_path / "RUN" / name).unlink()
    assert all(may_be_set(job, name) for name in names)


# --- files that change ---


@pytest.mark.parametrize(
    "name",
    [
        "plan.json",
        "original/weights.safetensors",
        pytest.param("discriminator-plan.json", marks=pytest.mark.slow),
        pytest.param("original/discriminator/spec.json", marks=pytest.mark.slow),
        pytest.param("slim/weights.safetensors", marks=pytest.mark.slow),
    ],
)
def test_what_was_changed_in_the_run_folder_is_named_and_made_again_once_it_is_removed(
    jobs: JobServer, built_in: Whole, tmp_path: Path, name: str
) -> None:
    run = tmp_path / "RUN"
    shutil.copytree(built_in.run, run)
    (run / "manifest.json").unlink()
    data = bytearray((run / name).read_bytes())
    data[len(data) // 2] ^= 1
    (run / name).write_bytes(data)
    done = jobs.run(tmp_path, "compress", "--resume", "RUN")
    assert (done.code, done.err.splitlines()) == (
        1,
        [
            f"error: 'RUN/{name}' is not what this job wrote: its hash differs",
            "hint: bring it back, or remove it; it will be made again, and what was made from it",
        ],
    )
    (run / name).unlink()
    done = jobs.run(tmp_path, "compress", "--resume", "RUN")
    assert done.code == 0, done.err
    assert_equal_runs(run, built_in.run)


def test_a_plan_that_was_not_yet_known_when_the_job_was_killed_is_made_again(
    jobs: JobServer, built_in: Whole, tmp_path: Path
) -> None:
    run = tmp_path / "RUN"
    shutil.copytree(built_in.run, run)
    (run / "manifest.json").unlink()
    job = json.loads((run / "job.json").read_text())
    del job["facts"]["written"]["plan.json"]
    (run / "job.json").write_text(json.dumps(job))
    (run / "plan.json").write_text("{}")  # of whomever
    done = jobs.run(tmp_path, "compress", "--resume", "RUN")
    assert done.code == 0, done.err
    assert_equal_runs(run, built_in.run)


def test_a_finished_run_measures_again_what_was_removed_and_knows_where_it_is(
    jobs: JobServer, built_in: Whole, tmp_path: Path
) -> None:
    run = tmp_path / "moved run"
    shutil.copytree(built_in.run, run)
    done = jobs.run(tmp_path, "compress", "--resume", "moved run", "--json")
    assert (done.code, done.err) == (0, "'moved run' is finished; nothing is left to do\n")
    assert json.loads(done.out)["run"] == "moved run"
    assert json.loads((run / "manifest.json").read_text())["result"]["run"] == "whole"
    before = (run / "bench.json").read_bytes()
    (run / "quality.json").unlink()
    done = jobs.run(tmp_path, "compress", "--resume", "moved run", "--json")
    assert done.code == 0, done.err
    assert sorted(done.seconds) == ["export", "quality", "report"]
    assert (run / "bench.json").read_bytes() == before
    assert_equal_runs(run, built_in.run)


@pytest.mark.slow
def test_an_emptied_log_costs_its_lines_and_no_training(jobs: JobServer, built_in: Whole, tmp_path: Path) -> None:
    stop = {"stage": "finetune", "after_s": 0.6 * built_in.done.seconds["finetune"], "signal": KILL}
    assert jobs.run(tmp_path, "compress", *built_in.words, "--out", "RUN", stop=stop).code == -KILL
    log = tmp_path / "RUN/logs/metrics.jsonl"
    log.write_bytes(b"")
    done = jobs.run(tmp_path, "compress", "--resume", "RUN")
    assert done.code == 0, done.err
    assert "note: 'RUN/logs/metrics.jsonl' has lost lines that were written to it; 'finetune' goes on" in done.err
    for name in ("slim/weights.safetensors", "quality.json"):
        assert (tmp_path / "RUN" / name).read_bytes() == (built_in.run / name).read_bytes()
    whole = (built_in.run / "logs/metrics.jsonl").read_bytes()
    assert whole.endswith(log.read_bytes())


# --- nothing is cut ---


def test_where_nothing_is_cut_the_original_comes_out(jobs: JobServer, given: Path, tmp_path: Path) -> None:
    words = ("--model", given / "batch.pth", "--discriminator", given / "pair.pth", "--data", given / "pairs")
    done = jobs.run(tmp_path, "compress", *words, "--budget", "1.0", "--method", "uniform", *QUICK, "--out", "RUN")
    assert done.code == 0, done.err
    quality = json.loads((tmp_path / "RUN/quality.json").read_text())
    assert [quality[name]["distance"] for name in ("before_finetuning", "after_finetuning")] == [0.0, 0.0]
    assert quality["identical"] is True
