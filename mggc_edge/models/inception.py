"""The Inception network of the FID: Szegedy et al. 2015 (v3) as Google trained it for TensorFlow, 2015-12-05.

Rebuilt from one table of rows, with the tensor names of its well-known PyTorch port, the file
`pt_inception-2015-12-05-6726825d.pth` of pytorch-fid and torch-fidelity. It differs from the usual Inception v3 in
three ways: 1008 classes, average pooling that does not count the padding, and maximum pooling in the last block.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from PIL import Image
from torch import Tensor

from mggc_edge.artifacts import sha256_of
from mggc_edge.decoding import as_mode
from mggc_edge.errors import ArtifactError, PictureError
from mggc_edge.models.checkpoint import MAX_BYTES
from mggc_edge.models.state_file import read_state_file
from mggc_edge.models.tensor_layout import check_layout
from mggc_edge.models.tensor_values import check_finite, read_values
from mggc_edge.tensors import FloatArray

PUBLISHED_SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"
PUBLISHED_NAME = "Inception 2015-12-05"
SIDE = 299  # pixels of the input
FEATURES, CLASSES = 2048, 1008
NORM_EPSILON = 1e-3
BATCH = 8  # pictures in memory at a time
INPUT = "picture"


@dataclass(frozen=True)
class Row:
    """One step of the network: what it reads and makes.

    Attributes:
        op: "conv": convolution without bias, batch norm, ReLU. "max", "average": pooling over 3 x 3. "join": its
            inputs' channels one after another.
        reads: names of rows, or INPUT.
        channels: of its output.
        kernel, padding: (height, width) of a convolution.
        stride: also of a pooling; a pooling with stride 1 is padded by 1.
    """

    name: str
    op: Literal["conv", "max", "average", "join"]
    reads: tuple[str, ...]
    channels: int
    kernel: tuple[int, int] = (1, 1)
    stride: int = 1
    padding: tuple[int, int] = (0, 0)


def _conv(name: str, reads: str, channels: int, kernel: str = "1x1", *, stride: int = 1, valid: bool = False) -> Row:
    """Return a convolution; `valid`: without padding, otherwise the size stays at stride 1."""
    height, width = map(int, kernel.split("x"))
    padding = (0, 0) if valid else (height // 2, width // 2)
    return Row(name, "conv", (reads,), channels, (height, width), stride, padding)


def _block(name: str, reads: str, rows: Iterable[Row], joined: str) -> list[Row]:
    """Return a block's rows; names within it are relative, "" is what goes in, `joined` names what comes out."""
    prefix = f"{name}."
    inside = [
        replace(row, name=prefix + row.name, reads=tuple(prefix + read if read else reads for read in row.reads))
        for row in rows
    ]
    channels = {row.name: row.channels for row in inside}
    outputs = tuple(prefix + part for part in joined.split())
    return [*inside, Row(name, "join", outputs, sum(channels[output] for output in outputs))]


def _block_5(name: str, reads: str, inputs: int, pooled: int) -> list[Row]:
    """35 x 35 positions: 1x1, 5x5, twice 3x3, average."""
    rows = (
        _conv("branch1x1", "", 64),
        _conv("branch5x5_1", "", 48),
        _conv("branch5x5_2", "branch5x5_1", 64, "5x5"),
        _conv("branch3x3dbl_1", "", 64),
        _conv("branch3x3dbl_2", "branch3x3dbl_1", 96, "3x3"),
        _conv("branch3x3dbl_3", "branch3x3dbl_2", 96, "3x3"),
        Row("pool", "average", ("",), inputs),
        _conv("branch_pool", "pool", pooled),
    )
    return _block(name, reads, rows, "branch1x1 branch5x5_2 branch3x3dbl_3 branch_pool")


def _block_6a(name: str, reads: str, inputs: int) -> list[Row]:
    """35 x 35 to 17 x 17 positions."""
    rows = (
        _conv("branch3x3", "", 384, "3x3", stride=2, valid=True),
        _conv("branch3x3dbl_1", "", 64),
        _conv("branch3x3dbl_2", "branch3x3dbl_1", 96, "3x3"),
        _conv("branch3x3dbl_3", "branch3x3dbl_2", 96, "3x3", stride=2, valid=True),
        Row("pool", "max", ("",), inputs, stride=2),
    )
    return _block(name, reads, rows, "branch3x3 branch3x3dbl_3 pool")


