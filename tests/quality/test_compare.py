"""Two runners' pictures are compared one by one, with each other and with the truth, and no number is NaN."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pytest
import skimage.metrics

from mggc_edge.backends.base import BaseRunner
from mggc_edge.errors import FeedError
from mggc_edge.quality.bootstrap import mean_interval
from mggc_edge.quality.compare import Comparison, Similarity, compare_pictures
from mggc_edge.tensors import Array, Feeds, FloatArray, TensorSpec

reference: Any = skimage.metrics  # without types
Pair = tuple[Array, "Array | None"]


class Fake(BaseRunner):
    """Gives `function(picture)`."""

    engine = "fake"

    def __init__(self, function: Callable[[Array], Array], name: str) -> None:
        super().__init__(name)
        self._function = function

    def _open(self) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
        shape = (None, None, None, None)
        return (TensorSpec("x", "float32", shape),), (TensorSpec("y", "float32", shape),)

    def _infer(self, feeds: Feeds) -> dict[str, Array]:
        return {"y": self._function(feeds["x"])}

    def _close(self) -> None:
        pass


def same(picture: Array) -> Array:
    return picture


def noisy(strength: float, seed: int = 0) -> Callable[[Array], Array]:
    random = np.random.default_rng(seed)
    return lambda picture: (picture + strength * random.normal(size=picture.shape)).astype(np.float32)


def with_value(value: float) -> Callable[[Array], Array]:
    def function(picture: Array) -> Array:
        changed = picture.copy()
        changed[-1, 0, 0, 0] = value
        return changed

    return function


def pictures(count: int, batch: int = 1, side: int = 16) -> list[Pair]:
    random = np.random.default_rng(1)
    return [(random.uniform(-1, 1, (batch, 3, side, side)).astype(np.float32), None) for _ in range(count)]


def flat(levels: Sequence[float]) -> list[Pair]:
    return [(np.full((1, 1, 4, 4), level, np.float32), None) for level in levels]


def compare(
    original: Callable[[Array], Array], compressed: Callable[[Array], Array], pairs: Any, **settings: Any
) -> Comparison:
    with Fake(original, "original") as a, Fake(compressed, "compressed") as b:
        return compare_pictures(a, b, pairs, **settings)


# --- numbers ---


def test_psnr_is_the_mean_over_the_pictures_and_pooled_that_of_all_values() -> None:
    # Doubling moves each picture by its level: mean squared errors 0.25 and 0.01.
    found = compare(same, lambda x: 2 * x, flat([0.5, 0.1])).to_original
    assert found.psnr == pytest.approx((10 * math.log10(4 / 0.25) + 10 * math.log10(4 / 0.01)) / 2, abs=1e-6)
    assert found.psnr_pooled == pytest.approx(10 * math.log10(4 / 0.13), abs=1e-6)
    assert (found.pictures, found.identical, found.ssim) == (2, False, None)


def test_both_metrics_are_those_of_scikit_image() -> None:
    outputs: list[tuple[Array, Array]] = []
    found = compare(same, noisy(0.3), pictures(3), on_pictures=lambda _, a, b, __: outputs.append((a, b)))
    psnr = [reference.peak_signal_noise_ratio(a, b, data_range=2) for a, b in outputs]
    ssim = [
        reference.structural_similarity(
            a[0].astype(np.float64),
            b[0].astype(np.float64),
            channel_axis=0,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
            data_range=2,
        )
        for a, b in outputs
    ]
    assert found.to_original.psnr == pytest.approx(np.mean(psnr), abs=1e-6)
    assert found.to_original.ssim == pytest.approx(np.mean(ssim), abs=1e-9)


def test_a_batch_counts_picture_by_picture() -> None:
    singles = pictures(4)
    batch = [(np.concatenate([picture for picture, _ in singles]), None)]
    apart = compare(same, lambda x: x * np.float32(0.9), singles)
    together = compare(same, lambda x: x * np.float32(0.9), batch)
    assert together == apart
    assert together.pictures == 4


def test_the_range_of_values_can_be_another() -> None:
    found = compare(same, lambda x: x + np.float32(5), flat([0.0]), data_range=255).to_original
    assert found.psnr == pytest.approx(20 * math.log10(255 / 5), abs=1e-9)


def test_each_is_compared_with_the_truth() -> None:
    pairs: list[Pair] = [(np.full((1, 1, 4, 4), level, np.float32), np.zeros((1, 1, 4, 4))) for level in (0.5, 0.5)]
    found = compare(same, lambda x: x / 2, pairs)
    assert found.original_to_truth is not None
    assert found.compressed_to_truth is not None
    assert found.original_to_truth.psnr == pytest.approx(10 * math.log10(4 / 0.25), abs=1e-9)
    assert found.compressed_to_truth.psnr == pytest.approx(10 * math.log10(4 / 0.0625), abs=1e-9)
    assert found.to_original.psnr == pytest.approx(10 * math.log10(4 / 0.0625), abs=1e-9)
    assert {side: numbers["psnr"] for side, numbers in found.to_json()["to_truth"].items()} == {
        "original": found.original_to_truth.psnr,
        "compressed": found.compressed_to_truth.psnr,
    }


# --- intervals ---


def test_the_interval_holds_the_mean_and_narrows_with_more_pictures() -> None:
    widths = []
    for count in (8, 128):
        found = compare(same, lambda x: 2 * x, flat(np.linspace(0.1, 0.9, count).tolist())).to_original
        assert found.psnr_ci95 is not None
        assert found.psnr is not None
        assert found.psnr_ci95[0] < found.psnr < found.psnr_ci95[1]
        widths.append(found.psnr_ci95[1] - found.psnr_ci95[0])
    assert 3 < widths[0] / widths[1] < 5.5  # the root of 16


def test_the_interval_is_that_of_a_mean_of_many_values() -> None:
    values = np.random.default_rng(3).normal(30, 2, 400).tolist()
    interval = mean_interval(values, seed=0)
    assert interval is not None
    error = float(np.std(values, ddof=1)) / math.sqrt(400)
    assert interval[0] == pytest.approx(np.mean(values) - 1.96 * error, abs=0.15 * error)
    assert interval[1] == pytest.approx(np.mean(values) + 1.96 * error, abs=0.15 * error)


def test_the_interval_holds_the_true_mean_about_as_often_as_it_says() -> None:
    random = np.random.default_rng(0)
    intervals = [mean_interval(random.normal(size=30).tolist(), seed=seed) for seed in range(60)]
    held = [interval is not None and interval[0] < 0 < interval[1] for interval in intervals]
    assert 51 <= sum(held) < 60


def test_the_seed_of_the_interval_decides_and_repeats() -> None:
    values = [float(value) for value in range(10)]
    assert mean_interval(values, 1) == mean_interval(values, 1) != mean_interval(values, 2)
    first, again = (compare(same, lambda x: 2 * x, flat([0.1, 0.3] * 4), seed=4) for _ in range(2))
    assert first == again


def test_of_five_pictures_there_is_no_interval() -> None:
    assert mean_interval([1.0, 2, 3, 4, 5], seed=0) is None
    assert mean_interval([1.0, 2, 3, 4, 5, 6], seed=0) is not None
    assert compare(same, lambda x: 2 * x, flat([0.1] * 5)).to_original.psnr_ci95 is None


# --- what has no number ---


def test_identical_outputs_have_no_psnr_and_say_so() -> None:
    assert compare(same, same, pictures(2)).to_json() == {
        "pictures": 2,
        "psnr_to_original": None,
        "psnr_to_original_ci95": None,
        "psnr_to_original_pooled": None,
        "ssim_to_original": pytest.approx(1.0, abs=1e-12),
        "ssim_to_original_ci95": None,
        "identical": True,
        "identical_pictures": 2,
        "broken_pictures": 0,
        "to_truth": None,
        "to_truth_difference": None,
    }


def test_identical_pictures_among_others_are_counted_and_have_no_part_in_the_mean() -> None:
    found = compare(same, lambda x: 2 * x, flat([0.0, 0.5, 0.0])).to_original
    assert (found.identical, found.identical_pictures) == (False, 2)
    assert found.psnr == pytest.approx(10 * math.log10(4 / 0.25), abs=1e-9)
    assert found.psnr_pooled == pytest.approx(10 * math.log10(4 / (0.25 / 3)), abs=1e-9)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("broken", ["original", "compressed", "both"])
def test_a_value_that_is_not_finite_leaves_no_number_and_is_counted(value: float, broken: str) -> None:
    sides = [with_value(value) if broken in (side, "both") else same for side in ("original", "compressed")]
    pairs: list[Pair] = [(picture, np.zeros_like(picture)) for picture, _ in pictures(2, batch=3)]
    found = compare(sides[0], sides[1], pairs)
    assert found.to_original == Similarity(6, None, None, None, None, 4, 2)
    assert not found.to_original.identical
    document = found.to_json()
    for side in ("original", "compressed"):
        assert (document["to_truth"][side]["psnr"] is None) is (broken in (side, "both"))
        assert document["to_truth"][side]["broken_pictures"] == (2 if broken in (side, "both") else 0)
    assert json.loads(json.dumps(document, allow_nan=False)) == document


def test_values_whose_squares_overflow_are_broken() -> None:
    found = compare(lambda x: np.full(x.shape, 1e200), lambda x: np.full(x.shape, -1e200), pictures(1))
    assert found.to_original == Similarity(1, None, None, None, None, 0, 1)


def test_the_json_has_the_keys_of_every_picture_and_of_the_truth() -> None:
    pairs: list[Pair] = [(picture, picture) for picture, _ in pictures(6)]
    document = compare(same, noisy(0.1), pairs).to_json()
    assert json.loads(json.dumps(document, allow_nan=False)) == document
    assert document["psnr_to_original"] == document["to_truth"]["compressed"]["psnr"]
    low, high = document["psnr_to_original_ci95"]
    assert low < document["psnr_to_original"] < high
    assert document["to_truth"]["original"] == {
        "psnr": None,
        "psnr_ci95": None,
        "psnr_pooled": None,
        "ssim": pytest.approx(1.0, abs=1e-12),
        "ssim_ci95": [pytest.approx(1.0, abs=1e-12)] * 2,
        "identical": True,
        "identical_pictures": 6,
        "broken_pictures": 0,
    }


def test_the_differences_to_the_truth_are_paired_and_have_intervals() -> None:
    pairs: list[Pair] = [(picture, 0.9 * picture) for picture, _ in pictures(8)]
    found = compare(same, noisy(0.3), pairs)
    assert found.original_to_truth is not None
    assert found.compressed_to_truth is not None
    for name in ("psnr", "ssim"):
        sides = [getattr(side, name) for side in (found.original_to_truth, found.compressed_to_truth)]
        difference = getattr(found, f"{name}_to_truth_difference")
        assert difference.value == pytest.approx(sides[1] - sides[0], rel=1e-9)
        assert difference.ci95[0] < difference.value < difference.ci95[1] < 0
        assert found.to_json()["to_truth_difference"][name] == difference.to_json()
    low, high = found.to_json()["ssim_to_original_ci95"]
    assert low < found.to_json()["ssim_to_original"] < high


# --- streaming ---


def test_every_pair_is_handed_on_before_the_next_is_read() -> None:
    log: list[str] = []

    def pairs() -> Iterator[Pair]:
        for number in range(2):
            log.append(f"read {number}")
            yield np.full((1, 1, 4, 4), number, np.float32), np.full((1, 1, 4, 4), 9, np.float32)

    def seen(picture: Array, original: Array, compressed: Array, truth: Array | None) -> None:
        assert truth is not None
        log.append(f"{picture.mean():g} {original.mean():g} {compressed.mean():g} {truth.mean():g}")

    compare(lambda x: x + np.float32(1), lambda x: x + np.float32(2), pairs(), on_pictures=seen)
    assert log == ["read 0", "0 1 2 9", "read 1", "1 2 3 9"]


def test_pictures_without_truth_are_handed_on_with_none() -> None:
    truths: list[FloatArray | None] = []
    compare(same, same, flat([0.0]), on_pictures=lambda *arrays: truths.append(arrays[3]))
    assert truths == [None]


# --- what cannot be compared ---


def test_no_picture_is_an_error() -> None:
    with pytest.raises(FeedError, match=r"^there is no picture to compare with$"):
        compare(same, same, [])


@pytest.mark.parametrize(
    ("original", "compressed", "message"),
    [
        (same, lambda x: x[:, :, 1:],
         "original gives (1, 1, 4, 4) and compressed gives (1, 1, 3, 4): nothing to compare"),
        (lambda x: x[0], lambda x: x[0], "original gives (1, 4, 4), but pictures are [N, C, H, W]"),
        (lambda x: x[:0], lambda x: x[:0], "original gives (0, 1, 4, 4), but pictures are [N, C, H, W]"),
    ],
)  # fmt: skip
def test_outputs_that_are_no_pictures_of_one_shape_are_an_error(
    original: Callable[[Array], Array], compressed: Callable[[Array], Array], message: str
) -> None:
    with pytest.raises(FeedError) as caught:
        compare(original, compressed, flat([0.0]))
    assert caught.value.message == message


def test_a_truth_of_another_shape_is_an_error() -> None:
    with pytest.raises(FeedError) as caught:
        compare(same, same, [(np.zeros((1, 1, 4, 4), np.float32), np.zeros((1, 1, 4, 5), np.float32))])
    assert caught.value.message == "the truth has the shape (1, 1, 4, 5), but original gives (1, 1, 4, 4)"


@pytest.mark.parametrize("first", [True, False])
def test_a_truth_for_only_some_pictures_is_an_error(first: bool) -> None:
    picture = np.zeros((1, 1, 4, 4), np.float32)
    with pytest.raises(FeedError) as caught:
        compare(same, same, [(picture, picture if first else None), (picture, None if first else picture)])
    assert caught.value.message == "some pictures have a truth and some have none"
