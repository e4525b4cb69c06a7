"""A CartoonGAN checkpoint through every command: pictures go in and come out in BGR, and people are shown RGB."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from mggc_edge.cli.main import run as program
from mggc_edge.models.cartoongan import cartoongan_spec
from mggc_edge.models.families import layer_table
from mggc_edge.models.network import Network
from mggc_edge.models.patchgan import patchgan_spec
from mggc_edge.models.resnet import resnet_spec
from mggc_edge.models.weights import load_network, save_network
from mggc_edge.pruning.plan import read_plan
from mggc_edge.quality.features import FeatureNetwork
from mggc_edge.tensors import FloatArray
from tests.cli.conftest import Command
from tests.jobs.job_processes import QUICK, write_unpaired
from tests.models.model_helpers import randomise
from tests.quality.feature_files import classifier

SPEC = cartoongan_spec(blocks=2, ngf=4)
BGR = {"channels": 3, "color": "BGR", "low": -1.0, "high": 1.0}
Levels = NDArray[np.uint8]


def levels(path: Path) -> Levels:
    with Image.open(path) as picture:
        assert picture.mode == "RGB"
        return np.asarray(picture)


def drawn(network: Network, rgb: Levels) -> Levels:
    """What the network makes of an RGB picture [H, W, 3], as RGB: both ways by hand."""
    x = torch.from_numpy(rgb[..., ::-1].astype(np.float32).transpose(2, 0, 1) / 127.5 - 1)
    with torch.inference_mode():
        y = network(x[None])[0].numpy()
    rgb_levels: Levels = np.rint((y[::-1].transpose(1, 2, 0) + 1) * 127.5).clip(0, 255).astype(np.uint8)
    return rgb_levels


def off_by(a: Levels, b: Levels) -> int:
    return int(np.abs(a.astype(int) - b.astype(int)).max())


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """cartoon.pth, resnet.pth (a partner in RGB), judge.pth, pictures/ at 32x32, and data/ with unpaired pictures."""
    folder = tmp_path_factory.mktemp("cartoon")
    network = Network(SPEC)
    randomise(network, seed=5)
    torch.save(network.state_dict(), folder / "cartoon.pth")
    torch.manual_seed(1)
    torch.save(Network(resnet_spec(blocks=1, ngf=4)).state_dict(), folder / "resnet.pth")
    torch.save(Network(patchgan_spec(ndf=4)).state_dict(), folder / "judge.pth")
    (folder / "pictures").mkdir()
    rng = np.random.default_rng(2)
    for name in ("a", "b"):
        small = Image.fromarray(rng.integers(0, 256, (4, 4, 3), dtype=np.uint8))
        small.resize((32, 32), Image.Resampling.BICUBIC).save(folder / f"pictures/{name}.png")
    Image.new("RGB", (32, 32), (255, 0, 0)).save(folder / "pictures/red.png")
    write_unpaired(folder / "data")
    words = ("--quiet", "export", folder / "cartoon.pth", "--image-size", 32, "--out", folder / "run")
    assert program([str(word) for word in words]) == 0
    return folder


@pytest.fixture(scope="module")
def original(given: Path) -> Network:
    return load_network(given / "cartoon.pth", image_size=(32, 32))


# --- inspect, export, translate, verify ---


def test_inspect_says_which_family_it_is_and_that_its_pictures_are_bgr(command: Command, given: Path) -> None:
    ran = command("inspect", given / "cartoon.pth", "--image-size", 32)
    assert ran.code == 0
    assert "generator cartoongan_2blocks, affine instance norm, 3 -> 3 channels, BGR pictures parameters" in " ".join(
        ran.out.split()
    )
    document = command("inspect", given / "cartoon.pth", "--json").document
    assert {key: document[key] for key in ("family", "norm", "epsilon", "color_order", "range", "image_size")} == {
        "family": "cartoongan_2blocks",
        "norm": "instance_affine",
        "epsilon": 1e-9,
        "color_order": "BGR",
        "range": [-1.0, 1.0],
        "image_size": [256, 256],
    }


def test_inspect_says_which_values_a_network_takes_where_they_are_unusual(
    command: Command, original: Network, tmp_path: Path
) -> None:
    other = Network.from_tensors(replace(SPEC, low=0.0, high=255.0), original.table, dict(original.state_dict()))
    save_network(other, tmp_path / "net")
    ran = command("inspect", tmp_path / "net", "--image-size", 32)
    assert "BGR pictures, values from 0 to 255" in " ".join(ran.out.split())


def test_the_exported_file_says_which_colours_and_values_it_takes(given: Path) -> None:
    model = onnx.load(given / "run/export/portable/generator.fp32.onnx")
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    assert json.loads(metadata["mggc_edge.input_format"]) == BGR
    assert json.loads(metadata["mggc_edge.output_format"]) == BGR
    spec = json.loads(metadata["mggc_edge.spec"])
    assert (spec["family"], spec["color_order"], spec["epsilon"]) == ("cartoongan", "BGR", 1e-9)
    epsilons = [
        attribute.f
        for node in model.graph.node
        if node.op_type == "InstanceNormalization"
        for attribute in node.attribute
        if attribute.name == "epsilon"
    ]
    assert epsilons == [pytest.approx(1e-9)] * 9


@pytest.mark.parametrize("artifact", ["cartoon.pth", "run"])
def test_translate_turns_rgb_files_into_rgb_files(
    command: Command, given: Path, original: Network, tmp_path: Path, artifact: str
) -> None:
    words = ("--images", given / "pictures", "--image-size", 32, "--out", tmp_path / "o")
    assert command("translate", given / artifact, *words).code == 0
    for name in ("a.png", "b.png"):
        source = levels(given / "pictures" / name)
        assert off_by(levels(tmp_path / "o" / name), drawn(original, source)) <= 1
        assert off_by(levels(tmp_path / "o" / name), drawn(original, source[..., ::-1])[..., ::-1]) > 20
    sheet = levels(tmp_path / "o/contact-sheet.png")
    cell, margin, title = 192, 4, 24
    top = margin + title + 2 * (cell + margin)  # the third row: red.png
    assert sheet[top + cell // 2, margin + cell // 2].tolist() == [255, 0, 0]


def test_verify_holds_the_export_against_the_checkpoint(command: Command, given: Path) -> None:
    ran = command("verify", given / "cartoon.pth", given / "run", "--json")
    assert (ran.code, ran.document["passed"]) == (0, True)
    assert ran.document["max_abs"] <= 1e-4


def test_verify_refuses_two_that_see_other_colours_or_values(
    command: Command, given: Path, original: Network, tmp_path: Path
) -> None:
    changes: dict[str, dict[str, Any]] = {"rgb": {"color_order": "RGB"}, "bytes": {"low": 0.0, "high": 255.0}}
    for name, change in changes.items():
        spec = replace(SPEC, **change)
        save_network(Network.from_tensors(spec, original.table, dict(original.state_dict())), tmp_path / name)
    bytes_ = "BGR from 0 to 255"
    for name, shown in (("rgb", "RGB to RGB"), ("bytes", f"{bytes_} to {bytes_}")):
        ran = command("verify", given / "run", tmp_path / name)
        assert ran.code == 1
        kinds = f"BGR to BGR and {shown}"
        message = f"'{given / 'run'}' and '{tmp_path / name}' do not take and give the same kind of picture: {kinds}"
        assert ran.err == f"error: {message}\n"


def test_psnr_is_of_the_range_of_the_pictures(command: Command, given: Path, original: Network, tmp_path: Path) -> None:
    """In a range twice as wide the same outputs have a PSNR that is 6.02 dB higher."""
    state = {key: value.clone() for key, value in original.state_dict().items()}
    state["deconv03_1.bias"] += 0.05
    psnr = []
    changes: dict[str, dict[str, Any]] = {"usual": {}, "wide": {"low": -2.0, "high": 2.0}}
    for name, change in changes.items():
        spec = replace(SPEC, **change)
        table = layer_table(spec, (32, 32))
        for side, tensors in (("a", dict(original.state_dict())), ("b", state)):
            network = Network.from_tensors(spec, table, tensors)
            if change:  # the same outputs: what goes in is twice as large, and the first norm takes that away
                network = Network.from_tensors(replace(spec, epsilon=4e-9), table, tensors)
            save_network(network, tmp_path / name / side)
        words = (tmp_path / name / "a", tmp_path / name / "b", "--image-size", 32, "--min-psnr", 1, "--json")
        psnr.append(command("verify", *words).document["psnr"])
    assert 15 < psnr[0] < 60
    assert psnr[1] - psnr[0] == pytest.approx(20 * np.log10(2), abs=0.05)


# --- compress ---

METHODS = ["mggc", *(pytest.param(name, marks=pytest.mark.slow) for name in ("magnitude", "uniform", "random"))]


@pytest.mark.parametrize("method", METHODS)
def test_every_method_compresses_it(
    command: Command, given: Path, original: Network, tmp_path: Path, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Levels] = []
    features = FeatureNetwork.features

    def watched(self: FeatureNetwork, pictures: Iterable[Image.Image]) -> FloatArray:
        kept = list(pictures)
        shown = [np.asarray(picture.convert("RGB")) for picture in kept]
        seen.extend(picture for picture in shown if picture.shape == (32, 32, 3))  # others are a trial of the network
        return features(self, kept)

    monkeypatch.setattr(FeatureNetwork, "features", watched)
    net = classifier(tmp_path)
    run = tmp_path / "run"
    ran = command(
        "--quiet", "compress", "--model", given / "cartoon.pth", "--data", given / "data", "--method", method,
        "--budget", "0.4", *QUICK, "--feature-net", net, "--set", "features.preprocessing=unit",
        *(("--encoder", f"onnx:{net}") if method == "mggc" else ()), "--set", "finetune.gan_weight=1", "--out", run,
        "--json",
    )  # fmt: skip
    assert (ran.code, ran.err) == (0, "")
    plan = read_plan(run / "plan.json")
    assert plan.spec == SPEC
    assert (plan.criterion, 0.3 < plan.budget_met <= 0.4) == (method, True)
    assert all(len(plan.kept[f"{group}.first"]) >= 1 for group in ("down1", "down2", "up1", "up2"))
    slender = load_network(run / "slim", image_size=(32, 32))
    assert (slender.spec.color_order, slender.spec.epsilon) == ("BGR", 1e-9)
    judge = json.loads((run / "slim/discriminator/spec.json").read_text())
    assert (judge["family"], judge["color_order"]) == ("patchgan", "BGR")
    # what people are shown, and what feature networks see, is RGB
    sources = {path.stem: levels_at_32(path) for path in sorted((given / "data/testA").iterdir())}
    samples = {path.name: levels(path) for path in (run / "samples").glob("*.png")}
    inputs = [name for name in samples if "input" in name]
    assert len(inputs) == len(sources) == 2
    for name in inputs:
        source = min(sources.values(), key=lambda levels: off_by(levels, samples[name]))
        assert off_by(samples[name], source) == 0
        wanted = drawn(original, source)
        assert off_by(samples[name.replace("input", "original")], wanted) <= 1
        assert off_by(samples[name.replace("input", "compressed")], drawn(slender, source)) <= 1
        assert min(off_by(picture, wanted) for picture in seen) <= 1
    targets = [levels_at_32(path) for path in sorted((given / "data/testB").iterdir())]
    assert all(any(off_by(picture, target) == 0 for picture in seen) for target in targets)
    if method == "mggc":  # the encoder's inputs: the original's outputs for the training pictures
        taught = [drawn(original, levels_at_32(path)) for path in sorted((given / "data/trainA").iterdir())]
        matched = [min(off_by(picture, wanted) for picture in seen) for wanted in taught]
        assert sum(off <= 1 for off in matched) >= len(taught) - 2  # all but those that are held out


def levels_at_32(path: Path) -> Levels:
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB").resize((32, 32), Image.Resampling.BICUBIC))


def test_a_partner_that_sees_other_colours_is_refused(command: Command, given: Path, tmp_path: Path) -> None:
    words = ("--model", given / "cartoon.pth", "--data", given / "data", "--partner", given / "resnet.pth")
    ran = command("compress", *words, "--image-size", 32, "--budget", 0.5, "--out", tmp_path / "o")
    assert ran.code == 1
    shown = "RGB from -1 to 1, and this generator as BGR from -1 to 1"
    assert ran.err.splitlines()[-2:] == [
        f"error: the partner '{given / 'resnet.pth'}' sees pictures as {shown}",
        "hint: give the partner that was trained with this generator, or none",
    ]


def test_a_discriminator_that_is_given_is_taken_to_see_what_the_generator_gives(
    command: Command, given: Path, tmp_path: Path
) -> None:
    words: tuple[Any, ...] = ("--method", "random", "--budget", "0.4", *QUICK, "--discriminator", given / "judge.pth")
    ran = command("--quiet", "compress", "--model", given / "cartoon.pth", *words, "--out", tmp_path / "run")
    assert (ran.code, ran.err) == (0, "")
    given_judge = load_network(given / "judge.pth")
    kept = load_network(tmp_path / "run/original/discriminator")
    assert kept.spec == replace(given_judge.spec, color_order="BGR")
    state = kept.state_dict()
    assert all(torch.equal(value, state[key]) for key, value in given_judge.state_dict().items())


def test_a_saved_discriminator_that_saw_other_colours_is_refused(command: Command, given: Path, tmp_path: Path) -> None:
    save_network(load_network(given / "judge.pth"), tmp_path / "judge")
    words = ("--model", given / "cartoon.pth", "--discriminator", tmp_path / "judge", "--image-size", 32)
    ran = command("compress", *words, "--budget", 0.5, "--out", tmp_path / "o")
    assert ran.code == 1
    shown = "RGB from -1 to 1, and this generator as BGR from -1 to 1"
    assert ran.err.splitlines()[-2:] == [
        f"error: the discriminator '{tmp_path / 'judge'}' sees pictures as {shown}",
        "hint: give the discriminator that was trained with this generator, or none",
    ]


def test_the_run_is_measured_reported_and_translated_with(
    command: Command, given: Path, original: Network, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    words = ("--model", given / "cartoon.pth", "--method", "uniform", "--budget", "0.5", *QUICK, "--out", run)
    assert command("--quiet", "compress", *words).code == 0
    assert "CartoonGAN generator at" in (run / "report.html").read_text()
    assert command("translate", run, "--images", given / "pictures", "--out", tmp_path / "o").code == 0
    slender = load_network(run / "slim", image_size=(32, 32))
    wanted = drawn(slender, levels(given / "pictures/a.png"))
    assert off_by(levels(tmp_path / "o/a.png"), wanted) <= 1
    assert off_by(wanted, drawn(original, levels(given / "pictures/a.png"))) > 5
    pace = ("--pairs", 4, "--set", "bench.processes=1", "--set", "bench.warmup_seconds=0.01", "--threads", 1)
    assert command("--quiet", "bench", run, *pace).code == 0
