"""Bundles: what is in them, what their script does with the fake of every version, and under Python 3.8."""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from mggc_edge.artifacts import EngineArtifact, OnnxArtifact, sha256_of
from mggc_edge.backends import trt_api, trt_run
from mggc_edge.backends.onnxruntime import OnnxRuntimeRunner
from mggc_edge.backends.tensorrt import TrtRunner
from mggc_edge.compiler.tensorrt_bundle import MIN_FLOAT_PSNR, SCRIPT, Bundle, write_bundle
from mggc_edge.errors import ArtifactError, CheckFailedError
from mggc_edge.pictures import PictureFormat
from mggc_edge.tensors import TensorSpec
from tests.backends import fake_cuda, fake_tensorrt
from tests.backends.trt_helpers import VERSIONS, install, picture, small_file

BACKENDS = Path(__file__).parents[1] / "backends"
PYTHON_38 = (sys.executable if sys.version_info[:2] == (3, 8) else None) or shutil.which("python3.8")


def artifact(path: Path, precision: str = "fp32") -> OnnxArtifact:
    with OnnxRuntimeRunner(path) as runner:
        inputs, outputs = runner.inputs, runner.outputs
    return OnnxArtifact(path, sha256_of(path), path.stat().st_size, inputs, outputs, precision, "0" * 64)


def half_file(path: Path) -> Path:
    """Write what `small_file` is, with its convolution in float16 between casts."""
    model = onnx.load(small_file(path))
    graph = model.graph
    conv, norm = graph.node
    (weight,) = [tensor for tensor in graph.initializer if tensor.name == "w"]
    graph.initializer.remove(weight)
    half = onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(weight).astype(np.float16), "w")
    graph.initializer.append(half)
    conv.input[0], conv.output[0] = "h", "k"
    nodes = [
        helper.make_node("Cast", ["input"], ["h"], to=TensorProto.FLOAT16), conv,
        helper.make_node("Cast", ["k"], ["c"], to=TensorProto.FLOAT), norm,
    ]  # fmt: skip
    del graph.node[:]
    graph.node.extend(nodes)
    onnx.save(model, path)
    return path


def saying(path: Path, low: float = -1.0, high: float = 1.0) -> Path:
    """Let a file say from where to where its pictures reach."""
    model, form = onnx.load(path), PictureFormat(3, "RGB", low, high)
    helper.set_model_props(model, {"mggc_edge.output_format": json.dumps(form.to_json())})
    onnx.save(model, path)
    return path


def both(folder: Path) -> list[OnnxArtifact]:
    """Write a file in float32 and one in float16."""
    return [
        artifact(saying(small_file(folder / "generator.fp32.onnx"))),
        artifact(saying(half_file(folder / "generator.fp16.onnx")), "fp16"),
    ]


def bundle(folder: Path, **options: Any) -> Bundle:
    return write_bundle(folder / "tensorrt", both(folder), **options)


def without_tensorrt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)


