"""Export a generator to ONNX: one file, every size known, nothing that costs time without effect, proven equal.

A quantized network becomes a graph with exactly its grids, see `mggc_edge.compiler.qdq`.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from mggc_edge.artifacts import GENERATOR_FILES, METADATA_PREFIX, PORTABLE, atomic_path, writing
from mggc_edge.backends.onnxruntime import OnnxRuntimeRunner
from mggc_edge.compiler.artifact_set import Source
from mggc_edge.compiler.camera import Camera
from mggc_edge.compiler.export_settings import ExportSettings, camera_for
from mggc_edge.compiler.facts import count_macs
from mggc_edge.compiler.finishing import Exported, random_pictures, rewriting, rewritten_settings, written_artifact
from mggc_edge.compiler.grid_parity import GridParity
from mggc_edge.compiler.passes.contract import apply_passes
from mggc_edge.compiler.quantized import compare_grids, precision_of
from mggc_edge.compiler.targets import AUTO, NONE, tensorrt
from mggc_edge.compiler.tensorrt_lint import lint
from mggc_edge.compiler.torch_graph import INPUT_NAME, PlainGraph, both_macs, plain_graph, torch_runner, weights_bytes
from mggc_edge.compiler.tune import passes_for
from mggc_edge.errors import counted
from mggc_edge.lazy import require
from mggc_edge.models.families import layer_table
from mggc_edge.models.layers import Size
from mggc_edge.models.network import Network
from mggc_edge.quality.parity import ParityReport, check_parity
from mggc_edge.tensors import TensorSpec

if TYPE_CHECKING:
    import onnx


def to_onnx(
    network: Network,
    path: str | Path,
    settings: ExportSettings | None = None,
    *,
    parent_sha256: str | None = None,
    origin: Mapping[str, str] | None = None,
    seed: int = 0,
) -> Exported:
    """Export a generator to the ONNX file `path` and prove it equal to torch in ONNX Runtime.

    Args:
        network, settings, parent_sha256, origin: see `plain_graph`.
        path, seed: where the file goes, and of the random pictures that parity is checked on.

    Raises:
        SpecError, MissingDependencyError: as `plain_graph`.
        CheckFailedError: the file's outputs differ from torch's by more than `atol`, or a file of bytes gives other
            pictures than its floats.
        OutputError: the file cannot be written.
    """
    graph = plain_graph(network, settings, parent_sha256=parent_sha256, origin=origin)
    return _placed(graph, Path(path), graph.settings, seed, camera_for(network.spec, graph.settings, seed))


class Exporter:
    """A network that files for one target or several are made of: its graph is written once, when the first one is.

    Args:
        network, settings, parent_sha256, origin: see `plain_graph`.
        seed: of the random pictures that parity is checked on.
    """

    def __init__(
        self,
        network: Network,
        settings: ExportSettings,
        parent_sha256: str | None = None,
        *,
        origin: Mapping[str, str] | None = None,
        seed: int = 0,
    ) -> None:
        self._network, self._settings, self._seed = network, settings, seed
        self._lineage = parent_sha256, origin

    @functools.cached_property
    def _graph(self) -> PlainGraph:
        parent, origin = self._lineage
        return plain_graph(self._network, self._settings, parent_sha256=parent, origin=origin)

    def source(self, doing: str, file: str | None = None, target: str | None = None) -> Source:
        """Return it as what the files for a target are made of.

        Args:
            doing: see `Source`.
            file: name of the file; None: that of a generator.
            target: None: the target of the settings.
        """
        settings = self._settings if target is None else replace(self._settings, target=target)

        def make(path: Path, engine: str) -> Exported:
            tune = None if settings.tune is None else settings.tune.within(engine)
            return _placed(self._graph, path, replace(settings, tune=tune), self._seed, None)

        how = "choosing passes by measurement" if settings.measures_passes else ""
        return Source(doing, file or GENERATOR_FILES[precision_of(self._network.spec)], make, how)


def _placed(graph: PlainGraph, path: Path, settings: ExportSettings, seed: int, camera: Camera | None) -> Exported:
    """Write a graph for a target to its place once all is proven."""
    with atomic_path(path) as temporary:
        exported = _written(graph, temporary, settings, seed, path.name)
        if camera is not None:
            exported = camera.around(exported)
    return replace(exported, artifact=replace(exported.artifact, path=path))


def _written(graph: PlainGraph, path: Path, settings: ExportSettings, seed: int, name: str) -> Exported:
    """Write a graph for a target to a file that will be called `name`."""
    network, reference = graph.network, graph.reference
    table = layer_table(network.spec, settings.image_size)
    passes, tuned = passes_for(graph.model, settings.passes, settings.target, settings.tune, seed=seed)
    model, reports = apply_passes(graph.model, passes)
    applied = [report.name for report in reports if report.applied]
    metadata = {**graph.metadata, **rewriting(settings.target, applied, both_macs(table))}
    require("onnx.helper", extra="onnx").set_model_props(model, metadata)
    with writing(path):
        path.write_bytes(model.SerializeToString())
    parity, inputs, outputs = _parity(reference, path, table.image_size, settings, seed)
    parity.check(f"the exported '{name}' does not equal the network")
    grids, precision = None, precision_of(network.spec)
    if precision == "int8":
        shape, values = (network.spec.in_channels, *table.image_size), (network.spec.low, network.spec.high)
        pictures = random_pictures(settings.pictures, (1,), shape, seed, values)
        grids = compare_grids(reference, model, INPUT_NAME, pictures)
        grids.check(f"the exported '{name}' has not the grids of the network")
    artifact = written_artifact(
        path,
        tensors=(inputs, outputs),
        precision=precision,
        parent_sha256=graph.metadata[f"{METADATA_PREFIX}parent_sha256"] or None,
        settings={
            "image_size": list(table.image_size),
            "opset": settings.opset,
            "dynamic_batch": settings.dynamic_batch,
            "bn": settings.bn,
            "simplify": settings.simplify,
            **rewritten_settings(settings.target, settings.io, reports, tuned),
        },
    )
    return Exported(
        artifact,
        parity,
        (
            *graph.remarks,
            *_remarks_on(parity, grids, settings),
            *(_refusal(model) if grids is not None and settings.target == tensorrt.TARGET.name else ()),
            *(tuned.remarks if tuned is not None else ()),
        ),
        reports,
        tuned=tuned,
        macs_executed=count_macs(model)[0],
        grids=grids,
        weights_bytes=weights_bytes(model),
        float_bytes=artifact.size_bytes if precision == "fp32" else graph.float_bytes,
        float_weights_bytes=graph.float_weights_bytes,
    )


def _remarks_on(parity: ParityReport, grids: GridParity | None, settings: ExportSettings) -> Iterator[str]:
    """Yield what is to be said of a quantized network's file: what passes do not do, and how far its roundings go."""
    if grids is not None and (settings.target != PORTABLE or settings.passes not in (AUTO, NONE)):
        yield (
            f"graph passes for '{settings.target}' do not rewrite 8-bit convolutions: their weights lie on grids "
            "(see docs/compiler.md)"
        )
    if grids is not None and parity.psnr is not None and parity.psnr < settings.min_psnr:
        yield (
            f"end to end the 8-bit file is at {parity.psnr:.1f} dB to torch, below {settings.min_psnr:g} dB: its "
            f"roundings diverge from layer to layer; on the same input {grids.equal:.3%} or more of a layer's values "
            "are equal"
        )


def _refusal(model: onnx.ModelProto) -> Iterator[str]:
    """Yield why TensorRT does not take the file of a quantized network, where it does not."""
    refused = [finding.text for finding in lint(model) if finding.severity == "refused"]
    if refused:
        yield (
            f"TensorRT refuses this file: {refused[0]} ({counted(len(refused), 'place')}); 8 bits for TensorRT are "
            "made of a network in floats, with --precision int8"
        )


def _parity(
    reference: Network, path: Path, size: Size, settings: ExportSettings, seed: int
) -> tuple[ParityReport, tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    batches = settings.batches
    with torch_runner(reference, size) as torch_side, OnnxRuntimeRunner(path) as onnx_side:
        spec = reference.spec
        shape, values = (spec.in_channels, *size), (spec.low, spec.high)
        pictures = random_pictures(settings.pictures, batches, shape, seed, values)
        # A deep 8-bit network does not repeat itself to the last bit; `check_grids` holds it, layer by layer, instead.
        atol = settings.atol if spec.quantization == "none" else None
        report = check_parity(torch_side, onnx_side, pictures, atol=atol, data_range=spec.value_range)
        return report, onnx_side.inputs, onnx_side.outputs
