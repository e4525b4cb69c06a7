"""CartoonGAN's generator: the published keys, what is read from them, and what is no such network."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mggc_edge.errors import SpecError
from mggc_edge.models.cartoongan import cartoongan_spec
from mggc_edge.models.checkpoint import read_checkpoint
from mggc_edge.models.convert import fold_batch_norm
from mggc_edge.models.cost import macs, parameters
from mggc_edge.models.families import family_of, infer_spec, layer_table
from mggc_edge.models.network import Network
from mggc_edge.models.resnet import resnet_spec
from mggc_edge.models.slim import slim
from mggc_edge.models.spec import NetworkSpec
from mggc_edge.models.weights import load_network, save_network, weights_sha256
from mggc_edge.pictures import PictureFormat, read_picture, to_array, to_picture
from mggc_edge.quality.metrics import psnr_from_mse
from tests.models.checkpoint_files import FORMATS, Format, State, assert_loads, refusal, saved, state_of
from tests.models.model_helpers import all_kept, difference, masks_of, network_of, picture_for, run, some_kept
from tests.models.reference_networks import CartoonGenerator

SMALL = cartoongan_spec(blocks=3, ngf=4)
PUBLISHED = Path(os.environ.get("DATA", "no-such-folder")) / "weights/cartoongan_hayao"


@pytest.fixture
def network() -> Network:
    return network_of(SMALL, dtype=torch.float32)


@pytest.fixture
def state(network: Network) -> State:
    return state_of(network)


# --- the published network ---


def test_the_published_network_has_94_tensors_under_the_published_keys() -> None:
    blocks = [f"{number:02d}_{half}" for number in range(4, 12) for half in (1, 2)]
    convolutions = ["conv01_1", "conv02_1", "conv02_2", "conv03_1", "conv03_2", *(f"conv{name}" for name in blocks)]
    convolutions += ["deconv01_1", "deconv01_2", "deconv02_1", "deconv02_2", "deconv03_1"]
    norms = ["01_1", "02_1", "03_1", *blocks, "12_1", "13_1"]
    keys = {f"{name}.{last}" for name in convolutions for last in ("weight", "bias")}
    keys |= {f"in{name}.{last}" for name in norms for last in ("scale", "shift")}
    tensors = layer_table(cartoongan_spec()).tensors
    assert set(tensors) == keys
    assert len(tensors) == 94
    assert tensors["deconv01_1.weight"].shape == (256, 128, 3, 3)  # [in, out, kH, kW]
    assert tensors["deconv01_2.weight"].shape == (128, 128, 3, 3)
    assert tensors["deconv03_1.weight"].shape == (3, 64, 7, 7)


def test_the_published_network_has_these_parameters_macs_and_gates() -> None:
    table = layer_table(cartoongan_spec())
    assert table.image_size == (256, 256)
    assert parameters(table) == 11_129_667
    assert (macs(table, "true"), macs(table, "paper")) == (54_383_345_664, 61_631_102_976)
    assert (len(table.groups), sum(group.size for group in table.groups)) == (17, 3_264)
    assert family_of(table.spec).title(table.spec) == "cartoongan_8blocks"


def test_a_group_between_two_convolutions_is_gated_directly_after_the_first() -> None:
    table = layer_table(SMALL)
    rows = {layer.output: layer for layer in table.layers if layer.output.endswith(".first")}
    assert list(rows) == ["down1.first", "down2.first", "up1.first", "up2.first"]
    for layer in rows.values():
        assert (layer.gate_after, layer.norm, layer.activation, layer.bias) == ("conv", None, None, True)
    assert {layer.gate_after for layer in table.layers if layer.norm is not None} == {"norm"}


def test_the_spec_says_bgr_from_minus_1_to_1_and_epsilon_1e_9() -> None:
    assert (SMALL.color_order, SMALL.low, SMALL.high, SMALL.epsilon) == ("BGR", -1.0, 1.0, 1e-9)
    assert SMALL.input_format == SMALL.output_format == PictureFormat(3, "BGR", -1.0, 1.0)
    assert cartoongan_spec(in_channels=1).input_format == PictureFormat(1, "L")
    assert cartoongan_spec(out_channels=4).output_format == PictureFormat(4, "RGBA")


def test_the_epsilon_of_the_spec_is_that_of_the_norms() -> None:
    network = network_of(SMALL)
    faint = picture_for(network) * 1e-4
    other = Network.from_tensors(
        spec := replace(SMALL, epsilon=1e-5), layer_table(spec, network.table.image_size), state_of(network)
    )
    assert difference(run(network, faint), run(other.eval(), faint)) > 1e-2
    reference = CartoonGenerator(3, 3, 4, 3).double()
    reference.load_state_dict(network.state_dict())
    assert difference(run(network, faint), run(reference, faint)) <= 1e-10  # both multiply rounding by up to 31623


def test_the_epsilon_of_a_spec_reaches_batch_norms_too() -> None:
    spec = replace(resnet_spec(blocks=1, ngf=4, norm="batch"), epsilon=0.5)
    network = network_of(spec)
    picture = picture_for(network)
    assert network.get_submodule("model.2").eps == 0.5
    assert difference(run(network, picture), run(fold_batch_norm(network), picture)) <= 1e-12
    kept = {**all_kept(spec), "block1.inner": ()}
    masked = run(network, picture, masks_of(network.table, kept))
    assert difference(masked, run(slim(network, kept), picture)) <= 1e-12


@pytest.mark.skipif(not PUBLISHED.is_dir(), reason="$DATA has no weights/cartoongan_hayao")
def test_the_published_weights_turn_the_reference_picture_into_its_drawing() -> None:
    network = load_network(PUBLISHED / "net_G.pth")
    assert network.spec == cartoongan_spec()
    picture = to_array(read_picture(PUBLISHED / "reference_in.png"), (256, 256), network.spec.input_format)
    drawn = to_picture(run(network, torch.from_numpy(picture)).numpy(), network.spec.output_format)
    with Image.open(PUBLISHED / "reference_out.png") as wanted:
        error = np.asarray(drawn, np.float64) - np.asarray(wanted.convert("RGB"), np.float64)
    psnr = psnr_from_mse(float(np.square(error).mean()), 255)
    assert psnr is None or psnr >= 45


# --- checkpoints ---


@pytest.mark.parametrize("form", FORMATS)
def test_a_checkpoint_gives_spec_and_weights_back_wherever_it_lies(
    network: Network, form: Format, tmp_path: Path
) -> None:
    state = state_of(network)
    assert_loads(saved(tmp_path / "bare.pth", state, form), network)
    prefixed = {f"module.netG.{key}": value for key, value in state.items()}
    assert_loads(saved(tmp_path / "prefixed.pth", prefixed, form), network)
    if form != "safetensors":
        assert_loads(saved(tmp_path / "nested.pth", {"state_dict": state, "epoch": 3}, form), network)
    assert read_checkpoint(tmp_path / "prefixed.pth").name == "netG"


@pytest.mark.parametrize("blocks", [1, 8, 120])
def test_any_number_of_blocks_is_read_from_the_keys(blocks: int) -> None:
    spec = cartoongan_spec(blocks=blocks, ngf=2)
    shapes = {key: tensor.shape for key, tensor in layer_table(spec).tensors.items()}
    assert infer_spec(shapes) == spec
    assert (f"in{blocks + 5:02d}_1.scale" in shapes, f"conv{blocks + 3:02d}_2.weight" in shapes) == (True, True)


@pytest.mark.parametrize("seed", range(4))
def test_a_slim_checkpoint_loads_by_its_keys_alone(seed: int, tmp_path: Path) -> None:
    network = network_of(SMALL, seed=seed, dtype=torch.float32)
    slender = slim(network, some_kept(SMALL, seed))
    assert_loads(saved(tmp_path / "net.pth", slender.state_dict()), slender)
    save_network(slender, tmp_path / "folder")
    assert_loads(tmp_path / "folder", slender)


@pytest.mark.parametrize("removed", [(1,), (3,), (1, 2, 3)])
def test_a_removed_block_leaves_the_shift_of_its_last_norm(removed: tuple[int, ...], tmp_path: Path) -> None:
    network = network_of(SMALL)
    kept = {**all_kept(SMALL), **{f"block{block}.inner": () for block in removed}, "trunk": (0, 3, 15)}
    slender = slim(network, kept)
    state = slender.state_dict()
    for block in removed:
        shift = network.state_dict()[f"in{block + 3:02d}_2.shift"]
        assert torch.equal(state[f"conv{block + 3:02d}.constant"], shift[[0, 3, 15]])
        assert not any(key.startswith((f"conv{block + 3:02d}_", f"in{block + 3:02d}_")) for key in state)
    picture = picture_for(network)
    assert difference(run(network, picture, masks_of(network.table, kept)), run(slender, picture)) <= 1e-12
    network, slender = network.float(), slender.float()
    masked = run(network, picture.float(), masks_of(network.table, kept, torch.float32))
    assert difference(masked, run(slender, picture.float())) <= 1e-5
    again = assert_loads(saved(tmp_path / "net.pth", slender.state_dict()), slender)
    assert [again.spec.width(f"block{block}.inner") for block in removed] == [0] * len(removed)
    twice = slim(again, {name: tuple(range(width)) for name, width in again.spec.widths})
    assert torch.equal(run(twice, picture.float()), run(again, picture.float()))


# --- near misses ---


def without(state: State, *names: str) -> State:
    return {key: value for key, value in state.items() if not key.startswith(names)}


def renamed(state: State, old: str, new: str) -> State:
    return {key.replace(old, new): value for key, value in state.items()}


SHAPED = "looks like cartoongan_3blocks, but"
NEAR_MISSES: dict[str, tuple[Callable[[State], State], str, str | None]] = {
    "no blocks": (
        lambda state: without(state, "conv04", "conv05", "conv06"),
        "this looks like a CartoonGAN generator, but has no residual blocks",
        "the first would have the key 'conv04_1.weight'",
    ),
    "norms of another kind": (
        lambda state: renamed(renamed(state, ".scale", ".weight"), ".shift", ".bias"),
        "this looks like a CartoonGAN generator, but its norms are not the published ones",
        "they have 'scale' and 'shift', and take every picture's own statistics",
    ),
    "running statistics": (
        lambda state: {**state, "in01_1.running_mean": torch.zeros(4)},
        "this looks like a CartoonGAN generator, but its norms are not the published ones",
        "they have 'scale' and 'shift', and take every picture's own statistics",
    ),
    "no head": (
        lambda state: without(state, "deconv03_1.weight"),
        "the checkpoint has no 'deconv03_1.weight'",
        "is the file complete?",
    ),
    "a block that is missing in the middle": (
        lambda state: without(state, "conv05"),
        "the checkpoint has no 'conv05_1.weight'",
        "is the file complete?",
    ),
    "far too many blocks": (
        lambda state: {**state, "conv300_1.weight": torch.zeros(16, 16, 3, 3)},
        "a CartoonGAN generator with 297 blocks is not supported",
        None,
    ),
    "a norm less": (
        lambda state: without(state, "in08_1"),
        "looks like cartoongan_3blocks, but is missing 'in08_1.scale', 'in08_1.shift'",
        "is it a fork of the network, or a part of one?",
    ),
    "a norm where there is none": (
        lambda state: {**state, "in02_2.scale": torch.ones(8)},
        "looks like cartoongan_3blocks, but has unexpected 'in02_2.scale'",
        "is it a fork of the network, or a part of one?",
    ),
    "a transposed convolution in place of a plain one": (
        lambda state: {**state, "deconv03_1.weight": torch.zeros(4, 3, 7, 7)},
        f"{SHAPED} 'deconv03_1.weight' has shape [4, 3, 7, 7] where the layers around it need [4, 4, 7, 7]",
        None,
    ),
    "scales as pictures": (
        lambda state: {**state, "in03_1.scale": torch.ones(1, 16, 1, 1)},
        f"{SHAPED} 'in03_1.scale' has shape [1, 16, 1, 1] where the layers around it need [16]",
        None,
    ),
}


@pytest.mark.parametrize("case", NEAR_MISSES)
def test_a_near_miss_is_refused_in_one_sentence(state: State, case: str, tmp_path: Path) -> None:
    change, message, hint = NEAR_MISSES[case]
    error = refusal(saved(tmp_path / "net.pth", change(state)))
    assert error.message in (f"'{tmp_path / 'net.pth'}': {message}", f"'{tmp_path / 'net.pth'}' {message}")
    assert error.hint == hint


def test_another_layout_or_a_size_that_it_cannot_halve_is_refused() -> None:
    for change in ({"norm": "batch"}, {"bias": False}, {"padding": "zeros"}, {"dropout": True}, {"separable": True}):
        with pytest.raises(SpecError) as error:
            layer_table(replace(SMALL, **change))
        assert error.value.message == (
            "a CartoonGAN generator has affine instance norms, biases and reflection padding, and no other"
        )
    with pytest.raises(SpecError) as error:
        layer_table(SMALL, (30, 32))
    assert error.value.message == "a CartoonGAN generator cannot run at 30x32"
    assert error.value.hint == "both sides must be multiples of 4 and at least 8"


# --- the spec's epsilon, colour order and range ---


def test_a_spec_gives_itself_back_through_json() -> None:
    spec = replace(SMALL, low=0.0, high=255.0)
    assert NetworkSpec.from_json(json.loads(spec.dumps())) == spec
    assert {key: spec.to_json()[key] for key in ("epsilon", "color_order", "low", "high")} == {
        "epsilon": 1e-9,
        "color_order": "BGR",
        "low": 0.0,
        "high": 255.0,
    }
    assert spec.value_range == 255.0


def test_a_spec_that_was_written_before_these_fields_reads_as_it_was_meant() -> None:
    document = resnet_spec(blocks=2, ngf=4).to_json()
    for name in ("epsilon", "color_order", "low", "high"):
        del document[name]
    assert NetworkSpec.from_json(document) == resnet_spec(blocks=2, ngf=4)
    with pytest.raises(SpecError, match="missing or unknown fields: bias"):
        NetworkSpec.from_json({key: value for key, value in document.items() if key != "bias"})


def test_hashes_of_weights_from_before_these_fields_still_hold(network: Network) -> None:
    plain = network_of(resnet_spec(blocks=1, ngf=4), dtype=torch.float32)
    document = {**plain.spec.to_json(), "dropout": None}
    for name in ("epsilon", "color_order", "low", "high", "quantization"):
        del document[name]
    digest = hashlib.sha256(json.dumps(document, sort_keys=True).encode())
    for key, tensor in sorted(plain.state_dict().items()):
        digest.update(key.encode())
        digest.update(tensor.numpy().tobytes())
    assert weights_sha256(plain) == digest.hexdigest()
    table = network.table
    other = Network.from_tensors(replace(SMALL, color_order="RGB"), table, state_of(network))
    assert weights_sha256(other) != weights_sha256(network)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epsilon": 0}, "epsilon must be above 0 and at most 1, not 0"),
        ({"epsilon": 2.0}, "epsilon must be above 0 and at most 1, not 2.0"),
        ({"epsilon": "tiny"}, "epsilon must be a finite number, not 'tiny'"),
        ({"epsilon": True}, "epsilon must be a finite number, not True"),
        ({"low": float("nan")}, "low must be a finite number, not nan"),
        ({"high": None}, "high must be a finite number, not None"),
        ({"color_order": "GBR"}, "color_order must be one of RGB, BGR, not 'GBR'"),
        ({"color_order": ["RGB"]}, "color_order must be one of RGB, BGR, not ['RGB']"),
        ({"low": 1.0}, "the value range 1.0..1.0 is not a range"),
        ({"high": 1e38}, "the value range -1.0..1e+38 cannot hold 256 levels in float32"),
        ({"high": 10**400}, "high must be a finite number, not 1"),
    ],
)
def test_impossible_values_are_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(SpecError) as error:
        NetworkSpec.from_json({**SMALL.to_json(), **change})
    assert error.value.message.startswith(message)
