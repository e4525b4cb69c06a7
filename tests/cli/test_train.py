"""`mggc-edge train`: the files it writes, where it starts from, and bad input."""

from __future__ import annotations

import errno
import json
import math
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from mggc_edge.artifacts import sha256_of, writing
from mggc_edge.models.checkpoint import read_checkpoint
from mggc_edge.training.pix2pix import Pix2Pix
from tests.cli.conftest import Command, Ran
from tests.jobs.job_processes import write_networks, write_pairs, write_pictures, write_unpaired
from tests.models.reference_networks import PatchDiscriminator, ResnetGenerator, UnetGenerator

SHORT = ("--ngf", 4, "--ndf", 4, "--threads", 1, "--epochs", 0.2)
SMALL = ("--family", "resnet_6blocks", "--image-size", 32, *SHORT)


@pytest.fixture
def train(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    """Run `train` where pairs/ and unpaired/ are."""
    write_pairs(tmp_path / "pairs")
    write_unpaired(tmp_path / "unpaired")
    monkeypatch.chdir(tmp_path)
    return lambda *words: command("--quiet", "train", *words)


def refused(ran: Ran, code: int = 1) -> str:
    """Return the message of an error of at most two lines, without anything on stdout."""
    assert (ran.code, ran.out) == (code, ""), ran.err
    lines = ran.err.splitlines()
    assert lines[0].startswith("error: ")
    assert len(lines) == 1 or (len(lines) == 2 and lines[1].startswith("hint: "))
    return lines[0].removeprefix("error: ")


def load_strictly(path: Path, network: torch.nn.Module) -> None:
    network.load_state_dict(torch.load(path, weights_only=True), strict=True)


def test_cyclegan_leaves_both_ways_in_the_well_known_layout(train: Command, tmp_path: Path) -> None:
    ran = train("--recipe", "cyclegan", "--data", "unpaired", "--out", "run", *SMALL, "--json")
    document = ran.document
    assert (ran.code, ran.err) == (0, "")
    assert document["weights"] == {name: f"latest_net_{name}.pth" for name in ("G_A", "G_B", "D_A", "D_B")}
    assert (document["schema"], document["steps"], document["image_size"]) == ("mggc-edge/train/1", 2, [32, 32])
    for name in ("G_A", "G_B"):
        load_strictly(tmp_path / f"run/latest_net_{name}.pth", ResnetGenerator(3, 3, 4, 6, "instance"))
    for name in ("D_A", "D_B"):
        load_strictly(tmp_path / f"run/latest_net_{name}.pth", PatchDiscriminator(3, 4, 3, "instance"))
    with Image.open(tmp_path / "run/samples.png") as sheet:
        assert min(sheet.size) > 32
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == [
        "job.json", *sorted(document["weights"].values()), "logs", "manifest.json", "samples.png",
    ]  # fmt: skip


def test_pix2pix_trains_a_unet_that_is_inspected_and_compressed_from(
    train: Command, command: Command, tmp_path: Path
) -> None:
    words = ("--recipe", "pix2pix", "--data", "pairs", "--family", "unet_128", "--out", "run", *SHORT)
    assert train(*words).code == 0
    load_strictly(tmp_path / "run/latest_net_G.pth", UnetGenerator(3, 3, 4, 7, "batch"))
    load_strictly(tmp_path / "run/latest_net_D.pth", PatchDiscriminator(6, 4, 3, "batch"))
    document = command("inspect", "run/latest_net_G.pth", "--json").document
    assert (document["family"], document["norm"]) == ("unet_128", "batch")
    assert command("inspect", "run/latest_net_D.pth", "--json").document["family"] == "patchgan"
    manifest = json.loads((tmp_path / "run/manifest.json").read_text())
    assert manifest["command_line"] == (
        "mggc-edge train --recipe pix2pix --data pairs --family unet_128 --ngf 4 --ndf 4 --epochs 0.2 "
        "--seed 0 --threads 1"
    )
    assert {entry["path"]: entry["sha256"] for entry in manifest["files"]} == {
        path.relative_to(tmp_path / "run").as_posix(): sha256_of(path)
        for path in (tmp_path / "run").rglob("*")
        if path.is_file() and path.name != "manifest.json"
    }


def test_a_training_says_how_long_it_takes_and_that_leaves_no_trace(
    train: Command, command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("--recipe", "pix2pix", "--data", "pairs", *SMALL)
    ran = command("train", *words, "--out", "run")
    about, training = [line for line in ran.err.splitlines() if not line.startswith("train: ")][-2:]
    assert re.fullmatch(
        r"about \d+ (s|min) on this machine with 1 thread, training in (fp32|bf16); "
        r"it can be stopped and resumed at any time",
        about,
    )
    assert training == "training pix2pix: 2 steps"
    monkeypatch.setattr("mggc_edge.jobs.train.seconds_of", lambda _stage, _seed: 0.0)
    assert train(*words, "--out", "other").code == 0
    for name in ("latest_net_G.pth", "latest_net_D.pth", "logs/metrics.jsonl"):
        assert (tmp_path / "run" / name).read_bytes() == (tmp_path / "other" / name).read_bytes()


def test_a_folder_of_a_training_names_the_checkpoint_in_it(train: Command, command: Command, tmp_path: Path) -> None:
    assert train("--recipe", "pix2pix", "--data", "pairs", "--out", "run", *SMALL).code == 0
    hint = "hint: name the checkpoint in it: run/latest_net_G.pth"
    for words, message in (
        (("compress", "--model", "run", "--budget", "0.5"), "'run' is a run of `train`, with checkpoints"),
        (("inspect", "run"), "'run' is a run of `train` and has no exported generator"),
        (("bench", "run"), "'run' is a run of `train` and has no exported generator"),
    ):
        ran = command("--quiet", *words)
        assert (refused(ran), ran.err.splitlines()[1]) == (message, hint)
    (tmp_path / "run/manifest.json").unlink()
    ran = command("inspect", "run")
    assert (refused(ran), ran.err.splitlines()[1]) == ("'run' is a folder without manifest.json or spec.json", hint)


def test_a_training_goes_on_from_another_folder(
    train: Command, command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("--recipe", "pix2pix", "--data", "pairs", *SMALL)
    with monkeypatch.context() as patch:
        patch.setattr("mggc_edge.jobs.train.run_stage", full)
        ran = train(*words, "--out", "run")
    assert refused(ran) == "'run' cannot be written: No space left on device"
    assert ran.err.splitlines()[1] == (
        "hint: free some space, or choose a folder on another disk; go on with: mggc-edge train --resume run"
    )
    ran = train(*words, "--out", "run")
    assert refused(ran) == "'run' holds a run that was started before"
    assert ran.err.splitlines()[1] == "hint: go on with: mggc-edge train --resume run"
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    ran = command("--quiet", "train", "--resume", "../run", "--data", "pairs")
    assert refused(ran)  # there is none here
    assert ran.err.splitlines()[1] == (
        "hint: bring back what was there, or name where it is now: mggc-edge train --resume ../run --data ROOT"
    )
    assert command("--quiet", "train", "--resume", "../run", "--data", "../pairs").code == 0
    monkeypatch.chdir(tmp_path)
    assert train(*words, "--out", "whole").code == 0
    assert Path("run/latest_net_G.pth").read_bytes() == Path("whole/latest_net_G.pth").read_bytes()
    manifest = json.loads(Path("run/manifest.json").read_text())
    assert manifest["settings"]["request.data"] == "pairs"


def full(_stage: object, folder: Path, *_: object, **__: object) -> bool:
    """Stand for a disk that is full when the first state is written."""
    (folder / "train.other").touch()
    with writing(folder.parent):
        raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("value", [float("nan"), 3e38])
def test_weights_that_broke_do_not_replace_those_before(
    train: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: float
) -> None:
    names = [*(f"latest_net_{name}.pth" for name in "GD"), "samples.png"]
    healthy, before = Pix2Pix.step, dict[str, bytes]()

    def step(stage: Pix2Pix, number: int) -> Mapping[str, Any]:
        metrics = healthy(stage, number)
        if number == 2:
            before.update({name: (tmp_path / "run" / name).read_bytes() for name in names})
            with torch.no_grad():
                for parameter in stage.networks["G"].parameters():
                    parameter.fill_(value)
        return metrics

    monkeypatch.setattr(Pix2Pix, "step", step)
    monkeypatch.setattr("mggc_edge.jobs.train.seconds_of", lambda _stage, _seed: 0.0)  # it takes steps of its own
    ran = train("--recipe", "pix2pix", "--data", "pairs", *SMALL, "--epochs", 1, "--out", "run")
    what = "a value of the sample pictures" if math.isfinite(value) else "a weight of G"
    assert refused(ran) == f"after 3 steps, {what} is no longer a number; what was written before is kept"
    assert ran.err.splitlines()[1].startswith("hint: lower --set train.learning_rate=, and start into a new folder")
    assert {name: (tmp_path / "run" / name).read_bytes() for name in names} == before


def test_a_finished_training_is_shown_again_and_not_done_again(train: Command, tmp_path: Path) -> None:
    first = train("--recipe", "pix2pix", "--data", "pairs", "--out", "run", *SMALL, "--json")
    before = (tmp_path / "run/latest_net_G.pth").stat().st_mtime_ns
    again = train("--out", "run", "--resume", "--json")
    assert (again.code, again.document) == (0, first.document)
    assert (tmp_path / "run/latest_net_G.pth").stat().st_mtime_ns == before


def test_the_other_direction_swaps_the_sides(train: Command, tmp_path: Path) -> None:
    for way in ("AtoB", "BtoA"):
        words = ("--recipe", "pix2pix", "--data", "pairs", "--direction", way, "--out", way, *SMALL)
        assert train(*words).code == 0
    a, b = (Image.open(tmp_path / way / "samples.png").convert("RGB").tobytes() for way in ("AtoB", "BtoA"))
    assert a != b


def test_training_goes_on_from_given_weights(train: Command, tmp_path: Path) -> None:
    words = ("--recipe", "pix2pix", "--data", "pairs", "--threads", 1)
    assert train(*words, *SMALL, "--out", "first").code == 0
    slow = ("--set", "train.learning_rate=1e-8")
    assert train(*words, "--init", "first", "--image-size", 32, "--epochs", 0.2, *slow, "--out", "more").code == 0
    first, more = (torch.load(tmp_path / run / "latest_net_G.pth", weights_only=True) for run in ("first", "more"))
    key = "model.1.weight"
    assert 0 < (first[key] - more[key]).abs().max() < 1e-6
    spec = read_checkpoint(tmp_path / "more/latest_net_G.pth").spec
    assert spec == read_checkpoint(tmp_path / "first/latest_net_G.pth").spec
    manifest = json.loads((tmp_path / "more/manifest.json").read_text())
    given = {f"latest_net_{name}.pth": sha256_of(tmp_path / f"first/latest_net_{name}.pth") for name in "GD"}
    assert manifest["sources"] == {name: {"sha256": sha256} for name, sha256 in given.items()}
    parents = {entry["path"]: entry["parent"] for entry in manifest["files"]}
    assert {name: parent for name, parent in parents.items() if parent is not None} == given
    assert manifest["split_sha256"] == manifest["result"]["split_sha256"]
    assert json.loads((tmp_path / "first/manifest.json").read_text())["sources"] == {}


def test_given_weights_that_do_not_belong_together_are_refused(train: Command, tmp_path: Path) -> None:
    (tmp_path / "init").mkdir()
    given = write_networks(tmp_path)
    words = ("--recipe", "pix2pix", "--data", "pairs", "--init", "init", "--image-size", 32, "--out", "o")
    assert refused(train(*words)) == "there is no file 'init/latest_net_G.pth'"
    (given / "batch.pth").rename("init/latest_net_G.pth")
    (given / "discriminator.pth").rename("init/latest_net_D.pth")
    assert refused(train(*words)) == (
        "'init/latest_net_D.pth' turns 3 channels into 1, and beside the others it must turn 6 into 1"
    )
    (given / "generator.pth").rename("init/latest_net_D.pth")
    assert refused(train(*words)) == "'init/latest_net_D.pth' is a generator, not a discriminator"
    assert not (tmp_path / "o").exists()
    ran = train(*words, "--ngf", 8)
    assert ran.code == 2
    assert "--init takes networks as they are" in " ".join(ran.err.split())


def nothing(root: Path) -> None:
    (root / "train").mkdir(parents=True)


def no_root(root: Path) -> None:
    """There is no folder at all."""


def broken(root: Path) -> None:
    write_pictures(root / "train", 9, size=(80, 40))
    (root / "train/3.png").write_text("no picture")


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (nothing, "no pictures in 'data/train'"),
        (no_root, "there is no folder 'data'"),
        (broken, "1 of 9 pictures are unreadable; the first: "),
    ],
)
def test_pictures_that_cannot_be_used_leave_no_folder_behind(
    train: Command, tmp_path: Path, write: Callable[[Path], None], message: str
) -> None:
    write(tmp_path / "data")
    assert refused(train("--recipe", "pix2pix", "--data", "data", "--out", "o", *SMALL)).startswith(message)
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize(
    ("recipe", "data", "message", "hint"),
    [
        (
            "cyclegan",
            "pairs",
            "'pairs' holds side-by-side pairs (train/); --recipe cyclegan needs trainA/ and trainB/",
            "name a folder with trainA/ and trainB/, or give --recipe pix2pix",
        ),
        (
            "pix2pix",
            "unpaired",
            "'unpaired' holds two sides (trainA/ and trainB/); --recipe pix2pix needs train/",
            "name a folder with train/, or give --recipe cyclegan",
        ),
        ("pix2pix", "pairs/train", "'pairs/train' has no train/", "give the folder above them"),
    ],
)
def test_pictures_that_lie_otherwise_than_the_recipe_needs_are_named(
    train: Command, recipe: str, data: str, message: str, hint: str
) -> None:
    ran = train("--recipe", recipe, "--data", data, "--out", "o", *SMALL)
    assert refused(ran) == message
    assert ran.err.splitlines()[1] == f"hint: {hint}"


def test_training_that_diverges_keeps_the_last_good_state(
    train: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mggc_edge.training.pix2pix.generator_loss", lambda _kind, fake: fake.mean() * float("nan"))
    ran = train("--recipe", "pix2pix", "--data", "pairs", "--out", "o", *SMALL)
    assert refused(ran).startswith("step 0 of stage 'train': ")
    assert ran.err.splitlines()[1] == "hint: lower --set train.learning_rate=, and start into a new folder"
    assert (tmp_path / "o/work/train.state").is_file()


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ((), "--recipe is needed."),
        (("--recipe", "pix2pix"), "--data is needed."),
        (("--recipe", "stylegan"), "Invalid value for '--recipe'"),
        (("--resume",), "--resume needs the run to go on with"),
        (("--resume", "a", "--out", "b"), "give one of them"),
    ],
)
def test_flags_that_make_no_sense_are_usage_errors(train: Command, words: tuple[str, ...], text: str) -> None:
    ran = train(*words)
    assert (ran.code, ran.out) == (2, "")
    assert text in " ".join(ran.err.replace("│", " ").split())


def test_epochs_of_zero_are_a_usage_error(train: Command) -> None:
    ran = train("--recipe", "pix2pix", "--data", "pairs", "--epochs", 0)
    assert refused(ran, 2) == "epochs must be a number above 0, not 0"
