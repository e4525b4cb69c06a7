"""Whether a file of another precision is worth having: how near it is to the float one, if it bands, how fast it is.

PSNR is measured on held-out calibration pictures. Speed is measured where the target is this machine, in interleaved
pairs of fresh processes; a file is rejected where it is not faster by more than the margin that matters.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mggc_edge.backends.onnxruntime import ONNX_RUNTIME, OnnxRuntimeRunner
from mggc_edge.backends.registry import open_artifact
from mggc_edge.benchmarks.extent import Extent
from mggc_edge.benchmarks.harness import measure
from mggc_edge.benchmarks.report import Comparison
from mggc_edge.benchmarks.workload import Workload
from mggc_edge.calibration.samples import Stream
from mggc_edge.compiler.finishing import reach_of
from mggc_edge.errors import ArtifactError
from mggc_edge.quality.metrics import psnr_from_mse
from mggc_edge.quality.parity import only_output
from mggc_edge.settings import Settings
from mggc_edge.tensors import Array

if TYPE_CHECKING:
    import onnx

MOST_VALUES = 256  # that 8 bits have
LEVELS = 255  # steps of an 8-bit picture
NOT_MEASURED = "speed not measured here"


@dataclass(frozen=True)
class Difference:
    """How far a file is from the float one, over all held-out pictures.

    Attributes:
        psnr: in dB; None where the outputs are identical, -inf where one is not finite.
        max_abs: largest difference; infinite where one is not finite.
        step: levels of 255 from one value of the output to the next, of a channel; 0.0 where it has more than 256.
    """

    psnr: float | None
    max_abs: float
    step: float

    @property
    def bands(self) -> bool:
        """Whether an 8-bit picture shows the steps of the output."""
        return self.step > 1

    def to_json(self) -> dict[str, Any]:
        """Return what JSON says of it; no number where values are not finite."""
        finite = math.isfinite(self.max_abs)
        return {
            "psnr": self.psnr if finite else None,
            "identical": self.psnr is None,
            "max_abs": self.max_abs if finite else None,
        }

    def at_least(self, psnr: float) -> bool:
        """Whether it is as near as that, in dB."""
        return self.psnr is None or self.psnr >= psnr

    def reason(self, min_psnr: float, *, last_in_8_bits: bool) -> str | None:
        """Return why the file is rejected for its pictures; None where it is not."""
        if not math.isfinite(self.max_abs):
            return "it gives values that are not finite"
        if not self.at_least(min_psnr):
            return f"PSNR to the float output {self.psnr:.1f} dB, below {min_psnr:g} dB"
        if last_in_8_bits and self.bands:
            return f"its last layer bands: from one value to the next it is {self.step:.1f} of 255 levels"
        return None


@dataclass(frozen=True)
class Judgement:
    """How far a file is from the float one in an engine, and why it is rejected there; None where it is not."""

    difference: Difference
    reason: str | None


class FloatOutputs:
    """The outputs of a float file on pictures, which others are compared with.

    Args:
        path: of the file.
        pictures: see `Stream`; all of them are kept, with the outputs.
        data_range: largest minus smallest possible output, at most `reach_of` the outputs; None: that.

    Raises:
        ArtifactError: the file cannot be run, or gives values that are not finite.
    """

    def __init__(self, path: Path, pictures: Stream, data_range: float | None = None) -> None:
        self._pictures = list(pictures())
        with OnnxRuntimeRunner(path) as runner:
            self._outputs = [only_output(runner, picture) for picture in self._pictures]
        if not all(np.isfinite(output).all() for output in self._outputs):
            raise ArtifactError(
                f"'{path.name}' gives values that are not finite on a calibration picture, so that nothing can be "
                "compared with it",
                hint="look for overflowing weights in the file",
            )
        seen = reach_of(self._outputs, None)
        self.data_range = seen if data_range is None else min(seen, data_range)

    @property
    def count(self) -> int:
        """How many pictures there are."""
        return len(self._pictures)

    def difference(self, model: onnx.ModelProto) -> Difference:
        """Return how far a graph is from the float file; ArtifactError where it cannot be run."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "model.onnx")
            path.write_bytes(model.SerializeToString())
            return self.of(path)

    def of(self, path: Path, runtime: str = ONNX_RUNTIME) -> Difference:
        """Return how far another file is from the float one, run by an engine; ArtifactError where it cannot be run."""
        total, values, largest = 0.0, 0, 0.0
        outputs = []
        with open_artifact(path, runtime) as runner, np.errstate(invalid="ignore", over="ignore"):
            for picture, wanted in zip(self._pictures, self._outputs, strict=True):
                found = only_output(runner, picture)
                difference = np.abs(found.astype(np.float64) - wanted)
                if not np.isfinite(difference).all():
                    return Difference(-math.inf, math.inf, 0.0)
                total += float(np.square(difference).sum())
                values += difference.size
                largest = max(largest, float(difference.max()))
                outputs.append(found)
        return Difference(psnr_from_mse(total / values, self.data_range), largest, step(outputs, self.data_range))


