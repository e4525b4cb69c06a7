"""Activation ranges: the (low, high) of every inner tensor that an 8-bit grid is to hold, by one of five methods.

    min-max         everything that was seen
    moving-average  r <- (1 - m) r + m x of every picture's smallest and largest value, beginning with the first one's
    percentile      from the (100 - p)-th to the p-th percentile of all values
    entropy         -t to t, within what was seen, where |x| clipped at t and rounded to 128 levels diverges least
                    (Kullback-Leibler) from |x|: Migacz, "8-bit inference with TensorRT", GTC 2017
    mse             the part of what was seen whose 256 levels have the smallest squared error

The last three look at a histogram of BINS bins, so they go through the pictures twice, and memory does not grow with
their number.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from mggc_edge.calibration.observe import observe
from mggc_edge.calibration.samples import Samples
from mggc_edge.errors import ArtifactError, SettingError, counted
from mggc_edge.tensors import Array

if TYPE_CHECKING:
    import onnx

Method = Literal["min-max", "moving-average", "percentile", "entropy", "mse"]
Range = tuple[float, float]
SCHEMA = "mggc-edge/ranges/1"
BINS = 2048
LEVELS, HALF_LEVELS = 256, 128
PARTS = (1.0, 0.95, 0.9, 0.85, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3)  # of what was seen, for mse
FROM_HISTOGRAMS = ("percentile", "entropy", "mse")
LARGEST = 1e30  # a range beyond it has no scale that float32 computes with


@dataclass(frozen=True)
class ActivationRanges:
    """What calibration found.

    Attributes:
        ranges: (low, high) by the name of the tensor.
        method: see above.
        pictures: how many they were found on; `pictures_sha256`: see `Samples`.

    Raises:
        ArtifactError: a range is none.
    """

    ranges: Mapping[str, Range]
    method: Method
    pictures: int
    pictures_sha256: str

    def __post_init__(self) -> None:
        for name, (low, high) in self.ranges.items():
            if not (math.isfinite(low) and math.isfinite(high) and low <= high and high - low < LARGEST):
                raise ArtifactError(
                    f"tensor '{name}' has the range {low:g} to {high:g}, which no grid holds",
                    hint="calibrate again, on pictures that the network gives finite values for",
                )
        if self.method not in get_args(Method):
            raise ArtifactError(f"'{self.method}' is no way to find ranges", hint=f"{', '.join(get_args(Method))}")

    def of(self, name: str) -> Range:
        """Return the range of a tensor; ArtifactError where it has none."""
        if name not in self.ranges:
            raise ArtifactError(f"tensor '{name}' has no range", hint="calibrate the graph that is to be quantized")
        return self.ranges[name]

    def to_json(self) -> dict[str, Any]:
        """Return a JSON object that `from_json` reads back exactly."""
        return {
            "schema": SCHEMA,
            "method": self.method,
            "pictures": self.pictures,
            "pictures_sha256": self.pictures_sha256,
            "ranges": {name: list(pair) for name, pair in self.ranges.items()},
        }

    @classmethod
    def from_json(cls, document: object) -> ActivationRanges:
        """Return what `to_json` wrote; ArtifactError for anything else, and for ranges that are none."""
        if not isinstance(document, Mapping) or document.get("schema") != SCHEMA:
            raise ArtifactError(f"these are no activation ranges: the schema is not {SCHEMA}")
        try:
            pairs = {str(name): (float(low), float(high)) for name, (low, high) in document["ranges"].items()}
            return cls(pairs, document["method"], int(document["pictures"]), str(document["pictures_sha256"]))
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ArtifactError(f"these activation ranges are damaged: {error}") from error


@dataclass(frozen=True)
class Finding:
    """How ranges are found.

    Attributes:
        method: see above.
        percentile: above 50 and up to 100, in per cent.
        momentum: m above, above 0 and up to 1.

    Raises:
        SettingError: one is impossible.
    """

    method: Method = "min-max"
    percentile: float = 99.99
    momentum: float = 0.1

    def __post_init__(self) -> None:
        if self.method not in get_args(Method):
            raise SettingError(f"'{self.method}' is no way to find ranges", hint=f"{', '.join(get_args(Method))}")
        if not 50 < self.percentile <= 100 or not 0 < self.momentum <= 1:
            raise SettingError(
                f"a percentile of {self.percentile:g} and a momentum of {self.momentum:g} find no ranges",
                hint="a percentile above 50 and up to 100, a momentum above 0 and up to 1",
            )


def find_ranges(
    model: onnx.ModelProto, names: Sequence[str], samples: Samples, finding: Finding | None = None
) -> ActivationRanges:
    """Return the ranges of a graph's tensors on the observed pictures of `samples`.

    Args:
        model, names: see `observe`.

    Raises:
        ArtifactError: the graph cannot be run, has no such tensor, or computes values that are not finite.
    """
    finding = finding or Finding()
    return find_by_each(model, names, samples, [finding])[finding.method]


def find_by_each(
    model: onnx.ModelProto, names: Sequence[str], samples: Samples, findings: Sequence[Finding]
) -> dict[Method, ActivationRanges]:
    """Return the ranges that several ways find, by method; pictures are gone through twice, whatever their number.

    Raises:
        ArtifactError: as for `find_ranges`.
    """
    momentum = next((one.momentum for one in findings if one.method == "moving-average"), Finding.momentum)
    extremes = Extremes(momentum)
    count = observe(model, names, samples.observed, extremes.see)
    seen = extremes.seen()
    kinds = {one.method == "entropy" for one in findings if one.method in FROM_HISTOGRAMS}
    histograms = {absolute: Histograms(seen, absolute=absolute) for absolute in kinds}

    def see(name: str, values: Array) -> None:
        for one in histograms.values():
            one.see(name, values)

    if histograms:
        observe(model, names, samples.observed, see)
    found: dict[Method, ActivationRanges] = {}
    for finding in findings:
        ranges = extremes.averaged() if finding.method == "moving-average" else seen
        if finding.method in FROM_HISTOGRAMS:
            histogram_of = histograms[finding.method == "entropy"].found
            ranges = {name: _narrowed(finding, histogram_of[name], seen[name]) for name in seen}
        found[finding.method] = ActivationRanges(ranges, finding.method, count, samples.sha256)
    return found


def _narrowed(finding: Finding, found: Histogram, seen: Range) -> Range:
    if finding.method == "percentile":
        return percentile_range(found, finding.percentile)
    return entropy_range(found, seen) if finding.method == "entropy" else mse_range(found, seen)


class Extremes:
    """The smallest and the largest value of every tensor: of all, and their moving averages over pictures."""

    def __init__(self, momentum: float = 0.1) -> None:
        self._momentum = momentum
        self._seen: dict[str, Range] = {}
        self._averaged: dict[str, Range] = {}

    def see(self, name: str, values: Array) -> None:
        """Take in a tensor of one picture; ArtifactError where a value is not finite."""
        low, high = float(values.min()), float(values.max())
        if not (math.isfinite(low) and math.isfinite(high)):
            wrong = values.size - int(np.isfinite(values).sum())
            raise ArtifactError(
                f"{wrong} of {counted(values.size, 'value')} of tensor '{name}' are not finite on a picture",
                hint="no range holds them; look for overflowing weights in the file",
            )
        before, part = self._seen.get(name, (low, high)), self._momentum
        self._seen[name] = min(before[0], low), max(before[1], high)
        old = self._averaged.get(name, (low, high))
        self._averaged[name] = (1 - part) * old[0] + part * low, (1 - part) * old[1] + part * high

    def seen(self) -> dict[str, Range]:
        """Return (low, high) of every tensor over all pictures."""
        return dict(self._seen)

    def averaged(self) -> dict[str, Range]:
        """Return the moving averages of (low, high)."""
        return dict(self._averaged)


@dataclass(frozen=True)
class Histogram:
    """Counts of values in bins of one width, from `low` to `high`."""

    low: float
    high: float
    counts: npt.NDArray[np.int64]

    @property
    def edges(self) -> npt.NDArray[np.float64]:
        """The edges of the bins, one more than there are bins."""
        return np.linspace(self.low, self.high, len(self.counts) + 1)


class Histograms:
    """Histograms of tensors whose extremes are known; of absolute values from 0 on."""

    def __init__(self, ranges: Mapping[str, Range], *, absolute: bool, bins: int = BINS) -> None:
        self._absolute = absolute
        self.found = {
            name: Histogram(*self._reach(low, high), np.zeros(bins, np.int64)) for name, (low, high) in ranges.items()
        }

    def _reach(self, low: float, high: float) -> Range:
        return (0.0, max(abs(low), abs(high))) if self._absolute else (low, high)

    def see(self, name: str, values: Array) -> None:
        """Take in a tensor of one picture."""
        found = self.found[name]
        if found.high > found.low:
            values = np.abs(values) if self._absolute else values
            found.counts[:] += np.histogram(values, len(found.counts), (found.low, found.high))[0]


def percentile_range(found: Histogram, percentile: float) -> Range:
    """Return the (100 - p)-th and p-th percentile: the outer edges of the bins in which they lie."""
    total = found.counts.sum()
    if not total:
        return found.low, found.high
    below, edges = np.cumsum(found.counts), found.edges
    first = int(np.searchsorted(below, total * (1 - percentile / 100), side="right"))
    last = int(np.searchsorted(below, total * percentile / 100, side="left"))
    most = len(found.counts) - 1
    return float(edges[min(first, most)]), float(edges[min(last, most) + 1])


def entropy_range(found: Histogram, seen: Range) -> Range:
    """Return -t to t within `seen`, for the threshold t of a histogram of absolute values with the least divergence.

    The first bin counts as much as the second one, as TensorRT's calibrator takes it: zeros, of which a ReLU makes half
    of all values, are exact at any threshold, and would outweigh everything that a threshold cuts off.

    P are the counts below t, those beyond it added to the last bin. Q are the counts below t, summed into 128 groups of
    bins and spread evenly over the bins of a group that are not empty. A t whose last bin is empty while something lies
    beyond it diverges without bound.
    """
    counts = found.counts.astype(np.float64)
    counts[:1] = counts[1:2]
    best, threshold = math.inf, found.high
    for bins in range(HALF_LEVELS, len(counts) + 1):
        inside = counts[:bins]
        clipped = inside.copy()
        clipped[-1] += counts[bins:].sum()
        group = np.arange(bins) * HALF_LEVELS // bins
        filled = inside > 0
        sums = np.bincount(group, inside, HALF_LEVELS)
        sizes = np.bincount(group, filled, HALF_LEVELS)
        spread = np.where(filled, (sums / np.maximum(sizes, 1))[group], 0)
        divergence = _divergence(clipped, spread)
        if divergence < best:
            best, threshold = divergence, found.edges[bins]
    return max(seen[0], -float(threshold)), min(seen[1], float(threshold))


def _divergence(p: npt.NDArray[np.float64], q: npt.NDArray[np.float64]) -> float:
    """Return the Kullback-Leibler divergence of two histograms, in nats; infinite where q is 0 and p is not."""
    there = p > 0
    if not there.any() or (q[there] == 0).any():
        return math.inf
    p, q = p[there] / p.sum(), q[there] / q.sum()
    return float((p * np.log(p / q)).sum())


def mse_range(found: Histogram, seen: Range) -> Range:
    """Return the part of `seen`, with 0, whose 256 levels have the smallest squared error; values are their bins'."""
    centers = (found.edges[:-1] + found.edges[1:]) / 2
    low, high = min(seen[0], 0.0), max(seen[1], 0.0)
    if high <= low or not found.counts.any():
        return seen
    errors = []
    for part in PARTS:
        scale = part * (high - low) / (LEVELS - 1)
        zero = round(-part * low / scale)
        levels = np.clip(np.rint(centers / scale) + zero, 0, LEVELS - 1)
        errors.append(float((found.counts * np.square((levels - zero) * scale - centers)).sum()))
    part = PARTS[int(np.argmin(errors))]
    return part * low, part * high
