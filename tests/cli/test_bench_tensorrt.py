"""`mggc-edge bench --runtime tensorrt`: engines, and files that engines are built from on the device."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from mggc_edge.artifacts import file_entry
from mggc_edge.cli.bench_models import Choice, workloads
from mggc_edge.errors import ArtifactError
from tests.benchmarks.bench_helpers import convolutions
from tests.cli.conftest import Command

SHORT = ("--pairs", 1, "--threads", 1, "--set", "bench.warmup_seconds=0.01")
TENSORRT = Choice(("tensorrt",))


@pytest.fixture(scope="module")
def run_with_bundle(material: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that has a bundle; of what a bundle holds, there is what is looked at here."""
    run = tmp_path_factory.mktemp("bundled") / "run"
    shutil.copytree(material / "run", run)
    folder = run / "export/portable"
    (folder / "tensorrt").mkdir()
    manifest = json.loads((run / "manifest.json").read_text())
    for name in ("generator.fp32.onnx", "original.fp32.onnx", "bundle.json"):
        path = folder / "tensorrt" / name
        if name == "bundle.json":
            path.write_text("{}")
        else:
            shutil.copyfile(folder / name, path)
        manifest["files"].append(file_entry(path, run))
    (run / "manifest.json").write_text(json.dumps(manifest))
    return run


def test_of_a_run_the_files_of_its_bundle_are_taken(run_with_bundle: Path) -> None:
    models = workloads([run_with_bundle], None, TENSORRT)
    assert [(model.name, model.runtime, model.of_bundle) for model in models] == [
        ("original", "tensorrt", True), ("compressed", "tensorrt", True),
    ]  # fmt: skip
    assert all(model.path.parent.name == "tensorrt" for model in models)
    assert (models[0].macs_true or 0) > (models[1].macs_true or 0) > 0


def test_engines_are_measured_beside_other_runtimes(run_with_bundle: Path) -> None:
    models = workloads([run_with_bundle], None, Choice(("onnxruntime", "tensorrt")))
    assert [(model.name, model.runtime) for model in models] == [
        ("original fp32.onnx", "onnxruntime"), ("original fp32.engine", "tensorrt"),
        ("compressed fp32.onnx", "onnxruntime"), ("compressed fp32.engine", "tensorrt"),
    ]  # fmt: skip


def test_a_file_of_a_bundle_is_built_only_where_tensorrt_is_asked_for(run_with_bundle: Path) -> None:
    path = run_with_bundle / "export/portable/tensorrt/generator.fp32.onnx"
    (built,) = workloads([path], None, TENSORRT)
    assert (built.runtime, built.of_bundle) == ("tensorrt", True)
    (usual,) = workloads([path], None, Choice())
    assert (usual.runtime, usual.of_bundle) == ("onnxruntime", False)


def test_an_engine_is_measured_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "generator.fp16.engine").write_bytes(b"an engine")
    (model,) = workloads([tmp_path / "generator.fp16.engine"], None, Choice())
    assert (model.runtime, model.precision, model.of_bundle) == ("tensorrt", "fp16", False)


def test_a_file_outside_of_a_bundle_needs_an_export(tmp_path: Path) -> None:
    path = convolutions(tmp_path / "a.onnx")
    with pytest.raises(
        ArtifactError, match=r"the runtime 'tensorrt' opens \.engine files, and there is none"
    ) as caught:
        workloads([path], None, TENSORRT)
    assert caught.value.hint == "mggc-edge export --runtime tensorrt writes one"


def test_a_run_without_a_bundle_says_so(command: Command, material: Path) -> None:
    ran = command("bench", material / "run", "--runtime", "tensorrt", *SHORT)
    assert (ran.code, ran.out) == (1, "")
    assert "has no 'export/portable/tensorrt/original.fp32.onnx'" in " ".join(ran.err.split())


def test_without_tensorrt_there_is_one_sentence_and_what_to_install(
    command: Command, run_with_bundle: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "tensorrt.py").write_text("raise ImportError('no TensorRT in this test')\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    ran = command("bench", run_with_bundle, "--runtime", "tensorrt", *SHORT)
    assert (ran.code, ran.out) == (1, "")
    assert "error: tensorrt cannot be imported here: no TensorRT in this test\nhint: " in ran.err
