"""Networks whose features say how alike two pictures are, with gradients: VGG16 and SqueezeNet-1.1, rebuilt in torch.

The weights come from a user's file: a state dict in torchvision's layout, or the convolutions of an ONNX graph in their
order, with their strides and paddings. Taps are after an activation: relu1_2, relu2_2, relu3_3, relu4_3 of VGG16
(Simonyan and Zisserman 2015); conv1, fire3, fire5, fire9 of SqueezeNet (Iandola et al. 2016). What lies behind the last
tap is not built.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from mggc_edge.errors import CheckpointError
from mggc_edge.models.state_file import TensorHeader, read_state_file
from mggc_edge.models.tensor_layout import check_layout
from mggc_edge.models.tensor_values import check_finite, read_values
from mggc_edge.tensors import FloatArray

HINT = "give VGG16 or SqueezeNet-1.1: a state dict as torchvision saves it, or an ONNX file"
# In order: weights [out, in, k, k], biases [out], and stride and padding.
Convolutions = Sequence[tuple[FloatArray, FloatArray, tuple[int, int]]]


@dataclass(frozen=True)
class _Conv:
    """A convolution with ReLU; of a fire module the squeeze, or one of the two that expand it."""

    name: str  # in torchvision's state dict
    shape: tuple[int, int, int, int]
    geometry: tuple[int, int]  # stride and padding


@dataclass(frozen=True)
class Layout:
    """A known network.

    Attributes:
        convolutions: up to the last tap, in the order in which they run.
        rest: which tensors of a state dict lie behind it, a pattern.
        behind: how many convolutions of an ONNX graph may.
    """

    name: str
    convolutions: tuple[_Conv, ...]
    rest: str
    behind: int


def _vgg16() -> Layout:
    widths = ((0, 3, 64), (2, 64, 64), (5, 64, 128), (7, 128, 128), (10, 128, 256), (12, 256, 256), (14, 256, 256))
    more = ((17, 256, 512), (19, 512, 512), (21, 512, 512))
    return Layout(
        "vgg16",
        tuple(_Conv(f"features.{place}", (out, into, 3, 3), (1, 1)) for place, into, out in (*widths, *more)),
        r"classifier\..*|features\.(24|26|28)\.(weight|bias)",
        3,
    )


# place, channels in, squeezed, each of the two expanded
FIRES = (
    (3, 64, 16, 64), (4, 128, 16, 64), (6, 128, 32, 128), (7, 256, 32, 128),
    (9, 256, 48, 192), (10, 384, 48, 192), (11, 384, 64, 256), (12, 512, 64, 256),
)  # fmt: skip


def _squeezenet() -> Layout:
    convolutions = [_Conv("features.0", (64, 3, 3, 3), (2, 0))]
    for place, into, small, large in FIRES:
        convolutions += [
            _Conv(f"features.{place}.squeeze", (small, into, 1, 1), (1, 0)),
            _Conv(f"features.{place}.expand1x1", (large, small, 1, 1), (1, 0)),
            _Conv(f"features.{place}.expand3x3", (large, small, 3, 3), (1, 1)),
        ]
    return Layout("squeezenet1_1", tuple(convolutions), r"classifier\..*", 1)


LAYOUTS = (_vgg16(), _squeezenet())


class PerceptualNetwork(nn.Module):
    """A known network up to its last tap. Its weights are never trained.

    Attributes:
        name: "vgg16" or "squeezenet1_1".
    """

    def __init__(self, layout: Layout, tensors: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.name = layout.name
        self._convolutions = {row.name: row.geometry for row in layout.convolutions}
        for key, value in tensors.items():
            self.register_parameter(_attribute(key), nn.Parameter(value.float(), requires_grad=False))

    def forward(self, x: Tensor) -> list[Tensor]:
        """Return the features at the taps, [N, C, h, w] each, of pictures [N, 3, H, W] in the network's values."""
        with torch.autocast(x.device.type, enabled=False):
            return self._vgg16(x.float()) if self.name == "vgg16" else self._squeezenet(x.float())

    def _conv(self, name: str, x: Tensor) -> Tensor:
        weight, bias = (self.get_parameter(_attribute(f"{name}.{part}")) for part in ("weight", "bias"))
        return F.relu(F.conv2d(x, weight, bias, *self._convolutions[name]))

    def _vgg16(self, x: Tensor) -> list[Tensor]:
        taps, last = [], {"features.2", "features.7", "features.14", "features.21"}
        for name in self._convolutions:
            x = self._conv(name, x)
            if name in last:
                taps.append(x)
                x = F.max_pool2d(x, 2)
        return taps

    def _squeezenet(self, x: Tensor) -> list[Tensor]:
        x = self._conv("features.0", x)
        taps = [x]
        for place, *_ in FIRES:
            if place in (3, 6, 9):
                x = F.max_pool2d(x, 3, 2, ceil_mode=True)
            name = f"features.{place}"
            h = self._conv(f"{name}.squeeze", x)
            x = torch.cat([self._conv(f"{name}.expand1x1", h), self._conv(f"{name}.expand3x3", h)], 1)
            if place in (4, 7, 12):
                taps.append(x)
        return taps


