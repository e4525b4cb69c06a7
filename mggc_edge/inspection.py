"""What a file is: the facts that `mggc-edge inspect` shows, gathered without torch."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mggc_edge.artifacts import SLIM_FOLDER, SPEC_FILE, read_json
from mggc_edge.errors import ArtifactError, SpecError
from mggc_edge.models.checkpoint import (
    MAX_BYTES,
    MAX_SPEC_BYTES,
    Checkpoint,
    Direction,
    read_checkpoint,
    read_network_folder,
)
from mggc_edge.models.cost import layer_macs, macs, parameters
from mggc_edge.models.families import family_of, layer_table
from mggc_edge.models.family import NormStats
from mggc_edge.models.layers import LayerTable, Size
from mggc_edge.models.selection import slim_spec
from mggc_edge.models.spec import NetworkSpec
from mggc_edge.opening import what_is
from mggc_edge.pruning.plan import PruningPlan, read_plan
from mggc_edge.run_folder import run_artifact

if TYPE_CHECKING:
    from mggc_edge.compiler.facts import OnnxFacts

SCHEMA = "mggc-edge/inspect/1"


@dataclass(frozen=True)
class Inspection:
    """What was found at a path.

    Attributes:
        kind: "checkpoint", "network" (a folder with spec and weights), "spec", "plan", "onnx" or "run".
        table: the layer table; of a plan, that of the slim network. None for an ONNX file from elsewhere.
        original: of a plan, the layer table of the network that it was made for.
        checkpoint, plan: where it is one.
        onnx: facts about the ONNX file (of a run: the generator's).
        slim: of a run, the layer table of the network that was exported, where the run holds it. Its parameters count;
            an ONNX file also keeps constants of its graph among its initializers.
    """

    kind: str
    path: Path
    table: LayerTable | None = None
    original: LayerTable | None = None
    checkpoint: Checkpoint | None = None
    plan: PruningPlan | None = None
    onnx: OnnxFacts | None = None
    slim: LayerTable | None = None

    def document(self) -> dict[str, Any]:
        """Return the JSON document of `inspect --json`; what a file does not tell is null."""
        document: dict[str, Any] = {"schema": SCHEMA, "kind": self.kind, "path": str(self.path)}
        document |= self._network()
        if self.checkpoint is not None:
            document |= {
                "format": self.checkpoint.format,
                "size_bytes": self.checkpoint.size_bytes,
                "network": self.checkpoint.name or None,
                "other_networks": list(self.checkpoint.others),
                "ignored": list(self.checkpoint.ignored),
            }
        if self.plan is not None and self.original is not None:
            document |= {
                "criterion": self.plan.criterion,
                "budget": self.plan.budget,
                "budget_met": self.plan.budget_met,
                "convention": self.plan.convention,
                "align": self.plan.align,
                "original": {
                    "parameters": parameters(self.original),
                    "macs_true": macs(self.original, "true"),
                    "macs_paper": macs(self.original, "paper"),
                    "groups": [{"name": group.name, "channels": group.size} for group in self.original.groups],
                },
            }
        if self.onnx is not None:
            document |= {
                "macs_executed": self.onnx.macs_executed,
                "opset": self.onnx.opset,
                "operators": dict(self.onnx.operators),
                "inputs": [tensor.to_json() for tensor in self.onnx.inputs],
                "outputs": [tensor.to_json() for tensor in self.onnx.outputs],
                "metadata": dict(self.onnx.metadata),
            }
        return document

    def _network(self) -> dict[str, Any]:
        table, facts = self.table, self.onnx
        described = table if facts is None else self.slim
        count = 0 if facts is None else facts.parameters
        if described is not None:
            count = parameters(described)
        if table is None:
            assert facts is not None
            return {
                "family": None, "role": None, "norm": None, "parameters": count,
                "image_size": _onnx_size(facts), "macs_true": facts.macs_true, "macs_paper": facts.macs_paper,
                "epsilon": None, "color_order": None, "range": None, "quantization": None, "groups": [], "layers": [],
            }  # fmt: skip
        family = family_of(table.spec)
        return {
            "family": family.title(table.spec),
            "role": family.role,
            "norm": table.spec.norm,
            "epsilon": table.spec.epsilon,
            "color_order": table.spec.color_order,
            "range": [table.spec.low, table.spec.high],
            "quantization": table.spec.quantization,
            "in_channels": table.spec.in_channels,
            "out_channels": table.spec.out_channels,
            "parameters": count,
            "image_size": list(table.image_size),
            "macs_true": macs(table, "true"),
            "macs_paper": macs(table, "paper"),
            "groups": [{"name": group.name, "channels": group.size} for group in table.groups],
            "layers": [
                {
                    "name": layer.name,
                    "op": layer.op,
                    "group": layer.output,
                    "in_channels": layer.in_channels,
                    "out_channels": layer.out_channels,
                    "kernel": layer.kernel,
                    "stride": layer.stride,
                    "out_size": list(layer.out_size),
                    "macs_true": layer_macs(layer, "true"),
                    "macs_paper": layer_macs(layer, "paper"),
                }
                for layer in table.layers
            ],
        }


def inspect_path(
    path: Path,
    *,
    image_size: Size | None = None,
    direction: Direction = "AtoB",
    norm_stats: NormStats = "instance",
    max_bytes: int = MAX_BYTES,
) -> Inspection:
    """Find out what is at a path.

    Args:
        path: a checkpoint, spec, plan, ONNX file, folder with a saved network, or run folder.
        image_size: (height, width) that MACs are counted at; None: what the network is usually trained at.
        direction, norm_stats, max_bytes: for checkpoints, see `read_checkpoint`.

    Raises:
        InputError: it is none of these, is damaged, or the network cannot run at `image_size`.
    """
    kind = what_is(path)
    if kind == "spec":
        return Inspection("spec", path, layer_table(_read_spec(path), image_size))
    if kind == "plan":
        plan = read_plan(path)
        return _of_plan(path, plan, image_size or plan.image_size)
    if kind in ("artifact", "run"):
        file = run_artifact(path) if kind == "run" else path
        return _of_onnx("run" if kind == "run" else "onnx", path, file, image_size)
    if kind == "network":
        checkpoint = read_network_folder(path, max_bytes=max_bytes)
    else:
        checkpoint = read_checkpoint(path, direction=direction, norm_stats=norm_stats, max_bytes=max_bytes)
    return Inspection(kind, path, layer_table(checkpoint.spec, image_size), checkpoint=checkpoint)


def _read_spec(path: Path) -> NetworkSpec:
    return NetworkSpec.from_json(read_json(path, max_bytes=MAX_SPEC_BYTES))


def _of_plan(path: Path, plan: PruningPlan, image_size: Size) -> Inspection:
    original = layer_table(plan.spec, image_size)
    slim = layer_table(slim_spec(plan.spec, plan.kept), image_size)
    return Inspection("plan", path, slim, original=original, plan=plan)


def _of_onnx(kind: str, path: Path, file: Path, image_size: Size | None) -> Inspection:
    if file.suffix.lower() != ".onnx":
        raise ArtifactError(
            f"'{path}' is in ONNX Runtime's own format, which cannot be looked into",
            hint="inspect the .onnx file that it was made from; verify and translate run it",
        )
    from mggc_edge.compiler.facts import onnx_facts

    facts = onnx_facts(file)
    size = _onnx_size(facts)
    if image_size is not None and size is not None and list(image_size) != size:
        raise ArtifactError(f"'{path}' takes pictures of {size[0]}x{size[1]} only", hint="leave the image size out")
    table = None
    if facts.spec is not None and size is not None:
        with contextlib.suppress(SpecError):
            table = layer_table(facts.spec, (size[0], size[1]))
    # The metadata is a claim: it is shown only if the graph does as many multiplications.
    if table is not None and macs(table, "true") != facts.macs_true:
        table = None
    return Inspection(kind, path, table, onnx=facts, slim=_slim_table(path, facts) if kind == "run" else None)


def _slim_table(run: Path, facts: OnnxFacts) -> LayerTable | None:
    """Return the layer table of a run's slim network, where it has one that does as much as the exported file."""
    file, size = run / SLIM_FOLDER / SPEC_FILE, _onnx_size(facts)
    if size is None or not file.is_file():
        return None
    table = layer_table(_read_spec(file), (size[0], size[1]))
    return table if macs(table, "true") == facts.macs_true else None


def _onnx_size(facts: OnnxFacts) -> list[int] | None:
    size = facts.inputs[0].picture_size if facts.inputs else None
    return None if size is None else list(size)
