"""A runner of levels stands before one of floats or of bytes, and gives both the same pictures."""

from __future__ import annotations

import numpy as np
import pytest

from mggc_edge.backends.base import BaseRunner
from mggc_edge.backends.levels import LevelRunner
from mggc_edge.errors import FeedError
from mggc_edge.pictures import PictureFormat
from mggc_edge.tensors import Array, Feeds, TensorSpec

BGR = PictureFormat(3, "BGR", 0.0, 1.0)
RGB = PictureFormat.for_channels(3)


class Passing(BaseRunner):
    """Gives what it takes, and keeps it."""

    engine = "passing"

    def __init__(self, dtype: str, shape: tuple[int | None, ...], gain: float = 1.0) -> None:
        super().__init__("passing", {"mggc_edge.input_format": "{}", "mggc_edge.bn": "eval"})
        self._spec, self._gain = TensorSpec("x", dtype, shape), gain
        self.seen: Array = np.zeros(0)

    def _open(self) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
        return (self._spec,), (TensorSpec("y", self._spec.dtype, self._spec.shape),)

    def _infer(self, feeds: Feeds) -> dict[str, Array]:
        self.seen = feeds["x"]
        return {"y": (self.seen * self._gain).astype(self.seen.dtype)}

    def _close(self) -> None:
        pass


def levels(*shape: int) -> Array:
    return np.random.default_rng(0).integers(0, 256, shape).astype(np.float32)


def test_floats_are_fed_the_values_of_their_own_format() -> None:
    feed = levels(2, 3, 8, 6)
    with Passing("float32", (None, 3, 8, 6)) as inner, LevelRunner(inner, BGR, BGR) as runner:
        assert (runner.inputs[0].shape, runner.outputs[0].dtype, runner.engine) == (
            (None, 3, 8, 6),
            "float32",
            "passing",
        )
        out = runner.infer({"x": feed})["y"]
        assert isinstance(inner, Passing)
        np.testing.assert_array_equal(inner.seen, (feed[:, ::-1].astype(np.float64) / 255).astype(np.float32))
    np.testing.assert_array_equal(out, feed)


def test_bytes_are_fed_as_they_are_in_their_own_order_of_axes() -> None:
    feed = levels(2, 3, 8, 6)
    with Passing("uint8", (None, 8, 6, 3)) as inner, LevelRunner(inner, RGB.in_bytes, RGB.in_bytes) as runner:
        assert (runner.inputs[0].shape, runner.inputs[0].dtype) == ((None, 3, 8, 6), "float32")
        out = runner.infer({"x": feed})["y"]
        assert isinstance(inner, Passing)
        assert (inner.seen.dtype.name, inner.seen.shape) == ("uint8", (2, 8, 6, 3))
    np.testing.assert_array_equal(out, feed)


def test_what_comes_out_is_rounded_and_clipped_and_nan_stays_to_be_seen() -> None:
    feed = levels(1, 3, 4, 4)
    with Passing("float32", (1, 3, 4, 4), gain=1.5) as inner, LevelRunner(inner, RGB, RGB) as runner:
        out = runner.infer({"x": feed})["y"]
    assert (out.min(), out.max()) == (0, 255)
    np.testing.assert_array_equal(out, np.rint(out))
    with Passing("float32", (1, 3, 4, 4), gain=float("nan")) as inner, LevelRunner(inner, RGB, RGB) as runner:
        assert np.isnan(runner.infer({"x": feed})["y"]).all()


def test_its_metadata_says_levels_and_keeps_the_rest() -> None:
    with Passing("float32", (1, 3, 4, 4)) as inner, LevelRunner(inner, BGR, BGR) as runner:
        assert runner.metadata["mggc_edge.io"] == "uint8"
        assert runner.metadata["mggc_edge.bn"] == "eval"
        assert '"color": "RGB", "low": 0.0, "high": 255.0' in runner.metadata["mggc_edge.input_format"]


def test_feeds_are_checked_as_for_any_runner() -> None:
    with Passing("uint8", (1, 4, 4, 3)) as inner, LevelRunner(inner, RGB, RGB) as runner, pytest.raises(FeedError):
        runner.infer({"x": levels(1, 4, 4, 3)})
