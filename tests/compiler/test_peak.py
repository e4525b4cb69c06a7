"""Models of the peak: they multiply what is said, and engines run them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from mggc_edge.compiler.facts import count_macs, node_macs
from mggc_edge.compiler.peak import write_peak_models
from mggc_edge.errors import InputError


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_the_models_multiply_what_is_said_and_keep_the_size_of_values(precision: str, tmp_path: Path) -> None:
    written = write_peak_models(tmp_path, precision)
    assert [macs for _, macs in written] == [2 * 512 * 512 * 256, 2 * 128 * 128 * 9 * 256]
    for path, macs in written:
        model = onnx.load(path)
        found = node_macs(model)
        assert found == {"y0": ("Conv", macs // 2), "y1": ("Conv", macs // 2)}
        assert count_macs(model) == (macs, macs)
        session = onnxruntime.InferenceSession(path)
        shape = session.get_inputs()[0].shape
        values = np.random.default_rng(0).uniform(-1, 1, shape).astype(np.float32)
        assert 0.3 < float(np.std(session.run(None, {"x": values})[0])) < 1.0


def test_another_precision_has_no_model(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no model of the peak in fp16"):
        write_peak_models(tmp_path, "fp16")
