"""Ranges: every method against a plain computation of what it says on known values."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import pytest
from onnx import TensorProto, helper

from mggc_edge.calibration.ranges import (
    BINS,
    PARTS,
    ActivationRanges,
    Extremes,
    Finding,
    Histogram,
    Histograms,
    Method,
    entropy_range,
    find_by_each,
    find_ranges,
    mse_range,
    percentile_range,
)
from mggc_edge.calibration.samples import Samples
from mggc_edge.errors import ArtifactError, SettingError
from mggc_edge.tensors import FloatArray
from tests.compiler.passes.pass_helpers import build

Values = npt.NDArray[np.float64]


def tensors(seed: int = 0, count: int = 4) -> list[FloatArray]:
    """Skewed values with a long tail, other ones in every picture."""
    rng = np.random.default_rng(seed)
    return [(rng.standard_normal((1, 2, 40, 40)) ** 3 * (1 + number) + 1).astype(np.float32) for number in range(count)]


def histogram(values: Sequence[FloatArray], *, absolute: bool = False) -> Histogram:
    every = np.concatenate([value.ravel() for value in values])
    found = Histograms({"t": (float(every.min()), float(every.max()))}, absolute=absolute)
    for value in values:
        found.see("t", value)
    return found.found["t"]


# --- each method ---


def test_min_max_is_everything_that_was_seen() -> None:
    found = Extremes()
    for value in tensors():
        found.see("t", value)
    every = np.stack(tensors())
    assert found.seen() == {"t": (every.min(), every.max())}


def test_the_moving_average_begins_with_the_first_picture_and_takes_a_part_of_every_other() -> None:
    found = Extremes(0.25)
    for value in tensors():
        found.see("t", value)
    low, high = float(tensors()[0].min()), float(tensors()[0].max())
    for value in tensors()[1:]:
        low, high = 0.75 * low + 0.25 * float(value.min()), 0.75 * high + 0.25 * float(value.max())
    assert found.averaged()["t"] == pytest.approx((low, high), rel=1e-12)


@pytest.mark.parametrize("percentile", [90, 99, 99.9, 100])
def test_the_percentile_is_numpys_to_within_a_bin(percentile: float) -> None:
    every = np.stack(tensors()).ravel()
    found = histogram(tensors())
    width = (found.high - found.low) / BINS
    low, high = percentile_range(found, percentile)
    wanted = np.percentile(every, [100 - percentile, percentile], method="inverted_cdf")
    assert low == pytest.approx(wanted[0], abs=1.01 * width)
    assert high == pytest.approx(wanted[1], abs=1.01 * width)
    assert low <= wanted[0]
    assert high >= wanted[1] - 1e-4


def divergence(counts: Values, bins: int) -> float:
    """The Kullback-Leibler divergence of clipping at `bins` and rounding to 128 levels, bin by bin."""
    p = [float(count) for count in counts[:bins]]
    p[-1] += float(counts[bins:].sum())
    q = [0.0] * bins
    for group in range(128):
        members = [b for b in range(bins) if b * 128 // bins == group]
        filled = [b for b in members if counts[b] > 0]
        for b in filled:
            q[b] = sum(float(counts[other]) for other in members) / len(filled)
    total = 0.0
    for one, other in zip(p, q, strict=True):
        if one > 0:
            if other == 0:
                return math.inf
            total += one / sum(p) * math.log(one / sum(p) / (other / sum(q)))
    return total


@pytest.mark.parametrize("zeros", [0, 10_000, 10_000_000])
def test_zeros_have_no_say_in_where_entropy_cuts(zeros: int) -> None:
    values = np.abs(np.random.default_rng(0).standard_normal(20_000)).astype(np.float32)
    found = histogram([values], absolute=True)
    counts = found.counts.copy()
    counts[0] += zeros
    ends = entropy_range(Histogram(found.low, found.high, counts), (0.0, float(values.max())))
    assert ends == entropy_range(found, (0.0, float(values.max())))
    assert ends[1] > 2.5  # of a normal distribution, whose sigma is 1


def test_entropy_takes_the_threshold_of_the_least_divergence() -> None:
    rng = np.random.default_rng(1)
    counts = np.histogram(np.abs(rng.standard_normal(4000)) ** 2, 160, (0, 12))[0]
    told = counts.astype(np.float64)
    told[0] = told[1]
    wanted = min(range(128, 161), key=lambda bins: divergence(told, bins))
    low, high = entropy_range(Histogram(0.0, 12.0, counts), (-12.0, 9.0))
    assert high == pytest.approx(min(9.0, wanted * 12 / 160))
    assert low == pytest.approx(-wanted * 12 / 160)
    assert 128 <= wanted < 160


def test_mse_takes_the_part_whose_levels_have_the_smallest_squared_error() -> None:
    values = np.concatenate([np.random.default_rng(2).standard_normal(200_000), [12.0, -6.0]]).astype(np.float32)
    low, high = float(values.min()), float(values.max())

    def error(part: float) -> float:
        scale = part * (high - low) / 255
        zero = round(-part * low / scale)
        return float(np.square((np.clip(np.rint(values / scale) + zero, 0, 255) - zero) * scale - values).mean())

    best = min(PARTS, key=error)
    assert best < 1
    assert mse_range(histogram([values]), (low, high)) == pytest.approx((best * low, best * high))


def test_a_tensor_that_is_always_the_same_has_that_value_as_its_range_by_every_method() -> None:
    values = [np.full((1, 1, 2, 2), 3.0, np.float32)] * 2
    found = histogram(values)
    assert percentile_range(found, 99) == (3.0, 3.0)
    assert mse_range(found, (3.0, 3.0)) == (3.0, 3.0)
    assert entropy_range(histogram(values, absolute=True), (3.0, 3.0)) == (3.0, 3.0)


# --- on a graph ---


def samples(pictures: Sequence[FloatArray]) -> Samples:
    def stream() -> Iterator[FloatArray]:
        return iter(pictures)

    return Samples(stream, stream, len(pictures), len(pictures), "0" * 64, "folder")


def test_all_methods_look_at_the_same_tensors_and_two_passes_are_enough() -> None:
    model = build([helper.make_node("Neg", ["x"], ["y"])], (1, 2, 40, 40), kind=TensorProto.FLOAT)
    methods: list[Method] = ["min-max", "moving-average", "percentile", "entropy", "mse"]
    every = -np.stack(tensors())
    passes = []

    def stream() -> Iterator[FloatArray]:
        passes.append(1)
        return iter(tensors())

    given = Samples(stream, stream, 4, 4, "0" * 64, "folder")
    found = find_by_each(model, ["y"], given, [Finding(method) for method in methods])
    assert len(passes) == 2
    assert list(found) == methods
    assert found["min-max"].of("y") == (every.min(), every.max())
    for method in methods:
        low, high = found[method].of("y")
        assert every.min() <= low < 0 < high <= every.max(), method
        assert find_ranges(model, ["y"], given, Finding(method)) == found[method]
    assert (found["mse"].pictures, found["mse"].pictures_sha256) == (4, "0" * 64)


def test_a_value_that_is_not_finite_is_refused_with_the_name_of_its_tensor() -> None:
    model = build([helper.make_node("Sqrt", ["x"], ["y"])], (1, 1, 1, 2), kind=TensorProto.FLOAT)
    feed = np.array([[[[1.0, -1.0]]]], np.float32)
    with pytest.raises(ArtifactError, match=r"^1 of 2 values of tensor 'y' are not finite on a picture") as caught:
        find_ranges(model, ["y"], samples([feed]))
    assert caught.value.hint == "no range holds them; look for overflowing weights in the file"


# --- the document ---


def test_ranges_are_read_back_as_they_were_written() -> None:
    ranges = ActivationRanges({"a": (-1.25, 0.1), "b": (0.0, 7.0)}, "mse", 12, "ab" * 32)
    assert ActivationRanges.from_json(ranges.to_json()) == ranges
    assert ranges.to_json()["schema"] == "mggc-edge/ranges/1"


@pytest.mark.parametrize("pair", [(math.nan, 1.0), (0.0, math.inf), (2.0, 1.0), (-1e30, 1e30)])
def test_a_range_that_is_none_is_refused(pair: tuple[float, float]) -> None:
    with pytest.raises(ArtifactError, match=r"^tensor 'a' has the range .*, which no grid holds"):
        ActivationRanges({"a": pair}, "mse", 1, "")
    document = {**ActivationRanges({}, "mse", 1, "").to_json(), "ranges": {"a": list(pair)}}
    with pytest.raises(ArtifactError, match="which no grid holds"):
        ActivationRanges.from_json(document)


@pytest.mark.parametrize("document", [None, [], {}, {"schema": "mggc-edge/ranges/2"}])
def test_another_document_is_no_ranges(document: object) -> None:
    with pytest.raises(ArtifactError, match="these are no activation ranges: the schema is not mggc-edge/ranges/1"):
        ActivationRanges.from_json(document)


@pytest.mark.parametrize(
    "change", [{"ranges": {"a": [1]}}, {"ranges": 3}, {"pictures": "many"}, {"ranges": {"a": "xy"}}]
)
def test_a_damaged_document_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(ArtifactError, match="these activation ranges are damaged"):
        ActivationRanges.from_json({**ActivationRanges({}, "mse", 1, "").to_json(), **change})


def test_a_method_that_is_none_and_a_tensor_without_a_range_are_refused() -> None:
    with pytest.raises(ArtifactError, match="'guess' is no way to find ranges"):
        ActivationRanges({}, "guess", 1, "")  # type: ignore[arg-type]
    with pytest.raises(ArtifactError, match="tensor 'b' has no range") as caught:
        ActivationRanges({"a": (0, 1)}, "mse", 1, "").of("b")
    assert caught.value.hint == "calibrate the graph that is to be quantized"
    with pytest.raises(SettingError, match="'guess' is no way to find ranges"):
        Finding("guess")  # type: ignore[arg-type]
    with pytest.raises(SettingError, match=r"a percentile of 50 and a momentum of 0\.1 find no ranges"):
        Finding("percentile", 50)
