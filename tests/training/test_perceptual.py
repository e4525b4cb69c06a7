"""VGG16 and SqueezeNet-1.1 are rebuilt from a state dict or an ONNX file, and anything else is refused."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

from mggc_edge.backends.onnxruntime import OnnxRuntimeRunner
from mggc_edge.compiler.convolutions import read_convolutions
from mggc_edge.errors import ArtifactError, CheckpointError
from mggc_edge.training.perceptual import LAYOUTS, Layout, from_convolutions, read_perceptual
from tests.training.perceptual_files import SQUEEZENET, VGG16, state_of, write_onnx

MAX_BYTES = 2**30
PUBLISHED = Path(os.environ.get("DATA", "no-such-folder")) / "weights/squeezenet11_fp16_onnx/SqueezeNet_fp16.onnx"


def named(layout: Layout) -> str:
    return layout.name


def reference_vgg(state: dict[str, Tensor], x: Tensor) -> list[Tensor]:
    """As torchvision builds it: features.N, with pooling at 4, 9 and 16; the taps are features 3, 8, 15 and 22."""
    found = []
    for place in range(23):
        if f"features.{place}.weight" in state:
            x = nn.functional.conv2d(x, state[f"features.{place}.weight"], state[f"features.{place}.bias"], padding=1)
        elif place in (4, 9, 16):
            x = nn.functional.max_pool2d(x, 2, 2)
        else:
            x = x.relu()
        if place in (3, 8, 15, 22):
            found.append(x)
    return found


def reference_squeezenet(state: dict[str, Tensor], x: Tensor) -> list[Tensor]:
    """As torchvision builds squeezenet1_1: pooling at 2, 5 and 8; the taps are features 1, 4, 7 and 12."""

    def conv(name: str, value: Tensor, padding: int = 0, stride: int = 1) -> Tensor:
        weight, bias = state[f"{name}.weight"], state[f"{name}.bias"]
        return nn.functional.conv2d(value, weight, bias, padding=padding, stride=stride).relu()

    found = []
    for place in range(13):
        if place == 0:
            x = conv("features.0", x, stride=2)
        elif place in (2, 5, 8):
            x = nn.functional.max_pool2d(x, 3, 2, ceil_mode=True)
        elif place > 2:
            h = conv(f"features.{place}.squeeze", x)
            x = torch.cat([conv(f"features.{place}.expand1x1", h), conv(f"features.{place}.expand3x3", h, 1)], dim=1)
        if place in (1, 4, 7, 12):
            found.append(x)
    return found


@pytest.mark.parametrize("layout", LAYOUTS, ids=named)
def test_a_state_dict_gives_the_features_of_the_reference(layout: Layout, tmp_path: Path) -> None:
    state = state_of(layout)
    torch.save({"state_dict": state}, tmp_path / "net.pth")
    network = read_perceptual(tmp_path / "net.pth", max_bytes=MAX_BYTES)
    assert network.name == layout.name
    x = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    wanted = (reference_vgg if layout is VGG16 else reference_squeezenet)(state, x)
    found = network(x)
    assert len(found) == 4
    for a, b in zip(found, wanted, strict=True):
        torch.testing.assert_close(a, b)
    assert not any(parameter.requires_grad for parameter in network.parameters())


@pytest.mark.parametrize("how", [{}, {"swapped": True}, {"constants": True}, {"same": True}], ids=str)
@pytest.mark.parametrize("layout", LAYOUTS, ids=named)
def test_an_onnx_file_s_convolutions_are_found_by_their_order_and_shapes(
    layout: Layout, how: dict[str, bool], tmp_path: Path
) -> None:
    state = state_of(layout)
    path = write_onnx(tmp_path / "net.onnx", state, layout, **how)  # type: ignore[arg-type]
    network = from_convolutions(path, read_convolutions(path))
    assert network.name == layout.name
    halved = {key: value.half().float() for key, value in state.items()}
    x = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    wanted = (reference_vgg if layout is VGG16 else reference_squeezenet)(halved, x)
    torch.testing.assert_close(network(x)[3], wanted[3])


def test_a_network_of_another_layout_is_refused(tmp_path: Path) -> None:
    state = state_of(SQUEEZENET)
    torch.save({"conv1.weight": torch.zeros(2, 2)}, tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match=r"other\.pth' is no perceptual network that is known: it is missing"):
        read_perceptual(tmp_path / "other.pth", max_bytes=MAX_BYTES)
    torch.save({**state, "features.0.weight": torch.zeros(96, 3, 7, 7)}, tmp_path / "one_0.pth")  # SqueezeNet 1.0
    with pytest.raises(CheckpointError, match=r"'features\.0\.weight' has shape \[96, 3, 7, 7\], not \[64, 3, 3, 3\]"):
        read_perceptual(tmp_path / "one_0.pth", max_bytes=MAX_BYTES)
    path = tmp_path / "net.onnx"
    convolutions = read_convolutions(write_onnx(path, state, SQUEEZENET))
    for wrong in (convolutions[1:], convolutions[::-1], [], [*convolutions, *convolutions[:2]]):
        with pytest.raises(CheckpointError, match=r"net\.onnx' is no perceptual network that is known: its \d+ conv"):
            from_convolutions(path, wrong)


@pytest.mark.parametrize(
    ("layout", "how", "count"),
    [
        (VGG16, {"then": "BatchNormalization"}, 0),
        (VGG16, {"then": "LeakyRelu"}, 0),
        (VGG16, {"stride": 2}, 10),
        (SQUEEZENET, {"stride": 2}, 25),
        (SQUEEZENET, {"concat": (1, 0)}, 25),
    ],
    ids=str,
)
def test_a_graph_of_the_same_shapes_that_computes_something_else_is_refused(
    layout: Layout, how: dict[str, Any], count: int, tmp_path: Path
) -> None:
    path = write_onnx(tmp_path / "net.onnx", state_of(layout), layout, **how)
    with pytest.raises(CheckpointError) as error:
        from_convolutions(path, read_convolutions(path))
    assert error.value.message == (
        f"'{path}' is no perceptual network that is known: its {count} convolutions with a bias and a ReLU are not "
        "those of VGG16 or SqueezeNet-1.1"
    )


@pytest.mark.skipif(not PUBLISHED.is_file(), reason="$DATA has no weights/squeezenet11_fp16_onnx")
def test_the_published_squeezenet_gives_the_features_that_onnx_runtime_finds(tmp_path: Path) -> None:
    model = onnx.load(PUBLISHED)
    last = next(node.output[0] for node in reversed(model.graph.node) if node.op_type == "Concat")
    kind = model.graph.input[0].type.tensor_type.elem_type
    del model.graph.output[:]
    model.graph.output.append(onnx.helper.make_tensor_value_info(last, kind, None))
    onnx.save(model, tmp_path / "cut.onnx")
    x = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(1)) * 50
    with OnnxRuntimeRunner(tmp_path / "cut.onnx") as runner:
        given = x.numpy().astype(runner.inputs[0].dtype)
        wanted = torch.from_numpy(runner.infer({runner.inputs[0].name: given})[last]).float()
    found = from_convolutions(PUBLISHED, read_convolutions(PUBLISHED))(x)[3]
    assert found.shape == wanted.shape
    assert (found - wanted).abs().mean() < 0.01 * wanted.abs().mean()


def test_weights_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    state = state_of(SQUEEZENET)
    state["features.0.bias"][3] = float("nan")
    torch.save(state, tmp_path / "net.pth")
    with pytest.raises(CheckpointError, match="NaN or infinite"):
        read_perceptual(tmp_path / "net.pth", max_bytes=MAX_BYTES)
    path = write_onnx(tmp_path / "net.onnx", state, SQUEEZENET)
    with pytest.raises(CheckpointError, match="weights that are NaN or infinite"):
        from_convolutions(path, read_convolutions(path))


def test_a_file_that_is_no_onnx_is_refused(tmp_path: Path) -> None:
    (tmp_path / "net.onnx").write_bytes(np.arange(200, dtype=np.uint8).tobytes())
    with pytest.raises(ArtifactError):
        read_convolutions(tmp_path / "net.onnx")
