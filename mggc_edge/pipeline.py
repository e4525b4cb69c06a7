"""The stages of a job in order: from a network, and where there is one a plan, to a folder of proven artifacts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mggc_edge.artifacts import SPEC_FILE, WEIGHTS_FILE, file_entry, new_folder, write_json, write_manifest
from mggc_edge.compiler.to_onnx import Exported, ExportSettings, to_onnx
from mggc_edge.models.cost import macs, parameters
from mggc_edge.models.families import layer_table
from mggc_edge.models.layers import LayerTable
from mggc_edge.models.network import Network
from mggc_edge.models.slim import slim
from mggc_edge.models.weights import save_network, weights_sha256
from mggc_edge.pruning.plan import PruningPlan

# Graphs that are not rewritten for one target, and so run on any ONNX runtime, are kept under this name.
PORTABLE = "portable"
PLAN_FILE = "plan.json"

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Export:
    """What `export_folder` made: the generator's file, the original's where a plan was applied, and what they cost."""

    folder: Path
    generator: Exported
    original: Exported | None
    table: LayerTable
    original_table: LayerTable
    remarks: tuple[str, ...]


def export_folder(
    network: Network,
    folder: Path,
    *,
    settings: ExportSettings,
    plan: PruningPlan | None = None,
    source_sha256: str | None = None,
    command: str,
    effective: Mapping[str, Any],
    seed: int = 0,
    tell: Tell = lambda _: None,
) -> Export:
    """Export a generator into a new folder; with a plan, slim it first and export the original beside it.

    The folder appears under its name when everything in it is finished and has been proven equal to torch:
    `export/portable/{generator,original}.fp32.onnx`, with a plan also `plan.json` and `slim/`, and `manifest.json`.

    Args:
        network: the original generator.
        folder: must not exist, or be empty.
        settings: see `ExportSettings`.
        plan: which channels stay.
        source_sha256: hash of the checkpoint file, for the lineage.
        command, effective: what goes into the manifest as the command and its effective settings.
        seed: of the random pictures that parity is checked on.
        tell: is called with a line at the start of every stage.

    Raises:
        PlanError: the plan does not fit the network.
        CheckFailedError: an exported file does not equal its network.
        OutputError: the folder has other content or cannot be written.
    """
    original_table = layer_table(network.spec, settings.image_size)
    settings = replace(settings, image_size=original_table.image_size)
    remarks: list[str] = []
    generator = network
    if plan is not None:
        plan.check_fits(network.spec)
        if plan.source_sha256 not in (None, weights_sha256(network)):
            remarks.append("the plan was made from other weights of the same network")
        tell("slimming the generator")
        generator = slim(network, plan.kept)
    with new_folder(folder) as stage:
        files = []
        parent = source_sha256
        if plan is not None:
            write_json(stage / PLAN_FILE, plan.to_json())
            save_network(generator, stage / "slim")
            files.append(file_entry(stage / PLAN_FILE, stage, parent=source_sha256))
            files += [
                file_entry(stage / "slim" / name, stage, parent=source_sha256) for name in (SPEC_FILE, WEIGHTS_FILE)
            ]
            parent = files[-1]["sha256"]
        target = stage / "export" / PORTABLE
        tell("exporting the generator and proving it equal")
        exported = to_onnx(generator, target / "generator.fp32.onnx", settings, parent_sha256=parent, seed=seed)
        files.append(exported.artifact.to_json(stage))
        original = None
        if plan is not None:
            tell("exporting the original and proving it equal")
            original = to_onnx(network, target / "original.fp32.onnx", settings, parent_sha256=source_sha256, seed=seed)
            files.append(original.artifact.to_json(stage))
        write_manifest(stage, command=command, files=files, settings=effective, source_sha256=source_sha256)
    for result in (exported, original):
        remarks += result.remarks if result is not None else ()
    table = layer_table(generator.spec, settings.image_size)
    return Export(
        folder=folder,
        generator=_moved(exported, stage, folder),
        original=None if original is None else _moved(original, stage, folder),
        table=table,
        original_table=original_table,
        remarks=tuple(dict.fromkeys(remarks)),
    )


def _moved(exported: Exported, stage: Path, folder: Path) -> Exported:
    """Return the same export with the path that its file has now."""
    path = folder / exported.artifact.path.relative_to(stage)
    return replace(exported, artifact=replace(exported.artifact, path=path))


def costs(table: LayerTable, exported: Exported) -> dict[str, int]:
    """Return what a network costs, as the JSON of `compress` and `export` has it."""
    return {
        "parameters": parameters(table),
        "macs_true": macs(table, "true"),
        "macs_paper": macs(table, "paper"),
        "size_bytes": exported.artifact.size_bytes,
    }
