"""The last stages of a job: export both generators, compare pictures, measure latency, and write it all down."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mggc_edge.artifacts import (
    BENCH_FILE,
    DISCRIMINATOR_PLAN_FILE,
    EXPORT_FOLDER,
    GENERATOR_FILES,
    ORIGINAL_FILE,
    ORIGINAL_FOLDER,
    PLAN_FILE,
    PORTABLE,
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
from mggc_edge.benchmarks.harness import measure
from mggc_edge.benchmarks.workload import Workload
from mggc_edge.compiler.finishing import Exported
from mggc_edge.compiler.precision.variants import with_variants
from mggc_edge.compiler.quantized import precision_of
from mggc_edge.compiler.to_onnx import ExportSettings, to_onnx
from mggc_edge.jobs.choose import Work
from mggc_edge.jobs.folder import JOB_FILE, command_line, files_below
from mggc_edge.jobs.networks import DISCRIMINATOR_FOLDER
from mggc_edge.jobs.precisions import (
    artifact_documents,
    fastest_second,
    precisions_for,
    variant_parents,
    variant_workloads,
)
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
        exports = _export(work, request, original, slim, material)
    paths = {name: exported.artifact.path for name, exported in exports.items()}
    if (quality := _saved(folder / QUALITY_FILE)) is None:
        with job.stage("quality"):
            quality = measure_quality(
                folder,
                paths["original"],
                paths["compressed"],
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
        workloads = [
            Workload(
                name,
                exported.artifact.path,
                precision=exported.artifact.precision,
                macs_true=macs(tables[name], "true"),
                macs_paper=macs(tables[name], "paper"),
            )
            for name, exported in exports.items()
        ]
        workloads += variant_workloads(exports["compressed"], workloads[-1])
        with job.stage("bench"):
            report = measure(
                workloads,
                pairs=job.settings["quick.bench_pairs"] if request.quick else job.settings["bench.pairs"],
                processes=job.settings["bench.processes"],
                max_seconds=job.settings["bench.max_seconds"],
                margin=job.settings["bench.margin"],
                warmup_seconds=job.settings["bench.warmup_seconds"],
                seed=job.seed,
                progress=lambda done, count, _: work.watch(Progress("bench", done, count, {}, None)),
            )
            bench = fastest_second(report).to_json()
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
        **{
            name: {**costs(tables[name], exported), "size_bytes": exported.float_bytes}
            for name, exported in exports.items()
        },
        "size": size_document(exports["original"], exports["compressed"]),
        "artifacts": [
            entry
            for exported in exports.values()
            for entry in (_artifact(folder, exported), *artifact_documents(folder, exported))
        ],
        "quality": _quality(quality),
        "latency": latency_summary(bench),
    }
    _write_down(work, document, original.table.image_size, material.split_sha256)
    return document


def _export(
    work: Work, request: CompressRequest, original: Network, slim: Network, material: Material
) -> dict[str, Exported]:
    job = work.job
    settings = ExportSettings.from_settings(job.settings, image_size=original.table.image_size, bn=request.bn)
    exports = {}
    for name, network, saved, file in (
        ("original", original, ORIGINAL_FOLDER, ORIGINAL_FILE),
        ("compressed", slim, SLIM_FOLDER, GENERATOR_FILES[precision_of(slim.spec)]),
    ):
        work.tell(f"exporting the {name} generator and proving it equal")
        exports[name] = to_onnx(
            network,
            job.folder / EXPORT_FOLDER / PORTABLE / file,
            settings,
            parent_sha256=sha256_of(job.folder / saved / WEIGHTS_FILE),
            origin={"direction": request.direction, "norm_stats": request.norm_stats},
            seed=job.seed,
        )
        for remark in exports[name].remarks:
            work.tell(f"note: {remark}")
    precisions = precisions_for(request, job.settings, material, job.seed)
    exports["compressed"] = with_variants(
        exports["compressed"], precisions, target=PORTABLE, seed=job.seed, tell=work.tell
    )
    return exports


def size_document(original: Exported, compressed: Exported) -> dict[str, Any]:
    """Return how much smaller the compressed generator is, on disk and in memory, and what of it makes it so.

    A ratio is that of channels, original : compressed with both in float32, times that of bits, compressed in float32 :
    compressed as it is. In memory: the tensors of the file, as they lie there once it is read.
    """
    a, b = original.artifact.size_bytes, compressed.artifact.size_bytes
    sizes = {
        "disk": (a, compressed.float_bytes, b),
        "memory": (original.weights_bytes, compressed.float_weights_bytes, compressed.weights_bytes),
    }
    return {
        where: {
            "original_bytes": before,
            "compressed_bytes": after,
            "ratio": before / after,
            "channels": before / floats,
            "bits": floats / after,
        }
        for where, (before, floats, after) in sizes.items()
    }


def _artifact(folder: Path, exported: Exported) -> dict[str, Any]:
    artifact = exported.artifact
    return {
        "path": artifact.path.relative_to(folder).as_posix(),
        "target": PORTABLE,
        "runtime": "onnxruntime",
        "precision": artifact.precision,
        "sha256": artifact.sha256,
        "accepted": True,
        "reason": None,
        "parity_psnr": exported.parity.psnr,
        "equal_levels": None if exported.grids is None else exported.grids.equal,
    }


def _quality(quality: Mapping[str, Any]) -> dict[str, Any]:
    names = (
        "psnr_to_original ssim_to_original identical broken_pictures kid kid_reason frechet fid segmentation "
        "to_truth to_truth_difference where pictures"
    )
    return {name: quality.get(name) for name in names.split()}


def _write_down(work: Work, document: Mapping[str, Any], size: tuple[int, int], split_sha256: str) -> None:
    """Write the manifest, then the report, which reads it, and the manifest with the report in it."""
    job = work.job
    sources = job.facts["sources"]
    parents = _parents(job.folder, sources)

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


def _parents(folder: Path, sources: Mapping[str, str]) -> dict[str, str]:
    """Return the hash of the file that each file was made from, by its path in the run folder.

    A discriminator that nobody gave was fitted to the original. What came from more than one file has no parent.
    """
    original, slim = (sha256_of(folder / name / WEIGHTS_FILE) for name in (ORIGINAL_FOLDER, SLIM_FOLDER))
    parents = {
        PLAN_FILE: sources["generator"],
        f"{EXPORT_FOLDER}/{PORTABLE}/{ORIGINAL_FILE}": original,
        **{f"{EXPORT_FOLDER}/{PORTABLE}/{file}": slim for file in GENERATOR_FILES.values()},
        **variant_parents(folder),
    }
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
