"""What `compress` is asked for."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args

from mggc_edge.artifacts import PRECISIONS
from mggc_edge.compiler.runtimes import EXPORT_RUNTIMES, TENSORRT
from mggc_edge.compiler.targets import AUTO
from mggc_edge.errors import InputError, SettingError
from mggc_edge.models.convert import BatchNormMode
from mggc_edge.models.cost import MacsConvention
from mggc_edge.models.family import NormStats
from mggc_edge.models.spec import MAX_WIDTH
from mggc_edge.presets import PresetName
from mggc_edge.training.folders import Direction, Layout

Method = Literal["mggc", "gan-slimming", "magnitude", "uniform", "random"]
Quantize = Literal["8", "none"]
_CHOICES = {
    "direction": Direction, "layout": Layout, "method": Method, "bn": BatchNormMode, "norm_stats": NormStats,
    "macs_convention": MacsConvention, "preset": PresetName, "quantize": Quantize,
}  # fmt: skip
ONNX_ENCODER = "onnx:"  # FILE or FILE:TENSOR follows
_UNITS = {"": 1.0, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}


@dataclass(frozen=True)
class CompressRequest:
    """The flags of `compress`, as texts and numbers. Paths are as the user wrote them.

    Attributes:
        budget: a fraction of the original's MACs ("0.05"), or MACs ("2.5G").
        plan: a plan to use instead of choosing channels.
        preset: whose defaults, see `mggc_edge.presets`, were given where there was neither flag nor setting.
        encoder: "self", "swav" or "onnx:FILE[:TENSOR]", see `mggc_edge.jobs.encoders`.
        encoder_weights: of "swav".
        feature_net: "FILE" or "FILE:TENSOR", see `mggc_edge.quality.features`.
        inception: the weights of the FID's network, see `mggc_edge.models.inception`.
        segmenter: an ONNX file, see `mggc_edge.quality.segmentation`.
        perceptual: VGG16 or SqueezeNet-1.1, see `mggc_edge.training.perceptual`.
        prune_epochs, finetune_epochs: None: as the settings say.
        quantize: "8" finetunes, and by gan-slimming prunes, on the 8-bit grids that are exported.
        align: multiple that widths are rounded to, see `mggc_edge.pruning.align`; 1: none.
        precision: of the files of the compressed generator, names with commas, or "auto", those that each target lists;
            fp32 is always one.
        runtime: that files are made for, or proven in, names with commas.
        min_precision_psnr: to the fp32 file, in dB, below which one of another precision is rejected.
        min_psnr: the job fails if the PSNR to the original's pictures is lower, in dB.

    Raises:
        SettingError: a field has an impossible value.
    """

    model: str
    budget: str
    discriminator: str | None = None
    partner: str | None = None
    plan: str | None = None
    preset: PresetName | None = None
    direction: Direction = "AtoB"
    source: str | None = None
    target: str | None = None
    data: str | None = None
    layout: Layout | None = None
    method: Method = "mggc"
    encoder: str = "self"
    encoder_weights: str | None = None
    perceptual: str | None = None
    image_size: tuple[int, int] | None = None
    prune_epochs: float | None = None
    finetune_epochs: float | None = None
    feature_net: str | None = None
    inception: str | None = None
    segmenter: str | None = None
    bn: BatchNormMode = "eval"
    norm_stats: NormStats = "instance"
    macs_convention: MacsConvention = "true"
    quantize: Quantize = "none"
    quick: bool = False
    min_psnr: float | None = None
    align: int = 1
    precision: str = "fp32"
    runtime: str = "onnxruntime"
    min_precision_psnr: float = 35.0

    def __post_init__(self) -> None:
        for name, kind in _CHOICES.items():
            value = getattr(self, name)
            if value not in get_args(kind) and not (value is None and name in ("layout", "preset")):
                raise SettingError(f"{name} must be one of {', '.join(get_args(kind))}, not {value!r}")
        for name in ("prune_epochs", "finetune_epochs"):
            value = getattr(self, name)
            if value is not None and not 0 < value < 1e6:
                raise SettingError(f"{name} must be a number above 0, not {value:g}")
        if self.min_psnr is not None and not 0 <= self.min_psnr <= 1000:
            raise SettingError(f"min_psnr must be a number of dB from 0 to 1000, not {self.min_psnr:g}")
        if type(self.align) is not int or not 1 <= self.align <= MAX_WIDTH:
            raise SettingError(f"align must be a whole number from 1 to {MAX_WIDTH}, not {self.align!r}")
        self._check_encoder()
        self._check_precisions()
        if self.perceptual is not None and self.method != "gan-slimming":
            raise SettingError(
                f"a perceptual network is for --method gan-slimming, not for {self.method}",
                hint="add --method gan-slimming, or leave out --perceptual",
            )
        parse_budget(self.budget)

    def _check_encoder(self) -> None:
        frozen = self.encoder.startswith(ONNX_ENCODER) and self.encoder != ONNX_ENCODER
        if self.encoder not in ("self", "swav") and not frozen:
            raise SettingError(f"encoder must be self, swav or onnx:FILE[:TENSOR], not {self.encoder!r}")
        if self.encoder == "swav" and self.encoder_weights is None:
            raise SettingError(
                "the encoder swav needs weights, which are not part of this package",
                hint="give a ResNet-50 of SwAV or torchvision with --encoder-weights FILE, or leave out --encoder",
            )
        if self.encoder != "swav" and self.encoder_weights is not None:
            raise SettingError(f"weights are for the encoder swav, not for {self.encoder}", hint="add --encoder swav")

    def _check_precisions(self) -> None:
        for name in self.precisions:
            if name not in (*PRECISIONS, AUTO):
                raise SettingError(f"precision must be {AUTO}, or some of {', '.join(PRECISIONS)}, not {name!r}")
        if AUTO in self.precisions and len(self.precisions) > 1:
            raise SettingError(f"precision {AUTO} takes no other names with it, as in {self.precision!r}")
        for name in self.runtimes:
            if name not in EXPORT_RUNTIMES:
                raise SettingError(f"runtime must be some of {', '.join(EXPORT_RUNTIMES)}, not {name!r}")
        if self.quantize == "8" and TENSORRT in self.runtimes:
            raise SettingError(
                "--quantize 8 trains grids of uint8 levels, and TensorRT takes int8 levels alone",
                hint=f"leave {TENSORRT} out of --runtime, or give --precision int8 in the place of --quantize 8",
            )
        if not 0 <= self.min_precision_psnr <= 1000:
            raise SettingError(
                f"min_precision_psnr must be a number of dB from 0 to 1000, not {self.min_precision_psnr:g}"
            )
        if self.quantize == "8" and set(self.precisions) != {"fp32"}:
            raise SettingError(
                f"--quantize 8 trains the 8-bit grids of the file, and --precision {self.precision} is for a network "
                "in floats",
                hint="leave out one of them",
            )

    @property
    def precisions(self) -> tuple[str, ...]:
        """The names in `precision`; AUTO alone where each target's are meant."""
        return tuple(name.strip() for name in self.precision.split(","))

    @property
    def runtimes(self) -> tuple[str, ...]:
        """The names in `runtime`."""
        return tuple(name.strip() for name in self.runtime.split(","))

    @property
    def has_pictures(self) -> bool:
        """Whether the user gave any pictures."""
        return any(place is not None for place in (self.data, self.source, self.target))

    def to_json(self) -> dict[str, Any]:
        """Return a JSON object that `from_json` reads back."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {**values, "image_size": list(self.image_size) if self.image_size else None}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> CompressRequest:
        """Rebuild a request from `to_json`'s object.

        Raises:
            InputError: the object is none.
        """
        try:
            size = document["image_size"]
            return cls(**{**document, "image_size": (int(size[0]), int(size[1])) if size else None})
        except (TypeError, KeyError, ValueError, IndexError) as error:
            raise InputError(f"the request of this job cannot be read: {error}") from error


def parse_budget(text: str) -> tuple[float, bool]:
    """Return the number of a budget, and whether it is MACs (True) or a fraction of the original's (False).

    Raises:
        SettingError: it is neither.
    """
    match = re.fullmatch(r"\s*(\d+\.?\d*(?:[eE][-+]?\d+)?|\.\d+)\s*([kMGT]?)\s*", text)
    if match is not None:
        number, unit = float(match[1]), match[2]
        if unit or number > 1:
            if number * _UNITS[unit] >= 1000:
                return number * _UNITS[unit], True
        elif number > 0:
            return number, False
    raise SettingError(
        f"'{text}' is no budget",
        hint="a fraction of the original's MACs above 0 and up to 1, such as 0.05, or MACs, such as 2.5G",
    )


def budget_fraction(text: str, total_macs: int) -> float:
    """Return a budget as a fraction of the original's MACs.

    Raises:
        InputError: it is more than the original has.
    """
    number, absolute = parse_budget(text)
    if not absolute:
        return number
    if number > total_macs:
        raise InputError(f"the budget {text} is more than the original's {total_macs / 1e9:.4g} G MACs")
    return number / total_macs
