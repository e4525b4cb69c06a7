"""The settings of an export of a network."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import get_args

from mggc_edge.artifacts import BYTES_IO, FLOAT_IO, IO_KINDS, PORTABLE
from mggc_edge.compiler.camera import Camera
from mggc_edge.compiler.targets import TARGETS, choose_passes
from mggc_edge.compiler.tune import TuneSettings, can_tune
from mggc_edge.errors import ArtifactError
from mggc_edge.models.convert import BatchNormMode
from mggc_edge.models.families import layer_table
from mggc_edge.models.layers import Size
from mggc_edge.models.spec import NetworkSpec
from mggc_edge.settings import Settings

MIN_OPSET, MAX_OPSET = 13, 23
_DEFAULTS = Settings()


@dataclass(frozen=True)
class ExportSettings:
    """Settings of an export.

    Attributes:
        image_size: (height, width); None: what the family is usually trained at.
        opset: version of the ONNX operators, 13 to 23; torch writes 18 or newer, older ones are made of that.
        dynamic_batch: leave the number of pictures open; otherwise it is 1.
        bn: "batch" exports batch norm in its per-picture form, see `per_picture_norm`.
        simplify: run onnxsim.
        atol: largest absolute difference from torch that the finished file may show.
        min_psnr: PSNR to torch, in dB, below which it is remarked that a quantized network's roundings diverge.
        pictures: how many random pictures parity is checked on.
        target, passes: what the graph is rewritten for, and by which passes; see `choose_passes`.
        tune: how long the target's passes are measured, where the target is this machine; None: they are not.
        io: "float", or "uint8" for bytes in and out, see `mggc_edge.compiler.camera`.
    """

    image_size: Size | None = None
    opset: int = _DEFAULTS["export.opset"]
    dynamic_batch: bool = False
    bn: BatchNormMode = "eval"
    simplify: bool = _DEFAULTS["export.simplify"]
    atol: float = _DEFAULTS["export.atol"]
    pictures: int = _DEFAULTS["export.parity_pictures"]
    target: str = PORTABLE
    passes: str = _DEFAULTS["export.passes"]
    tune: TuneSettings | None = None
    min_psnr: float = _DEFAULTS["quantize.min_psnr"]
    io: str = FLOAT_IO

    @classmethod
    def from_settings(
        cls,
        settings: Settings,
        *,
        image_size: Size | None = None,
        dynamic_batch: bool = False,
        bn: BatchNormMode = "eval",
        target: str = PORTABLE,
        io: str = FLOAT_IO,
        tune: bool = False,
    ) -> ExportSettings:
        """Return what the settings in effect say of an export, with what has flags of its own beside it."""
        return cls(
            image_size=image_size,
            opset=settings["export.opset"],
            dynamic_batch=dynamic_batch,
            bn=bn,
            simplify=settings["export.simplify"],
            atol=settings["export.atol"],
            pictures=settings["export.parity_pictures"],
            target=target,
            passes=settings["export.passes"],
            tune=TuneSettings.from_settings(settings) if tune and settings["export.tune"] else None,
            min_psnr=settings["quantize.min_psnr"],
            io=io,
        )

    @property
    def measures_passes(self) -> bool:
        """Whether an export measures which passes pay."""
        return self.tune is not None and can_tune(self.passes, self.target)

    @property
    def batches(self) -> tuple[int, ...]:
        """Numbers of pictures that a file is proven with."""
        return (1, 3) if self.dynamic_batch else (1,)

    def __post_init__(self) -> None:
        if not isinstance(self.opset, int) or not MIN_OPSET <= self.opset <= MAX_OPSET:
            raise ArtifactError(f"opset {self.opset} cannot be exported", hint=f"{MIN_OPSET} to {MAX_OPSET} can")
        if self.bn not in get_args(BatchNormMode):
            raise ArtifactError(f"batch norm can be taken as {' or '.join(get_args(BatchNormMode))}, not '{self.bn}'")
        if self.pictures < 1 or not 0 <= self.atol < math.inf:
            raise ArtifactError("parity is checked on at least 1 picture and to a finite difference")
        if self.io not in IO_KINDS:
            raise ArtifactError(f"a graph takes and gives {' or '.join(IO_KINDS)}, not '{self.io}'")
        choose_passes(self.passes, self.target)
        TARGETS[self.target].check_opset(self.opset)


def camera_for(spec: NetworkSpec, settings: ExportSettings, seed: int = 0) -> Camera | None:
    """Return what puts bytes around a network's files; None where floats are wanted."""
    if settings.io != BYTES_IO:
        return None
    size = layer_table(spec, settings.image_size).image_size
    return Camera((spec.input_format, spec.output_format), size, settings.pictures, settings.batches, seed)
