"""Which 8-bit grids a target computes with: the type of the levels, where zero lies, how many levels weights have."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from mggc_edge.errors import ArtifactError

AUTO = "auto"
LEVELS = {"uint8": (0, 255), "int8": (-128, 127)}


@dataclass(frozen=True)
class Int8Form:
    """The grids of a target.

    Attributes:
        levels: type of the levels of activations.
        symmetric: zero is level 0, and so a range reaches as far below zero as above; otherwise it lies where it must.
        weight_bits: 8: weights reach from -127 to 127; 7: from -63 to 63, for processors whose 8-bit products saturate.
        pads_between: whether a Pad before a convolution works on levels.
        outputs: whether what a convolution gives is rounded too, which ONNX Runtime needs to compute it in int8.
        thin_in_float: whether convolutions with few channels stay in float, as the engine is no faster with them in
            int8 (`tensorrt_lint.few_channels`).
    """

    levels: Literal["uint8", "int8"] = "uint8"
    symmetric: bool = False
    weight_bits: int = 8
    pads_between: bool = True
    outputs: bool = True
    thin_in_float: bool = False

    def __post_init__(self) -> None:
        if self.weight_bits not in (7, 8):
            raise ArtifactError(f"weights of {self.weight_bits} bits are not written", hint="8, or 7")

    @property
    def weight_limit(self) -> int:
        """The largest level of a weight."""
        return int(2 ** (self.weight_bits - 1)) - 1

    def grid(self, low: float, high: float) -> tuple[float, int]:
        """Return scale and zero point whose levels hold the values from `low` to `high`, and 0 exactly."""
        low, high = min(low, 0.0), max(high, 0.0)
        first, last = LEVELS[self.levels]
        if self.symmetric:
            reach = last - (first + last + 1) // 2  # int8: 127 on either side
            return max(max(-low, high) / reach, LEAST_SCALE), (first + last + 1) // 2
        scale = max((high - low) / (last - first), LEAST_SCALE)
        return scale, min(max(first + round(-low / scale), first), last)


LEAST_SCALE = 1e-12  # of a tensor that is always 0

# What the targets compute with; those that are not here take unsigned levels.
FORMS: Mapping[str, Int8Form] = {
    # Without VNNI, sums of two products saturate in 16 bits: 255 * 127 * 2 does not fit, 255 * 63 * 2 does.
    "x86-avx2": Int8Form(weight_bits=7),
    # Kernels for Arm multiply signed by signed.
    "arm64": Int8Form("int8"),
    "ort-mobile": Int8Form("int8"),
    # TensorRT takes symmetric grids alone, and Q and DQ right before the convolution; what follows may stay in floats.
    "tensorrt": Int8Form("int8", symmetric=True, pads_between=False, outputs=False, thin_in_float=True),
}
_NAMED = {"uint8": Int8Form(), "int8": Int8Form("int8"), "symmetric": FORMS["tensorrt"]}


def form_of(target: str, activations: str = AUTO, weight_bits: int = 0) -> Int8Form:
    """Return the grids of a target, with what the settings `quantize.activations` and `quantize.weight_bits` change.

    Which convolutions stay in float follows from the target alone, as it is about how fast its engine is.

    Args:
        activations: "auto" for the target's; "uint8", "int8" or "symmetric".
        weight_bits: 0 for the target's.
    """
    usual = FORMS.get(target, Int8Form())
    form = usual if activations == AUTO else _NAMED[activations]
    return replace(form, weight_bits=weight_bits or usual.weight_bits, thin_in_float=usual.thin_in_float)
