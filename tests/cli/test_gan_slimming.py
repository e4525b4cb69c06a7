"""`--method gan-slimming` and `export --drop-zero-scales` from the command line to the end, and what they refuse."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch

from mggc_edge.cli.main import run as program
from mggc_edge.models.cartoongan import cartoongan_spec
from mggc_edge.models.network import Network
from mggc_edge.models.resnet import resnet_spec
from mggc_edge.models.unet import unet_spec
from mggc_edge.models.weights import load_network
from mggc_edge.pruning.plan import read_plan
from tests.cli.conftest import Command
from tests.jobs.job_processes import QUICK, write_networks
from tests.models.model_helpers import randomise
from tests.training.perceptual_files import SQUEEZENET, state_of, write_onnx


def drawn(spec: Any, seed: int) -> Network:
    network = Network(spec)
    randomise(network, seed)
    return network


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The networks of `write_networks`, cartoon.pth, squeezenet.pth and .onnx, and foreign.pth with scales of 0."""
    folder = write_networks(tmp_path_factory.mktemp("slimming"))
    torch.save(drawn(cartoongan_spec(blocks=1, ngf=8), 1).state_dict(), folder / "cartoon.pth")
    state = state_of(SQUEEZENET)
    torch.save(state, folder / "squeezenet.pth")
    write_onnx(folder / "squeezenet.onnx", state, SQUEEZENET)
    model = onnx.load(folder / "squeezenet.onnx")
    model.producer_name = "onnx-caffe2"
    onnx.save(model, folder / "squeezenet.onnx")
    foreign = drawn(resnet_spec(blocks=2, ngf=8, norm="instance_affine"), 2)
    with torch.no_grad():
        for layer in foreign.table.layers:
            if layer.output in ("stem", "block1.inner", "up2"):
                norm = foreign.get_submodule(str(layer.norm))
                norm.get_parameter("weight")[:3] = 0
                norm.get_parameter("bias")[:3] = 0.5
    trunk = {f"{layer.norm}.{part}" for layer in foreign.table.layers if layer.output == "trunk"
             for part in ("weight", "bias")}  # fmt: skip
    kept = {key: value for key, value in foreign.state_dict().items() if key not in trunk}  # as GAN Slimming saves it
    torch.save(kept, folder / "foreign.pth")
    return folder


@pytest.fixture(scope="module")
def runs(given: Path) -> Path:
    """given/pixels, of a CartoonGAN, and given/perceptual, of a ResNet."""
    network = ("--perceptual", given / "squeezenet.onnx")
    for name, words in {"pixels": ("cartoon.pth",), "perceptual": ("generator.pth", *network)}.items():
        line = (
            "--quiet", "compress", "--model", given / words[0], "--budget", "0.5", "--method", "gan-slimming",
            *words[1:], *QUICK, "--out", given / name,
        )  # fmt: skip
        assert program([str(word) for word in line]) == 0
    return given


