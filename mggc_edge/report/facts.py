"""RunFacts: what a report says about a run, as plain frozen values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mggc_edge.report.curves import Log
from mggc_edge.report.power import NO_POWER, Power

COLUMNS = ("input", "original", "compressed", "truth")  # of the pictures, in the order in which they stand


@dataclass(frozen=True)
class Cost:
    """What a generator costs; None where it is not known.

    Attributes:
        parameters: their number.
        macs_true, macs_paper: multiply-accumulates for one picture, in both conventions.
        size_bytes: of its ONNX file in fp32.
    """

    parameters: float | None = None
    macs_true: float | None = None
    macs_paper: float | None = None
    size_bytes: float | None = None

    def macs(self, convention: str) -> float | None:
        """Return the MACs in a convention, "true" or "paper"."""
        return self.macs_paper if convention == "paper" else self.macs_true


@dataclass(frozen=True)
class Size:
    """What an 8-bit generator takes, on disk or in memory: its ratio to the original is channels times bits."""

    original_bytes: float
    compressed_bytes: float
    ratio: float
    channels: float
    bits: float


@dataclass(frozen=True)
class Latency:
    """Time for one picture, original against compressed.

    Attributes:
        original_ms, compressed_ms: the medians.
        speedup: original : compressed.
        ci95, ci99: 95 % and 99 % interval of the speed-up.
        realisation: the speed-up divided by the ratio of the MACs.
        device, runtime, precision: where and with what it was measured.
        original_runtime: with what the original was, where that is another one; in fp32.
        verdict: what the benchmark says that the samples allow to say; None where it says nothing.
        reason: why that is nothing.
        disturbed: codes of what disturbed the samples, so that not even their interval holds.
        warnings: what the benchmark warns of, each as code and sentence.
        left_out: pairs of samples in which one of both was disturbed: they are not in the ratio.
    """

    original_ms: float | None = None
    compressed_ms: float | None = None
    speedup: float | None = None
    ci95: tuple[float, float] | None = None
    realisation: float | None = None
    device: str | None = None
    runtime: str | None = None
    precision: str | None = None
    verdict: str | None = None
    ci99: tuple[float, float] | None = None
    reason: str | None = None
    disturbed: tuple[str, ...] = ()
    warnings: tuple[tuple[str, str], ...] = ()
    left_out: int = 0
    original_runtime: str | None = None

    @property
    def bounds(self) -> tuple[float, float] | None:
        """The interval that the verdict goes by, the 99 % one; a run of an older version has only the other."""
        return self.ci95 if self.ci99 is None else self.ci99

    @property
    def level(self) -> str:
        """The confidence level of `bounds`."""
        return "95\u00a0%" if self.ci99 is None else "99\u00a0%"

    @property
    def told_apart(self) -> bool:
        """Whether the samples carry a claim about the speed-up; where nobody judged them, their interval does."""
        if self.disturbed:
            return False
        if self.verdict is not None:
            return self.verdict in ("faster", "slower", "same")
        return self.bounds is not None and not self.bounds[0] <= 1 <= self.bounds[1]

    @property
    def implausible(self) -> bool:
        """Whether more speed was gained than multiplications were saved: the realisation in per cent is above 100.

        Another precision than the original's, or another engine, may well bring more than that.
        """
        real = self.realisation
        alike = self.precision in (None, "fp32") and self.original_runtime in (None, self.runtime)
        return alike and real is not None and round(real, 2) > 1 and (self.speedup or 0) > real


@dataclass(frozen=True)
class Measured:
    """One side of `bench.json`: median and its 95 % interval in ms, raw samples in ns, codes of warnings, power."""

    p50_ms: float | None
    ci95_ms: tuple[float, float] | None
    samples_ns: tuple[float, ...]
    load_ms: float | None
    first_inference_ms: float | None
    rss_peak_bytes: float | None
    threads: float | None
    warnings: tuple[str, ...] = ()
    power: Power = NO_POWER


@dataclass(frozen=True)
class Group:
    """A channel group: how many of its channels stay."""

    name: str
    kept: int
    total: int


@dataclass(frozen=True)
class Plan:
    """A pruning plan without its channel numbers.

    Attributes:
        family, blocks: of the network.
        groups: in the order of the network.
        budget, budget_met: fraction of the MACs asked for and kept, in `convention`.
        image_size: (height, width) at which MACs were counted.
    """

    family: str
    blocks: int
    groups: tuple[Group, ...]
    criterion: str
    seed: int
    budget: float
    budget_met: float
    convention: str
    image_size: tuple[int, int]


@dataclass(frozen=True)
class Pair:
    """A number of the original's and of the compressed generator's pictures, each with its spread.

    The spread is a 95 % interval, or else a standard deviation; None where it is not known.
    """

    original: float | None
    compressed: float | None
    original_std: float | None = None
    compressed_std: float | None = None
    original_ci95: tuple[float, float] | None = None
    compressed_ci95: tuple[float, float] | None = None


@dataclass(frozen=True)
class Distance:
    """Distances of distributions by the features of one network.

    Attributes:
        features: its name.
        metric: "fid" with the published Inception weights, else "frechet".
        reason: why there is no Frechet distance; kid_reason: why there is no KID.
    """

    features: str
    metric: str
    kid: Pair | None
    frechet: Pair | None
    reason: str | None = None
    kid_reason: str | None = None


@dataclass(frozen=True)
class Quality:
    """`quality.json`: distances of pictures. PSNR in dB, with its 95 % interval; that of identical pictures is None.

    The PSNR before and after finetuning is that of the held-out pictures, from the squared error of all together. The
    others are means over the pictures that the quality was measured on. `miou_real` is that of the true photographs.
    """

    pictures: int | None
    where: str | None
    identical: bool
    psnr_to_original: float | None
    psnr_ci95: tuple[float, float] | None
    ssim_to_original: float | None
    psnr_to_truth: Pair | None
    ssim_to_truth: Pair | None
    distances: tuple[Distance, ...]
    psnr_before_finetuning: float | None
    psnr_after_finetuning: float | None
    ssim_ci95: tuple[float, float] | None = None
    miou: Pair | None = None
    pixel_accuracy: Pair | None = None
    miou_real: float | None = None


@dataclass(frozen=True)
class Artifact:
    """A file of the run that can be used, or was refused for a reason."""

    path: str
    target: str | None
    runtime: str | None
    precision: str | None
    accepted: bool | None
    reason: str | None


@dataclass(frozen=True)
class Sample:
    """One picture in up to four states: column of `COLUMNS` -> bytes of a PNG file."""

    name: str
    pictures: Mapping[str, bytes]


@dataclass(frozen=True)
class RunFacts:
    """Everything that the page of a run is made of; None and () where a run has no such part.

    Attributes:
        name: of the run folder.
        command: the command that made it, such as "compress"; command_line: as it was typed.
        sizes: of an 8-bit generator, on disk and in memory.
        bench: what was measured of the original and of the compressed generator; rows: of every model, by its name.
        settings, tools: name -> JSON value; timings_s: stage -> seconds; files: path -> bytes.
    """

    name: str
    command: str
    plan: Plan
    command_line: str | None = None
    method: str | None = None
    original: Cost = Cost()
    compressed: Cost = Cost()
    sizes: tuple[Size, Size] | None = None
    latency: Latency | None = None
    bench: tuple[Measured, Measured] | None = None
    rows: tuple[tuple[str, Measured], ...] = ()
    discriminator: Plan | None = None
    quality: Quality | None = None
    samples: tuple[Sample, ...] = ()
    log: Log = field(default_factory=Log)
    artifacts: tuple[Artifact, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    tools: Mapping[str, Any] = field(default_factory=dict)
    timings_s: Mapping[str, float] = field(default_factory=dict)
    files: Mapping[str, float | None] = field(default_factory=dict)
