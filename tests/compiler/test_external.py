"""Weights in a file beside an ONNX file: taken in by `export`, and by nothing that leads elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper

from mggc_edge.compiler.external import self_contained
from mggc_edge.compiler.facts import onnx_facts
from mggc_edge.compiler.rewrite import rewrite_folder
from mggc_edge.errors import ArtifactError
from mggc_edge.settings import Settings
from tests.compiler.passes.pass_helpers import random
from tests.compiler.test_rewrite import network

WEIGHTS = "weights.bin"


def apart(path: Path, *, location: str = WEIGHTS) -> onnx.ModelProto:
    """Write a network whose weights lie beside it, and return it with its weights."""
    path.parent.mkdir(parents=True, exist_ok=True)
    model = network()
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    onnx.save_model(copy, path, save_as_external_data=True, location=location, size_threshold=0)
    return model


def changed(path: Path, change: Callable[[TensorProto], None]) -> None:
    """Change what the file says of the convolution's weights."""
    model = onnx.load(path, load_external_data=False)
    change(next(tensor for tensor in model.graph.initializer if tensor.name == "w"))
    path.write_bytes(model.SerializeToString())


def said(key: str, value: str) -> Callable[[TensorProto], None]:
    def change(tensor: TensorProto) -> None:
        kept = [(entry.key, entry.value) for entry in tensor.external_data if entry.key != key]
        tensor.ClearField("external_data")
        for name, text in [*kept, (key, value)]:
            tensor.external_data.add(key=name, value=text)

    return change


def test_a_file_with_its_weights_beside_it_is_exported_as_one(tmp_path: Path) -> None:
    source = tmp_path / "there/g.onnx"
    model = apart(source)
    whole = tmp_path / "whole.onnx"
    whole.write_bytes(model.SerializeToString())
    settings = Settings({"export.simplify": False})
    made = [
        rewrite_folder(path, tmp_path / out, target="x86-avx512", settings=settings, command="export", effective={})
        for path, out in ((source, "a"), (whole, "b"))
    ]
    one, other = (result.generator.artifact.path.parent for result in made)
    assert onnx_facts(one / "original.fp32.onnx") == onnx_facts(whole)
    first, second = (
        numpy_helper.to_array(onnx.load(place / "original.fp32.onnx").graph.initializer[0]) for place in (one, other)
    )
    np.testing.assert_array_equal(first, second)
    assert made[0].generator.parity.passed
    assert made[0].source == source
    assert made[0].source_bytes > (tmp_path / "there" / WEIGHTS).stat().st_size


def test_a_whole_file_is_taken_as_it_is_and_a_copy_lasts_as_long_as_it_is_needed(tmp_path: Path) -> None:
    whole, source = tmp_path / "whole.onnx", tmp_path / "g.onnx"
    whole.write_bytes(network().SerializeToString())
    apart(source)
    with self_contained(whole) as held:
        assert held == whole
    with self_contained(source) as held:
        assert held.name == source.name
        assert onnx_facts(held).parameters == onnx_facts(whole).parameters
    assert not held.exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (said("location", "other.bin"), r"its weights are in 'other.bin', which is missing"),
        (said("location", "../secret.bin"), r"its weights are in '../secret.bin', which is no file beside it"),
        (said("location", "..\\secret.bin"), "which is no file beside it"),
        (said("location", "/etc/passwd"), r"its weights are in '/etc/passwd', which is no file beside it"),
        (said("location", "link.bin"), r"its weights are in 'link.bin', which is no file beside it"),
        (said("location", ""), r"its weights are in '', which is no file beside it"),
        (said("location", "."), "which is no file beside it"),
        (said("offset", "-4"), r"'w' has 1,764 bytes, and 'weights.bin' holds others"),
        (said("offset", "999999"), r"'w' has 1,764 bytes, and 'weights.bin' holds others"),
        (said("offset", "somewhere"), r"it does not say where in 'weights.bin' the values of 'w' are"),
        (said("length", "12"), r"'w' has 1,764 bytes, and 'weights.bin' holds others"),
        (lambda tensor: tensor.dims.append(10**6), r"'w' has 1,764,000,000 bytes, and 'weights.bin' holds others"),
        (lambda tensor: tensor.dims.append(10**9), r"with its weights it has 1,764,000,000,\d+ bytes"),
        (lambda tensor: tensor.dims.append(-1), r"'w' has an impossible shape"),
        (
            lambda tensor: setattr(tensor, "data_type", TensorProto.STRING),
            "of a type that is not read from other files",
        ),
        (lambda tensor: setattr(tensor, "data_type", 99), "of a type that is not read from other files"),
    ],
)
def test_what_leads_elsewhere_or_does_not_fit_is_refused(
    tmp_path: Path, change: Callable[[TensorProto], None], message: str
) -> None:
    source = tmp_path / "there/g.onnx"
    apart(source)
    (tmp_path / "secret.bin").write_bytes(random(3, 3, 7, 7).tobytes())
    (tmp_path / "there/link.bin").symlink_to(tmp_path / "secret.bin")
    changed(source, change)
    with pytest.raises(ArtifactError, match=message), self_contained(source):
        pass