def manifest(run: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((run / "manifest.json").read_text())
    return document


def log(run: Path, stage: str) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (run / "logs/metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if line["stage"] == stage]


@pytest.mark.parametrize("name", ["pixels", "perceptual"])
def test_a_run_meets_its_budget_and_ends_with_a_report(runs: Path, name: str) -> None:
    run = runs / name
    plan = read_plan(run / "plan.json")
    assert (plan.criterion, plan.seed) == ("gan-slimming", 0)
    assert 0.49 <= plan.budget_met <= 0.5
    result = manifest(run)["result"]
    assert (result["method"], result["encoder"]) == ("gan-slimming", None)
    assert result["slimming"]["fraction_open"] <= 0.5
    slim = load_network(run / "slim")
    assert slim.spec.norm == "instance_affine"
    assert {group: len(kept) for group, kept in plan.kept.items()} == dict(slim.spec.widths)
    lines = log(run, "prune")
    assert [line["step"] for line in lines] == list(range(8))
    assert lines[-1]["macs_fraction"] == result["slimming"]["fraction_open"]
    page = (run / "report.html").read_text()
    assert "Weight of the scales, rho" in page
    assert "Pruning: losses" in page
    assert log(run, "finetune")


def test_the_manifest_says_by_what_the_original_was_followed(runs: Path) -> None:
    found = manifest(runs / "perceptual")["result"]["slimming"]["distance"]
    assert (found["name"], found["file"], len(found["sha256"])) == ("squeezenet1_1", "squeezenet.onnx", 64)
    assert found["preprocessing"] == "caffe"
    assert manifest(runs / "pixels")["result"]["slimming"]["distance"] == {"name": "pixels"}


def test_a_finished_run_is_as_it_is(command: Command, runs: Path) -> None:
    ran = command("compress", "--resume", runs / "pixels", "--json")
    assert ran.code == 0
    assert ran.document["method"] == "gan-slimming"


# --- what is refused ---


def refused(command: Command, given: Path, *words: object) -> tuple[int, str]:
    ran = command(
        "--quiet", "compress", "--model", given / "generator.pth", "--budget", "0.5", *words, *QUICK, "--out",
        given / "refused",
    )  # fmt: skip
    assert ran.out == ""
    return ran.code, " ".join(ran.err.split())


def test_a_perceptual_network_for_another_method_is_refused(command: Command, given: Path) -> None:
    code, said = refused(command, given, "--perceptual", given / "squeezenet.pth")
    assert code == 2
    assert said == (
        "error: a perceptual network is for --method gan-slimming, not for mggc hint: add --method gan-slimming, or "
        "leave out --perceptual"
    )


def test_a_perceptual_network_of_an_unknown_layout_is_refused_before_anything_is_trained(
    command: Command, given: Path
) -> None:
    code, said = refused(command, given, "--method", "gan-slimming", "--perceptual", given / "discriminator.pth")
    assert code == 1
    assert f"error: '{given / 'discriminator.pth'}' is no perceptual network that is known: it is missing" in said
    assert "hint: give VGG16 or SqueezeNet-1.1: a state dict as torchvision saves it, or an ONNX file" in said
    assert not (given / "refused").exists()


def test_losses_that_all_weigh_nothing_and_budgets_that_cannot_be_met_are_refused(
    command: Command, given: Path
) -> None:
    off = ("--set", "gan_slimming.beta=0", "--set", "gan_slimming.gan_weight=0")
    code, said = refused(command, given, "--method", "gan-slimming", *off)
    assert (code, "error: every part of the slimming loss has weight 0" in said) == (2, True)
    code, said = refused(command, given, "--method", "gan-slimming", "--budget", "0.01")
    assert (code, "cannot be met" in said) == (1, True)
    assert not (given / "refused").exists()


def test_a_rho_that_kills_a_group_ends_the_job_with_the_way_out(command: Command, given: Path, tmp_path: Path) -> None:
    ran = command(
        "--quiet", "compress", "--model", given / "generator.pth", "--budget", "0.5", "--method", "gan-slimming",
        *QUICK, "--set", "gan_slimming.rho=50", "--out", tmp_path / "run",
    )  # fmt: skip
    said = " ".join(ran.err.split())
    assert ran.code == 1
    assert "error: step 0 of stage 'prune': with gan_slimming.rho=50, no channel of group 'stem' would be left" in said
    assert "leave it at 0: then it is chosen so that the budget is met" in said


# --- checkpoints of GAN Slimming ---


def test_channels_with_a_scale_of_zero_are_dropped_and_the_difference_is_measured(
    command: Command, given: Path, tmp_path: Path
) -> None:
    line = ("export", given / "foreign.pth", "--drop-zero-scales", "--image-size", 32, "--out", tmp_path / "run")
    ran = command(*line, "--json")
    assert ran.code == 0
    (remark,) = ran.document["remarks"]
    assert remark.startswith("9 channels with a scale of 0 taken out, not exact at model.4; on 8 built-in pictures")
    facts = manifest(tmp_path / "run")["dropped"]
    assert facts["channels"] == {"stem": 3, "block1.inner": 3, "up2": 3}
    assert facts["inexact_layers"] == ["model.4"]
    original, small = load_network(tmp_path / "run/original"), load_network(tmp_path / "run/slim")
    assert [dict(small.spec.widths)[group] for group in facts["channels"]] == [5, 29, 5]
    x = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.inference_mode():
        difference = (original(x) - small(x)).abs().max().item()
    assert 0 < difference < 10 * facts["max_abs"]
    plan = read_plan(tmp_path / "run/plan.json")
    assert (plan.criterion, plan.budget) == ("zero-scales", plan.budget_met)
    assert ran.document["compressed"]["parameters"] < ran.document["original"]["parameters"]


def test_nothing_to_drop_a_plan_beside_it_and_what_cannot_be_folded_are_refused(
    command: Command, given: Path, tmp_path: Path
) -> None:
    ran = command("export", given / "generator.pth", "--drop-zero-scales", "--out", tmp_path / "run")
    assert ran.code == 1
    assert "error: no channel of this network has a norm with the scale 0" in ran.err
    ran = command("export", given / "foreign.pth", "--drop-zero-scales", "--plan", "p", "--out", tmp_path / "run")
    assert ran.code == 2
    assert "--plan and --drop-zero-scales both say which channels stay" in " ".join(ran.err.split())
    network = drawn(unet_spec(halvings=5, ngf=4), 1)
    with torch.no_grad():
        for layer in network.table.layers:
            if layer.output == "down4":
                norm = network.get_submodule(str(layer.norm))
                norm.get_parameter("weight")[:2], norm.get_parameter("bias")[:2] = 0, 0.5
    torch.save(network.state_dict(), tmp_path / "unet.pth")
    ran = command("export", tmp_path / "unet.pth", "--drop-zero-scales", "--out", tmp_path / "run")
    assert ran.code == 1
    assert "has neither a bias nor a norm" in " ".join(ran.err.split())
    assert not (tmp_path / "run").exists()
