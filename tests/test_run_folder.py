"""Of several targets and engines in a run folder, it is the file that this machine runs which is opened."""

from __future__ import annotations

from pathlib import Path

import pytest

from mggc_edge.artifacts import file_entry, write_manifest
from mggc_edge.run_folder import run_artifact

HERE, FP32, INT8 = "x86-avx2", "generator.fp32.onnx", "generator.int8.onnx"


def run(folder: Path, *names: str) -> Path:
    """A run with such files below export/, in this order."""
    entries = []
    for name in names:
        path = folder / "export" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
        entries.append(file_entry(path, folder))
    write_manifest(folder, command="export", files=entries, settings={})
    return folder


@pytest.mark.parametrize(
    ("names", "runtime", "chosen"),
    [
        ((f"portable/{FP32}", f"{HERE}/{FP32}"), None, f"{HERE}/{FP32}"),
        ((f"arm64/{FP32}", f"portable/{FP32}"), None, f"portable/{FP32}"),
        ((f"arm64/{FP32}", f"tensorrt/{FP32}"), None, f"arm64/{FP32}"),
        ((f"{HERE}/{INT8}", f"{HERE}/{FP32}"), None, f"{HERE}/{INT8}"),
        ((f"{HERE}/openvino/{FP32}", f"{HERE}/{FP32}"), None, f"{HERE}/{FP32}"),
        ((f"{HERE}/openvino/{FP32}", f"{HERE}/{FP32}"), "onnxruntime", f"{HERE}/{FP32}"),
        ((f"{HERE}/{FP32}", f"{HERE}/openvino/{FP32}"), "openvino", f"{HERE}/openvino/{FP32}"),
        ((f"portable/openvino/{FP32}", f"{HERE}/{FP32}"), "openvino", f"{HERE}/{FP32}"),
        ((f"tensorrt/tensorrt/{FP32}", f"tensorrt/{FP32}"), None, f"tensorrt/{FP32}"),
        (("ort-mobile/generator.fp32.ort", f"{HERE}/{FP32}"), "ort-mobile", "ort-mobile/generator.fp32.ort"),
    ],
)
def test_the_target_of_this_machine_goes_before_the_portable_one_and_that_before_others(
    names: tuple[str, ...], runtime: str | None, chosen: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mggc_edge.compiler.targets.this_target", lambda: HERE)
    assert run_artifact(run(tmp_path, *names), runtime) == tmp_path / "export" / chosen


def test_a_file_of_another_target_may_be_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mggc_edge.compiler.targets.this_target", lambda: HERE)
    folder = run(tmp_path, f"arm64/{FP32}", f"{HERE}/{FP32}")
    (folder / "export/arm64" / FP32).unlink()
    assert run_artifact(folder) == folder / "export" / HERE / FP32
