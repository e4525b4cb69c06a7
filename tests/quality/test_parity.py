"""Parity counts exactly, one picture at a time, and NaN passes nothing."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from mggc_edge.backends.base import BaseRunner
from mggc_edge.errors import CheckFailedError, FeedError
from mggc_edge.quality.metrics import ssim
from mggc_edge.quality.parity import ParityReport, check_parity
from mggc_edge.tensors import Array, Feeds, FloatArray, TensorSpec


class Fake(BaseRunner):
    """Gives `function(picture)`, and writes down what it is asked."""

    engine = "fake"

    def __init__(
        self,
        function: Callable[[Array], Array] = lambda picture: picture,
        name: str = "fake",
        outputs: tuple[str, ...] = ("y",),
        log: list[str] | None = None,
    ) -> None:
        super().__init__(name)
        self._function, self._names, self._log = function, outputs, log

    def _open(self) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
        shape = (None, None, None, None)
        return (TensorSpec("x", "float32", shape),), tuple(TensorSpec(name, "float32", shape) for name in self._names)

    def _infer(self, feeds: Feeds) -> dict[str, Array]:
        if self._log is not None:
            self._log.append(self.name)
        return {name: self._function(feeds["x"]) for name in self._names}

    def _close(self) -> None:
        pass


def shifted(by: float) -> Callable[[Array], Array]:
    return lambda picture: picture + np.float32(by)


def with_value(value: float) -> Callable[[Array], Array]:
    def function(picture: Array) -> Array:
        changed = picture.copy()
        changed[0, 0, 0, 0] = value
        return changed

    return function


def zeros(*shapes: tuple[int, ...]) -> list[FloatArray]:
    return [np.zeros(shape, np.float32) for shape in shapes]


def compare(
    reference: Callable[[Array], Array], candidate: Callable[[Array], Array], pictures: Any = None, **limits: Any
) -> ParityReport:
    pictures = zeros((1, 1, 4, 4)) if pictures is None else pictures
    with Fake(reference, "reference") as a, Fake(candidate, "candidate") as b:
        return check_parity(a, b, pictures, **limits)


# --- numbers ---


def test_a_constant_shift_is_measured_exactly() -> None:
    report = compare(shifted(0), shifted(0.5), zeros((1, 3, 16, 16), (1, 3, 16, 16)))
    assert (report.images, report.max_abs, report.mean_abs) == (2, 0.5, 0.5)
    assert report.psnr == pytest.approx(10 * math.log10(4 / 0.25), abs=1e-12)
    assert not report.identical


def test_mean_and_psnr_are_of_all_values_of_all_pictures() -> None:
    # 16 + 64 + 2 * 64 values; the shift is the level of each picture.
    pictures = [np.full(shape, level, np.float32) for shape, level in
                (((1, 1, 4, 4), 0.5), ((1, 1, 8, 8), 0.25), ((2, 1, 8, 8), 0.0))]  # fmt: skip
    report = compare(lambda x: x, lambda x: 2 * x, pictures)
    values = 16 + 64 + 128
    assert report.images == 4
    assert report.max_abs == 0.5
    assert report.mean_abs == (16 * 0.5 + 64 * 0.25) / values
    assert report.psnr == pytest.approx(10 * math.log10(4 / ((16 * 0.25 + 64 * 0.0625) / values)), abs=1e-12)


def test_a_single_different_value_is_found() -> None:
    report = compare(shifted(0), with_value(0.125), zeros((1, 1, 4, 4)))
    assert (report.max_abs, report.mean_abs) == (0.125, 0.125 / 16)


def test_differences_are_taken_in_double_precision() -> None:
    report = compare(shifted(0), lambda x: (x + 1e-30).astype(np.float32), zeros((1, 1, 4, 4)))
    assert report.max_abs == float(np.float32(1e-30))
    assert report.psnr is not None
    assert 0 < report.psnr < math.inf


def test_ssim_is_the_mean_over_the_pictures_whatever_their_batches() -> None:
    random = np.random.default_rng(0)
    pictures = [random.uniform(-1, 1, (batch, 3, 16, 16)).astype(np.float32) for batch in (1, 3)]

    def blurred(picture: Array) -> Array:
        return picture if len(picture) == 1 else (picture / 2).astype(np.float32)

    expected = ssim(pictures[1], blurred(pictures[1]), 2.0)
    assert expected is not None
    assert compare(lambda x: x, blurred, pictures).ssim == pytest.approx((1 + 3 * expected) / 4, abs=1e-12)


def test_ssim_has_no_value_where_the_pictures_are_too_small() -> None:
    assert compare(shifted(0), shifted(0.5)).ssim is None


# --- verdicts ---


def test_identical_outputs_have_no_psnr_and_pass_everything() -> None:
    report = compare(shifted(0), shifted(0), atol=0, min_psnr=1000)
    assert (report.identical, report.passed, report.psnr, report.max_abs) == (True, True, None, 0)
    assert report.to_json()["psnr"] is None
    report.check("never")


@pytest.mark.parametrize(("atol", "passed"), [(0.5, True), (0.49, False), (0, False), (None, True)])
def test_atol_includes_its_own_value(atol: float | None, passed: bool) -> None:
    assert compare(shifted(0), shifted(0.5), atol=atol).passed is passed


@pytest.mark.parametrize(("min_psnr", "passed"), [(12.04, True), (12.05, False), (None, True)])
def test_min_psnr_is_a_lower_bound(min_psnr: float | None, passed: bool) -> None:
    # 10 log10(4 / 0.25) = 12.0412
    assert compare(shifted(0), shifted(0.5), atol=None, min_psnr=min_psnr).passed is passed


def test_both_limits_must_hold() -> None:
    assert not compare(shifted(0), shifted(0.5), atol=0.1, min_psnr=1).passed
    assert not compare(shifted(0), shifted(0.5), atol=1, min_psnr=50).passed
    assert compare(shifted(0), shifted(0.5), atol=1, min_psnr=1).passed


def test_a_failed_check_says_what_and_by_how_much() -> None:
    report = compare(shifted(0), shifted(0.5), atol=1e-4, min_psnr=40)
    with pytest.raises(CheckFailedError) as caught:
        report.check("'b' does not equal 'a'")
    assert caught.value.message == (
        "'b' does not equal 'a': outputs differ by up to 0.5, PSNR 12.04 dB; "
        "wanted was at most 0.0001 and a PSNR of at least 40 dB"
    )


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("sides", ["candidate", "reference", "both"])
@pytest.mark.parametrize("limits", [{}, {"atol": None}, {"atol": 1e9}, {"atol": None, "min_psnr": -1e9}])
def test_a_value_that_is_not_finite_fails_every_check(value: float, sides: str, limits: dict[str, Any]) -> None:
    functions = [with_value(value) if sides in (side, "both") else shifted(0) for side in ("reference", "candidate")]
    report = compare(functions[0], functions[1], zeros((1, 3, 16, 16)), **limits)
    assert not report.passed
    assert not report.identical
    with pytest.raises(CheckFailedError):
        report.check("it differs")
    document = report.to_json()
    assert document["max_abs"] is None
    assert document["mean_abs"] is None
    assert document["psnr"] is None
    assert json.loads(json.dumps(document, allow_nan=False)) == document


def test_nan_in_the_first_of_many_pictures_is_not_forgotten() -> None:
    levels = iter([math.nan, 0.0, 0.0])
    report = compare(shifted(0), lambda x: x + np.float32(next(levels)), zeros(*[(1, 1, 4, 4)] * 3))
    assert math.isnan(report.max_abs)
    assert not report.passed


def test_the_json_has_the_keys_of_verify() -> None:
    assert compare(shifted(0), shifted(0.5), zeros((1, 1, 4, 4)), atol=1.0).to_json() == {
        "passed": True,
        "identical": False,
        "psnr": pytest.approx(12.0412, abs=1e-4),
        "ssim": None,
        "max_abs": 0.5,
        "mean_abs": 0.5,
        "images": 1,
        "atol": 1.0,
        "min_psnr": None,
    }


# --- what cannot be compared ---


def test_no_picture_is_an_error() -> None:
    with pytest.raises(FeedError, match=r"^there is no picture to compare with$"):
        compare(shifted(0), shifted(0), iter(()))


def test_outputs_of_different_shapes_are_an_error() -> None:
    with pytest.raises(FeedError) as caught:
        compare(shifted(0), lambda picture: picture[:, :, 1:])
    assert caught.value.message == ("reference gives (1, 1, 4, 4) and candidate gives (1, 1, 3, 4): nothing to compare")


@pytest.mark.parametrize("shape", [(), (1, 0, 2, 2)])
def test_outputs_that_hold_no_pictures_are_an_error(shape: tuple[int, ...]) -> None:
    def empty(_: Array) -> Array:
        return np.zeros(shape, np.float32)

    with Fake(empty) as a, Fake(empty) as b, pytest.raises(FeedError, match="fake gives no pictures"):
        check_parity(a, b, [np.zeros((1, 3, 4, 4), np.float32)])


def test_shapes_that_numpy_would_stretch_are_an_error() -> None:
    with pytest.raises(FeedError, match="nothing to compare"):
        compare(shifted(0), lambda picture: picture[:, :, :1])


def test_a_runner_with_two_outputs_is_an_error() -> None:
    with Fake() as a, Fake(name="two", outputs=("y", "z")) as b, pytest.raises(FeedError) as caught:
        check_parity(a, b, zeros((1, 1, 4, 4)))
    assert caught.value.message == "two has 1 inputs and 2 outputs, not one each"


def test_a_runner_that_is_not_open_is_an_error() -> None:
    with Fake() as a, pytest.raises(FeedError, match="is not open"):
        check_parity(a, Fake(), zeros((1, 1, 4, 4)))


# --- streaming ---


def test_pictures_are_taken_one_at_a_time_and_each_is_seen_by_both_before_the_next() -> None:
    log: list[str] = []

    def pictures() -> Iterator[FloatArray]:
        for number in range(3):
            log.append(f"picture {number}")
            yield np.zeros((1, 1, 4, 4), np.float32)

    with Fake(name="a", log=log) as a, Fake(name="b", log=log) as b:
        report = check_parity(a, b, pictures())
    assert log == ["picture 0", "a", "b", "picture 1", "a", "b", "picture 2", "a", "b"]
    assert report.images == 3


def test_an_error_while_a_picture_is_read_comes_through() -> None:
    def pictures() -> Iterator[FloatArray]:
        yield np.zeros((1, 1, 4, 4), np.float32)
        raise FeedError("the second cannot be read")

    with pytest.raises(FeedError, match="the second cannot be read"):
        compare(shifted(0), shifted(0), pictures())
