"""What `compress` exports: both generators for every target and runtime, made once and written down in the run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mggc_edge.artifacts import (
    EXPORT_FOLDER,
    ORIGINAL_FILE,
    ORIGINAL_FOLDER,
    PORTABLE,
    RECORD_FILE,
    SLIM_FOLDER,
    WEIGHTS_FILE,
    read_json,
    sha256_of,
    write_json,
)
from mggc_edge.backends.onnxruntime import ONNX_RUNTIME, ORT_MOBILE
from mggc_edge.compiler.artifact_set import ArtifactSet, Wanted, make_artifacts
from mggc_edge.compiler.export_settings import ExportSettings
from mggc_edge.compiler.finishing import Exported
from mggc_edge.compiler.runtimes import TENSORRT, Checks, check_installed
from mggc_edge.compiler.targets import AUTO, NONE, this_target
from mggc_edge.compiler.to_onnx import Exporter
from mggc_edge.compiler.torch_graph import MIN_WRITTEN, plain_graph
from mggc_edge.errors import ArtifactError
from mggc_edge.jobs.choose import Work
from mggc_edge.jobs.precisions import precisions_for
from mggc_edge.jobs.request import CompressRequest
from mggc_edge.models.network import Network
from mggc_edge.settings import Settings
from mggc_edge.training.material import Material

RECORD_SCHEMA = "mggc-edge/exported/1"
ELSEWHERE = (ORT_MOBILE, TENSORRT)  # runtimes that are the target of the same name


@dataclass(frozen=True)
class Exports:
    """The files of a run, as its record has them.

    Attributes:
        artifacts: the entries of `artifacts`; paths are relative to the run folder.
        parents: hash of what every file was made from, by its path.
        size: how much smaller the compressed generator is, see `size_document`.
        float_bytes: size of both portable ONNX files, were they all in float32, by "original" and "compressed".
    """

    artifacts: tuple[Mapping[str, Any], ...]
    parents: Mapping[str, str | None]
    size: Mapping[str, Any]
    float_bytes: Mapping[str, int]

    def portable(self, name: str) -> str:
        """Return the path of the portable file of the "original" or the "compressed" generator that others follow."""
        originals = name == "original"
        rows = [row for row in self.artifacts if row["target"] == PORTABLE and is_original(row) == originals]
        return str(rows[0]["path"])

    def to_json(self) -> dict[str, Any]:
        """Return the record."""
        return {
            "schema": RECORD_SCHEMA,
            "artifacts": [dict(row) for row in self.artifacts],
            "parents": dict(self.parents),
            "size": dict(self.size),
            "float_bytes": dict(self.float_bytes),
        }


def is_original(row: Mapping[str, Any]) -> bool:
    """Return whether an entry of `artifacts` is a file of the original generator."""
    return Path(row["path"]).name.split(".")[0] == ORIGINAL_FILE.split(".")[0]


def targets_of(settings: Settings, runtimes: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Return the targets that are exported for, the portable one first, each with its runtimes.

    ort-mobile and tensorrt are targets of their own. What else runs the files runs those of this machine's target, or
    the portable ones where that is not exported for.
    """
    asked: str = settings["compress.targets"].strip()
    names = [] if asked == NONE else [name.strip() for name in asked.split(",")]
    targets = [PORTABLE, *(this_target() if name == AUTO else name for name in names)]
    targets += [name for name in ELSEWHERE if name in runtimes]
    here = tuple(name for name in runtimes if name not in ELSEWHERE) or (ONNX_RUNTIME,)
    at = this_target() if this_target() in targets else PORTABLE
    found: dict[str, tuple[str, ...]] = dict.fromkeys(targets, (ONNX_RUNTIME,))
    found[at] = here
    for name in ELSEWHERE:
        if name in runtimes:
            found[name] = tuple(dict.fromkeys((*found[name], name)))
    return found


