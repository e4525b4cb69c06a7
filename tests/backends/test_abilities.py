"""The matrix of backends, devices and precisions, for made-up machines."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mggc_edge.backends import abilities as module
from mggc_edge.backends.abilities import PRECISIONS, ROWS, Ability, abilities
from mggc_edge.backends.registry import ENGINES, LibraryState
from mggc_edge.machine import Machine

ZEN = Machine("Zen 4", "x86_64", ("AVX2", "AVX-512", "AVX-512 VNNI", "AVX-512 BF16"), 2, None, None)
ATOM = Machine("Atom", "x86_64", ("AVX2",), 2, None, None)
ORIN = Machine("A78AE", "aarch64", ("NEON", "NEON fp16", "NEON dot product"), 6, None, "Orin", ("nvgpu",))
CPU, CUDA, TENSORRT = (f"{name}ExecutionProvider" for name in ("CPU", "CUDA", "Tensorrt"))
Cells = dict[tuple[str, str, str], Ability]


def states(*missing: str) -> list[LibraryState]:
    return [
        LibraryState(engine, engine.name not in missing, "1", "not installed", "pip install it")
        if engine.name in missing
        else LibraryState(replace(engine), True, "1", "")
        for engine in ENGINES
    ]


def found(
    monkeypatch: pytest.MonkeyPatch, machine: Machine, providers: tuple[str, ...] = (CPU,), *missing: str
) -> Cells:
    monkeypatch.setattr(module, "available_providers", lambda: providers)
    return {(one.backend, one.device, one.precision): one for one in abilities(machine, states(*missing))}


def verdicts(cells: Cells, backend: str, device: str) -> list[str]:
    return [cells[backend, device, precision].verdict for precision in PRECISIONS]


def test_a_modern_processor_has_everything_but_devices_of_nvidia(monkeypatch: pytest.MonkeyPatch) -> None:
    cells = found(monkeypatch, ZEN)
    assert list(cells) == [(backend, device, kind) for backend, device, _ in ROWS for kind in PRECISIONS]
    assert verdicts(cells, "onnxruntime", "cpu") == ["yes", "slow", "no", "yes"]
    assert verdicts(cells, "ort-mobile", "cpu") == ["yes", "slow", "no", "yes"]
    assert verdicts(cells, "openvino", "cpu") == ["yes", "slow", "yes", "yes"]
    assert verdicts(cells, "pytorch", "cpu") == ["yes", "no", "no", "slow"]
    for backend, device in (("onnxruntime", "cuda"), ("onnxruntime", "tensorrt"), ("tensorrt", "cuda")):
        assert verdicts(cells, backend, device) == ["no"] * 4
    assert cells["onnxruntime", "cuda", "fp32"].reason == f"this build of ONNX Runtime has no {CUDA}"
    assert cells["tensorrt", "cuda", "fp32"].reason == module.NO_GPU
    assert all((one.reason is None) == (one.verdict == "yes") for one in cells.values())


def test_an_old_processor_gains_nothing_by_8_bits_and_has_no_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    cells = found(monkeypatch, ATOM)
    assert verdicts(cells, "openvino", "cpu") == ["yes", "slow", "no", "slow"]
    assert cells["openvino", "cpu", "bf16"].reason == (
        "this processor has no instructions for bf16 (AVX-512 BF16, AMX bf16)"
    )
    assert cells["onnxruntime", "cpu", "int8"].reason == (
        "this processor has no instructions for 8-bit sums (AVX-512 VNNI, AVX-VNNI, AMX int8, NEON dot product, i8mm)"
    )


def test_a_jetson_has_the_providers_of_its_build(monkeypatch: pytest.MonkeyPatch) -> None:
    cells = found(monkeypatch, ORIN, (TENSORRT, CUDA, CPU))
    assert verdicts(cells, "onnxruntime", "cuda") == ["yes", "yes", "no", "slow"]
    assert verdicts(cells, "onnxruntime", "tensorrt") == ["yes", "yes", "no", "yes"]
    assert verdicts(cells, "tensorrt", "cuda") == ["yes", "yes", "no", "yes"]
    assert verdicts(cells, "onnxruntime", "cpu") == ["yes", "yes", "no", "yes"]


def test_a_provider_without_a_device_is_no(monkeypatch: pytest.MonkeyPatch) -> None:
    cells = found(monkeypatch, ZEN, (CUDA, CPU))
    assert verdicts(cells, "onnxruntime", "cuda") == ["no"] * 4
    assert cells["onnxruntime", "cuda", "fp32"].reason == module.NO_GPU


def test_an_engine_that_is_missing_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    cells = found(monkeypatch, ZEN, (CPU,), "openvino", "tensorrt")
    for backend, device in (("openvino", "cpu"), ("tensorrt", "cuda")):
        for kind in PRECISIONS:
            cell = cells[backend, device, kind]
            assert (cell.verdict, cell.reason, cell.hint) == ("no", "not installed", "pip install it")
    assert cells["openvino", "cpu", "fp32"].to_json() == {
        "backend": "openvino", "device": "cpu", "precision": "fp32", "works": False, "verdict": "no",
        "reason": "not installed", "hint": "pip install it",
    }  # fmt: skip


def test_without_onnx_runtime_it_has_no_provider() -> None:
    cells = {(one.backend, one.device): one for one in abilities(ZEN, states("onnxruntime"))}
    assert cells["onnxruntime", "cpu"].reason == cells["ort-mobile", "cpu"].reason == "not installed"
