"""The compressed generator in other precisions: calibrated on training pictures, measured beside the fp32 file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from mggc_edge.artifacts import EXPORT_FOLDER, GENERATOR_FILE, PORTABLE, PRECISIONS, sha256_of, variant_path
from mggc_edge.benchmarks.report import BenchmarkReport
from mggc_edge.benchmarks.workload import Workload
from mggc_edge.calibration.samples import Samples, from_pixels
from mggc_edge.compiler.finishing import Exported
from mggc_edge.compiler.precision.variants import RANGES
from mggc_edge.compiler.precision.wanted import Precisions, wanted_pictures
from mggc_edge.jobs.request import CompressRequest
from mggc_edge.pictures import PictureFormat, Size
from mggc_edge.settings import Settings
from mggc_edge.training.material import Material


def precisions_for(request: CompressRequest, settings: Settings, material: Material, seed: int) -> Precisions | None:
    """Return what a job is to make beside the compressed generator's fp32 file; None: nothing.

    Calibration pictures, those that precision is measured on among them, are training pictures: test pictures, and
    those that checkpoints are chosen by, take no part.
    """
    if set(request.precisions) == {"fp32"}:
        return None
    source = material.source

    def choose(_size: Size, format: PictureFormat) -> Samples:  # noqa: A002
        wanted = wanted_pictures(settings, seed)
        return from_pixels(
            len(source), source.pixels, format, wanted, where="training", place="among the training pictures"
        )

    return Precisions(request.precisions, choose, request.min_precision_psnr, settings)


def variant_workloads(compressed: Exported, fp32: Workload) -> list[Workload]:
    """Return the accepted files of other precisions as models to measure, beside that of the fp32 file."""
    return [
        replace(
            fp32,
            name=f"{fp32.name} {variant.artifact.precision}",
            path=variant.artifact.path,
            precision=variant.artifact.precision,
        )
        for variant in compressed.variants
        if variant.accepted
    ]


def fastest_second(report: BenchmarkReport) -> BenchmarkReport:
    """Return a measurement of the original and compressed generators with the fastest of those right after it.

    What is said of latency is said of the first two.
    """
    original, *compressed = report.runs
    return replace(report, runs=(original, *sorted(compressed, key=lambda run: run.p50_ms)))


def artifact_documents(folder: Path, exported: Exported) -> list[dict[str, Any]]:
    """Return the entries of `artifacts` for the files beside an fp32 one."""
    return [
        {
            "path": variant.artifact.path.relative_to(folder).as_posix(),
            "target": PORTABLE,
            "runtime": "onnxruntime",
            "precision": variant.artifact.precision,
            "sha256": variant.artifact.sha256,
            "size_bytes": variant.artifact.size_bytes,
            **variant.verdict(),
        }
        for variant in exported.variants
    ]


def variant_parents(folder: Path) -> dict[str, str]:
    """Return the hash of the fp32 file by the path in the run folder of everything that was made from it."""
    fp32 = folder / EXPORT_FOLDER / PORTABLE / GENERATOR_FILE
    if not fp32.is_file():
        return {}
    endings = [RANGES, *(f"{precision}.onnx" for precision in PRECISIONS if precision != "fp32")]
    names = [variant_path(fp32, ending).relative_to(folder).as_posix() for ending in endings]
    return dict.fromkeys(names, sha256_of(fp32))