def check_exports(settings: Settings, request: CompressRequest, original: Network) -> None:
    """Find out before anything long whether a job can export what it is asked for.

    Raises:
        SettingError: there is no such target.
        ArtifactError: a target does not read the opset, or the network cannot be had in it.
        MissingDependencyError: an engine is not installed.
    """
    check_installed(request.runtimes)
    for target in targets_of(settings, request.runtimes):
        chosen = ExportSettings.from_settings(settings, image_size=original.table.image_size, target=target)
    if chosen.opset < MIN_WRITTEN:  # some operators cannot be had in older versions
        plain_graph(original, chosen)


def export_all(work: Work, request: CompressRequest, original: Network, slim: Network, material: Material) -> Exports:
    """Export both generators, or read what was exported before, where all of it is there.

    Raises:
        CheckFailedError: a file does not equal its network.
        ArtifactError, OutputError: a file cannot be run, or written.
    """
    job = work.job
    if (known := known_exports(job.folder)) is not None:
        return known
    job.discard((EXPORT_FOLDER,))  # what a stopped process left of it
    size = original.table.image_size
    settings = ExportSettings.from_settings(job.settings, image_size=size, bn=request.bn, tune=not request.quick)
    origin = {"direction": request.direction, "norm_stats": request.norm_stats}
    compressed, whole = (
        Exporter(network, settings, sha256_of(job.folder / saved / WEIGHTS_FILE), origin=origin, seed=job.seed)
        for network, saved in ((slim, SLIM_FOLDER), (original, ORIGINAL_FOLDER))
    )
    sets, said = list[ArtifactSet](), list[str]()
    targets = targets_of(job.settings, request.runtimes)
    others = {target: precisions_for(request, target, job.settings, material, job.seed) for target in targets}
    if request.precisions == (AUTO,) and not any(others.values()):
        said.append("--precision auto makes fp32 files alone: of the targets that are exported for none lists others")
    for target, runtimes in targets.items():
        at = "" if target == PORTABLE else f" for {target}"
        precisions = others[target]
        min_psnr = settings.min_psnr if precisions is None else precisions.min_psnr
        wanted = Wanted(
            target,
            Checks(settings.pictures, settings.atol, min_psnr),
            runtimes,
            precisions,
            tunes=replace(settings, target=target).measures_passes,
            seed=job.seed,
            tell=work.tell,
        )
        made = make_artifacts(
            job.folder / EXPORT_FOLDER / target,
            compressed.source(f"exporting the compressed generator{at}", target=target),
            whole.source(f"exporting the original generator{at}", ORIGINAL_FILE, target),
            wanted,
        )
        sets += made
        said += [remark for one in made for remark in one.remarks]
    for remark in dict.fromkeys(said):
        work.tell(f"note: {remark}")
    portable = sets[0]
    assert portable.original is not None
    entries = [entry for one in sets for entry in one.entries(job.folder)]
    exports = Exports(
        artifacts=tuple(row for one in sets for row in one.documents(job.folder)),
        parents={entry["path"]: entry["parent"] for entry in entries},
        size=size_document(portable.original, portable.generator),
        float_bytes={
            "original": portable.original.float_bytes,
            "compressed": portable.generator.float_bytes,
        },
    )
    write_json(job.folder / RECORD_FILE, exports.to_json())
    return exports


def known_exports(folder: Path) -> Exports | None:
    """Return what was exported before; None where it was not, or a file of it is not there as it was written."""
    path = folder / RECORD_FILE
    if not path.is_file():
        return None
    try:
        document = read_json(path)
        rows = document["artifacts"]
        whole = all(sha256_of(folder / row["path"]) == row["sha256"] for row in rows)
        exports = Exports(tuple(rows), document["parents"], document["size"], document["float_bytes"])
        there = all((folder / name).is_file() for name in exports.parents)
    except (ArtifactError, OSError, KeyError, TypeError, AttributeError):
        return None
    return exports if whole and there and document.get("schema") == RECORD_SCHEMA else None


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
