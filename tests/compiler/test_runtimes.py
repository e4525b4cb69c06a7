"""Files for further runtimes: what is made, what proves it, and what is rejected."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

from mggc_edge.artifacts import OnnxArtifact, sha256_of
from mggc_edge.backends.onnxruntime import OnnxRuntimeRunner
from mggc_edge.compiler import mobile, runtimes
from mggc_edge.compiler.mobile import (
    CONFIG_FILE,
    LEVEL,
    Usability,
    convert_to_ort,
    platform_of,
    platform_remark,
)
from mggc_edge.compiler.precision.form import FORMS, Int8Form
from mggc_edge.compiler.runtimes import Checks, for_runtimes
from mggc_edge.errors import ArtifactError, CheckFailedError, MissingDependencyError, OutputError
from mggc_edge.machine import Machine
from mggc_edge.quality.parity import ParityReport
from tests.benchmarks.bench_helpers import convolutions, without_rule
from tests.compiler.precision.precision_helpers import quantize, three_convolutions

CHECKS = Checks(pictures=1, atol=1e-4, min_psnr=35.0)
AVX512 = Machine("Zen 4", "x86_64", ("AVX2", "AVX-512"), 1, None, None)
AVX2 = Machine("Zen 2", "x86_64", ("AVX2",), 1, None, None)
ARM = Machine("N1", "aarch64", ("NEON",), 1, None, None)


def artifact(path: Path, precision: str = "fp32") -> OnnxArtifact:
    with OnnxRuntimeRunner(path) as runner:
        inputs, outputs = runner.inputs, runner.outputs
    return OnnxArtifact(path, sha256_of(path), path.stat().st_size, inputs, outputs, precision, None)


def wide(path: Path, channels: int = 32) -> Path:
    """A convolution that is wide enough for the blocked layout."""
    generator = np.random.default_rng(0)
    weight = onnx.numpy_helper.from_array(
        generator.standard_normal((channels, channels, 3, 3)).astype(np.float32) / 17, "w"
    )
    shape = [1, channels, 16, 16]
    graph = helper.make_graph(
        [helper.make_node("Conv", ["x", "w"], ["y"], pads=[1] * 4)],
        "g",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, shape)],
        [weight],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    return path


# --- the platform ---


@pytest.mark.parametrize(
    ("target", "machine", "platform"),
    [
        ("x86-avx512", AVX512, "amd64"), ("x86-avx2", AVX2, "amd64"), ("x86-avx2", AVX512, None),
        ("x86-avx512", AVX2, None), ("x86-avx512", ARM, None), ("portable", AVX512, None), ("arm64", AVX512, "arm"),
        ("ort-mobile", ARM, "arm"),
    ],
)  # fmt: skip
def test_the_blocked_layout_is_baked_in_where_this_machine_is_the_target_alone(
    target: str, machine: Machine, platform: str | None
) -> None:
    assert platform_of(target, machine) == platform


def test_what_the_platform_costs_is_said() -> None:
    assert platform_remark("x86-avx512", "amd64") is None
    assert platform_remark("arm64", "arm") is None
    assert platform_remark("x86-avx2", None) == (
        ".ort files for 'x86-avx2' that are not converted on such a processor leave out its blocked layout, and run "
        "slower than the .onnx file; export them there"
    )
    assert "on the machine that runs them, --target auto has it" in str(platform_remark("portable", None))


# --- conversion ---


def test_files_are_converted_together_with_one_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(LEVEL, "disable")  # a stray variable changes nothing
    models = [convolutions(tmp_path / "a.fp32.onnx"), wide(tmp_path / "b.fp32.onnx")]
    (tmp_path / "out").mkdir()
    found = convert_to_ort(models, tmp_path / "out", None)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.fp32.ort", "b.fp32.ort", CONFIG_FILE]
    assert (tmp_path / "out" / CONFIG_FILE).read_text() == (
        '# Generated from model/s:\n# - a.fp32.ort\n# - b.fp32.ort\nai.onnx;11;Conv{"inputs": {"0": ["float"]}}\n'
    )
    assert list(found) == [tmp_path / "out/a.fp32.ort", tmp_path / "out/b.fp32.ort"]
    assert [row.provider for row in found[tmp_path / "out/a.fp32.ort"]] == [
        "NNAPI", "Core ML (ML Program)", "Core ML (Neural Network)",
    ]  # fmt: skip


@pytest.mark.skipif(platform_of("x86-avx512") is None, reason="needs a processor with AVX-512")
def test_the_blocked_layout_is_in_files_for_this_processor(tmp_path: Path) -> None:
    convert_to_ort([wide(tmp_path / "a.onnx")], tmp_path, platform_of("x86-avx512"))
    assert "com.microsoft.nchwc;1;Conv" in (tmp_path / CONFIG_FILE).read_text()


@pytest.mark.parametrize(
    ("row", "sentence"),
    [
        (("NNAPI", "no", 10, 29, 40, ("Pad",)), "NNAPI would not help: 10 parts with 29 of 40 nodes; it lacks Pad"),
        (("NNAPI", "yes", 1, 8, 8, ()), "NNAPI should run it well: 1 part with 8 of 8 nodes"),
        (
            ("Core ML", "maybe", 2, 7, 8, ("A", "B")),
            "Core ML may help, to be measured on the phone: 2 parts with 7 of 8 nodes; it lacks A, B",
        ),
    ],
)
def test_the_verdict_on_accelerators_is_a_sentence(row: tuple[Any, ...], sentence: str) -> None:
    usability = Usability(*row)
    assert usability.sentence() == sentence
    assert usability.to_json()["sentence"] == sentence
    with pytest.raises(ArtifactError, match=r"^'perhaps' is no verdict"):
        replace(usability, verdict="perhaps")


def test_a_file_that_cannot_be_converted_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "a.onnx").write_bytes(b"not a model")
    with pytest.raises(ArtifactError) as caught:
        convert_to_ort([tmp_path / "a.onnx"], tmp_path, None)
    assert caught.value.message.startswith("ONNX Runtime cannot convert 'a.onnx' to .ort: ")
    assert "\n" not in caught.value.message
    assert not list(tmp_path.glob("*.ort"))


@pytest.mark.parametrize(
    ("program", "message", "hint"),
    [
        (
            "import sys; sys.stderr.write('one\\nlast words\\n'); sys.exit(5)",
            "the process that converts 'a.onnx' to .ort ended with exit code 5",
            "last words",
        ),
        (
            "import os; os.kill(os.getpid(), 11)",
            "the process that converts 'a.onnx' to .ort ended by signal 11",
            None,
        ),
    ],
)
def test_a_tool_that_ends_in_another_way_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: str, message: str, hint: str | None
) -> None:
    (tmp_path / "tool.py").write_text(program)
    monkeypatch.setattr(mobile, "TOOL", tmp_path / "tool.py")
    with pytest.raises(ArtifactError) as caught:
        convert_to_ort([convolutions(tmp_path / "a.onnx")], tmp_path, None)
    assert (caught.value.message, caught.value.hint) == (message, hint)


def test_a_tool_that_takes_too_long_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tool.py").write_text("import time; time.sleep(60)")
    monkeypatch.setattr(mobile, "TOOL", tmp_path / "tool.py")
    monkeypatch.setattr(mobile, "MAX_SECONDS", 0.2)
    with pytest.raises(ArtifactError, match=r"^converting 'a.onnx' to .ort took longer than 0.2 s$"):
        convert_to_ort([convolutions(tmp_path / "a.onnx")], tmp_path, None)


def test_a_folder_that_cannot_be_written_is_an_output_error(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="cannot be written"):
        convert_to_ort([convolutions(tmp_path / "a.onnx")], tmp_path / "gone", None)


# --- what is made of an export ---


def test_a_file_for_every_runtime_is_proven_and_knows_its_parent(tmp_path: Path) -> None:
    source = artifact(convolutions(tmp_path / "generator.fp32.onnx", 3))
    found = for_runtimes([source], ("onnxruntime", "ort-mobile", "openvino"), target="portable", checks=CHECKS)
    ort, same = found.files
    assert (ort.path.name, ort.runtime, ort.parent_sha256) == ("generator.fp32.ort", "ort-mobile", source.sha256)
    assert (same.path, same.runtime, same.parent_sha256) == (source.path, "openvino", None)
    assert same.sha256 == source.sha256
    assert ort.sha256 == sha256_of(ort.path)
    for file in found.files:
        assert (file.accepted, file.reason, file.precision) == (True, None, "fp32")
        assert file.parity.max_abs < 1e-4
    ours = found.entries(tmp_path, "portable")
    assert [entry["path"] for entry in ours] == ["generator.fp32.ort", CONFIG_FILE]
    assert (ours[0]["parent"], ours[0]["runtime"], ours[0]["platform"]) == (source.sha256, "ort-mobile", None)
    (row,) = found.same_files(tmp_path, "portable")
    assert (row["path"], row["runtime"]) == ("generator.fp32.onnx", "openvino")
    assert found.remarks[1:] == tuple(f"on phones, {row.sentence()}" for row in ort.usability)
    assert "NNAPI should run it well: 1 part with 3 of 3 nodes" in found.remarks[1]


def test_onnx_runtime_alone_needs_nothing_further(tmp_path: Path) -> None:
    source = artifact(convolutions(tmp_path / "a.onnx"))
    found = for_runtimes([source], ("onnxruntime",), target="portable", checks=CHECKS)
    assert found == runtimes.Further()
    assert (found.entries(tmp_path, "portable"), found.same_files(tmp_path, "portable")) == ([], [])


def test_pictures_in_8_bits_are_fed_as_such(tmp_path: Path) -> None:
    values = [helper.make_tensor_value_info(name, onnx.TensorProto.UINT8, [1, 8, 8, 3]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "g", values[:1], values[1:])
    path = tmp_path / "a.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    (file,) = for_runtimes([artifact(path)], ("openvino",), target="portable", checks=CHECKS).files
    assert (file.parity.identical, file.parity.images) == (True, 1)


def report(max_abs: float, psnr: float | None, **wanted: Any) -> ParityReport:
    return ParityReport(1, max_abs, max_abs, psnr, None, wanted["atol"], wanted["min_psnr"])


def test_another_precision_that_differs_is_rejected_with_its_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtimes, "check_parity", lambda *_, data_range, **wanted: report(0.5, 30.04, **wanted))
    source = artifact(convolutions(tmp_path / "generator.int8.onnx"), "int8")
    found = for_runtimes([source], ("openvino",), target="portable", checks=CHECKS)
    (file,) = found.files
    reason = "its PSNR to ONNX Runtime on the same file is 30.0 dB, below 35 dB"
    assert (file.accepted, file.reason, file.parity.atol) == (False, reason, None)
    assert found.remarks == (f"'generator.int8.onnx' in openvino is rejected: {reason}",)
    assert file.to_json("portable")["accepted"] is False


def test_a_float32_file_that_differs_fails_the_check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtimes, "check_parity", lambda *_, data_range, **wanted: report(0.5, 30.0, **wanted))
    source = artifact(convolutions(tmp_path / "a.onnx"))
    with pytest.raises(CheckFailedError, match=r"^'a.onnx' in openvino does not equal ONNX Runtime on 'a.onnx'"):
        for_runtimes([source], ("openvino",), target="portable", checks=CHECKS)


def test_an_operation_that_the_engine_lacks_is_one_sentence(tmp_path: Path) -> None:
    source = artifact(without_rule(tmp_path / "a.onnx"))
    with pytest.raises(ArtifactError) as caught:
        for_runtimes([source], ("openvino",), target="portable", checks=CHECKS)
    assert caught.value.message == "OpenVINO cannot run 'a.onnx': it has no operation Det-20"
    assert caught.value.hint == "leave openvino out of --runtime"


def test_a_missing_engine_is_said_before_anything_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = artifact(convolutions(tmp_path / "a.onnx"))
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(MissingDependencyError) as caught:
        for_runtimes([source], ("ort-mobile", "openvino"), target="portable", checks=CHECKS)
    assert caught.value.hint == 'pip install "mggc-edge[openvino]"'
    assert [path.name for path in tmp_path.iterdir()] == ["a.onnx"]


def test_8_bit_files_that_tensorrt_does_not_take_say_which_target_writes_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    model, said = three_convolutions(), "--target tensorrt writes 8-bit files that TensorRT takes"
    (tmp_path / "ranges.json").write_text("{}")
    for target, form in (("portable", Int8Form()), ("tensorrt", FORMS["tensorrt"])):
        place = tmp_path / target
        place.mkdir()
        for name, one in (("fp32", model), ("int8", quantize(model, form)[0])):
            (place / f"generator.{name}.onnx").write_bytes(one.SerializeToString())
        files = [artifact(place / f"generator.{name}.onnx", name) for name in ("fp32", "int8")]
        ranges = tmp_path / "ranges.json"
        found = for_runtimes(files, ("tensorrt",), target=target, checks=CHECKS, calibration=ranges)
        assert (said in found.remarks) is (target == "portable")


def test_damaged_metadata_are_one_sentence(tmp_path: Path) -> None:
    path = convolutions(tmp_path / "a.onnx")
    model = onnx.load(path)
    helper.set_model_props(model, {"mggc_edge.input_format": "{"})
    onnx.save(model, path)
    with pytest.raises(ArtifactError, match=r"^the metadata of the exported file is damaged: "):
        for_runtimes([artifact(path)], ("openvino",), target="portable", checks=CHECKS)
