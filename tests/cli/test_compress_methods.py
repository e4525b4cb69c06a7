"""`compress` with a preset, and by uniform width: what is given wins, and what was meant is written down."""

from __future__ import annotations

import itertools
import json
import shlex
from pathlib import Path

import pytest

from mggc_edge.cli.main import run as program
from mggc_edge.models.cost import MacsConvention, macs
from mggc_edge.models.families import layer_table
from mggc_edge.models.resnet import resnet_spec
from mggc_edge.presets import PRESETS
from mggc_edge.settings import Settings
from tests.cli.conftest import Command
from tests.jobs.job_processes import QUICK, write_networks

CHANGED = ("--set", "mggc.regularizer=two_sided", "--set", "mggc.k=2", "--set", "uniform.weights=scratch")
METHODS = {
    "slices": ("--budget", "0.5", "--method", "uniform", "--align", "2"),
    "scratch": (
        "--preset",
        "horse2zebra",
        "--budget",
        "0.5",
        "--macs-convention",
        "true",
        "--method",
        "uniform",
        "--align",
        "2",
        *CHANGED,
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one finished run for each of METHODS, and the networks they began with."""
    folder = write_networks(tmp_path_factory.mktemp("runs"))
    for name, words in METHODS.items():
        line = ("--quiet", "compress", "--model", folder / "generator.pth", *QUICK, *words, "--out", folder / name)
        assert program([str(word) for word in line]) == 0
    return folder


def manifest(run: Path) -> dict[str, object]:
    settings: dict[str, object] = json.loads((run / "manifest.json").read_text())["settings"]
    return settings


def test_what_is_given_wins_over_a_preset_and_both_are_in_the_manifest(runs: Path) -> None:
    settings = manifest(runs / "scratch")
    assert settings["request.preset"] == "horse2zebra"
    assert (settings["request.budget"], settings["request.macs_convention"]) == ("0.5", "true")
    assert settings["image_size"] == [32, 32]
    assert (settings["mggc.regularizer"], settings["mggc.k"]) == ("two_sided", 2)
    for name, value in PRESETS["horse2zebra"].setting_values().items():
        if name not in ("mggc.regularizer", "mggc.k", "discriminator.ndf"):  # which were given
            assert settings[name] == value, name
    assert manifest(runs / "slices")["request.preset"] is None


def test_the_recorded_command_line_names_the_preset_and_what_differs_from_it(runs: Path) -> None:
    words = shlex.split(json.loads((runs / "scratch/manifest.json").read_text())["command_line"])
    values = dict(itertools.pairwise(words))
    assert (values["--preset"], values["--budget"], values["--macs-convention"]) == ("horse2zebra", "0.5", "true")
    overrides = [words[place + 1] for place, word in enumerate(words) if word == "--set"]
    assert {"mggc.regularizer=two_sided", "mggc.k=2", "uniform.weights=scratch"} < set(overrides)
    assert not any(text.startswith(("distill.", "mggc.lambda", "finetune.epochs", "train.")) for text in overrides)
    again = Settings.load(None, overrides, PRESETS["horse2zebra"].setting_values()).to_json()
    recorded = manifest(runs / "scratch")
    assert again == {**{name: recorded[name] for name in again}, "train.precision": again["train.precision"]}


def test_a_preset_alone_brings_budget_convention_and_picture_size(command: Command, runs: Path, tmp_path: Path) -> None:
    words = (
        "--quiet",
        "compress",
        "--model",
        runs / "generator.pth",
        "--preset",
        "horse2zebra",
        "--out",
        tmp_path / "o",
    )
    given = ("--image-size", "128", "--macs-convention", "true")
    cases: list[tuple[tuple[str, ...], int, MacsConvention]] = [((), 256, "paper"), (given, 128, "true")]
    for more, side, convention in cases:
        has = macs(layer_table(resnet_spec(blocks=1, ngf=4), (side, side)), convention) / 1e9
        ran = command(*words, *more)
        assert ran.code == 1
        assert ran.err == f"error: the budget 2.50G is more than the original's {has:.4g} G MACs\n"


def test_widths_are_aligned_and_the_command_line_says_to_what(command: Command, runs: Path) -> None:
    run = runs / "slices"
    plan = json.loads((run / "plan.json").read_text())
    widths = json.loads((run / "slim/spec.json").read_text())["widths"]
    assert (plan["align"], {width % 2 for width in widths.values()}) == (2, {0})
    assert 0.49 <= plan["budget_met"] <= 0.5
    assert "--align 2 " in json.loads((run / "manifest.json").read_text())["command_line"]
    assert command("--quiet", "compress", "--resume", run, "--align", 2).code == 0
    ran = command("--quiet", "compress", "--resume", run, "--align", 4)
    assert ran.err.startswith(f"error: '{run}' was started with --align 2, not with --align 4\n")


def test_a_plan_that_is_given_is_aligned_too(command: Command, runs: Path, tmp_path: Path) -> None:
    words = ("--model", runs / "generator.pth", "--budget", "0.5", "--plan", runs / "slices/plan.json", *QUICK)
    ran = command("--quiet", "compress", *words, "--align", "16", "--out", tmp_path / "o")
    assert ran.code == 1
    assert ran.err.startswith(
        "error: a budget of 0.5 cannot be met: the smallest network that can be left in widths of multiples of 16 "
    )


def test_a_budget_that_aligned_widths_do_not_reach_is_met_as_nearly_as_they_do_and_this_is_said(
    command: Command, runs: Path, tmp_path: Path
) -> None:
    words = ("--model", runs / "generator.pth", "--budget", "0.99", "--method", "random", "--align", "8", *QUICK)
    ran = command("compress", *words, "--out", tmp_path / "o", "--json")
    assert ran.code == 0
    assert ran.document["budget_met"] == pytest.approx(0.917808, abs=1e-6)
    assert "note: in widths of multiples of 8, 0.9178 of the MACs is the nearest below the budget 0.99" in ran.err


def test_a_job_with_a_preset_goes_on_with_the_same_preset_only(command: Command, runs: Path) -> None:
    run = runs / "scratch"
    for words in ((), CHANGED, ("--preset", "horse2zebra")):
        assert command("--quiet", "compress", "--resume", run, *words).code == 0
    ran = command("--quiet", "compress", "--resume", run, "--preset", "cityscapes")
    assert ran.code == 1
    assert ran.err.startswith(
        f"error: '{run}' was started with --preset horse2zebra, not with --preset cityscapes\nhint: resume with the "
    )
    ran = command("--quiet", "compress", "--resume", run, "--set", "mggc.k=5")
    assert ran.err.startswith(f"error: '{run}' was started with --set mggc.k=2, not with --set mggc.k=5\n")


def test_a_settings_file_of_a_resumed_job_is_compared_over_its_preset(
    command: Command, runs: Path, tmp_path: Path
) -> None:
    (tmp_path / "same.toml").write_text("mggc.lambda_1 = 9.0\n")
    ran = command("--quiet", "compress", "--resume", runs / "scratch", "--config", tmp_path / "same.toml", *CHANGED)
    assert ran.code == 1
    assert "error: " in ran.err
    assert "--set mggc.regularizer=" not in ran.err.splitlines()[0]


def test_a_preset_that_does_not_exist_is_a_usage_error(command: Command) -> None:
    ran = command("compress", "--model", "x", "--preset", "maps")
    assert (ran.code, ran.out) == (2, "")
    assert "'maps' is not one of 'cityscapes', 'edges2shoes', 'horse2zebra'" in " ".join(ran.err.split())


# --- what `settings` shows ---


def test_settings_shows_what_a_preset_sets_with_its_sources(command: Command) -> None:
    page = command("settings", "--preset", "edges2shoes", "--set", "mggc.k=0").out
    lines = page.splitlines()
    assert lines[0] == "preset edges2shoes: pix2pix U-Net-256, edges to shoes; paired pictures"
    assert max(map(len, lines)) <= 80
    preset = PRESETS["edges2shoes"]
    for name in (*preset.setting_values(), *(f"--{flag.replace('_', '-')}" for flag in preset.flag_values())):
        assert name in page
    assert "bench.pairs" not in page
    text = " ".join(page.split())
    assert "--budget 2.94G (source: paper, table 1)" in text
    assert "(pictures, source: paper, eq. 1, preset 5, default 5)" in text


def test_settings_gives_a_preset_as_json(command: Command) -> None:
    document = command("settings", "--preset", "cityscapes", "--json").document
    values = {entry["name"]: entry["value"] for entry in document["settings"]}
    preset = document["preset"]
    assert (preset["name"], preset["flags"][0]) == (
        "cityscapes",
        {"name": "budget", "value": "3.05G", "source": "paper, table 1"},
    )
    for entry in preset["settings"]:
        assert values[entry["name"]] == entry["value"]
    assert preset["layers"]["source"] == "GCC"
    assert command("settings", "--json").document["preset"] is None


# --- uniform width ---


def test_uniform_width_keeps_its_budget_and_its_slices_and_scratch_differ_in_weights_alone(runs: Path) -> None:
    plans = [json.loads((runs / name / "plan.json").read_text()) for name in ("slices", "scratch")]
    assert plans[0] == plans[1]
    assert plans[0]["criterion"] == "uniform"
    assert 0.49 <= plans[0]["budget_met"] <= 0.5
    for name in ("slices", "scratch"):
        assert not (runs / name / "discriminator-plan.json").exists()
        assert json.loads((runs / name / "manifest.json").read_text())["result"]["method"] == "uniform"
        whole, tuned = (runs / name / place / "discriminator/spec.json" for place in ("original", "slim"))
        assert tuned.exists() == (name == "scratch")  # its preset gives the adversarial loss a weight
        assert json.loads(whole.read_text())["family"] == "patchgan"
        assert manifest(runs / name)["uniform.weights"] == name
    specs = [(runs / name / "slim/spec.json").read_bytes() for name in ("slices", "scratch")]
    assert specs[0] == specs[1]
    weights = [(runs / name / "slim/weights.safetensors").read_bytes() for name in ("slices", "scratch")]
    assert weights[0] != weights[1]
    logs = [(runs / name / "logs/metrics.jsonl").read_text().splitlines() for name in ("slices", "scratch")]
    assert [json.loads(line)["stage"] for line in logs[0]] == [json.loads(line)["stage"] for line in logs[1]]
    assert {json.loads(line)["stage"] for line in logs[0]} == {"discriminator", "finetune"}
