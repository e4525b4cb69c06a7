"""The last stages of a job: export both generators, compare pictures, measure latency, and write it all down."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mggc_edge.artifacts import (
    BENCH_FILE,
    DISCRIMINATOR_PLAN_FILE,
    EXPORT_FOLDER,
    ORIGINAL_FOLDER,
    PLAN_FILE,
    QUALITY_FILE,
    REPORT_FILE,
    SLIM_FOLDER,
    SPEC_FILE,
    WEIGHTS_FILE,
    file_entry,
    read_json,
    sha256_of,
    write_json,
    write_manifest,
)
from mggc_edge.benchmarks.extent import Extent
from mggc_edge.jobs.choose import Work
from mggc_edge.jobs.exports import Exports, export_all
from mggc_edge.jobs.folder import JOB_FILE, command_line, files_below
from mggc_edge.jobs.latency import SIDES, candidates, measure_fastest
from mggc_edge.jobs.networks import DISCRIMINATOR_FOLDER
from mggc_edge.jobs.proof import Yardsticks, measure_quality
from mggc_edge.jobs.request import CompressRequest
from mggc_edge.models.cost import macs
from mggc_edge.models.families import layer_table
from mggc_edge.models.network import Network
from mggc_edge.pipeline import costs
from mggc_edge.pruning.budget import kept_macs
from mggc_edge.pruning.plan import PruningPlan
from mggc_edge.report.latency import latency_summary
from mggc_edge.report.page import build_report
from mggc_edge.training.loop import Progress
from mggc_edge.training.material import Material

SCHEMA = "mggc-edge/compress/1"
# What a finished run holds, beside the manifest.
PARTS = (
    PLAN_FILE, DISCRIMINATOR_PLAN_FILE, ORIGINAL_FOLDER, SLIM_FOLDER, EXPORT_FOLDER, QUALITY_FILE, BENCH_FILE,
    "logs", "samples", JOB_FILE, REPORT_FILE,
)  # fmt: skip


def prove(
    work: Work,
    request: CompressRequest,
    original: Network,
    slim: Network,
    plan: PruningPlan,
    budget: float,
    material: Material,
    yardsticks: Yardsticks,
) -> dict[str, Any]:
    """Return the document of `compress --json`, and write everything that it sums up into the run folder.

    Raises:
        CheckFailedError: an exported file does not equal its network.
        ArtifactError, OutputError: a file cannot be run, or written.
    """
    job, folder = work.job, work.job.folder
    with job.stage("export"):
        exports = export_all(work, request, original, slim, material)
    if (quality := _saved(folder / QUALITY_FILE)) is None:
        with job.stage("quality"):
            quality = measure_quality(
                folder,
                folder / exports.portable("original"),
                folder / exports.portable("compressed"),
                material,
                output_format=original.spec.output_format,
                yardsticks=yardsticks,
                samples=job.settings["samples.pictures"],
                seed=job.seed,
                tell=work.tell,
                watch=work.watch,
                # In one order: a state that was read back names its values in another.
                extra={
                    name: dict(sorted((job.facts.get(name) or {}).items())) or None
                    for name in ("before_finetuning", "after_finetuning")
                },
            )
    tables = {"original": original.table, "compressed": layer_table(slim.spec, original.table.image_size)}
    if (bench := _saved(folder / BENCH_FILE)) is None:
        work.tell("measuring latency: fresh processes, in pairs")
        with job.stage("bench"):
            bench = measure_fastest(
                candidates(folder, exports, tables),
                Extent.of(job.settings, job.settings["quick.bench_pairs"] if request.quick else None),
                seed=job.seed,
                progress=lambda done, count, _: work.watch(Progress("bench", done, count, {}, None)),
            ).to_json()
            write_json(folder / BENCH_FILE, bench)
    convention = request.macs_convention
    document = {
        "schema": SCHEMA,
        "run": str(folder),
        "method": plan.criterion,
        "budget": budget,
        "budget_asked": request.budget.strip(),
        "budget_met": kept_macs(original.table, plan.kept, convention) / macs(original.table, convention),
        "macs_convention": convention,
        "encoder": job.facts.get("encoder"),
        "slimming": job.facts.get("slimming"),
        **{name: costs(tables[name], exports.float_bytes[name]) for name in SIDES},
        "size": exports.size,
        "artifacts": list(exports.artifacts),
        "quality": _quality(quality),
        "latency": latency_summary(bench, exports.artifacts),
    }
    _write_down(work, document, exports, original.table.image_size, material.split_sha256)
    return document


def _quality(quality: Mapping[str, Any]) -> dict[str, Any]:
    names = (
        "psnr_to_original ssim_to_original identical broken_pictures kid kid_reason frechet fid segmentation "
        "to_truth to_truth_difference where pictures"
    )
    return {name: quality.get(name) for name in names.split()}


def _write_down(
    work: Work, document: Mapping[str, Any], exports: Exports, size: tuple[int, int], split_sha256: str
) -> None:
    """Write the manifest, then the report, which reads it, and the manifest with the report in it."""
    job = work.job
    sources = job.facts["sources"]
    parents = _parents(job.folder, sources, exports)

    def manifest(*, complete: bool) -> None:
        write_manifest(
            job.folder,
            command="compress",
            files=[
                file_entry(path, job.folder, parent=parents.get(path.relative_to(job.folder).as_posix()))
                for path in files_below(job.folder, PARTS)
            ],
            settings={
                **job.settings.to_json(),
                **{f"request.{name}": value for name, value in job.typed.items()},
                "image_size": list(size),
                "seed": job.seed,
                "threads": job.threads,
                "train.precision": work.precision,
            },
            command_line=command_line(
                "compress", job, {**CompressRequest("", "1").to_json(), "model": None, "budget": None}
            ),
            source_sha256=sources["generator"],
            sources={
                role: {"sha256": sha, "network_sha256": job.facts["networks"][role]} for role, sha in sources.items()
            },
            split_sha256=split_sha256,
            timings_s=job.timings_s,
            unreadable_pictures=job.facts.get("unreadable", 0),
            result=dict(document),
            complete=complete,
        )

    manifest(complete=False)
    build_report(job.folder)
    manifest(complete=True)
    job.clear_work()


def _parents(folder: Path, sources: Mapping[str, str], exports: Exports) -> dict[str, str | None]:
    """Return the hash of the file that each file was made from, by its path in the run folder.

    A discriminator that nobody gave was fitted to the original. What came from more than one file has no parent.
    """
    original = sha256_of(folder / ORIGINAL_FOLDER / WEIGHTS_FILE)
    parents = {PLAN_FILE: sources["generator"], **exports.parents}
    judge = folder / ORIGINAL_FOLDER / DISCRIMINATOR_FOLDER / WEIGHTS_FILE
    networks = {ORIGINAL_FOLDER: sources["generator"], SLIM_FOLDER: original}
    if judge.is_file():
        parent = sources.get("discriminator", original)
        parents[DISCRIMINATOR_PLAN_FILE] = parent
        networks[f"{ORIGINAL_FOLDER}/{DISCRIMINATOR_FOLDER}"] = parent
        networks[f"{SLIM_FOLDER}/{DISCRIMINATOR_FOLDER}"] = sha256_of(judge)
    for name, parent in networks.items():
        parents |= {f"{name}/{part}": parent for part in (SPEC_FILE, WEIGHTS_FILE)}
    return parents


def _saved(path: Path) -> dict[str, Any] | None:
    """Return a document that was written before, None where it was not.

    Raises:
        ArtifactError: it is damaged.
    """
    if not path.is_file():
        return None
    return read_json(path, hint="remove it; it will be made again")
