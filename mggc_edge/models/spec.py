"""NetworkSpec: the complete description from which a network is rebuilt."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

from mggc_edge.errors import SettingError, SpecError
from mggc_edge.pictures import PictureFormat

NormKind = Literal["instance", "instance_affine", "batch", "none"]
PaddingMode = Literal["reflect", "zeros"]
ColorOrder = Literal["RGB", "BGR"]
# "int8": weights with a scale per output channel, "int8_tensor": with one for the whole tensor; activations in uint8.
Quantization = Literal["none", "int8", "int8_tensor"]

SCHEMA = "mggc-edge/spec/1"
MAX_WIDTH = 16_384
MAX_BLOCKS = 256
DEFAULT_EPSILON = 1e-5  # of PyTorch's norms
GROUP_NAME = re.compile(r"[a-z0-9.]{1,40}")
# Fields that the first files of this schema do not have, with what was true of every network then.
LATER_FIELDS: Mapping[str, Any] = {
    "epsilon": DEFAULT_EPSILON, "color_order": "RGB", "low": -1.0, "high": 1.0, "quantization": "none"
}  # fmt: skip


@dataclass(frozen=True)
class NetworkSpec:
    """A network without its weights: slim or not is only a matter of the numbers in `widths`.

    Attributes:
        family: name in the registry of `mggc_edge.models.families`: "resnet", "unet", "cartoongan", "patchgan".
        in_channels, out_channels: channels of the picture that goes in and of what comes out.
        blocks: residual blocks (ResNet), halvings of the picture (U-Net, and PatchGAN, where it is called n_layers).
        widths: channels of every channel group, in the order in which the network first writes them. A residual block
            whose inner width is 0 has been removed.
        norm: "instance" (no parameters), "instance_affine", "batch" (running statistics), "none" (folded away).
        bias: whether convolutions have a bias where the family leaves the choice (before a norm).
        padding: of a ResNet's residual blocks.
        dropout: whether the dropout layer exists; it shifts the keys of a ResNet and acts in training mode only.
        separable: whether the residual convolutions are depthwise-separable (the "mobile" ResNet).
        epsilon: what every norm adds to the variance before its root is taken.
        color_order: of pictures with three channels, both those that go in and those that come out.
        low, high: the values of black and of white in both.
        quantization: the grid that weights and activations are rounded to, see `mggc_edge.models.fake_quant`.

    Raises:
        SpecError: a field has an impossible value.
    """

    family: str
    in_channels: int
    out_channels: int
    blocks: int
    widths: tuple[tuple[str, int], ...]
    norm: NormKind
    bias: bool
    padding: PaddingMode = "zeros"
    dropout: bool = False
    separable: bool = False
    epsilon: float = DEFAULT_EPSILON
    color_order: ColorOrder = "RGB"
    low: float = -1.0
    high: float = 1.0
    quantization: Quantization = "none"

    def __post_init__(self) -> None:
        for name in ("in_channels", "out_channels", "blocks"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise SpecError(f"{name} must be a whole number of at least 1, not {value!r}")
        if self.blocks > MAX_BLOCKS or max(self.in_channels, self.out_channels) > MAX_WIDTH:
            raise SpecError(f"more than {MAX_BLOCKS} blocks or {MAX_WIDTH} channels are more than any generator has")
        if self.norm not in get_args(NormKind):
            raise SpecError(f"norm must be one of {', '.join(get_args(NormKind))}, not {self.norm!r}")
        if self.padding not in get_args(PaddingMode):
            raise SpecError(f"padding must be one of {', '.join(get_args(PaddingMode))}, not {self.padding!r}")
        for name in ("bias", "dropout", "separable"):
            if not isinstance(getattr(self, name), bool):
                raise SpecError(f"{name} must be true or false, not {getattr(self, name)!r}")
        if self.quantization not in get_args(Quantization):
            known = ", ".join(get_args(Quantization))
            raise SpecError(f"quantization must be one of {known}, not {self.quantization!r}")
        if self.quantization != "none" and self.norm == "batch":
            raise SpecError("a batch norm is folded into its convolution before the weights are quantized")
        self._check_values()
        groups = [group for group, _ in self.widths]
        for group in groups:
            if not isinstance(group, str) or not GROUP_NAME.fullmatch(group):
                raise SpecError(
                    f"{str(group)[:60]!r} is no name of a channel group",
                    hint="a name has up to 40 small letters, digits and dots",
                )
        if len(set(groups)) != len(groups):
            raise SpecError("a channel group is named twice")
        for group, width in self.widths:
            if not isinstance(width, int) or isinstance(width, bool) or not 0 <= width <= MAX_WIDTH:
                raise SpecError(f"width of group '{group}' must be between 0 and {MAX_WIDTH}, not {width!r}")

    def _check_values(self) -> None:
        for name in ("epsilon", "low", "high"):
            value = getattr(self, name)
            if not _is_finite(value):
                raise SpecError(f"{name} must be a finite number, not {value!r}")
        if not 0 < self.epsilon <= 1:
            raise SpecError(f"epsilon must be above 0 and at most 1, not {self.epsilon!r}")
        if self.color_order not in get_args(ColorOrder):
            raise SpecError(f"color_order must be one of {', '.join(get_args(ColorOrder))}, not {self.color_order!r}")
        try:
            PictureFormat(3, self.color_order, self.low, self.high)
        except (SettingError, OverflowError) as error:
            raise SpecError(str(error)) from error

    @property
    def input_format(self) -> PictureFormat:
        """How the network sees the pictures that it takes; SettingError where it takes none."""
        return self._format(self.in_channels)

    @property
    def output_format(self) -> PictureFormat:
        """How the network gives pictures; SettingError where it gives none."""
        return self._format(self.out_channels)

    def _format(self, channels: int) -> PictureFormat:
        usual = PictureFormat.for_channels(channels)
        color = self.color_order if usual.color == "RGB" else usual.color
        return PictureFormat(channels, color, float(self.low), float(self.high))

    @property
    def value_range(self) -> float:
        """From black to white: what PSNR and SSIM take as the range of the pictures."""
        return float(self.high - self.low)

    def width(self, group: str) -> int:
        """Return the channels of `group`; "input" and "output" are the pictures' channels."""
        if group == "input":
            return self.in_channels
        if group == "output":
            return self.out_channels
        for name, width in self.widths:
            if name == group:
                return width
        raise SpecError(f"this network has no channel group '{group}'")

    def with_widths(self, widths: Mapping[str, int]) -> NetworkSpec:
        """Return the same network with other widths for the groups named in `widths`."""
        unknown = sorted(set(widths) - {group for group, _ in self.widths})
        if unknown:
            raise SpecError(f"this network has no channel group '{unknown[0]}'")
        return replace(self, widths=tuple((group, widths.get(group, width)) for group, width in self.widths))

    def to_json(self) -> dict[str, Any]:
        """Return a JSON object that `from_json` reads back."""
        return {
            "schema": SCHEMA,
            "family": self.family,
            "in_channels": self.in_channels,
            "out_channels": self.out_channels,
            "blocks": self.blocks,
            "widths": dict(self.widths),
            "norm": self.norm,
            "bias": self.bias,
            "padding": self.padding,
            "dropout": self.dropout,
            "separable": self.separable,
            "epsilon": self.epsilon,
            "color_order": self.color_order,
            "low": self.low,
            "high": self.high,
            "quantization": self.quantization,
        }

    @classmethod
    def from_json(cls, document: object) -> NetworkSpec:
        """Rebuild a spec from `to_json`'s object; what older ones do not state is as it was then.

        Raises:
            SpecError: the object is not one, or has missing, unknown or impossible fields.
        """
        if not isinstance(document, dict) or document.get("schema") != SCHEMA:
            raise SpecError(f"this is no network description: its schema is not '{SCHEMA}'")
        fields = {key: value for key, value in document.items() if key != "schema"}
        wanted = set(cls.__dataclass_fields__)
        fields = {**LATER_FIELDS, **fields}
        if set(fields) != wanted:
            odd = sorted(set(fields) ^ wanted)
            raise SpecError(f"this network description has missing or unknown fields: {', '.join(odd[:5])}")
        widths = fields["widths"]
        if not isinstance(fields["family"], str) or not isinstance(widths, dict):
            raise SpecError("this network description has a field of the wrong type")
        return cls(**{**fields, "widths": tuple(widths.items())})

    def dumps(self) -> str:
        """Return the JSON text of this spec."""
        return json.dumps(self.to_json(), indent=2) + "\n"


def _is_finite(value: object) -> bool:
    try:
        return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:  # a whole number that no float holds
        return False
