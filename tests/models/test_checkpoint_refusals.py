"""Checkpoints that hold something else than a complete, sound network are refused in one sentence that says why."""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from mggc_edge.errors import CheckpointError
from mggc_edge.models.checkpoint import read_checkpoint
from mggc_edge.models.network import Network
from mggc_edge.models.patchgan import patchgan_spec
from mggc_edge.models.resnet import resnet_spec
from mggc_edge.models.spec import NetworkSpec
from mggc_edge.models.unet import unet_spec
from mggc_edge.models.weights import load_network, save_network
from tests.models.checkpoint_files import FORMATS, Format, State, refusal, saved, state_of
from tests.models.model_helpers import network_of

FORK = "is it a fork of the network, or a part of one?"


def float32(spec: NetworkSpec) -> Network:
    return network_of(spec, dtype=torch.float32)


@pytest.fixture
def state() -> State:
    return state_of(float32(resnet_spec(blocks=2, ngf=4)))


# --- keys and shapes ---


def test_left_over_keys_are_named(state: State, tmp_path: Path) -> None:
    path = saved(tmp_path / "net.pth", {**state, "model.99.weight": torch.zeros(3), "attention.bias": torch.zeros(1)})
    error = refusal(path)
    assert error.message == (
        f"'{path}' looks like resnet_2blocks, but has unexpected 'model.99.weight', 'attention.bias'"
    )
    assert error.hint == FORK


def test_missing_keys_are_named(state: State, tmp_path: Path) -> None:
    del state["model.4.bias"], state["model.10.conv_block.5.weight"]
    path = saved(tmp_path / "net.pth", state)
    error = refusal(path)
    assert error.message == (
        f"'{path}' looks like resnet_2blocks, but is missing 'model.4.bias', 'model.10.conv_block.5.weight'"
    )
    assert error.hint == FORK


def test_of_many_keys_four_are_named_and_the_rest_counted(state: State, tmp_path: Path) -> None:
    wrong = {f"model.{30 + index}.gain": torch.zeros(1) for index in range(6)}
    del state["model.15.bias"]
    path = saved(tmp_path / "net.pth", {"G": {**state, **wrong}})
    assert refusal(path).message == (
        f"'{path}' ('G') looks like resnet_2blocks, but is missing 'model.15.bias' and has unexpected "
        "'model.30.gain', 'model.31.gain', 'model.32.gain', 'model.33.gain' and 2 more"
    )


@pytest.mark.parametrize(
    ("key", "shape", "needed"),
    [
        ("model.4.weight", [8, 5, 3, 3], [8, 4, 3, 3]),
        ("model.7.bias", [15], [16]),
        ("model.11.conv_block.5.weight", [16, 16, 1, 1], [16, 16, 3, 3]),
        ("model.12.weight", [8, 8, 3, 3], [16, 8, 3, 3]),
        ("model.10.conv_block.1.bias", [16, 1], [16]),
    ],
)
def test_a_shape_that_does_not_fit_is_named(
    state: State, key: str, shape: list[int], needed: list[int], tmp_path: Path
) -> None:
    path = saved(tmp_path / "net.pth", {**state, key: torch.zeros(shape)})
    assert refusal(path).message == (
        f"'{path}' looks like resnet_2blocks, but '{key}' has shape {shape} where the layers around it need {needed}"
    )


def test_weights_that_are_no_floats_are_named(state: State, tmp_path: Path) -> None:
    path = saved(tmp_path / "net.pth", {**state, "model.7.weight": torch.zeros((16, 8, 3, 3), dtype=torch.int8)})
    assert refusal(path).message == f"'{path}': 'model.7.weight' has element type int8, but weights are floats"


def test_the_same_tensor_with_and_without_module_is_refused(state: State, tmp_path: Path) -> None:
    path = saved(tmp_path / "net.pth", {**state, "module.model.1.bias": torch.zeros(4)})
    assert refusal(path).message == f"'{path}' has the tensor 'model.1.bias' twice, with and without 'module.'"


# --- networks that are not built here ---