def _block_6(name: str, reads: str, inner: int) -> list[Row]:
    """17 x 17 positions, 768 channels: 1x1, 7x7 and twice 7x7 in two halves each, average."""
    rows = (
        _conv("branch1x1", "", 192),
        _conv("branch7x7_1", "", inner),
        _conv("branch7x7_2", "branch7x7_1", inner, "1x7"),
        _conv("branch7x7_3", "branch7x7_2", 192, "7x1"),
        _conv("branch7x7dbl_1", "", inner),
        _conv("branch7x7dbl_2", "branch7x7dbl_1", inner, "7x1"),
        _conv("branch7x7dbl_3", "branch7x7dbl_2", inner, "1x7"),
        _conv("branch7x7dbl_4", "branch7x7dbl_3", inner, "7x1"),
        _conv("branch7x7dbl_5", "branch7x7dbl_4", 192, "1x7"),
        Row("pool", "average", ("",), 768),
        _conv("branch_pool", "pool", 192),
    )
    return _block(name, reads, rows, "branch1x1 branch7x7_3 branch7x7dbl_5 branch_pool")


def _block_7a(name: str, reads: str) -> list[Row]:
    """17 x 17 to 8 x 8 positions."""
    rows = (
        _conv("branch3x3_1", "", 192),
        _conv("branch3x3_2", "branch3x3_1", 320, "3x3", stride=2, valid=True),
        _conv("branch7x7x3_1", "", 192),
        _conv("branch7x7x3_2", "branch7x7x3_1", 192, "1x7"),
        _conv("branch7x7x3_3", "branch7x7x3_2", 192, "7x1"),
        _conv("branch7x7x3_4", "branch7x7x3_3", 192, "3x3", stride=2, valid=True),
        Row("pool", "max", ("",), 768, stride=2),
    )
    return _block(name, reads, rows, "branch3x3_2 branch7x7x3_4 pool")


def _block_7(name: str, reads: str, inputs: int, pooling: Literal["max", "average"]) -> list[Row]:
    """8 x 8 positions: 1x1, two branches that end in 1x3 beside 3x1, pooling."""
    rows = (
        _conv("branch1x1", "", 320),
        _conv("branch3x3_1", "", 384),
        _conv("branch3x3_2a", "branch3x3_1", 384, "1x3"),
        _conv("branch3x3_2b", "branch3x3_1", 384, "3x1"),
        _conv("branch3x3dbl_1", "", 448),
        _conv("branch3x3dbl_2", "branch3x3dbl_1", 384, "3x3"),
        _conv("branch3x3dbl_3a", "branch3x3dbl_2", 384, "1x3"),
        _conv("branch3x3dbl_3b", "branch3x3dbl_2", 384, "3x1"),
        Row("pool", pooling, ("",), inputs),
        _conv("branch_pool", "pool", 192),
    )
    joined = "branch1x1 branch3x3_2a branch3x3_2b branch3x3dbl_3a branch3x3dbl_3b branch_pool"
    return _block(name, reads, rows, joined)


ROWS: tuple[Row, ...] = (
    _conv("Conv2d_1a_3x3", INPUT, 32, "3x3", stride=2, valid=True),
    _conv("Conv2d_2a_3x3", "Conv2d_1a_3x3", 32, "3x3", valid=True),
    _conv("Conv2d_2b_3x3", "Conv2d_2a_3x3", 64, "3x3"),
    Row("pool1", "max", ("Conv2d_2b_3x3",), 64, stride=2),
    _conv("Conv2d_3b_1x1", "pool1", 80),
    _conv("Conv2d_4a_3x3", "Conv2d_3b_1x1", 192, "3x3", valid=True),
    Row("pool2", "max", ("Conv2d_4a_3x3",), 192, stride=2),
    *_block_5("Mixed_5b", "pool2", 192, 32),
    *_block_5("Mixed_5c", "Mixed_5b", 256, 64),
    *_block_5("Mixed_5d", "Mixed_5c", 288, 64),
    *_block_6a("Mixed_6a", "Mixed_5d", 288),
    *_block_6("Mixed_6b", "Mixed_6a", 128),
    *_block_6("Mixed_6c", "Mixed_6b", 160),
    *_block_6("Mixed_6d", "Mixed_6c", 160),
    *_block_6("Mixed_6e", "Mixed_6d", 192),
    *_block_7a("Mixed_7a", "Mixed_6e"),
    *_block_7("Mixed_7b", "Mixed_7a", 1280, "average"),
    *_block_7("Mixed_7c", "Mixed_7b", 2048, "max"),
)


def inception_shapes() -> dict[str, tuple[int, ...]]:
    """Return the shape of every tensor that the file must hold, by its key."""
    channels = {INPUT: 3, **{row.name: row.channels for row in ROWS}}
    shapes: dict[str, tuple[int, ...]] = {}
    for row in ROWS:
        if row.op == "conv":
            # Conv2d weight: [out, in, kH, kW]
            shapes[f"{row.name}.conv.weight"] = (row.channels, channels[row.reads[0]], *row.kernel)
            for part in ("weight", "bias", "running_mean", "running_var"):
                shapes[f"{row.name}.bn.{part}"] = (row.channels,)
    return {**shapes, "fc.weight": (CLASSES, FEATURES), "fc.bias": (CLASSES,)}


