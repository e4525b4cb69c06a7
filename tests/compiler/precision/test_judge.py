"""What a file of another precision is worth: pictures, bands and speed."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

from mggc_edge.benchmarks.report import Comparison
from mggc_edge.benchmarks.stats import Ratio
from mggc_edge.compiler.precision.judge import Difference, FloatOutputs, Speed, step
from mggc_edge.errors import ArtifactError
from tests.compiler.precision.precision_helpers import network, pictures, quantize, samples, three_convolutions


def saved(path: Path, model: onnx.ModelProto) -> Path:
    path.write_bytes(model.SerializeToString())
    return path


def scaled(factor: float) -> onnx.ModelProto:
    return network([helper.make_node("Mul", ["x", "f"], ["y"])], {"f": np.float64(factor) * np.ones(1)})


def test_the_difference_is_that_of_all_held_out_pictures(tmp_path: Path) -> None:
    floats = FloatOutputs(saved(tmp_path / "a.onnx", scaled(1.0)), samples().held_out, 2.0)
    found = floats.of(saved(tmp_path / "b.onnx", scaled(1.25)))
    every = np.stack(pictures())
    assert floats.count == 2
    assert found.psnr == pytest.approx(10 * math.log10(4 / np.square(every / 4).mean()), rel=1e-5)
    assert found.max_abs == pytest.approx(np.abs(every / 4).max(), rel=1e-5)
    assert floats.difference(scaled(1.25)) == found
    assert floats.of(tmp_path / "a.onnx").psnr is None


def test_a_file_is_judged_in_the_engine_that_runs_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("openvino")
    floats = FloatOutputs(saved(tmp_path / "a.onnx", three_convolutions()), samples().held_out, 2.0)
    path = saved(tmp_path / "b.onnx", quantize(three_convolutions())[0])
    here, there = floats.of(path), floats.of(path, "openvino")
    assert here.psnr is not None
    assert there.psnr is not None
    assert there.psnr == pytest.approx(here.psnr, abs=3)
    monkeypatch.setattr("mggc_edge.backends.openvino.OpenVinoRunner.infer", lambda *_: {"y": np.float32(np.nan)})
    assert floats.of(path, "openvino").to_json() == {"psnr": None, "identical": False, "max_abs": None}


def test_without_a_known_range_it_is_what_the_outputs_reach(tmp_path: Path) -> None:
    floats = FloatOutputs(saved(tmp_path / "a.onnx", scaled(10.0)), samples().held_out)
    assert floats.data_range == pytest.approx(20 * np.abs(pictures()).max(), rel=1e-6)
    assert FloatOutputs(saved(tmp_path / "b.onnx", scaled(0.1)), samples().held_out).data_range == 2.0


def test_a_float_file_that_is_not_finite_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"^'a\.onnx' gives values that are not finite on a calibration picture"):
        FloatOutputs(saved(tmp_path / "a.onnx", scaled(math.inf)), samples().held_out)


def test_a_file_is_rejected_below_the_psnr_where_it_is_not_finite_and_where_its_last_layer_bands(
    tmp_path: Path,
) -> None:
    floats = FloatOutputs(saved(tmp_path / "a.onnx", scaled(1.0)), samples().held_out, 2.0)
    broken = floats.of(saved(tmp_path / "b.onnx", scaled(math.inf)))
    assert broken.reason(35, last_in_8_bits=False) == "it gives values that are not finite"
    assert Difference(34.96, 0.1, 0.0).reason(35, last_in_8_bits=False) == (
        "PSNR to the float output 35.0 dB, below 35 dB"
    )
    assert Difference(35.0, 0.1, 3.6).reason(35, last_in_8_bits=False) is None
    assert Difference(35.0, 0.1, 3.62).reason(35, last_in_8_bits=True) == (
        "its last layer bands: from one value to the next it is 3.6 of 255 levels"
    )
    assert Difference(35.0, 0.1, 0.9).reason(35, last_in_8_bits=True) is None
    assert Difference(None, 0.0, 0.0).reason(35, last_in_8_bits=True) is None


def test_steps_are_counted_in_levels_of_a_picture_and_floats_have_none() -> None:
    rng = np.random.default_rng(0)
    smooth = rng.uniform(-1, 1, (1, 3, 64, 64)).astype(np.float32)
    assert step([smooth], 2.0) == 0.0
    coarse = np.rint(smooth / 0.05) * 0.05
    assert step([coarse[:, :, :32], coarse[:, :, 32:]], 2.0) == pytest.approx(0.05 * 255 / 2, rel=1e-3)
    one = smooth.copy()
    one[:, 1] = coarse[:, 1]
    assert step([one], 2.0) == pytest.approx(0.05 * 255 / 2, rel=1e-3), "the worst channel"
    # Behind a tanh the steps in the middle are the wide ones.
    assert step([np.tanh(np.rint(4 * smooth / 0.05) * 0.05)], 2.0) == pytest.approx(0.05 * 255 / 2, rel=0.15)


def test_a_last_layer_in_8_bits_has_as_few_values_as_its_grid(tmp_path: Path) -> None:
    model = three_convolutions()
    floats = FloatOutputs(saved(tmp_path / "a.onnx", model), samples().held_out, 2.0)
    assert floats.difference(quantize(model)[0]).step == 0.0
    last = floats.difference(quantize(model, last_in_float=False)[0])
    assert 0 < last.step < 10


def comparison(value: float, ci99: tuple[float, float] | None, codes: tuple[str, ...] = ()) -> Comparison:
    ratio = Ratio(value=value, ci95=ci99, ci99=ci99, minimum_detectable_effect=0.02, processes=10)
    return Comparison("fp32", "int8", ratio, 0.05, None, 40, codes=codes)


def test_a_file_that_is_not_faster_is_rejected_and_one_of_which_nothing_is_known_is_not() -> None:
    faster = Speed.of(comparison(1.4, (1.3, 1.5)))
    assert (faster.verdict, faster.reason, faster.said) == ("faster", None, None)
    slower = Speed.of(comparison(0.8, (0.7, 0.9)))
    assert slower.reason == "not faster than float here: 0.80 times as fast (99 % interval 0.70 to 0.90)"
    same = Speed.of(comparison(1.0, (0.99, 1.01)))
    assert same.reason == "not faster than float here: 1.00 times as fast (99 % interval 0.99 to 1.01)"
    unknown = Speed.of(comparison(1.4, (0.8, 2.0)))
    assert (unknown.verdict, unknown.reason) == ("inconclusive", None)
    assert unknown.said == "these samples cannot tell whether it is faster: the 99 % interval is too wide"
    assert Speed().to_json() == {"verdict": None, "ratio": None, "ci99": None, "reason": "speed not measured here"}
    assert faster.to_json() == {"verdict": "faster", "ratio": 1.4, "ci99": [1.3, 1.5], "reason": None}
