"""Exported files on an arm64 processor, emulated: they give what they give here. No timing follows from this."""

from __future__ import annotations

import json
import math
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch

from mggc_edge.benchmarks.devices.local import LocalDevice
from mggc_edge.benchmarks.devices.pack import agent
from mggc_edge.benchmarks.harness import measure
from mggc_edge.benchmarks.isolation import WorkerProcess, open_request
from mggc_edge.benchmarks.workload import Workload
from mggc_edge.cli.main import run
from mggc_edge.quality.metrics import psnr_from_mse
from tests.boards.fetch import ARM64_WHEELS, DONE, EMULATOR_PROGRAM
from tests.cli.conftest import random_network

pytestmark = pytest.mark.boards

ROOT = Path(__file__).parent.parent.parent
FETCHED = ROOT / ".cache/boards/arm64"
SIZE = 64
ATOL = 1e-4  # of parity, see `mggc_edge.quality.parity.check_parity`
MIN_PSNR = 40.0
SECONDS = 600.0  # for an answer: emulation takes its time


@pytest.fixture(scope="module")
def emulated(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    """The command line of the agent's worker on an emulated processor."""
    if not (FETCHED / DONE).exists():
        pytest.skip("the emulator is not there: make test-arm64")
    packed = tmp_path_factory.mktemp("agent") / agent().name
    packed.write_bytes(agent().data)
    emulator, root = FETCHED / "emulator/usr/bin" / EMULATOR_PROGRAM, FETCHED / "root"
    variables = ("-E", f"PYTHONPATH={FETCHED / 'wheels'}", "-E", "PYTHONHASHSEED=0")
    return (str(emulator), "-L", str(root), *variables, str(root / "usr/bin/python3.11"), str(packed), "worker")


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with runs of a small generator: "portable" and "arm64", each in fp32 and int8, .onnx and .ort."""
    place = tmp_path_factory.mktemp("exported")
    torch.save(random_network().state_dict(), place / "generator.pth")
    for target, flags in (("portable", ()), ("arm64", ("--target", "arm64", "--no-tune"))):
        words = (
            "--quiet", "export", place / "generator.pth", "--image-size", SIZE, "--precision", "fp32,int8",
            "--runtime", "onnxruntime,ort-mobile", *flags, "--min-precision-psnr", "20", "--set",
            "calibration.pictures=4", "--set", "calibration.held_out=2", "--out", place / target, "--json",
            "--output", place / f"{target}.json",
        )  # fmt: skip
        assert run([str(word) for word in words]) == 0
    return place


def answers(command: tuple[str, ...], model: Workload, file: Path) -> Iterator[dict[str, Any]]:
    """What a worker says when it opens a model, and when it has written into a file what goes in and comes out."""
    with WorkerProcess(model, command) as worker:
        yield worker.ask(open_request(model, str(model.path), 1, 0), SECONDS)
        yield worker.ask({"do": "save", "file": str(file)}, SECONDS)
        yield worker.ask({"do": "close"}, SECONDS)


@pytest.mark.parametrize("target", ["portable", "arm64"])
@pytest.mark.parametrize("precision", ["fp32", "int8"])
@pytest.mark.parametrize("ending", ["onnx", "ort"])
def test_a_file_gives_there_what_it_gives_here(
    emulated: tuple[str, ...], exported: Path, tmp_path: Path, target: str, precision: str, ending: str
) -> None:
    path = exported / target / "export" / target / f"generator.{precision}.{ending}"
    model = Workload("generator", path, runtime="onnxruntime" if ending == "onnx" else "ort-mobile")
    opened, _, closed = answers(emulated, model, tmp_path / "there.npz")
    assert opened["provider"] == "CPUExecutionProvider"
    assert {f"{name}=={opened['versions'][name]}" for name in ("numpy", "onnxruntime")} == set(ARM64_WHEELS)
    assert closed["rss_peak_bytes"] > 2**20
    with np.load(tmp_path / "there.npz") as there:
        feeds = {name.removeprefix("input "): there[name] for name in there if name.startswith("input ")}
        found = there["output 0"]
    (wanted,) = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"]).run(None, feeds)
    assert found.shape == wanted.shape == (1, 3, SIZE, SIZE)
    assert float(np.std(wanted)) > 0.01  # it is a picture, not a constant
    psnr = psnr_from_mse(float(np.mean((found.astype(np.float64) - wanted) ** 2)), 2.0)
    print(f"{target} {precision} {ending}: max {np.abs(found - wanted).max():.2e}, PSNR {psnr or math.inf:.1f} dB")
    if precision == "fp32":
        assert float(np.abs(found - wanted).max()) <= ATOL
    assert psnr is None or psnr >= MIN_PSNR


def test_the_harness_measures_there(emulated: tuple[str, ...], exported: Path, tmp_path: Path) -> None:
    path = exported / "portable/export/portable/generator.fp32.onnx"
    device = LocalDevice(lambda model: WorkerProcess(model, emulated))
    report = measure([Workload("generator", path)], pairs=2, processes=1, threads=1, warmup_seconds=0.01, device=device)
    assert report.context["versions"]["onnxruntime"] == "1.23.2"
    assert len(report.runs[0].samples_ns) == 2 * report.runs[0].runs_per_pair


def test_the_emulated_machine_says_what_it_is(emulated: tuple[str, ...], tmp_path: Path) -> None:
    program = "import json, platform, sys; print(json.dumps([platform.machine(), sys.version_info[:2]]))"
    done = subprocess.run([*emulated[:-2], "-c", program], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == ["aarch64", [3, 11]]
    assert os.uname().machine != "aarch64"
