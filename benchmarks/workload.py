"""What is measured: a model file, and the facts about it that its caller knows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mggc_edge.artifacts import PRECISIONS as FILE_PRECISIONS
from mggc_edge.backends.onnxruntime import provider_name
from mggc_edge.errors import ArtifactError, InputError

RUNTIMES = ("onnxruntime", "ort-mobile", "openvino", "tensorrt")
PRECISIONS = (FILE_PRECISIONS[0], "bf16", *FILE_PRECISIONS[1:])  # of a run: bf16 is how OpenVINO runs fp32 files
MAX_MODELS = 12  # all of them are in memory at the same time
MAX_THREADS = 1024


@dataclass(frozen=True)
class Workload:
    """One model to measure.

    Attributes:
        name: what it is called in the report.
        path: an .onnx, .ort or .engine file; for TensorRT also an ONNX file of a bundle, whose engine is built on the
            device that it is measured on. It is run as it is: who does not trust it checks it first.
        runtime: the engine, as `--runtime` has it.
        precision: the file's own; "bf16" for a float32 file that OpenVINO runs in bfloat16.
        provider: what ONNX Runtime runs it on: "cpu", "cuda" or "tensorrt".
        macs_true, macs_paper: multiply-accumulate operations for one picture, None where not known.
        image_size: (height, width) for a file that leaves them open; None: the file says.
    """

    name: str
    path: Path
    runtime: str = "onnxruntime"
    precision: str = "fp32"
    macs_true: int | None = None
    macs_paper: int | None = None
    image_size: tuple[int, int] | None = None
    provider: str = "cpu"

    @property
    def of_bundle(self) -> bool:
        """Whether it is an ONNX file that TensorRT builds an engine from."""
        return self.runtime == "tensorrt" and self.path.suffix.lower() == ".onnx"

    def __post_init__(self) -> None:
        if not self.name:
            raise InputError("a model to measure needs a name")
        if self.runtime not in RUNTIMES:
            raise InputError(f"'{self.runtime}' is no runtime that can be measured", hint=", ".join(RUNTIMES))
        if self.precision not in PRECISIONS:
            raise InputError(f"'{self.precision}' is no precision that can be measured", hint=", ".join(PRECISIONS))
        if self.precision == "bf16" and self.runtime != "openvino":
            raise InputError(f"'{self.name}' cannot be measured in bf16 by {self.runtime}", hint="openvino can")
        if provider_name(self.provider) != provider_name("cpu") and self.runtime in ("openvino", "tensorrt"):
            raise InputError(f"'{self.name}' cannot be measured on '{self.provider}' by {self.runtime}")
        for macs in (self.macs_true, self.macs_paper):
            if macs is not None and macs < 0:
                raise InputError(f"'{self.name}' cannot have {macs} MACs")
        if self.image_size is not None and min(self.image_size) < 1:
            raise InputError(f"'{self.name}' cannot take pictures of {self.image_size[0]}x{self.image_size[1]}")


def pictures_of(inputs: Sequence[Mapping[str, Any]]) -> int:
    """Return how many pictures one inference takes, by the shapes of what is fed: only four axes have a batch."""
    shape = inputs[0]["shape"] if inputs else []
    return int(shape[0]) if len(shape) == 4 else 1


def check_workloads(models: Sequence[Workload]) -> None:
    """Check that these models can be measured together.

    Raises:
        InputError: there are none, too many, or two of the same name.
        ArtifactError: a file is not there.
    """
    if not 1 <= len(models) <= MAX_MODELS:
        raise InputError(f"{len(models)} models cannot be measured together; 1 to {MAX_MODELS} can")
    name, count = Counter(model.name for model in models).most_common(1)[0]
    if count > 1:
        raise InputError(f"{count} models are called '{name}'", hint="give every model a name of its own")
    for model in models:
        if not model.path.is_file():
            raise ArtifactError(f"there is no file '{model.path}'")
