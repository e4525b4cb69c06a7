"""ONNX files that are damaged or hostile: run, or refused in one sentence, in bounded time and memory."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from fuzz_harness import SLOW_TIMES, Fuzzed, fuzz

from mggc_edge.compiler.to_onnx import ExportSettings, to_onnx
from mggc_edge.models.network import Network
from mggc_edge.models.resnet import resnet_spec
from mggc_edge.models.unet import unet_spec

MUTANTS = 1000
SPARE_BYTES = 64 * 2**20  # what an ONNX Runtime session takes


@pytest.fixture(scope="module")
def seeds(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Return the ONNX files of three small generators, one of them with an open batch size."""
    folder = tmp_path_factory.mktemp("seeds")
    torch.manual_seed(0)
    networks = {
        "resnet": (resnet_spec(blocks=1, ngf=4), ExportSettings(image_size=(16, 16))),
        "unet": (unet_spec(halvings=3, ngf=4), ExportSettings(image_size=(16, 16))),
        "mobile": (
            resnet_spec(blocks=1, ngf=4, norm="batch", separable=True),
            ExportSettings(image_size=(8, 8), bn="batch", dynamic_batch=True),
        ),
    }
    return [
        to_onnx(Network(spec).eval(), folder / f"{name}.onnx", settings).artifact.path
        for name, (spec, settings) in networks.items()
    ]


def run(seeds: list[Path], mutants: int, folder: Path, *, batch: int = 250, seconds: float = 300.0) -> Fuzzed:
    """Read and run mutants of `seeds`."""
    return fuzz("onnx", seeds, mutants, folder, batch=batch, spare_bytes=SPARE_BYTES, seconds=seconds)


def test_mutants_of_onnx_files_are_run_or_refused_in_one_sentence(seeds: list[Path], tmp_path: Path) -> None:
    run(seeds, MUTANTS, tmp_path).check(MUTANTS)


@pytest.mark.slow
def test_many_mutants_of_onnx_files_are_run_or_refused_in_one_sentence(seeds: list[Path], tmp_path: Path) -> None:
    mutants = SLOW_TIMES * MUTANTS
    run(seeds, mutants, tmp_path, batch=1000, seconds=1200).check(mutants)