def resize_convolution_fork(blocks: int = 9, ngf: int = 4) -> State:
    """A ResNet that enlarges by [upsample, reflection pad, convolution, norm, ReLU], as some forks do."""
    kept = nn.Sequential(*(nn.Identity() for _ in range(10 + blocks)))
    up: list[nn.Module] = []
    for channels in (4 * ngf, 2 * ngf):
        up += [nn.Upsample(scale_factor=2), nn.ReflectionPad2d(1), nn.Conv2d(channels, channels // 2, 3)]
        up += [nn.InstanceNorm2d(channels // 2), nn.ReLU()]
    up += [nn.ReflectionPad2d(3), nn.Conv2d(ngf, 3, 7), nn.Tanh()]
    decoder = {f"model.{key}": value for key, value in nn.Sequential(*kept, *up).state_dict().items()}
    whole = float32(resnet_spec(blocks=blocks, ngf=ngf)).state_dict()
    encoder = {key: value for key, value in whole.items() if int(key.split(".")[1]) < 10 + blocks}
    return {**encoder, **decoder}


@pytest.mark.parametrize("blocks", [1, 6, 9])
def test_a_fork_that_resizes_and_convolves_is_refused_by_that_name(blocks: int, tmp_path: Path) -> None:
    fork = resize_convolution_fork(blocks)
    first, second, head = (f"model.{10 + blocks + step}.weight" for step in (2, 7, 11))
    assert [tuple(fork[key].shape) for key in (first, second, head)] == [(8, 16, 3, 3), (4, 8, 3, 3), (3, 4, 7, 7)]
    path = saved(tmp_path / "latest_net_G.pth", fork)
    error = refusal(path)
    assert error.message == (
        f"'{path}': this generator enlarges pictures by resizing and convolving, a fork that mggc-edge does not build"
    )
    assert error.hint == "only transposed convolutions are supported; retrain with the original ResNet generator"


def moved(state: State, old: str, new: str) -> State:
    return {key.replace(old, new): value for key, value in state.items()}


def without(state: State, *starts: str) -> State:
    return {key: value for key, value in state.items() if not key.startswith(starts)}


ODD_NETWORKS: dict[str, tuple[Callable[[], State], str, str | None]] = {
    "a linear layer": (
        lambda: state_of(nn.Linear(2, 2)),
        "no known network has these weights (first keys: weight, bias)",
        "supported are ResNet, U-Net and CartoonGAN generators, and the PatchGAN of CycleGAN and pix2pix",
    ),
    "a ResNet with unknown blocks": (
        lambda: moved(state_of(float32(resnet_spec(blocks=2, ngf=4))), "conv_block.5", "conv_block.7"),
        "the residual blocks have convolutions at [1, 7], a layout that mggc-edge does not know",
        "known are reflection and zero padding, with and without a dropout layer",
    ),
    "a ResNet without doublings": (
        lambda: without(state_of(float32(resnet_spec(blocks=2, ngf=4))), "model.12.", "model.15.", "model.19."),
        "this looks like a ResNet generator, but its layers are not at the expected indices",
        None,
    ),
    "a ResNet with blocks that start too early": (
        lambda: moved(state_of(float32(resnet_spec(blocks=2, ngf=4))), "model.10.", "model.9."),
        "this looks like a ResNet generator, but its layers are not at the expected indices",
        None,
    ),
    "a ResNet without a stem": (
        lambda: without(state_of(float32(resnet_spec(blocks=2, ngf=4))), "model.1."),
        "the checkpoint has no 'model.1.weight'",
        "is the file complete?",
    ),
    "a ResNet with a flat stem": (
        lambda: {**state_of(float32(resnet_spec(blocks=2, ngf=4))), "model.1.weight": torch.zeros(4, 3)},
        "'model.1.weight' has shape [4, 3], but a convolution's has four sizes",
        None,
    ),
    "a U-Net without its second half": (
        lambda: without(state_of(float32(unet_spec(halvings=5, ngf=4))), "model.model.3."),
        "the checkpoint has no 'model.model.3.weight'",
        "is the file complete?",
    ),
    "a U-Net without its outside": (
        lambda: without(state_of(float32(unet_spec(halvings=5, ngf=4))), "model.model.0."),
        "this looks like a U-Net generator, but its layers are not at the expected indices",
        None,
    ),
    "a U-Net with 13 halvings": (
        lambda: {
            f"{prefix}.weight": torch.zeros(1, 1, 4, 4)
            for prefix in ("model.model.0", *(f"model.model.1.model{'.3.model' * depth}.1" for depth in range(12)))
        },
        "a U-Net with more than 12 halvings is not supported",
        None,
    ),
    "a PatchGAN that judges in two channels": (
        lambda: {**state_of(float32(patchgan_spec(ndf=4))), "model.11.weight": torch.zeros(2, 32, 4, 4)},
        "this looks like a PatchGAN discriminator, but it does not end in one 4x4 judgement per patch",
        None,
    ),
    "a PatchGAN of 3x3 convolutions": (
        lambda: {**state_of(float32(patchgan_spec(ndf=4))), "model.5.weight": torch.zeros(16, 8, 3, 3)},
        "this looks like a PatchGAN discriminator, but it does not end in one 4x4 judgement per patch",
        None,
    ),
}


@pytest.mark.parametrize("name", sorted(ODD_NETWORKS))
def test_a_network_that_is_not_built_here_is_refused(name: str, tmp_path: Path) -> None:
    make, message, hint = ODD_NETWORKS[name]
    path = saved(tmp_path / "net.pth", make())
    error = refusal(path)
    assert (error.message, error.hint) == (f"'{path}': {message}", hint)


def test_a_resnet_with_too_many_blocks_is_refused(state: State, tmp_path: Path) -> None:
    far = moved(moved(moved(state, "model.12.", "model.512."), "model.15.", "model.515."), "model.19.", "model.519.")
    path = saved(tmp_path / "net.pth", far)
    assert refusal(path).message == f"'{path}': a ResNet generator with 502 blocks is not supported"


def test_several_networks_that_no_direction_tells_apart_are_refused(tmp_path: Path) -> None:
    networks = {name: state_of(float32(resnet_spec(blocks=1, ngf=4))) for name in ("first", "second")}
    path = saved(tmp_path / "net.pth", networks)
    error = refusal(path, direction="BtoA")
    assert error.message == (
        f"'{path}' holds several networks ('first', 'second'), and their names do not say which one is BtoA"
    )
    assert error.hint == "save the one you mean in a file of its own"


# --- values ---


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("values", [(math.nan,), (math.inf,), (-math.inf,), (math.inf, -math.inf)])
@pytest.mark.parametrize("form", FORMATS)
def test_a_weight_that_is_not_finite_is_named(
    state: State, values: tuple[float, ...], dtype: torch.dtype, form: Format, tmp_path: Path
) -> None:
    state = {key: value.to(dtype) for key, value in state.items()}
    state["model.11.conv_block.5.weight"].view(-1)[-len(values) :] = torch.tensor(values, dtype=dtype)
    path = saved(tmp_path / "net.pth", state, form)
    error = refusal(path)
    assert error.message == f"'{path}': 'model.11.conv_block.5.weight' has NaN or infinite values"
    assert error.hint == "the training that wrote it has diverged; take an earlier checkpoint"


def test_a_running_variance_that_is_not_finite_is_named(tmp_path: Path) -> None:
    state = state_of(float32(unet_spec(halvings=5, ngf=4)))
    key = "model.model.1.model.2.running_var"
    state[key][3] = math.nan
    path = saved(tmp_path / "net.pth", state)
    assert refusal(path).message == f"'{path}': '{key}' has NaN or infinite values"


def test_values_that_are_not_finite_do_not_matter_in_tensors_that_are_not_used(state: State, tmp_path: Path) -> None:
    network = load_network(saved(tmp_path / "net.pth", {**state, "model.2.running_mean": torch.full((4,), math.nan)}))
    assert torch.equal(network.state_dict()["model.1.weight"], state["model.1.weight"])


def test_a_double_beyond_float32_is_refused(state: State, tmp_path: Path) -> None:
    path = saved(tmp_path / "net.pth", {**state, "model.1.bias": torch.full((4,), 1e39, dtype=torch.float64)})
    assert refusal(path).message == f"'{path}': 'model.1.bias' has NaN or infinite values"


# --- not a checkpoint ---

NO_CHECKPOINT = "a checkpoint is a .pth, .pt or .safetensors file of weights"


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "missing.pth"
    error = refusal(path)
    assert (error.message, error.hint) == (f"there is no file '{path}'", None)


def test_a_file_below_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("text")
    path = tmp_path / "file" / "net.pth"
    assert refusal(path).message == f"'{path}' cannot be read: Not a directory"


def test_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError) as error:
        read_checkpoint(tmp_path)
    assert error.value.message == f"'{tmp_path}' is a folder, not a checkpoint file"
    with pytest.raises(CheckpointError) as error:
        load_network(tmp_path)
    assert error.value.message == f"'{tmp_path}' is a folder without a spec.json, so no saved network"


@pytest.mark.parametrize(
    ("name", "content", "what"),
    [
        ("net.pth", b"", "is empty"),
        ("net.pth", b"hello, I am text\n" * 40, "is no checkpoint"),
        ("net.pth", b"x", "is no checkpoint"),
        ("net.pth", b"\x89PNG\r\n\x1a\n" + bytes(100), "is no checkpoint"),
        ("net.pth", bytes(4096), "is no checkpoint"),
        ("net.pth", b"PK\x05\x06" + bytes(18), "is no checkpoint"),  # a zip archive without entries
        ("net.pth", b"(dp0\nVa\np1\nI1\ns.", "is no checkpoint"),  # a pickle of protocol 0
        ("net.onnx", b"\x08\x08\x12\x07pytorch" + bytes(100), "is an ONNX file"),
        ("NET.ONNX", b"\x08\x08\x12\x07pytorch" + bytes(100), "is an ONNX file"),
    ],
)
def test_a_file_of_another_kind_is_refused(name: str, content: bytes, what: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    error = refusal(path)
    assert error.message == f"'{path}' {what}"
    assert error.hint == (None if content == b"" else NO_CHECKPOINT)


def test_the_tar_format_of_old_is_refused_with_the_way_out(tmp_path: Path) -> None:
    import tarfile

    path = tmp_path / "net.pth"
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as archive:
        for name in ("storages", "tensors", "pickle"):
            archive.addfile(tarfile.TarInfo(name))
    error = refusal(path)
    assert error.message == f"'{path}' is a checkpoint in the tar format of PyTorch before 0.2"
    assert error.hint == "load and save it again with any PyTorch from 0.4 to 1.x"


def test_a_torchscript_archive_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "net.pt"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.trace(nn.Conv2d(1, 1, 1), torch.zeros(1, 1, 2, 2)).save(str(path))  # type: ignore[no-untyped-call]
    error = refusal(path)
    assert error.message == f"'{path}': this is a TorchScript archive, which holds code"
    assert error.hint == "save the weights alone: state_dict()"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (torch.zeros(3), "a checkpoint is a dictionary of tensors by name, and this file holds one tensor"),
        ([torch.zeros(3)], "a checkpoint is a dictionary of tensors by name, and this file holds something else"),
        ("weights", "a checkpoint is a dictionary of tensors by name, and this file holds something else"),
    ],
)
@pytest.mark.parametrize("form", ["zip", "legacy"])
def test_a_checkpoint_without_a_dictionary_is_refused(content: Any, message: str, form: Format, tmp_path: Path) -> None:
    path = saved(tmp_path / "net.pth", content, form)
    assert refusal(path).message == f"'{path}': {message}"


@pytest.mark.parametrize("content", [{}, {"epoch": 3}, {"state_dict": {}}, {1: torch.zeros(3)}])
def test_a_checkpoint_without_tensors_by_name_is_refused(content: dict[Any, Any], tmp_path: Path) -> None:
    path = saved(tmp_path / "net.pth", content)
    assert refusal(path).message == f"'{path}' holds no tensors by name"


@pytest.mark.parametrize("form", FORMATS)
def test_a_file_larger_than_the_limit_is_refused_before_it_is_opened(
    state: State, form: Format, tmp_path: Path
) -> None:
    path = saved(tmp_path / "net.pth", state, form)
    size = path.stat().st_size
    read_checkpoint(path, max_bytes=size)
    error = refusal(path, max_bytes=size - 1)
    assert error.message == f"'{path}' has {size:,} bytes, more than the limit of {size - 1:,}"
    assert error.hint == "raise the setting checkpoint.max_bytes if you trust it"


# --- folders ---


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_network(float32(resnet_spec(blocks=1, ngf=4)), tmp_path)
    return tmp_path


def test_a_folder_whose_weights_are_missing_is_refused(folder: Path) -> None:
    (folder / "weights.safetensors").unlink()
    assert refusal(folder).message == f"there is no file '{folder / 'weights.safetensors'}'"


def test_a_folder_whose_spec_is_that_of_another_network_is_refused(folder: Path) -> None:
    (folder / "spec.json").write_text(resnet_spec(blocks=1, ngf=5).dumps())
    weights = folder / "weights.safetensors"
    error = refusal(folder)
    assert error.message == (
        f"'{weights}' looks like resnet_1blocks, but 'model.1.bias' has shape [4] where the layers around it need [5]"
    )
    (folder / "spec.json").write_text(patchgan_spec(ndf=4).dumps())
    assert refusal(folder).message.startswith(f"'{weights}' looks like patchgan, but is missing 'model.0.weight',")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "Expecting value: line 1 column 1 (char 0)"),
        ("{", "Expecting property name enclosed in double quotes: line 1 column 2 (char 1)"),
        ("[]", "this is no network description: its schema is not 'mggc-edge/spec/1'"),
        ("{}", "this is no network description: its schema is not 'mggc-edge/spec/1'"),
        (
            '{"schema": "mggc-edge/spec/1"}',
            "this network description has missing or unknown fields: bias, blocks, dropout, family, in_channels",
        ),
    ],
)
def test_a_folder_whose_spec_is_damaged_is_refused(folder: Path, text: str, why: str) -> None:
    (folder / "spec.json").write_text(text)
    assert refusal(folder).message == f"'{folder / 'spec.json'}' is damaged: {why}"


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"blocks": 0}, "blocks must be a whole number of at least 1, not 0"),
        ({"blocks": True}, "blocks must be a whole number of at least 1, not True"),
        ({"blocks": 10**6}, "more than 256 blocks or 16384 channels are more than any generator has"),
        ({"in_channels": 3.0}, "in_channels must be a whole number of at least 1, not 3.0"),
        ({"norm": "layer"}, "norm must be one of instance, instance_affine, batch, none, not 'layer'"),
        ({"norm": ["batch"]}, "norm must be one of instance, instance_affine, batch, none, not ['batch']"),
        ({"padding": "circular"}, "padding must be one of reflect, zeros, not 'circular'"),
        ({"bias": 1}, "bias must be true or false, not 1"),
        ({"family": 3}, "this network description has a field of the wrong type"),
        ({"widths": [4, 8]}, "this network description has a field of the wrong type"),
        ({"widths": {"stem": -1}}, "width of group 'stem' must be between 0 and 16384, not -1"),
        ({"widths": {"stem": 10**9}}, "width of group 'stem' must be between 0 and 16384, not 1000000000"),
        ({"colour": "red"}, "this network description has missing or unknown fields: colour"),
    ],
)
def test_a_folder_whose_spec_makes_no_sense_is_refused(folder: Path, change: dict[str, Any], why: str) -> None:
    document = json.loads((folder / "spec.json").read_text())
    (folder / "spec.json").write_text(json.dumps({**document, **change}))
    assert refusal(folder).message == f"'{folder / 'spec.json'}' is damaged: {why}"


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"family": "transformer"}, "there is no network family 'transformer'"),
        ({"widths": {"stem": 4}}, "this network has no channel group 'down1'"),
        ({"family": "unet"}, "a U-Net has between 2 and 12 halvings, not 1"),
        ({"blocks": 2}, "this network has no channel group 'block2.inner'"),
    ],
)
def test_a_folder_whose_spec_describes_no_network_is_refused(folder: Path, change: dict[str, Any], why: str) -> None:
    document = json.loads((folder / "spec.json").read_text())
    (folder / "spec.json").write_text(json.dumps({**document, **change}))
    assert refusal(folder).message == f"'{folder / 'weights.safetensors'}' describes no network: {why}"