def script(folder: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Import a bundle's script as it runs on a device: with the two copies beside it."""
    for name in ("trt_api", "trt_run"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.syspath_prepend(folder)
    spec = importlib.util.spec_from_file_location("bundle_build", folder / "build.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for name in ("trt_api", "trt_run"):
        monkeypatch.delitem(sys.modules, name)
    assert Path(module.trt_api.__file__).parent == folder
    return module


# --- what is in a bundle ---


def test_a_bundle_holds_everything_that_is_needed_and_its_sums(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    without_tensorrt(monkeypatch)
    (tmp_path / "ranges.json").write_text("{}")
    made = bundle(tmp_path, calibration=tmp_path / "ranges.json")
    names = sorted(path.name for path in made.folder.iterdir())
    assert names == [
        "README.md", "SHA256SUMS", "build.py", "bundle.json", "calibration.json", "generator.fp16.onnx",
        "generator.fp32.onnx", "pictures.npz", "trt_api.py", "trt_run.py",
    ]  # fmt: skip
    lines = [line.split("  ") for line in (made.folder / "SHA256SUMS").read_text().splitlines()]
    sums = {name: digest for digest, name in lines}
    assert sorted(sums) == [name for name in names if name != "SHA256SUMS"]
    for name, digest in sums.items():
        assert hashlib.sha256((made.folder / name).read_bytes()).hexdigest() == digest
    assert (made.folder / "trt_api.py").read_bytes() == Path(str(trt_api.__file__)).read_bytes()
    (remark,) = made.remarks
    assert remark.startswith("no TensorRT engine is built here: tensorrt cannot be imported here: ")
    assert remark.endswith("; copy 'tensorrt/' to the device and run build.py")
    assert [entry["path"] for entry in made.file_entries(tmp_path)] == [f"tensorrt/{name}" for name in names]


def test_a_bundle_says_what_each_file_takes_and_what_its_engine_must_give(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    without_tensorrt(monkeypatch)
    folder = bundle(tmp_path, min_precision_psnr=40).folder
    document = json.loads((folder / "bundle.json").read_text())
    assert document["schema"] == "mggc-edge/tensorrt-bundle/1"
    assert [
        (model["file"], model["precision"], model["float"], model["min_psnr"], model["value_range"], model["shapes"])
        for model in document["models"]
    ] == [
        ("generator.fp32.onnx", "fp32", "generator.fp32", MIN_FLOAT_PSNR, 2.0, None),
        ("generator.fp16.onnx", "fp16", "generator.fp32", 40, 2.0, None),
    ]
    with np.load(folder / "pictures.npz") as stored, OnnxRuntimeRunner(folder / "generator.fp16.onnx") as runner:
        assert stored["pictures"].shape == (4, 1, 3, 8, 8)
        for number in range(4):
            output = runner.infer({"input": stored["pictures"][number]})["output"]
            assert np.array_equal(output, stored["generator.fp16"][number])
    page = (folder / "README.md").read_text()
    assert "| generator.fp16.onnx | fp16 | 40 dB |" in page
    assert "- generator.fp32.onnx: version: opset 18: the documents of TensorRT 8 end at opset 17" in page


def test_an_open_batch_is_built_for_1_to_8_and_an_open_size_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    without_tensorrt(monkeypatch)
    made = write_bundle(tmp_path / "a", [artifact(small_file(tmp_path / "g.fp32.onnx", batch="n"))])
    (model,) = json.loads((made.folder / "bundle.json").read_text())["models"]
    assert model["shapes"] == {"input": [[1, 3, 8, 8], [1, 3, 8, 8], [8, 3, 8, 8]]}
    one = artifact(small_file(tmp_path / "g.fp32.onnx"))
    vague = OnnxArtifact(
        one.path, one.sha256, 1, (TensorSpec("input", "float32", (1, 3, None, 8)),), one.outputs, "fp32", None
    )
    with pytest.raises(ArtifactError, match="'input' leaves its picture size open"):
        write_bundle(tmp_path / "b", [vague])


def uint8_file(path: Path) -> Path:
    """Write a file from [1, 8, 8, 3] levels to the same."""
    values = [helper.make_tensor_value_info(name, TensorProto.UINT8, [1, 8, 8, 3]) for name in ("input", "output")]
    graph = helper.make_graph([helper.make_node("Identity", ["input"], ["output"])], "g", values[:1], values[1:])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path)
    return path


def test_a_file_that_takes_levels_is_fed_with_levels(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    without_tensorrt(monkeypatch)
    made = write_bundle(tmp_path / "a", [artifact(uint8_file(tmp_path / "g.fp32.onnx"))])
    (model,) = json.loads((made.folder / "bundle.json").read_text())["models"]
    assert model["value_range"] == 255
    with np.load(made.folder / "pictures.npz") as stored:
        assert (stored["pictures"].dtype, stored["pictures"].shape) == (np.uint8, (4, 1, 8, 8, 3))
        assert stored["pictures"].std() > 20


def brighter(path: Path, factor: float) -> Path:
    """Let a file of `small_file` give outputs that are `factor` times as large."""
    model = onnx.load(path)
    (scale,) = [tensor for tensor in model.graph.initializer if tensor.name == "scale"]
    scale.CopyFrom(onnx.numpy_helper.from_array(np.full(3, factor, np.float32), "scale"))
    onnx.save(model, path)
    return path


@pytest.mark.parametrize(("factor", "least"), [(100.0, 200.0), (0.01, 2.0)])
def test_a_file_that_does_not_say_how_far_its_outputs_reach_is_judged_by_what_it_gives(
    factor: float, least: float, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    without_tensorrt(monkeypatch)
    files = [
        artifact(brighter(small_file(tmp_path / "generator.fp32.onnx"), factor)),
        artifact(brighter(half_file(tmp_path / "generator.fp16.onnx"), factor), "fp16"),
    ]
    made = write_bundle(tmp_path / "a", files)
    first, second = json.loads((made.folder / "bundle.json").read_text())["models"]
    with np.load(made.folder / "pictures.npz") as stored:
        largest = float(np.abs(stored["generator.fp32"]).max())
    assert first["value_range"] == second["value_range"] == 2 * max(1.0, largest)
    assert (first["value_range"] > 2.0) is (factor > 1)
    assert first["value_range"] >= least
    said = write_bundle(tmp_path / "b", [artifact(saying(files[0].path, 0.0, 255.0))])
    value_range = json.loads((said.folder / "bundle.json").read_text())["models"][0]["value_range"]
    assert value_range == (255.0 if factor > 1 else 2.0)  # what it says, where it reaches that far


def test_an_engine_whose_outputs_reach_far_is_near_enough_where_its_file_does_not_say_so(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    install(monkeypatch, "10.3.0", error=0.1)  # to 2 it would be 26 dB, where 50 are needed
    made = write_bundle(tmp_path / "a", [artifact(brighter(small_file(tmp_path / "g.fp32.onnx"), 100.0))])
    assert made.models[0].engine is not None
    facts = json.loads(Path(f"{made.models[0].engine.path}.json").read_text())
    assert 70 < facts["parity"]["psnr"] < 80


def test_outputs_that_are_not_finite_say_nothing_of_how_far_they_reach(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    without_tensorrt(monkeypatch)
    made = write_bundle(tmp_path / "a", [artifact(brighter(small_file(tmp_path / "g.fp32.onnx"), float("nan")))])
    assert json.loads((made.folder / "bundle.json").read_text())["models"][0]["value_range"] == 2.0


def levels_file(path: Path) -> Path:
    """Write an 8-bit file on unsigned levels with a zero point, as ONNX Runtime likes them."""
    model = onnx.load(small_file(path))
    graph, numbers = model.graph, {"s": np.float32(0.02), "z": np.uint8(128)}
    graph.initializer.extend(onnx.numpy_helper.from_array(np.asarray(value), name) for name, value in numbers.items())
    graph.node.insert(0, helper.make_node("QuantizeLinear", ["input", "s", "z"], ["q"]))
    graph.node.insert(1, helper.make_node("DequantizeLinear", ["q", "s", "z"], ["d"]))
    graph.node[2].input[0] = "d"
    onnx.save(model, path)
    return path


def test_a_file_that_tensorrt_refuses_is_left_out_with_the_reason(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    without_tensorrt(monkeypatch)
    levels = artifact(levels_file(tmp_path / "generator.int8.onnx"), "int8")
    made = write_bundle(tmp_path / "a", [artifact(small_file(tmp_path / "generator.fp32.onnx")), levels])
    assert [(model.artifact.path.parent.name, model.reason) for model in made.models] == [
        ("a", None), (tmp_path.name, "uint8 levels: only int8 is taken"),
    ]  # fmt: skip
    assert made.remarks[0] == "'generator.int8.onnx' is not in the TensorRT bundle: uint8 levels: only int8 is taken"
    assert not (made.folder / "generator.int8.onnx").exists()
    assert "- generator.int8.onnx (left out): refused: uint8 levels" in (made.folder / "README.md").read_text()
    with pytest.raises(ArtifactError, match=r"TensorRT would take none of generator.int8.onnx: uint8 levels") as caught:
        write_bundle(tmp_path / "b", [levels])
    assert caught.value.hint == "export the network in floats: without --quantize, or with --precision fp32,fp16"
    assert not (tmp_path / "b").exists()
    pair = [artifact(small_file(tmp_path / f"{batch}.fp32.onnx", batch)) for batch in (1, 2)]
    with pytest.raises(ArtifactError, match="must take the same pictures"):
        write_bundle(tmp_path / "b", pair)


# --- engines where there is a device ---


@pytest.mark.parametrize("version", VERSIONS)
def test_where_there_is_a_device_the_engines_are_built_and_proven_at_once(
    version: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    fake = install(monkeypatch, version)
    made = bundle(tmp_path)
    assert made.remarks == ()
    for model in made.models:
        engine = model.engine
        assert engine is not None
        assert (engine.device, engine.library_version, engine.precision) == (
            "Fake sm87",
            version,
            model.artifact.precision,
        )
        assert engine.parent_sha256 == model.artifact.sha256
        facts = json.loads(Path(f"{engine.path}.json").read_text())
        assert (facts["sha256"], facts["onnx"]) == (sha256_of(engine.path), model.artifact.path.name)
        assert facts["parity"]["passed"] is True
        with TrtRunner(engine.path) as runner:
            assert runner.infer({"input": picture()})["output"].shape == (1, 3, 8, 8)
    moved = made.moved(tmp_path, Path("/elsewhere"))
    assert moved.models[1].engine is not None
    assert moved.models[1].engine.path == Path("/elsewhere/tensorrt/engines/generator.fp16.engine")
    entries = {Path(entry["path"]).name: entry for entry in made.file_entries(tmp_path)}
    assert entries["generator.fp16.engine"]["device"] == "Fake sm87"
    assert entries["generator.fp16.engine"]["parent"] == made.models[1].artifact.sha256
    assert fake.cudart.held == {}


def test_the_first_engine_in_float32_that_gives_other_pictures_ends_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    install(monkeypatch, "10.3.0", error=0.05)
    with pytest.raises(CheckFailedError, match=r"the engine 'generator.fp32.engine' gives other pictures .*50 dB"):
        bundle(tmp_path)
    assert [path.suffix for path in (tmp_path / "tensorrt/engines").iterdir()] == [".cache"]


def test_the_first_build_in_float32_that_fails_is_an_artifact_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    fake = install(monkeypatch, "10.3.0")
    fake.world.build_error = "no tactic"
    with pytest.raises(ArtifactError, match=r"TensorRT cannot build an engine from .*: no tactic"):
        bundle(tmp_path)


def test_another_engine_that_gives_other_pictures_is_rejected_and_its_file_stays(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    install(monkeypatch, "10.3.0", error=1e-4)
    made = bundle(tmp_path, min_precision_psnr=100)
    first, second = made.models
    assert (first.engine is not None, first.failure, second.engine) == (True, None, None)
    assert second.failure is not None
    assert second.failure.startswith("the engine 'generator.fp16.engine' gives other pictures than its network")
    assert made.remarks == (f"the engine of 'generator.fp16.onnx' is rejected: {second.failure}",)
    kept, rejected = made.to_json("portable")
    assert (Path(kept["path"]).name, kept["accepted"], kept["reason"]) == ("generator.fp32.engine", True, None)
    assert rejected["path"] == str(made.folder / "generator.fp16.onnx")
    assert (rejected["accepted"], rejected["reason"]) == (False, second.failure)
    assert (made.folder / "generator.fp16.onnx").is_file()
    names = sorted(path.name for path in (made.folder / "engines").iterdir())
    assert names == ["fake-sm87-tensorrt-10.3.0.cache", "generator.fp32.engine", "generator.fp32.engine.json"]
    assert second.reason is None, "TensorRT's documents have nothing against the file"
    assert made.moved(tmp_path, Path("/elsewhere")).models[1].failure == second.failure
    assert "tensorrt/generator.fp16.onnx" in [entry["path"] for entry in made.file_entries(tmp_path)]


@pytest.mark.parametrize(
    ("trouble", "reason"),
    [
        ("builder", "TensorRT cannot build an engine from 'generator.fp16.onnx': OutOfMemory (64 bytes)"),
        ("memory", "cudaMalloc"),
    ],
)
def test_another_engine_that_cannot_be_built_or_run_for_want_of_memory_is_rejected(
    trouble: str, reason: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    fake = install(monkeypatch, "10.3.0")
    build = fake.Builder.build_serialized_network

    def short(self: Any, network: Any, config: Any) -> Any:
        if network._path.endswith("fp16.onnx"):
            if trouble == "builder":
                fake.world.build_error = "OutOfMemory (64 bytes)"
            fake.cudart.cudaMalloc = lambda size: (fake_cuda.Error.cudaErrorMemoryAllocation, None)
        return build(self, network, config)

    monkeypatch.setattr(fake.Builder, "build_serialized_network", short)
    made = bundle(tmp_path)
    assert made.models[0].engine is not None
    assert made.models[1].engine is None
    assert made.models[1].failure is not None
    assert reason in made.models[1].failure
    assert made.remarks == (f"the engine of 'generator.fp16.onnx' is rejected: {made.models[1].failure}",)


def test_the_float32_engine_of_a_further_network_is_rejected_alone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    install(monkeypatch, "10.3.0", error=1e-3)  # 66 dB to 2, and 26 dB to 0.02
    files = [
        artifact(saying(small_file(tmp_path / "generator.fp32.onnx"))),
        artifact(saying(small_file(tmp_path / "original.fp32.onnx"), -0.01, 0.01)),
    ]
    made = write_bundle(tmp_path / "a", files)
    assert [(model.engine is None, model.failure is None) for model in made.models] == [(False, True), (True, False)]
    with pytest.raises(CheckFailedError, match=r"the engine 'original.fp32.engine' gives other pictures"):
        write_bundle(tmp_path / "b", files[::-1])


def test_where_the_first_file_is_not_in_float32_one_engine_does_not_end_it_but_all_do(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    fake = install(monkeypatch, "10.3.0", error=1e-4)
    made = write_bundle(tmp_path / "a", both(tmp_path)[::-1], min_precision_psnr=100)
    assert [(model.engine is None, model.failure is None) for model in made.models] == [(True, False), (False, True)]
    fake.world.build_error = "no tactic"
    with pytest.raises(ArtifactError) as caught:
        write_bundle(tmp_path / "b", both(tmp_path)[::-1])
    assert caught.value.message == (
        "no TensorRT engine could be built: TensorRT cannot build an engine from 'generator.fp16.onnx': no tactic"
    )


def test_an_engine_without_a_device_or_hash_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="both must be known"):
        EngineArtifact(tmp_path, "0" * 64, 1, "fp32", "0" * 64, "", "10.3.0")
    with pytest.raises(ArtifactError, match="is no sha256"):
        EngineArtifact(tmp_path, "0", 1, "fp32", "0" * 64, "Orin sm87", "10.3.0")


# --- the script ---


@pytest.fixture
def folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    without_tensorrt(monkeypatch)
    return bundle(tmp_path).folder


@pytest.mark.parametrize("version", VERSIONS)
def test_the_script_builds_checks_and_prints_a_table(
    version: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    install(monkeypatch, version, error=1e-4)
    assert script(folder, monkeypatch).main([]) == 0
    said = capsys.readouterr()
    lines = [line.split() for line in said.out.splitlines()]
    assert lines[0] == ["engine", "size", "PSNR", "to", "file", "to", "float", "needed"]
    assert [(line[0], line[-3:]) for line in lines[1:]] == [
        ("generator.fp32.engine", ["50", "dB", "passed"]), ("generator.fp16.engine", ["35", "dB", "passed"]),
    ]  # fmt: skip
    assert said.err.splitlines()[0] == f"TensorRT {version} on Fake sm87, memory through cuda-python"
    facts = json.loads((folder / "engines/generator.fp16.engine.json").read_text())
    assert facts["onnx_sha256"] == sha256_of(folder / "generator.fp16.onnx")
    # PSNR = 10 log10(2^2 / 1e-8): to the file 86 dB, to float less by what float16 rounds.
    assert facts["parity_to_file"]["psnr"] == pytest.approx(86.0, abs=0.5)
    assert 55 < facts["parity"]["psnr"] < facts["parity_to_file"]["psnr"]
    assert sorted(path.name for path in (folder / "engines").iterdir()) == [
        f"fake-sm87-tensorrt-{version}.cache", "generator.fp16.engine", "generator.fp16.engine.json",
        "generator.fp32.engine", "generator.fp32.engine.json",
    ]  # fmt: skip


def test_an_engine_of_the_script_gives_other_pictures_and_the_exit_code_says_so(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    install(monkeypatch, "10.3.0", error=0.01)
    assert script(folder, monkeypatch).main(["--json"]) == 3
    document = json.loads(capsys.readouterr().out)
    assert document["schema"] == "mggc-edge/tensorrt-build/1"
    assert [(row["precision"], row["passed"]) for row in document["engines"]] == [("fp32", False), ("fp16", True)]


def test_outputs_that_are_not_finite_fail_and_equal_ones_are_identical(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compare = script(folder, monkeypatch).compare
    one = np.ones((2, 3))
    assert compare(list(one), one, 2.0) == {"psnr": None, "max_abs": 0.0, "identical": True}
    assert compare([one[0], one[0] * np.nan], one, 2.0) == {"psnr": None, "max_abs": None, "identical": False}
    assert compare([one[0], one[0] + 0.2], one, 2.0)["psnr"] == pytest.approx(10 * np.log10(4 / 0.02))


def test_flags_of_the_script_reach_the_builder(folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fake = install(monkeypatch, "10.16.1.11")
    words = [
        "--precision", "fp16", "--out", str(tmp_path / "out"), "--timing-cache", str(tmp_path / "cache"),
        "--workspace", "256", "--optimization-level", "4", "--no-tf32", "--plugin-norm", "--no-cuda-graph",
    ]  # fmt: skip
    assert script(folder, monkeypatch).main(words) == 0
    assert [entry[1] for entry in fake.world.log if entry[0] == "config"] == [
        ([], {"WORKSPACE": 256 * 2**20}, 4, "DETAILED", 0)
    ]
    assert ("parser", "NATIVE_INSTANCENORM", False) in fake.world.log
    assert fake.cudart.launched == []
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["fake-sm87-tensorrt-10.16.1.11.cache"]
    assert len(list((tmp_path / "out").iterdir())) == 2


@pytest.mark.parametrize(
    ("trouble", "words", "code", "text"),
    [
        ("library", [], 1, "error: tensorrt cannot be imported here: "),
        (
            "driver",
            [],
            1,
            "error: TensorRT 10.3.0 finds no device that it can use: there is no CUDA device\nhint: run it",
        ),
        ("missing", [], 1, "error: 'generator.fp16.onnx' is missing\nhint: copy the whole folder again\n"),
        ("changed", [], 1, "error: 'generator.fp16.onnx' is not the file that was exported: its hash differs"),
        ("schema", [], 1, "error: bundle.json is of another version: 2\nhint: export the bundle again\n"),
        ("", ["--precision", "int8"], 1, "error: this folder has no files of 'int8'\nhint: it has fp16, fp32\n"),
        ("", ["--workspace", "0"], 1, "error: a workspace of 0 bytes is too small\nhint: 1 MiB is the least\n"),
        ("", ["--out", "/proc/none"], 1, "error: '/proc/none' cannot be written: "),
        ("", ["--precise"], 2, "unrecognized arguments: --precise"),
        ("stop", [], 130, "stopped; engines that are finished stay"),
        ("bug", [], 70, "ZeroDivisionError: a bug"),
    ],
)
def test_what_keeps_the_script_from_building_has_a_sentence_and_a_code(
    trouble: str, words: list[str], code: int, text: str, folder: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    fake = install(monkeypatch, "10.3.0")
    file = folder / "generator.fp16.onnx"
    if trouble == "library":
        without_tensorrt(monkeypatch)
    if trouble == "driver":
        fake.world.driver_error = 100
    if trouble == "missing":
        file.unlink()
    if trouble == "changed":
        file.write_bytes(b"other")
    if trouble == "schema":
        (folder / "bundle.json").write_text('{"schema": 2}')
        monkeypatch.setattr("hashlib.sha256", lambda data: None)
    module = script(folder, monkeypatch)
    if trouble == "schema":
        monkeypatch.undo()
        module.check_sums = lambda folder: None  # type: ignore[attr-defined]
    errors = {"stop": KeyboardInterrupt(), "bug": ZeroDivisionError("a bug")}
    if trouble in errors:

        def fail(folder: Path) -> None:
            raise errors[trouble]

        module.check_sums = fail  # type: ignore[attr-defined]
    if code == 2:
        with pytest.raises(SystemExit) as caught:
            module.main(words)
        assert caught.value.code == 2
    else:
        assert module.main(words) == code
    assert text in capsys.readouterr().err


# --- Python 3.8 ---


@pytest.mark.parametrize(
    "path", [SCRIPT, Path(str(trt_api.__file__)), Path(str(trt_run.__file__))], ids=lambda p: p.name
)
def test_what_a_board_gets_is_python_3_8_with_the_standard_library_and_numpy(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"), feature_version=(3, 8))
    imported = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imported |= {alias.name.split(".")[0] for alias in node.names}
        if isinstance(node, ast.ImportFrom) and node.module is not None:
            imported.add(node.module.split(".")[0])
    allowed = {*sys.stdlib_module_names, "numpy", "tensorrt", "cuda", "pycuda", "torch", "trt_api", "trt_run"}
    if path == SCRIPT:
        allowed.add("mggc_edge")  # for type checkers alone
        assert "if TYPE_CHECKING:\n    from mggc_edge.backends import trt_api, trt_run\nelse:" in path.read_text()
    assert imported <= allowed


STUB = """
import sys
from pathlib import Path
import numpy as np
sys.path.insert(0, sys.argv.pop(1))
import fake_cuda, fake_tensorrt
class Stored:  # gives what the bundle expects, and a little more
    def describe(self, path):
        side = lambda name: [(name, "FLOAT", (1, 3, 8, 8))]
        return side("input"), side("output"), ["CONVOLUTION", "NORMALIZATION"]
    def run(self, path, feeds):
        stored = np.load(str(Path(path).with_name("pictures.npz")))
        (number,) = [n for n, one in enumerate(stored["pictures"]) if np.array_equal(one, feeds["input"])]
        return {"output": stored[Path(path).stem][number] + np.float32(1e-4)}
fake, cudart = fake_tensorrt.make(sys.argv.pop(1), Stored()), fake_cuda.make_cudart()
fake.world.stream = cudart.stream
sys.modules["tensorrt"] = fake
sys.modules.update(fake_cuda.modules_of(cudart))
sys.path.insert(0, sys.argv.pop(1))
import build
assert sys.version_info[:2] == (3, 8)
sys.exit(build.main(sys.argv[1:]))
"""


@pytest.mark.slow
@pytest.mark.skipif(PYTHON_38 is None, reason="needs python3.8")
def test_the_script_runs_under_python_3_8(folder: Path, tmp_path: Path) -> None:
    environment = tmp_path / "environment"
    assert PYTHON_38 is not None
    subprocess.run([PYTHON_38, "-m", "venv", environment], check=True, capture_output=True)
    python = environment / "bin/python"
    subprocess.run([python, "-m", "pip", "install", "--quiet", "numpy<1.25"], check=True, capture_output=True)
    for version in VERSIONS:
        line: list[str | Path] = [python, "-W", "error", "-c", STUB, BACKENDS, version, folder]
        line += ["--out", tmp_path / version]
        done = subprocess.run(line, capture_output=True, text=True, check=False, env={"PATH": os.environ["PATH"]})
        assert (done.returncode, len(done.stdout.splitlines())) == (0, 3), done.stderr
        assert "generator.fp16.engine" in done.stdout


def test_the_fakes_are_python_3_8_too() -> None:
    for module in (fake_cuda, fake_tensorrt):
        ast.parse(Path(str(module.__file__)).read_text(encoding="utf-8"), feature_version=(3, 8))
