"""The stages of a job in order: from a network, and where there is one a plan, to a folder of proven artifacts."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mggc_edge.artifacts import (
    EXPORT_FOLDER,
    ORIGINAL_FILE,
    ORIGINAL_FOLDER,
    PLAN_FILE,
    SLIM_FOLDER,
    SPEC_FILE,
    WEIGHTS_FILE,
    file_entry,
    new_folder,
    write_json,
    write_manifest,
)
from mggc_edge.backends.onnxruntime import ONNX_RUNTIME
from mggc_edge.compiler.artifact_set import ArtifactSet, Wanted, make_artifacts, runtime_facts
from mggc_edge.compiler.export_settings import ExportSettings, camera_for
from mggc_edge.compiler.finishing import Exported
from mggc_edge.compiler.precision.wanted import Precisions
from mggc_edge.compiler.runtimes import Checks
from mggc_edge.compiler.to_onnx import Exporter
from mggc_edge.errors import SpecError, counted
from mggc_edge.models.convert import per_picture_norm
from mggc_edge.models.cost import macs, parameters
from mggc_edge.models.drop_scales import Dropped, drop_zero_scales
from mggc_edge.models.families import layer_table
from mggc_edge.models.layers import LayerTable
from mggc_edge.models.network import Network
from mggc_edge.models.slim import slim
from mggc_edge.models.weights import save_network, weights_sha256
from mggc_edge.pruning.plan import PruningPlan

Tell = Callable[[str], None]
DROP_PICTURES = 8  # that the difference of dropped channels is measured on


@dataclass(frozen=True)
class Export:
    """What `export_folder` made: the files, the original's among them where a plan was applied, and what they cost."""

    folder: Path
    sets: tuple[ArtifactSet, ...]
    table: LayerTable
    original_table: LayerTable
    remarks: tuple[str, ...]

    @property
    def generator(self) -> Exported:
        """The generator's file."""
        return self.sets[0].generator

    @property
    def original(self) -> Exported | None:
        """The original's file; None without a plan."""
        return self.sets[0].original


def export_folder(
    network: Network,
    folder: Path,
    *,
    settings: ExportSettings,
    plan: PruningPlan | None = None,
    source_sha256: str | None = None,
    command: str,
    effective: Mapping[str, Any],
    origin: Mapping[str, str] | None = None,
    seed: int = 0,
    drop_scales: bool = False,
    runtimes: Sequence[str] = (ONNX_RUNTIME,),
    precisions: Precisions | None = None,
    tell: Tell = lambda _: None,
) -> Export:
    """Export a generator into a new folder; with a plan, slim it first and export the original beside it.

    The folder appears under its name when everything in it is finished and has been proven equal to torch:
    `original/`, `export/<target>/generator.fp32.onnx` (of a quantized network `generator.int8.onnx`) and
    `manifest.json`; with a plan also `plan.json`, `slim/` and `export/<target>/original.fp32.onnx`.

    Args:
        network: the original generator.
        folder: must not exist, or be empty.
        settings: see `ExportSettings`.
        plan: which channels stay.
        source_sha256: hash of the checkpoint file, for the lineage.
        command, effective: what goes into the manifest as the command, and as settings beside those of the export.
        origin: how the checkpoint was read, see `to_onnx`.
        seed: of the random pictures that parity is checked on.
        drop_scales: instead of a plan, take out the channels whose norm has the scale 0, see
            `mggc_edge.models.drop_scales`; how far the slim network is from the original is measured on built-in
            pictures, said in a remark, and kept in the manifest as `dropped`.
        runtimes: that files are made for, or proven in, beside ONNX Runtime; see `mggc_edge.compiler.runtimes`.
        precisions: what is made of the generator's fp32 file.
        tell: is called with a line at the start of every stage.

    Raises:
        PlanError: the plan does not fit the network, or there is no scale of 0 to drop.
        SpecError: a channel cannot be dropped, see `drop_zero_scales`, or the network is quantized already.
        CheckFailedError: an exported file does not equal its network.
        OutputError: the folder has other content or cannot be written.
    """
    original_table = layer_table(network.spec, settings.image_size)
    settings = replace(settings, image_size=original_table.image_size)
    remarks: list[str] = []
    if network.spec.quantization != "none" and (plan is not None or drop_scales):
        raise SpecError(
            "this network is quantized already, and channels are taken out of networks in floats",
            hint="give the checkpoint that it was made from, or leave out --plan and --drop-zero-scales",
        )
    if plan is not None:
        plan.check_fits(network.spec)
        if plan.source_sha256 not in (None, weights_sha256(network)):
            remarks.append("the plan was made from other weights of the same network")
    original_network = network
    if settings.bn == "batch":
        network = per_picture_norm(network)  # before slimming: what a removed block leaves depends on it
    generator, timings, facts = network, dict[str, float](), dict[str, Any]()
    if plan is not None:
        tell("slimming the generator")
        with _timed(timings, "slim"):
            generator = slim(network, plan.kept)
    elif drop_scales:
        tell("taking out the channels with a scale of 0")
        with _timed(timings, "slim"):
            dropped = drop_zero_scales(network)
            generator = slim(dropped.network, dropped.kept)
            facts["dropped"] = _drop_facts(network, generator, dropped, original_table, seed)
        plan = _plan_of(dropped, original_table, original_network)
        remarks.append(_drop_remark(facts["dropped"]))
    with new_folder(folder) as stage:
        files, parent = _saved(original_network, stage, ORIGINAL_FOLDER, source_sha256)
        if plan is not None:
            write_json(stage / PLAN_FILE, plan.to_json())
            files.append(file_entry(stage / PLAN_FILE, stage, parent=source_sha256))
            slim_files, parent = _saved(generator, stage, SLIM_FOLDER, parent)
            files += slim_files
        where, original = stage / EXPORT_FOLDER / settings.target, None
        made_from = Exporter(generator, settings, parent, origin=origin, seed=seed).source("exporting the generator")
        if plan is not None:
            exporter = Exporter(network, settings, files[1]["sha256"], origin=origin, seed=seed)
            original = exporter.source("exporting the original", ORIGINAL_FILE)
        min_psnr = settings.min_psnr if precisions is None else precisions.min_psnr
        wanted = Wanted(
            settings.target,
            Checks(settings.pictures, settings.atol, min_psnr),
            tuple(runtimes),
            precisions,
            tunes=settings.measures_passes,
            camera=camera_for(generator.spec, settings, seed),
            seed=seed,
            tell=tell,
        )
        with _timed(timings, "export"):
            sets = make_artifacts(where, made_from, original, wanted)
        in_effect = {
            **effective,
            **(origin or {}),
            "image_size": list(original_table.image_size),
            "dynamic_batch": settings.dynamic_batch,
            "bn": settings.bn,
            "target": settings.target,
            "io": settings.io,
            "seed": seed,
        }
        write_manifest(
            stage,
            command=command,
            files=[*files, *(entry for one in sets for entry in one.entries(stage))],
            settings=in_effect,
            source_sha256=source_sha256,
            timings_s={name: round(seconds, 3) for name, seconds in timings.items()},
            **facts,
            **runtime_facts(sets, stage),
        )
    remarks += [remark for one in sets for remark in one.remarks]
    return Export(
        folder=folder,
        sets=tuple(one.moved(stage, folder) for one in sets),
        table=layer_table(generator.spec, settings.image_size),
        original_table=original_table,
        remarks=tuple(dict.fromkeys(remarks)),
    )


