from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from typer.main import get_command

from mggc_edge.benchmarks.experiments.study.table import (
    DATA,
    STUDIES,
    TRAINED,
    find_study,
    read_study,
    with_folders,
    without_folders,
)
from mggc_edge.cli.main import program_with
from mggc_edge.errors import InputError, SettingError
from mggc_edge.settings import Settings
from tests.experiments.study_helpers import TABLE, write_study

METHODS = ["mggc", "magnitude", "uniform-slices", "uniform-scratch", "random"]
PARTS = ["baseline", "discriminator", "agents", "feedback", "manifold", "distillation"]


@pytest.mark.parametrize(
    ("name", "budget", "rows", "seeds"),
    [
        ("e1a-facades-0.05", "0.05", [METHODS[0], "mggc-even", *METHODS[1:], "gan-slimming", "gan-slimming-even"], 3),
        ("e1a-adversarial", "0.05", METHODS, 2),
        ("e1b-facades-0.164", "0.164", [*METHODS, "gan-slimming", "gan-slimming-even"], 3),
        ("e2-parts", "0.164", PARTS, 3),
        ("e3-horse2zebra-0.05", "0.05", METHODS[:3], 2),
        ("cartoongan-joint", "0.15", ["joint", "parts", "stacked", "even"], 3),
    ],
)
def test_an_experiment_has_its_rows_seeds_and_budget(name: str, budget: str, rows: list[str], seeds: int) -> None:
    study = read_study(find_study(name))
    assert [row.name for row in study.rows] == rows
    assert study.seeds == tuple(range(seeds))
    assert study.base[study.base.index("--budget") + 1] == budget


def test_no_row_of_an_experiment_has_more_steps_pictures_or_another_learning_rate_than_the_others() -> None:
    shared = ("--finetune-epochs", "--prune-epochs", "--data", "--budget", "--image-size", "--threads", "finetune.")
    for path in STUDIES.glob("[es]*.toml"):  # not those that look for the best finetuning
        for row in read_study(path).rows:
            assert not [flag for flag in row.flags if flag.startswith(shared)], (path, row.name)


def test_the_generator_is_trained_for_as_many_steps_whether_parts_are_joint_or_one_after_the_other() -> None:
    study = read_study(find_study("cartoongan-joint"))
    command = get_command(program_with(["compress"])).commands["compress"]  # type: ignore[attr-defined]
    epochs = {}
    for run in study.runs:
        asked = command.make_context("compress", list(study.flags(run))).params
        slims = asked["method"] == "gan-slimming"
        epochs[run.row.name, run.seed] = asked["finetune_epochs"] + slims * asked["prune_epochs"]
    assert set(epochs.values()) == {2.5}
    shared = ("--data", "--budget", "--image-size", "--threads", "finetune.", "distill.")
    assert not [flag for row in study.rows for flag in row.flags if flag.startswith(shared)]


def test_every_row_of_the_ablation_has_one_switch_less_off_than_the_one_before() -> None:
    off = [set(row.flags) - {"--set"} for row in read_study(find_study("e2-parts")).rows]
    assert [len(flags) for flags in off] == [5, 4, 3, 2, 1, 0]
    assert all(more > fewer for more, fewer in itertools.pairwise(off))


def test_every_study_can_be_read() -> None:
    names = {read_study(path).name for path in STUDIES.glob("*.toml")}
    assert names == {
        "cartoongan-joint", "e1a-adversarial", "e1a-facades-0.05", "e1b-facades-0.164", "e2-parts",
        "e3-horse2zebra-0.05", "e4-settings", "finetuning-facades", "finetuning-horse2zebra", "mggc-choices",
        "stability-cyclegan", "stability-pix2pix",
    }  # fmt: skip


@pytest.mark.parametrize("path", sorted(STUDIES.glob("*.toml")), ids=lambda path: path.stem)
def test_every_flag_and_setting_of_a_study_is_one_that_compress_takes(path: Path) -> None:
    study = read_study(path)
    command = get_command(program_with(["compress"])).commands["compress"]  # type: ignore[attr-defined]
    for run in study.runs:
        asked = command.make_context("compress", list(study.flags(run))).params  # an unknown flag is an error
        asked_for = Settings.load(None, asked["set_"] or ())
        assert asked["seed"] == run.seed
        assert len(asked["set_"] or ()) == study.flags(run).count("--set")
        assert asked_for["bench.processes"] in (1, 2)


def test_a_study_with_a_flag_or_a_setting_that_does_not_exist_would_be_noticed(tmp_path: Path) -> None:
    command = get_command(program_with(["compress"])).commands["compress"]  # type: ignore[attr-defined]
    with pytest.raises(Exception, match="No such option: --inzeption"):
        command.make_context("compress", ["--inzeption", "x"])
    with pytest.raises(SettingError, match=r"mggc\.lambda_3"):
        Settings.load(None, ["mggc.lambda_3=1"])


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("[0, 1]", "[0, 0]", "names a row or a seed twice"),
        ("[0, 1]", "[]", "needs rows, and whole numbers as seeds"),
        ("[0, 1]", "[true]", "needs rows, and whole numbers as seeds"),
        ("[0, 1]", "[0.5]", "needs rows, and whole numbers as seeds"),
        ("[0, 1]", "5", "makes no sense: TypeError"),
        ("seeds", "probability = -1\nseeds", "needs the number of a class as probability"),
        ("seeds", "probability = true\nseeds", "needs the number of a class as probability"),
        ("seeds", "probability = 340\nseeds", "measures a probability, which needs --feature-net"),
        ('name = "theirs"', 'name = "ours"', "names a row or a seed twice"),
        ('name = "theirs"', 'name = "../x"', "'../x' is no name for a study or a row"),
        ('name = "theirs"', "", "makes no sense: KeyError: 'name'"),
        ('compare = "ours"', 'compare = "hers"', "has no row 'hers'"),
        ("--method mggc", "--seed 3", "--seed is not for a study's flags"),
        ("--method mggc", "--out=x", "--out=x is not for a study's flags"),
        ('title = "A study"', 'titel = "A study"', "has unknown keys: titel"),
        ("--method mggc", "--method 'mggc", "No closing quotation"),
        ("[0, 1]", "[0, 1", "cannot be read"),
    ],
)
def test_a_table_that_makes_no_sense_is_refused(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert old in TABLE
    with pytest.raises(InputError, match=message):
        read_study(write_study(tmp_path, TABLE.replace(old, new, 1)))


def test_a_study_that_does_not_exist_is_named_with_those_that_do() -> None:
    with pytest.raises(InputError, match=r"there is no study 'e9' \(a TOML file, or one of cartoongan-joint, e1a-"):
        find_study("e9")


def test_results_name_data_wherever_it_lies(tmp_path: Path) -> None:
    value = {"a": [f"{tmp_path}/x", 1, None], "b": (str(tmp_path),)}
    assert without_folders(value, {DATA: tmp_path}) == {"a": ["$DATA/x", 1, None], "b": ["$DATA"]}
    assert without_folders("a.b", {DATA: Path()}) == "a.b"
    both = {DATA: tmp_path / "data", TRAINED: tmp_path / "mine"}
    assert without_folders(with_folders(("$DATA/x", "$TRAINED/y"), both), both) == ["$DATA/x", "$TRAINED/y"]


def test_a_folder_that_flags_name_must_be_given(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"needs a folder for \$TRAINED \(--trained FOLDER\)"):
        with_folders(("--model", "$TRAINED/g.pth"), {DATA: tmp_path})