class Inception:
    """The network as a feature extractor: pictures to the 2048 means over the positions of its last block ("pool3").

    Its headers are checked when it is made, weights are read when it is entered, and nothing in the file is run.

    Args:
        path: a checkpoint file whose tensors are named as in the well-known port.

    Attributes:
        published: whether the file is, byte for byte, the published one. Only then is a distance an FID.
        name: for tables.

    Raises:
        CheckpointError: the file is unreadable or unsafe, or its tensors are not those of this network.
    """

    def __init__(self, path: Path, *, max_bytes: int = MAX_BYTES) -> None:
        self.path = path
        self._headers = check_layout(
            path,
            read_state_file(path, max_bytes).tree,
            inception_shapes(),
            otherwise="not the Inception network of the FID",
            hint="it is the file pt_inception-2015-12-05-6726825d.pth of pytorch-fid",
        )
        self.published = sha256_of(path) == PUBLISHED_SHA256
        self.name = PUBLISHED_NAME if self.published else f"{path.stem} (Inception layout)"
        self._tensors: dict[str, Tensor] = {}

    def __enter__(self) -> Inception:
        check_finite(self.path, self._headers)
        self._tensors = {key: torch.from_numpy(values) for key, values in read_values(self.path, self._headers)}
        return self

    def __exit__(self, *_error: object) -> None:
        self._tensors = {}

    def features(self, pictures: Iterable[Image.Image]) -> FloatArray:
        """Return the features of pictures of any size and mode, float32 [n, 2048]; a few are read at a time.

        As the FID is usually computed (pytorch-fid): 8-bit RGB, resized to 299 x 299 bilinearly between pixel centres
        (`align_corners=False`) without antialiasing, then brought to [-1, 1] by 2 v / 255 - 1.

        Raises:
            PictureError: there is no picture.
            ArtifactError: a feature is not finite.
        """
        found, waiting = [], []
        for picture in pictures:
            waiting.append(as_input(picture))
            if len(waiting) == BATCH:
                found.append(self._run(waiting))
                waiting = []
        if waiting:
            found.append(self._run(waiting))
        if not found:
            raise PictureError(f"there are no pictures to measure with {self.name}")
        return np.concatenate(found)

    def _run(self, pictures: list[Tensor]) -> FloatArray:
        with torch.inference_mode():
            features: FloatArray = run(self._tensors, torch.cat(pictures)).mean(dim=(2, 3)).numpy()
        if not np.isfinite(features).all():
            raise ArtifactError(f"'{self.path}' gives features that are not finite", hint="is it the published file?")
        return features


def as_input(picture: Image.Image) -> Tensor:
    """Return a picture as the network's input, float32 [1, 3, 299, 299] in [-1, 1]; see `Inception.features`."""
    pixels = np.array(as_mode(picture, "RGB"), np.float32).transpose(2, 0, 1)[None]
    x = F.interpolate(torch.from_numpy(pixels), size=(SIDE, SIDE), mode="bilinear", align_corners=False)
    return x * (2 / 255) - 1


def run(tensors: Mapping[str, Tensor], picture: Tensor, rows: Iterable[Row] = ROWS) -> Tensor:
    """Run rows on their tensors and return what the last one gives.

    Args:
        tensors: by the keys of `inception_shapes`; those of the rows are needed.
        picture: what INPUT is, [N, C, H, W].
    """
    rows = tuple(rows)
    last_use = {name: row.name for row in rows for name in row.reads}
    values = {INPUT: picture}
    y = picture
    for row in rows:
        inputs = [values[name] for name in row.reads]
        y = values[row.name] = _step(row, tensors, inputs)
        for name in row.reads:
            if last_use[name] == row.name:
                values.pop(name, None)
    return y


def _step(row: Row, tensors: Mapping[str, Tensor], inputs: list[Tensor]) -> Tensor:
    (x, *_) = inputs
    if row.op == "join":
        return torch.cat(inputs, dim=1)
    padding = 1 if row.stride == 1 else 0  # of a pooling
    if row.op == "max":
        return F.max_pool2d(x, 3, row.stride, padding)
    if row.op == "average":
        return F.avg_pool2d(x, 3, row.stride, padding, count_include_pad=False)
    x = F.conv2d(x, tensors[f"{row.name}.conv.weight"], stride=row.stride, padding=row.padding)
    mean, variance, scale, shift = (
        tensors[f"{row.name}.bn.{part}"] for part in ("running_mean", "running_var", "weight", "bias")
    )
    return F.relu(F.batch_norm(x, mean, variance, scale, shift, training=False, eps=NORM_EPSILON))