def _attribute(key: str) -> str:
    return key.replace(".", "_")


def read_perceptual(path: Path, *, max_bytes: int) -> PerceptualNetwork:
    """Read a state dict in torchvision's layout; the file is not trusted.

    Raises:
        CheckpointError: the file cannot be read, is too large, or holds another network, or values that are not finite.
    """
    tree = read_state_file(path, max_bytes).tree
    inner = tree.get("state_dict", tree)
    found = inner if isinstance(inner, Mapping) else tree
    fires = any(".squeeze." in name for name in found)
    layout = next(layout for layout in LAYOUTS if layout.name == ("squeezenet1_1" if fires else "vgg16"))
    wanted: dict[str, tuple[int, ...]] = {}
    for row in layout.convolutions:
        wanted |= {f"{row.name}.weight": row.shape, f"{row.name}.bias": row.shape[:1]}
    headers: dict[str, TensorHeader] = check_layout(
        path, found, wanted, otherwise="no perceptual network that is known", left_out=layout.rest, hint=HINT
    )
    check_finite(path, headers)
    return PerceptualNetwork(layout, {key: torch.from_numpy(value) for key, value in read_values(path, headers)})


def from_convolutions(path: Path, convolutions: Convolutions) -> PerceptualNetwork:
    """Return the network whose convolutions these are, in the order of a graph; `path` is named in errors.

    Of a fire module the squeeze comes first, then the 1x1 and the 3x3 that expand it.

    Raises:
        CheckpointError: they are those of another network, or have values that are not finite.
    """
    found = [(weight.shape, bias.shape, geometry) for weight, bias, geometry in convolutions]
    for layout in LAYOUTS:
        rows = layout.convolutions
        wanted = [(row.shape, row.shape[:1], row.geometry) for row in rows]
        if found[: len(rows)] != wanted or len(found) > len(rows) + layout.behind:
            continue
        tensors: dict[str, Tensor] = {}
        for row, (weight, bias, _) in zip(rows, convolutions, strict=False):
            tensors[f"{row.name}.weight"] = torch.from_numpy(weight.copy())
            tensors[f"{row.name}.bias"] = torch.from_numpy(bias.copy())
        if not all(bool(value.isfinite().all()) for value in tensors.values()):
            raise CheckpointError(f"'{path}' has weights that are NaN or infinite", HINT)
        return PerceptualNetwork(layout, tensors)
    raise CheckpointError(
        f"'{path}' is no perceptual network that is known: its {len(convolutions)} convolutions with a bias and a ReLU "
        "are not those of VGG16 or SqueezeNet-1.1",
        HINT,
    )
