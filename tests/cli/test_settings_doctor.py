"""`mggc-edge settings` and `doctor`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from mggc_edge.settings import SETTINGS
from tests.backends.trt_helpers import install
from tests.cli.conftest import Command


def test_settings_lists_every_setting_with_default_unit_and_source(command: Command) -> None:
    document = command("settings", "--json").document
    assert [entry["name"] for entry in document["settings"]] == [setting.name for setting in SETTINGS]
    (entry,) = [entry for entry in document["settings"] if entry["name"] == "checkpoint.max_bytes"]
    assert entry == {
        "name": "checkpoint.max_bytes",
        "value": 4 * 2**30,
        "default": 4 * 2**30,
        "unit": "bytes",
        "meaning": "a larger checkpoint file is refused",
        "source": "ours",
    }
    page = command("settings").out
    assert all(setting.name in page for setting in SETTINGS)
    assert max(map(len, page.splitlines())) <= 80


def test_settings_shows_what_a_change_does(command: Command) -> None:
    page = command("settings", "--set", "verify.atol=0.5").out
    assert "default 0.0001" in " ".join(page.split())


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("verify.atoll=1", "there is no setting 'verify.atoll'", "did you mean verify.atol?"),
        ("verify.atol=lots", "setting verify.atol must be a finite number, not 'lots'", None),
        ("export.opset=3", "setting export.opset must be at least 13 and at most 23, not 3", None),
        ("verify.atol", "'verify.atol' sets nothing", "write NAME=VALUE"),
    ],
)
def test_impossible_settings_are_usage_errors(command: Command, text: str, message: str, hint: str | None) -> None:
    ran = command("settings", "--set", text)
    assert ran.code == 2
    assert ran.err == f"error: {message}\n" + (f"hint: {hint}\n" if hint else "")


def test_doctor_names_engines_and_libraries_with_their_state(command: Command) -> None:
    document = command("doctor", "--json").document
    engines = {entry["name"]: entry for entry in document["engines"]}
    assert (engines["pytorch"]["works"], engines["onnxruntime"]["works"]) == (True, True)
    assert "CPU" in engines["onnxruntime"]["detail"]
    assert document["machine"]["device"] in ("x86", "arm64", "jetson")
    assert max(map(len, command("doctor").out.splitlines())) <= 80
    libraries = {"onnx", "onnxscript", "onnxsim", "safetensors", "lightning-fabric"}
    assert {entry["name"] for entry in document["libraries"]} == libraries


@pytest.mark.parametrize("failure", ["import library_of_its_own", "raise OSError('[/bold] no such symbol')"])
def test_doctor_says_what_to_install_for_what_is_missing_or_broken(
    command: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, failure: str
) -> None:
    (tmp_path / "onnxsim.py").write_text(f"{failure}\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "onnxsim", raising=False)
    (entry,) = [entry for entry in command("doctor", "--json").document["libraries"] if entry["name"] == "onnxsim"]
    assert (entry["works"], entry["hint"]) == (False, 'pip install "mggc-edge[onnx]"')
    assert entry["detail"].endswith("; needed by export (optional: export.simplify)")
    assert command("doctor").code == 0


def test_doctor_names_the_device_of_tensorrt_or_why_there_is_none(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = install(monkeypatch, "10.3.0")

    def shown() -> tuple[Any, ...]:
        (entry,) = [entry for entry in command("doctor", "--json").document["engines"] if entry["name"] == "tensorrt"]
        return entry["works"], entry["version"], entry["detail"]

    assert shown() == (True, "10.3.0", "Fake sm87, through cuda-python, networks typed")
    fake.world.driver_error = 100
    why = "TensorRT 10.3.0 finds no device that it can use: there is no CUDA device"
    assert shown() == (False, "10.3.0", why)
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    assert shown()[0] is False


def test_doctor_has_a_verdict_for_every_backend_device_and_precision(command: Command) -> None:
    document = command("doctor", "--json").document
    cells = {(cell["backend"], cell["device"], cell["precision"]): cell for cell in document["abilities"]}
    assert len(cells) == len(document["abilities"]) == 7 * 4
    assert cells["onnxruntime", "cpu", "fp32"]["works"] is True
    for cell in cells.values():
        assert (cell["works"], cell["reason"] is None) == (cell["verdict"] != "no", cell["verdict"] == "yes")
    assert cells["onnxruntime", "cpu", "bf16"]["reason"] == (
        "bf16 is what OpenVINO computes float32 files in; no files are written in it"
    )
    lines = command("doctor").out.splitlines()
    start = next(number for number, line in enumerate(lines) if line.split() == [
        "backend", "device", "fp32", "fp16", "bf16", "int8",
    ])  # fmt: skip
    shown = {tuple(line.split()[:2]): line.split()[2:] for line in lines[start + 2 : start + 9]}
    assert shown["onnxruntime", "cpu"][0] == "yes"
    for (backend, device), row in shown.items():
        assert row == [cells[backend, device, kind]["verdict"] for kind in ("fp32", "fp16", "bf16", "int8")]
    text = " ".join(" ".join(lines[start + 9 :]).split())
    for cell in cells.values():
        assert cell["reason"] is None or cell["reason"] in text
