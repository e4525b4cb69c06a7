"""The FID's network has the published layers, computes what plain torch does, and refuses every other file."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from mggc_edge.artifacts import sha256_of
from mggc_edge.errors import ArtifactError, CheckpointError, PictureError
from mggc_edge.models import inception
from mggc_edge.models.inception import INPUT, ROWS, Inception, as_input, inception_shapes, run
from tests.models.inception_layers import published_shapes

HINT = "it is the file pt_inception-2015-12-05-6726825d.pth of pytorch-fid"


@functools.cache
def weights() -> dict[str, Tensor]:
    """Random weights under which values keep their size through the network."""
    generator = torch.Generator().manual_seed(0)
    state = {}
    for key, shape in inception_shapes().items():
        noise = torch.randn(shape, generator=generator)
        if key.endswith("conv.weight"):
            state[key] = noise * math.sqrt(2 / math.prod(shape[1:]))
        elif key.endswith("running_var"):
            state[key] = 1 + 0.2 * noise.abs()
        else:
            state[key] = 0.1 * noise + (1 if key.endswith("bn.weight") else 0)
    return state


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A complete file in half precision, with counters as PyTorch writes them."""
    path = tmp_path_factory.mktemp("inception") / "random.pth"
    counters = {f"{row.name}.bn.num_batches_tracked": torch.tensor(7) for row in ROWS if row.op == "conv"}
    torch.save({**{key: value.half() for key, value in weights().items()}, **counters}, path)
    return path


def picture(seed: int, size: tuple[int, int] = (40, 30)) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3))
    return Image.fromarray(pixels.astype(np.uint8))


# --- layers ---


def test_every_tensor_has_the_published_name_and_shape() -> None:
    assert inception_shapes() == published_shapes()


def test_tensors_and_parameters_are_as_many_as_published() -> None:
    shapes = inception_shapes()
    learnt = {key: math.prod(shape) for key, shape in shapes.items() if ".running_" not in key}
    # 94 convolutions with 5 tensors each and the classifier; with 1000 classes the parameters are the well-known
    # 23,834,568 of Inception v3 without auxiliary classifier.
    assert (len(shapes), len(learnt)) == (94 * 5 + 2, 94 * 3 + 2)
    assert sum(learnt.values()) == 23_834_568 + 8 * 2049 == 23_850_960


def test_maps_shrink_to_8_by_8_positions_and_2048_channels() -> None:
    sizes = {}
    with torch.inference_mode():
        for number, row in enumerate(ROWS):
            if row.name in ("pool1", "pool2", "Mixed_5d", "Mixed_6e", "Mixed_7c"):
                sizes[row.name] = tuple(run(weights(), torch.zeros(1, 3, 299, 299), ROWS[: number + 1]).shape[1:])
    assert sizes == {
        "pool1": (64, 73, 73), "pool2": (192, 35, 35), "Mixed_5d": (288, 35, 35), "Mixed_6e": (768, 17, 17),
        "Mixed_7c": (2048, 8, 8),
    }  # fmt: skip


# --- numbers, against modules of plain torch ---


def unit(state: dict[str, Tensor], name: str, **how: Any) -> Callable[[Tensor], Tensor]:
    """Convolution, batch norm and ReLU as modules, in evaluation mode."""
    weight = state[f"{name}.conv.weight"]
    conv = nn.Conv2d(weight.shape[1], weight.shape[0], (weight.shape[2], weight.shape[3]), bias=False, **how)
    norm = nn.BatchNorm2d(weight.shape[0], eps=0.001)
    conv.load_state_dict({"weight": weight})
    norm.load_state_dict({key: state[f"{name}.bn.{key}"] for key in ("weight", "bias", "running_mean", "running_var")},
                         strict=False)  # fmt: skip
    return nn.Sequential(conv, norm, nn.ReLU()).eval()