def test_a_network_too_deep_for_any_picture_is_refused(tmp_path: Path) -> None:
    indices = [0, *range(2, 30, 3)]
    deep = {f"model.{index}.weight": torch.zeros(1, 1, 4, 4) for index in indices}
    path = saved(tmp_path / "net.pth", deep)
    assert refusal(path).message == f"'{path}' describes no network: a PatchGAN has at most 8 layers, not 9"


@pytest.mark.parametrize("content", [b"[" * 100_000, b"\xff\xfe\x00{}", b"1" * 5000])
def test_a_folder_whose_spec_cannot_be_read_is_refused(folder: Path, content: bytes) -> None:
    (folder / "spec.json").write_bytes(content)
    assert refusal(folder).message.startswith(f"'{folder / 'spec.json'}' is damaged: ")


def test_a_description_with_a_group_that_no_layer_writes_is_refused(tmp_path: Path) -> None:
    network = network_of(resnet_spec(blocks=1, ngf=2), dtype=torch.float32)
    save_network(network, tmp_path)
    document = json.loads((tmp_path / "spec.json").read_text())
    document["widths"]["ghost"] = 7
    (tmp_path / "spec.json").write_text(json.dumps(document))
    with pytest.raises(CheckpointError, match="a resnet of this depth has no channel group 'ghost'"):
        load_network(tmp_path)