def _plan_of(dropped: Dropped, table: LayerTable, original: Network) -> PruningPlan:
    return PruningPlan.of_choice(
        table,
        {group: tuple(kept) for group, kept in dropped.kept.items()},
        {},
        criterion="zero-scales",
        seed=0,
        budget=None,
        convention="true",
        source_sha256=weights_sha256(original),
    )


def _drop_facts(
    original: Network, slim_network: Network, dropped: Dropped, table: LayerTable, seed: int
) -> dict[str, Any]:
    """Return what dropping channels changed, measured on built-in pictures."""
    import torch

    from mggc_edge.training.bank import ProceduralPictures

    taken = {group.name: group.size - len(dropped.kept[group.name]) for group in table.groups}
    pictures = ProceduralPictures(DROP_PICTURES, table.image_size, original.spec.input_format, seed=seed)
    with torch.inference_mode():
        sides = [
            torch.cat([network(pictures.batch([number])) for number in range(len(pictures))]).double()
            for network in (original, slim_network)
        ]
    error = sides[1] - sides[0]
    squared = error.square().mean().item()
    return {
        "channels": {name: count for name, count in taken.items() if count},
        "inexact_layers": list(dropped.inexact),
        "pictures": len(pictures),
        "max_abs": error.abs().max().item(),
        "psnr": 10 * math.log10(original.spec.value_range**2 / squared) if squared else None,
    }


def _drop_remark(facts: Mapping[str, Any]) -> str:
    psnr = "identical" if facts["psnr"] is None else f"{facts['psnr']:.2f} dB"
    inexact = facts["inexact_layers"]
    where = "exact at every layer that reads them"
    if inexact:
        where = f"not exact at {', '.join(inexact[:4])}" + (f" and {len(inexact) - 4} more" if len(inexact) > 4 else "")
    return (
        f"{counted(sum(facts['channels'].values()), 'channel')} with a scale of 0 taken out, {where}; on "
        f"{counted(facts['pictures'], 'built-in picture')} outputs differ by at most {facts['max_abs']:.2g} ({psnr})"
    )


@contextlib.contextmanager
def _timed(timings: dict[str, float], stage: str) -> Iterator[None]:
    """Keep how many seconds a stage took."""
    start = time.perf_counter()
    yield
    timings[stage] = time.perf_counter() - start


def _saved(network: Network, root: Path, name: str, parent: str | None) -> tuple[list[dict[str, Any]], str]:
    """Save a network below the folder `root`; return its two manifest entries, weights last, and the weights' hash."""
    save_network(network, root / name)
    files = [file_entry(root / name / part, root, parent=parent) for part in (SPEC_FILE, WEIGHTS_FILE)]
    return files, str(files[-1]["sha256"])


def costs(table: LayerTable, size_bytes: int) -> dict[str, int]:
    """Return what a network costs, as the JSON of `compress` and `export` has it; `size_bytes`: of its ONNX file."""
    return {
        "parameters": parameters(table),
        "macs_true": macs(table, "true"),
        "macs_paper": macs(table, "paper"),
        "size_bytes": size_bytes,
    }