def block(state: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    """What the rows of one block give."""
    rows = [row for row in ROWS if row.name == name or row.name.startswith(f"{name}.")]
    own = {row.name for row in rows}
    rows = [replace(row, reads=tuple(read if read in own else INPUT for read in row.reads)) for row in rows]
    return run(state, x, rows)


@torch.inference_mode()
def test_a_block_of_35_positions_is_that_of_plain_torch() -> None:
    state, x = weights(), torch.randn(2, 192, 9, 9, generator=torch.Generator().manual_seed(1))
    p = "Mixed_5b."
    # The average does not count the padding: divide by how many of the nine values are inside.
    ones = F.conv2d(torch.ones(1, 1, 9, 9), torch.ones(1, 1, 3, 3), padding=1)
    average = F.avg_pool2d(x, 3, 1, 1) * 9 / ones
    expected = torch.cat(
        [
            unit(state, p + "branch1x1")(x),
            unit(state, p + "branch5x5_2", padding=2)(unit(state, p + "branch5x5_1")(x)),
            unit(state, p + "branch3x3dbl_3", padding=1)(
                unit(state, p + "branch3x3dbl_2", padding=1)(unit(state, p + "branch3x3dbl_1")(x))
            ),
            unit(state, p + "branch_pool")(average),
        ],
        dim=1,
    )
    torch.testing.assert_close(block(state, "Mixed_5b", x), expected, rtol=1e-5, atol=1e-5)


@torch.inference_mode()
def test_a_block_of_17_positions_is_that_of_plain_torch() -> None:
    state, x = weights(), torch.randn(1, 768, 8, 8, generator=torch.Generator().manual_seed(1))
    p, flat, tall = "Mixed_6c.", {"padding": (0, 3)}, {"padding": (3, 0)}
    seven = unit(state, p + "branch7x7_3", **tall)(
        unit(state, p + "branch7x7_2", **flat)(unit(state, p + "branch7x7_1")(x))
    )
    double = unit(state, p + "branch7x7dbl_1")(x)
    for number, how in ((2, tall), (3, flat), (4, tall), (5, flat)):
        double = unit(state, f"{p}branch7x7dbl_{number}", **how)(double)
    pooled = unit(state, p + "branch_pool")(F.avg_pool2d(x, 3, 1, 1, count_include_pad=False))
    expected = torch.cat([unit(state, p + "branch1x1")(x), seven, double, pooled], dim=1)
    torch.testing.assert_close(block(state, "Mixed_6c", x), expected, rtol=1e-5, atol=1e-5)


@torch.inference_mode()
@pytest.mark.parametrize(("name", "channels"), [("Mixed_7b", 1280), ("Mixed_7c", 2048)])
def test_the_last_block_pools_the_maximum_and_the_one_before_the_average(name: str, channels: int) -> None:
    state, x = weights(), torch.randn(1, channels, 4, 4, generator=torch.Generator().manual_seed(1))
    p, flat, tall = f"{name}.", {"padding": (0, 1)}, {"padding": (1, 0)}
    single = unit(state, p + "branch3x3_1")(x)
    double = unit(state, p + "branch3x3dbl_2", padding=1)(unit(state, p + "branch3x3dbl_1")(x))
    pooled = F.max_pool2d(x, 3, 1, 1) if name == "Mixed_7c" else F.avg_pool2d(x, 3, 1, 1, count_include_pad=False)
    expected = torch.cat(
        [
            unit(state, p + "branch1x1")(x),
            unit(state, p + "branch3x3_2a", **flat)(single),
            unit(state, p + "branch3x3_2b", **tall)(single),
            unit(state, p + "branch3x3dbl_3a", **flat)(double),
            unit(state, p + "branch3x3dbl_3b", **tall)(double),
            unit(state, p + "branch_pool")(pooled),
        ],
        dim=1,
    )
    torch.testing.assert_close(block(state, name, x), expected, rtol=1e-5, atol=1e-5)


@torch.inference_mode()
@pytest.mark.parametrize(("name", "channels"), [("Mixed_6a", 288), ("Mixed_7a", 768)])
def test_the_blocks_between_halve_without_padding(name: str, channels: int) -> None:
    state, x = weights(), torch.randn(1, channels, 9, 9, generator=torch.Generator().manual_seed(1))
    p = f"{name}."
    if name == "Mixed_6a":
        first = unit(state, p + "branch3x3", stride=2)(x)
        second = unit(state, p + "branch3x3dbl_2", padding=1)(unit(state, p + "branch3x3dbl_1")(x))
        second = unit(state, p + "branch3x3dbl_3", stride=2)(second)
    else:
        first = unit(state, p + "branch3x3_2", stride=2)(unit(state, p + "branch3x3_1")(x))
        second = unit(state, p + "branch7x7x3_2", padding=(0, 3))(unit(state, p + "branch7x7x3_1")(x))
        second = unit(state, p + "branch7x7x3_3", padding=(3, 0))(second)
        second = unit(state, p + "branch7x7x3_4", stride=2)(second)
    expected = torch.cat([first, second, F.max_pool2d(x, 3, 2)], dim=1)
    torch.testing.assert_close(block(state, name, x), expected, rtol=1e-5, atol=1e-5)


# --- pictures ---


def test_a_picture_of_the_networks_size_is_only_brought_to_its_range() -> None:
    flat = Image.new("RGB", (299, 299), (0, 255, 51))
    assert as_input(flat)[0, :, 7, 9].tolist() == pytest.approx([-1, 1, -0.6], abs=1e-6)


def test_a_picture_is_resized_between_pixel_centres_without_antialiasing() -> None:
    small = Image.fromarray(np.array([[[0] * 3, [255] * 3]], np.uint8))  # two columns
    row = as_input(small)[0, 0, 150].double().numpy()
    centres = np.clip((np.arange(299) + 0.5) * 2 / 299 - 0.5, 0, 1)  # of the columns 0 and 1
    np.testing.assert_allclose(row, 2 * centres - 1, atol=1e-5)
    large = Image.fromarray((np.indices((598, 598))[1] % 2 * 255).astype(np.uint8))  # one-pixel stripes, halved
    np.testing.assert_allclose(as_input(large).numpy(), 0, atol=1e-6)


def test_features_are_the_means_of_the_last_map_whatever_is_read_at_a_time(file: Path) -> None:
    pictures = [picture(0), picture(1, (20, 50)), picture(2).convert("L")]
    with Inception(file) as network:
        found = network.features(iter(pictures))
        np.testing.assert_allclose(network.features(pictures[2:]), found[2:], rtol=1e-4, atol=1e-5)
    assert (found.shape, found.dtype.name) == ((3, 2048), "float32")
    with torch.inference_mode():
        state = {key: value.half().float() for key, value in weights().items()}
        expected = run(state, as_input(pictures[1])).mean(dim=(2, 3))[0].numpy()
    np.testing.assert_allclose(found[1], expected, rtol=1e-4, atol=1e-5)


def test_no_picture_is_an_error(file: Path) -> None:
    with Inception(file) as network, pytest.raises(PictureError) as caught:
        network.features([])
    assert caught.value.message == "there are no pictures to measure with random (Inception layout)"


# --- which file it is ---


def test_only_the_published_bytes_carry_the_published_name(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = Inception(file)
    assert (other.published, other.name) == (False, "random (Inception layout)")
    monkeypatch.setattr(inception, "PUBLISHED_SHA256", sha256_of(file))
    own = Inception(file)
    assert (own.published, own.name) == (True, "Inception 2015-12-05")


def saved(folder: Path, state: object) -> Path:
    torch.save(state, folder / "x.pth")
    return folder / "x.pth"


def refused(path: Path) -> tuple[str, str | None]:
    with pytest.raises(CheckpointError) as caught:
        Inception(path)
    return caught.value.message.replace(f"'{path}'", "FILE"), caught.value.hint


def test_other_networks_are_refused(tmp_path: Path) -> None:
    names = list(inception_shapes())
    tiny: dict[str, object] = {name: torch.zeros(1) for name in names}
    right = torch.zeros(32, 3, 3, 3)
    what = "FILE is not the Inception network of the FID:"
    first, second, third, fourth = (f"'{name}'" for name in names[:4])
    cases: dict[str, Mapping[str, object]] = {
        f"{what} it is missing {first}, {second}, {third}, {fourth} and {len(names) - 4} more and has 'a'": {
            "a": torch.zeros(1)
        },
        f"{what} it is missing {second}": {**tiny, names[1]: {"weight": torch.zeros(1)}},
        f"{what} {first} has shape [1], not [32, 3, 3, 3]": tiny,
        f"{what} {second} has shape [31], not [32]": {**tiny, names[0]: right, names[1]: torch.zeros(31)},
    }
    for message, state in cases.items():
        assert refused(saved(tmp_path, state)) == (message, HINT)
    assert refused(saved(tmp_path, {**tiny, names[0]: right.to(torch.int32)})) == (
        f"FILE: {first} has element type int32, but weights are floats",
        None,
    )


def test_the_usual_inception_with_more_in_it_is_refused(file: Path, tmp_path: Path) -> None:
    state = torch.load(file, weights_only=True)
    path = saved(tmp_path, {**state, "AuxLogits.conv0.conv.weight": torch.zeros(1)})
    assert refused(path) == (
        "FILE is not the Inception network of the FID: it has 'AuxLogits.conv0.conv.weight'",
        HINT,
    )


def test_a_file_that_is_missing_or_would_run_code_is_refused(tmp_path: Path) -> None:
    assert refused(tmp_path / "none.pth") == (f"there is no file '{tmp_path / 'none.pth'}'".replace(
        f"'{tmp_path / 'none.pth'}'", "FILE"), None)  # fmt: skip
    message, _ = refused(saved(tmp_path, {"a": Path("x")}))
    assert message.startswith("FILE: refused: loading this file would run or build 'pathlib.")


def test_weights_that_are_not_finite_are_refused_when_it_is_opened(tmp_path: Path) -> None:
    state = {key: value.half() for key, value in weights().items()}
    state["Mixed_7c.branch_pool.bn.bias"][3] = math.nan
    network = Inception(saved(tmp_path, state))
    with pytest.raises(CheckpointError, match=r"'Mixed_7c.branch_pool.bn.bias' has NaN or infinite values"):
        network.__enter__()


def test_features_that_are_not_finite_are_an_error(tmp_path: Path) -> None:
    state = {key: value.half() for key, value in weights().items()}
    state["Conv2d_1a_3x3.bn.running_var"][:] = -1  # whose root is none
    with (
        Inception(saved(tmp_path, state)) as network,
        pytest.raises(ArtifactError, match="not finite"),
    ):
        network.features([picture(0)])