def step(outputs: Sequence[Array], data_range: float) -> float:
    """Return how many of 255 levels lie between neighboring values of an output [1, C, H, W], of its worst channel.

    It is the median over the values in the middle half of those that there are, where a tanh is steepest. 0.0 for a
    channel of more than 256 different values: its last layer is no 8-bit one.
    """
    largest = 0.0
    for channel in range(outputs[0].shape[1]):
        values = np.unique(np.concatenate([np.unique(output[:, channel]) for output in outputs]))
        if 2 <= len(values) <= MOST_VALUES:
            quarter = (values[-1] - values[0]) / 4
            middle = values[(values >= values[0] + quarter) & (values <= values[-1] - quarter)]
            gaps = np.diff(middle if len(middle) > 1 else values)
            largest = max(largest, float(np.median(gaps)) * LEVELS / data_range)
    return largest


@dataclass(frozen=True)
class Speed:
    """What is known of a file's speed against the float one.

    Attributes:
        verdict: "faster", "slower", "same" or "inconclusive"; None: not measured.
        ratio: latency of the float file : of this one; ci99: its interval.
        said: why it is not known; None where it is.
    """

    verdict: str | None = None
    ratio: float | None = None
    ci99: tuple[float, float] | None = None
    said: str | None = NOT_MEASURED

    @classmethod
    def of(cls, comparison: Comparison) -> Speed:
        """Return what a comparison with the float file, the first one, says."""
        interval = comparison.ratio.ci99
        said = None
        if comparison.verdict == "inconclusive":
            said = f"these samples cannot tell whether it is faster: {comparison.reason}"
        pair = None if interval is None else (float(interval[0]), float(interval[1]))
        return cls(comparison.verdict, comparison.ratio.value, pair, said)

    @property
    def reason(self) -> str | None:
        """Why the file is rejected for its speed; None where it is not."""
        if self.verdict not in ("slower", "same"):
            return None
        interval = "" if self.ci99 is None else f" (99 % interval {self.ci99[0]:.2f} to {self.ci99[1]:.2f})"
        return f"not faster than float here: {self.ratio:.2f} times as fast{interval}"

    def to_json(self) -> dict[str, Any]:
        """Return a JSON object."""
        interval = None if self.ci99 is None else list(self.ci99)
        return {"verdict": self.verdict, "ratio": self.ratio, "ci99": interval, "reason": self.said}


def speeds(
    reference: Path, candidates: Mapping[str, Path], settings: Settings, seed: int, runtime: str = ONNX_RUNTIME
) -> dict[str, Speed]:
    """Measure files against the float one on this machine, all in one interleaved measurement.

    Args:
        candidates: by precision.
        settings: `bench.*` are read.
        runtime: the engine that runs them.

    Raises:
        ArtifactError: a file cannot be run, or there is not the time for one pair.
    """
    report = measure(
        [
            Workload("fp32", reference, runtime=runtime),
            *(Workload(name, path, runtime=runtime, precision=name) for name, path in candidates.items()),
        ],
        **Extent.of(settings).arguments(),
        seed=seed,
    )
    return {comparison.b: Speed.of(comparison) for comparison in report.comparisons}
