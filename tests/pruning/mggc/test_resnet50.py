"""The ResNet-50 is the published one, reads the files of torchvision and SwAV, and refuses everything else."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from mggc_edge.errors import CheckpointError
from mggc_edge.pruning.mggc.resnet50 import ResNet50
from mggc_edge.pruning.mggc.resnet50_file import load_resnet50, read_resnet50

MAX_BYTES = 2**30
Shapes = dict[str, tuple[int, ...]]
State = dict[str, Tensor]


def norm(name: str, width: int) -> Shapes:
    vectors = ("weight", "bias", "running_mean", "running_var")
    return {**{f"{name}.{part}": (width,) for part in vectors}, f"{name}.num_batches_tracked": ()}


def published_trunk() -> Shapes:
    """Names and shapes by the published table: 7 x 7, 64; then blocks of 1 x 1, 3 x 3, 1 x 1."""
    shapes: Shapes = {"conv1.weight": (64, 3, 7, 7), **norm("bn1", 64)}
    table = (("layer1", 3, 64, 64, 256), ("layer2", 4, 256, 128, 512), ("layer3", 6, 512, 256, 1024),
             ("layer4", 3, 1024, 512, 2048))  # fmt: skip
    for layer, blocks, before, width, after in table:
        for block in range(blocks):
            name = f"{layer}.{block}"
            shapes[f"{name}.conv1.weight"] = (width, before if block == 0 else after, 1, 1)
            shapes |= norm(f"{name}.bn1", width)
            shapes[f"{name}.conv2.weight"] = (width, width, 3, 3)
            shapes |= norm(f"{name}.bn2", width)
            shapes[f"{name}.conv3.weight"] = (after, width, 1, 1)
            shapes |= norm(f"{name}.bn3", after)
            if block == 0:
                shapes[f"{name}.downsample.0.weight"] = (after, before, 1, 1)
                shapes |= norm(f"{name}.downsample.1", after)
    return shapes


CLASSES: Shapes = {"fc.weight": (1000, 2048), "fc.bias": (1000,)}
SWAV: Shapes = {
    "projection_head.0.weight": (2048, 2048), "projection_head.0.bias": (2048,), **norm("projection_head.1", 2048),
    "projection_head.3.weight": (128, 2048), "projection_head.3.bias": (128,), "prototypes.weight": (3000, 128),
}  # fmt: skip


def is_parameter(name: str) -> bool:
    return name.rpartition(".")[2] in ("weight", "bias")


def drawn(shapes: Shapes) -> State:
    """Weights of the usual size, in half precision to keep files small."""
    generator = torch.Generator().manual_seed(0)
    state: State = {}
    for name, shape in shapes.items():
        if not shape:
            state[name] = torch.tensor(7)
        elif len(shape) == 1:
            low = 0.5 if name.endswith(("running_var", "weight")) else -0.1
            state[name] = (torch.rand(shape, generator=generator) * (0.2 if low < 0 else 1) + low).half()
        else:
            fan = math.prod(shape[1:])
            state[name] = (torch.randn(shape, generator=generator) * math.sqrt(2 / fan)).half()
    return state


@pytest.fixture(scope="module")
def torchvision_state() -> State:
    return drawn({**published_trunk(), **CLASSES})


def tiny(shapes: Shapes) -> State:
    return {name: torch.zeros((1,) * len(shape), dtype=torch.float16) for name, shape in shapes.items()}


def reference(state: State, x: Tensor) -> Tensor:
    """The network as a function of its weights, in evaluation mode."""

    def normed(x: Tensor, name: str) -> Tensor:
        mean, var, weight, bias = (
            state[f"{name}.{n}"].float() for n in ("running_mean", "running_var", "weight", "bias")
        )
        return F.batch_norm(x, mean, var, weight, bias)

    def conv(x: Tensor, name: str, stride: int = 1, padding: int = 0) -> Tensor:
        return F.conv2d(x, state[f"{name}.weight"].float(), stride=stride, padding=padding)

    x = F.max_pool2d(F.relu(normed(conv(x, "conv1", 2, 3), "bn1")), 3, 2, 1)
    for layer, blocks in (("layer1", 3), ("layer2", 4), ("layer3", 6), ("layer4", 3)):
        for block in range(blocks):
            name = f"{layer}.{block}"
            stride = 2 if block == 0 and layer != "layer1" else 1
            y = F.relu(normed(conv(x, f"{name}.conv1"), f"{name}.bn1"))
            y = F.relu(normed(conv(y, f"{name}.conv2", stride, 1), f"{name}.bn2"))
            y = normed(conv(y, f"{name}.conv3"), f"{name}.bn3")
            if block == 0:
                x = normed(conv(x, f"{name}.downsample.0", stride), f"{name}.downsample.1")
            x = F.relu(x + y)
    return F.adaptive_avg_pool2d(x, 1).flatten(1)


def test_names_and_shapes_are_the_published_ones() -> None:
    expected = published_trunk()
    assert len(expected) == 318
    with torch.device("meta"):
        network = ResNet50()
    assert {name: tuple(value.shape) for name, value in network.state_dict().items()} == expected
    assert sum(math.prod(shape) for name, shape in expected.items() if is_parameter(name)) == 23_508_032
    whole = {**expected, **CLASSES}
    assert sum(math.prod(shape) for name, shape in whole.items() if is_parameter(name)) == 25_557_032
    assert {f"projection_head.{n}": tuple(v.shape) for n, v in network.projection().state_dict().items()} == {
        name: shape for name, shape in SWAV.items() if name.startswith("projection_head.")
    }


def test_a_torchvision_file_gives_the_published_function_of_pictures(torchvision_state: State, tmp_path: Path) -> None:
    torch.save(torchvision_state, path := tmp_path / "resnet50.pth")
    network = ResNet50(low=0.0, high=255.0)
    assert load_resnet50(read_resnet50(path, max_bytes=MAX_BYTES), network) is None
    pictures = torch.rand(2, 3, 64, 48, generator=torch.Generator().manual_seed(1)) * 255
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    expected = reference(torchvision_state, (pictures / 255 - mean) / std)
    with torch.inference_mode():
        found = network.eval()(pictures)
    assert tuple(found.shape) == (2, 2048)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max()))


@pytest.mark.parametrize(
    ("prefix", "wrap"),
    [
        (
            "module.",
            lambda state: {"epoch": 3, "state_dict": state, "optimizer": {"state": {0: state["module.conv1.weight"]}}},
        ),
        ("module.", lambda state: state),
        ("", lambda state: {name: value for name, value in state.items() if not name.endswith("num_batches_tracked")}),
    ],
    ids=["training checkpoint", "released", "without counters"],
)
def test_a_swav_file_gives_trunk_and_projection_head(prefix: str, wrap: Callable[[State], Any], tmp_path: Path) -> None:
    state = drawn({**published_trunk(), **SWAV})
    torch.save(wrap({prefix + name: value for name, value in state.items()}), path := tmp_path / "swav.pth.tar")
    network = ResNet50()
    head = load_resnet50(read_resnet50(path, max_bytes=MAX_BYTES), network)
    assert head is not None
    for found, start in ((network.state_dict(), ""), (head.state_dict(), "projection_head.")):
        for name, value in found.items():
            if not name.endswith("num_batches_tracked"):
                assert torch.equal(value, state[start + name].float()), name


def test_several_sets_of_prototypes_and_no_head_at_all_are_read(tmp_path: Path) -> None:
    several = {name: shape for name, shape in SWAV.items() if name != "prototypes.weight"}
    several |= {"prototypes.prototypes0.weight": (30, 128), "prototypes.prototypes1.weight": (30, 128)}
    for more, heads in ((several, 8), ({}, 0)):
        state = {name: torch.zeros(shape, dtype=torch.float16) for name, shape in {**published_trunk(), **more}.items()}
        torch.save(state, path := tmp_path / "net.pth")
        file = read_resnet50(path, max_bytes=MAX_BYTES)
        assert (len(file.trunk), len(file.head)) == (265, heads)


HINT = "give a ResNet-50 of torchvision, or one that SwAV trained (its projection head has the size 2048)"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("layer3.5.bn2.weight"), "is no ResNet-50: it is missing 'layer3.5.bn2.weight'"),
        (
            lambda s: s.update({"layer3.6.conv1.weight": torch.zeros(1, 1, 1, 1)}),
            "is no ResNet-50: it has 'layer3.6.conv1.weight'",
        ),
        (lambda s: s.update({"projection_head.0.weight": torch.zeros(1, 1)}), "is no ResNet-50: it is missing "  # noqa: ISC004
         "'projection_head.0.bias', 'projection_head.1.weight', 'projection_head.1.bias', "
         "'projection_head.1.running_mean' and 3 more"),
        (lambda s: None, "is no ResNet-50: 'conv1.weight' has shape [1, 1, 1, 1], not [64, 3, 7, 7]"),
    ],
)  # fmt: skip
def test_a_file_of_another_layout_is_refused(change: Callable[[State], Any], message: str, tmp_path: Path) -> None:
    state = tiny({**published_trunk(), **CLASSES})
    change(state)
    torch.save(state, path := tmp_path / "net.pth")
    with pytest.raises(CheckpointError) as caught:
        read_resnet50(path, max_bytes=MAX_BYTES)
    assert (caught.value.message, caught.value.hint) == (f"'{path}' {message}", HINT)


def test_a_name_that_is_there_twice_and_weights_that_are_no_floats_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "net.pth"
    torch.save({"conv1.weight": torch.zeros(1), "module.conv1.weight": torch.zeros(1)}, path)
    with pytest.raises(CheckpointError, match=r"has the tensor 'conv1\.weight' twice"):
        read_resnet50(path, max_bytes=MAX_BYTES)
    state = tiny(published_trunk())
    torch.save({**state, "conv1.weight": torch.zeros(64, 3, 7, 7, dtype=torch.int8)}, path)
    with pytest.raises(CheckpointError, match=r"'conv1\.weight' has element type int8, but weights are floats"):
        read_resnet50(path, max_bytes=MAX_BYTES)
    with pytest.raises(CheckpointError, match="more than the limit of 1,000"):
        read_resnet50(path, max_bytes=1000)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("conv1.weight", math.nan, "has NaN or infinite values"),
        ("bn1.running_var", -1.0, "has a variance below 0"),
    ],
)
def test_values_that_no_network_has_are_refused(
    torchvision_state: State, name: str, value: float, message: str, tmp_path: Path
) -> None:
    broken = torchvision_state[name].clone()
    broken.view(-1)[3] = value
    torch.save({**torchvision_state, name: broken}, path := tmp_path / "net.pth")
    with pytest.raises(CheckpointError) as caught:
        load_resnet50(read_resnet50(path, max_bytes=MAX_BYTES), ResNet50())
    assert caught.value.message == f"'{path}': '{name}' {message}"
    assert caught.value.hint is not None
    assert caught.value.hint.endswith("take an earlier checkpoint")


def test_a_pickle_that_would_run_code_is_refused(tmp_path: Path) -> None:
    torch.save(torch.nn.Linear(1, 1), path := tmp_path / "net.pth")
    with pytest.raises(CheckpointError, match="refused: loading this file would run or build"):
        read_resnet50(path, max_bytes=MAX_BYTES)


@pytest.mark.parametrize(("color", "channels"), [("L", [0, 0, 0]), ("BGR", [2, 1, 0]), ("RGBA", [0, 1, 2])])
def test_pictures_of_every_colour_order_become_rgb_and_large_ones_are_reduced(color: str, channels: list[int]) -> None:
    with torch.device("meta"):
        network = ResNet50(color, low=0, high=1)
    values = torch.rand(1, {"L": 1, "BGR": 3, "RGBA": 4}[color], 448, 30)
    prepared = network.prepare(values)
    assert tuple(prepared.shape) == (1, 3, 224, 30)
    torch.testing.assert_close(prepared, F.avg_pool2d(values, (2, 1))[:, channels] * 2 - 1)
