"""Export a generator to ONNX: one file, every size known, nothing that costs time without effect, proven equal.

A quantized network becomes a graph with exactly its grids, see `mggc_edge.compiler.qdq`.
"""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import torch

from mggc_edge._version import __version__
from mggc_edge.artifacts import (
    BYTES_IO,
    FLOAT_IO,
    IO_KINDS,
    METADATA_PREFIX,
    PORTABLE,
    OnnxArtifact,
    atomic_path,
    sha256_of,
    writing,
)
from mggc_edge.backends.onnxruntime import OnnxRuntimeRunner
from mggc_edge.backends.pytorch import PyTorchRunner
from mggc_edge.compiler.camera import make_camera_ready
from mggc_edge.compiler.facts import count_macs
from mggc_edge.compiler.finishing import Exported, quiet, random_pictures, rewriting, simplified, strip
from mggc_edge.compiler.grid_parity import GridParity
from mggc_edge.compiler.passes.contract import apply_passes
from mggc_edge.compiler.qdq import insert_qdq
from mggc_edge.compiler.quantized import compare_grids, in_floats, network_grids, precision_of
from mggc_edge.compiler.targets import AUTO, NONE, TARGETS, choose_passes
from mggc_edge.compiler.tune import TuneSettings, can_tune, passes_for
from mggc_edge.errors import ArtifactError, CheckFailedError, SpecError
from mggc_edge.lazy import require
from mggc_edge.models.convert import BatchNormMode, fold_batch_norm, per_picture_norm
from mggc_edge.models.cost import macs
from mggc_edge.models.families import family_of, layer_table
from mggc_edge.models.layers import Size
from mggc_edge.models.network import Network
from mggc_edge.models.spec import NetworkSpec
from mggc_edge.quality.parity import ParityReport, check_parity
from mggc_edge.settings import Settings
from mggc_edge.tensors import TensorSpec

if TYPE_CHECKING:
    import onnx

INPUT_NAME, OUTPUT_NAME = "input", "output"
MIN_OPSET, MAX_OPSET = 18, 23
PICTURE_CHANNELS = (1, 3, 4)
_DEFAULTS = Settings()


@dataclass(frozen=True)
class ExportSettings:
    """Settings of an export.

    Attributes:
        image_size: (height, width); None: what the family is usually trained at.
        opset: version of the ONNX operators, 18 to 23.
        dynamic_batch: leave the number of pictures open; otherwise it is 1.
        bn: "batch" exports batch norm in its per-picture form, see `per_picture_norm`.
        simplify: run onnxsim.
        atol: largest absolute difference from torch that the finished file may show.
        min_psnr: PSNR to torch, in dB, below which it is remarked that a quantized network's roundings diverge.
        pictures: how many random pictures parity is checked on.
        target, passes: what the graph is rewritten for, and by which passes; see `choose_passes`.
        tune: how long the target's passes are measured, where the target is this machine; None: they are not.
        io: "float", or "uint8" for bytes in and out, see `mggc_edge.compiler.camera`.
    """

    image_size: Size | None = None
    opset: int = _DEFAULTS["export.opset"]
    dynamic_batch: bool = False
    bn: BatchNormMode = "eval"
    simplify: bool = _DEFAULTS["export.simplify"]
    atol: float = _DEFAULTS["export.atol"]
    pictures: int = _DEFAULTS["export.parity_pictures"]
    target: str = PORTABLE
    passes: str = _DEFAULTS["export.passes"]
    tune: TuneSettings | None = None
    min_psnr: float = _DEFAULTS["quantize.min_psnr"]
    io: str = FLOAT_IO

    @classmethod
    def from_settings(
        cls,
        settings: Settings,
        *,
        image_size: Size | None = None,
        dynamic_batch: bool = False,
        bn: BatchNormMode = "eval",
        target: str = PORTABLE,
        io: str = FLOAT_IO,
        tune: bool = False,
    ) -> ExportSettings:
        """Return what the settings in effect say of an export, with what has flags of its own beside it."""
        return cls(
            image_size=image_size,
            opset=settings["export.opset"],
            dynamic_batch=dynamic_batch,
            bn=bn,
            simplify=settings["export.simplify"],
            atol=settings["export.atol"],
            pictures=settings["export.parity_pictures"],
            target=target,
            passes=settings["export.passes"],
            tune=TuneSettings.from_settings(settings) if tune else None,
            min_psnr=settings["quantize.min_psnr"],
            io=io,
        )

    @property
    def measures_passes(self) -> bool:
        """Whether an export measures which passes pay."""
        return self.tune is not None and can_tune(self.passes, self.target)

    def __post_init__(self) -> None:
        if not isinstance(self.opset, int) or not MIN_OPSET <= self.opset <= MAX_OPSET:
            raise ArtifactError(f"opset {self.opset} cannot be exported", hint=f"{MIN_OPSET} to {MAX_OPSET} can")
        if self.bn not in get_args(BatchNormMode):
            raise ArtifactError(f"batch norm can be taken as {' or '.join(get_args(BatchNormMode))}, not '{self.bn}'")
        if self.pictures < 1 or not 0 <= self.atol < math.inf:
            raise ArtifactError("parity is checked on at least 1 picture and to a finite difference")
        if self.io not in IO_KINDS:
            raise ArtifactError(f"a graph takes and gives {' or '.join(IO_KINDS)}, not '{self.io}'")
        choose_passes(self.passes, self.target)
        TARGETS[self.target].check_opset(self.opset)


def reference_network(network: Network, bn: BatchNormMode) -> Network:
    """Return what an export is held against: a copy on the CPU in evaluation mode, or its per-picture form."""
    return copy.deepcopy(per_picture_norm(network) if bn == "batch" else network).cpu().eval()


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

    Batch norm is folded, biases that an instance norm takes away again are left out, and graph passes rewrite what is
    left for the target. The file appears under its name only after parity has been shown.

    Args:
        network: a generator; it is not changed.
        path: of the .onnx file.
        settings: see `ExportSettings`.
        parent_sha256: hash of the checkpoint it came from, for the lineage in the file's metadata.
        origin: further metadata, such as how the checkpoint was read ("direction", "norm_stats").
        seed: of the random pictures that parity is checked on.

    Raises:
        SpecError: the network is a discriminator, or cannot run at this picture size.
        CheckFailedError: the file's outputs differ from torch's by more than `atol`.
        OutputError: the file cannot be written.
        MissingDependencyError: onnx, onnxscript or onnxruntime is not installed.
    """
    path, settings = Path(path), settings or ExportSettings()
    family = family_of(network.spec)
    check_generator(network.spec)
    if next(network.parameters()).dtype != torch.float32:
        raise SpecError("only networks in float32 are exported", hint="convert it first: network.float()")
    table = layer_table(network.spec, settings.image_size)
    for module in ("onnx", "onnxscript"):
        require(module, extra="onnx")
    reference = reference_network(network, settings.bn)
    model = _export(_ready_for_export(in_floats(reference)), table.image_size, settings)
    _check_opset(model, settings.opset)
    remarks = []
    if settings.simplify:
        model, remark = simplified(model)
        remarks += [remark] if remark else []
    strip(model)
    metadata = describe(network, table.image_size, settings.bn, parent_sha256)
    metadata |= {METADATA_PREFIX + key: value for key, value in (origin or {}).items()}
    counts = macs(table, "true"), macs(table, "paper")
    metadata |= rewriting(settings.target, [], counts)
    set_properties = require("onnx.helper", extra="onnx").set_model_props
    set_properties(model, metadata)
    model.producer_name, model.producer_version = "mggc-edge", __version__
    model.graph.name = family.title(network.spec)
    float_bytes, float_weights_bytes = model.ByteSize(), _weights_bytes(model)
    precision = precision_of(network.spec)
    if precision == "int8":  # before the passes, which leave convolutions alone whose weights are on grids
        insert_qdq(model, network_grids(reference))
        require("onnx", extra="onnx").checker.check_model(model)
    passes, tuned = passes_for(model, settings.passes, settings.target, settings.tune, seed=seed)
    model, reports = apply_passes(model, passes)
    metadata |= rewriting(settings.target, [report.name for report in reports if report.applied], counts)
    set_properties(model, metadata)
    with atomic_path(path) as temporary:
        with writing(path):
            temporary.write_bytes(model.SerializeToString())
        parity, inputs, outputs = _parity(reference, temporary, table.image_size, settings, seed)
        parity.check(f"the exported '{path.name}' does not equal the network")
        grids = None
        if precision == "int8":
            shape, values = (network.spec.in_channels, *table.image_size), (network.spec.low, network.spec.high)
            pictures = random_pictures(settings.pictures, (1,), shape, seed, values)
            grids = compare_grids(reference, model, INPUT_NAME, pictures)
            grids.check(f"the exported '{path.name}' has not the grids of the network")
        camera, batches = None, (1, 3) if settings.dynamic_batch else (1,)
        if settings.io == BYTES_IO:
            formats = network.spec.input_format, network.spec.output_format
            camera, inputs, outputs = make_camera_ready(
                temporary, model, formats, table.image_size, pictures=settings.pictures, batches=batches, seed=seed
            )
    artifact = OnnxArtifact(
        path=path,
        sha256=sha256_of(path),
        size_bytes=path.stat().st_size,
        inputs=inputs,
        outputs=outputs,
        precision=precision,
        parent_sha256=parent_sha256,
        settings={
            "image_size": list(table.image_size),
            "opset": settings.opset,
            "dynamic_batch": settings.dynamic_batch,
            "bn": settings.bn,
            "simplify": settings.simplify,
            "target": settings.target,
            "io": settings.io,
            "passes": [report.to_json() for report in reports],
            "tuning": None if tuned is None else tuned.to_json(),
        },
    )
    return Exported(
        artifact,
        parity,
        (*remarks, *_remarks_on(parity, grids, settings), *(tuned.remarks if tuned is not None else ())),
        reports,
        tuned=tuned,
        macs_executed=count_macs(model)[0],
        grids=grids,
        camera=camera,
        weights_bytes=_weights_bytes(model),
        float_bytes=artifact.size_bytes if precision == "fp32" else float_bytes,
        float_weights_bytes=float_weights_bytes,
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


def _weights_bytes(model: onnx.ModelProto) -> int:
    numpy_helper = require("onnx.numpy_helper", extra="onnx")
    return sum(numpy_helper.to_array(tensor).nbytes for tensor in model.graph.initializer)


def check_generator(spec: NetworkSpec) -> None:
    """Raise SpecError unless a network turns pictures into pictures."""
    role = family_of(spec).role
    if role != "generator":
        raise SpecError(f"this is a {role}, and only generators are exported and run")
    for channels in (spec.in_channels, spec.out_channels):
        if channels not in PICTURE_CHANNELS:
            raise SpecError(f"this generator has pictures of {channels} channels; 1, 3 and 4 are possible")


def torch_runner(
    network: Network, image_size: Size | None = None, *, name: str = "torch", metadata: Mapping[str, str] | None = None
) -> PyTorchRunner:
    """Return a runner of a network at a picture size, with the names that its exported file has."""
    spec = network.spec
    table = layer_table(spec, image_size)
    size, out_size = table.image_size, table.layers[-1].out_size
    return PyTorchRunner(
        network,
        (TensorSpec(INPUT_NAME, "float32", (None, spec.in_channels, *size)),),
        (TensorSpec(OUTPUT_NAME, "float32", (None, spec.out_channels, *out_size)),),
        name=name,
        metadata=metadata,
    )


def _ready_for_export(network: Network) -> Network:
    """Return a copy with batch norm folded and without biases that have no effect."""
    ready = copy.deepcopy(fold_batch_norm(network))
    for layer in ready.table.layers:
        if not layer.bias:
            continue
        conv = ready.get_submodule(layer.name)
        bias = conv.get_parameter("bias")
        # An instance norm subtracts the mean, and with it whatever was added to every position.
        if layer.norm_kind in ("instance", "instance_affine") or not bias.any():
            conv.register_parameter("bias", None)
    return ready.eval()


def _export(network: Network, size: Size, settings: ExportSettings) -> onnx.ModelProto:
    batch = 2 if settings.dynamic_batch else 1  # a batch of 1 would be taken for a constant
    example = torch.zeros(batch, network.spec.in_channels, *size)
    with quiet():
        program = torch.onnx.export(
            network,
            (example,),
            dynamo=True,
            external_data=False,
            opset_version=settings.opset,
            input_names=[INPUT_NAME],
            output_names=[OUTPUT_NAME],
            dynamic_shapes=({0: "batch"},) if settings.dynamic_batch else None,
            verbose=False,
        )
    assert program is not None
    model: onnx.ModelProto = program.model_proto
    return model


def _check_opset(model: onnx.ModelProto, wanted: int) -> None:
    found = {entry.domain or "ai.onnx": entry.version for entry in model.opset_import}
    if found.get("ai.onnx") != wanted:
        raise CheckFailedError(f"opset {wanted} was asked for, but the exporter wrote opset {found.get('ai.onnx')}")


def describe(network: Network, image_size: Size, bn: BatchNormMode, parent_sha256: str | None = None) -> dict[str, str]:
    """Return the metadata that a bare file needs to be translated with and verified."""
    spec = network.spec
    metadata = {
        "version": __version__,
        "spec": json.dumps(spec.to_json(), separators=(",", ":")),
        "image_size": f"{image_size[0]}x{image_size[1]}",
        "bn": bn,
        "input_format": json.dumps(spec.input_format.to_json()),
        "output_format": json.dumps(spec.output_format.to_json()),
        "precision": precision_of(spec),
        "parent_sha256": parent_sha256 or "",
    }
    return {METADATA_PREFIX + key: value for key, value in metadata.items()}


def _parity(
    reference: Network, path: Path, size: Size, settings: ExportSettings, seed: int
) -> tuple[ParityReport, tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    batches = (1, 3) if settings.dynamic_batch else (1,)
    with torch_runner(reference, size) as torch_side, OnnxRuntimeRunner(path) as onnx_side:
        spec = reference.spec
        shape, values = (spec.in_channels, *size), (spec.low, spec.high)
        pictures = random_pictures(settings.pictures, batches, shape, seed, values)
        # A deep 8-bit network does not repeat itself to the last bit; `check_grids` holds it, layer by layer, instead.
        atol = settings.atol if spec.quantization == "none" else None
        report = check_parity(torch_side, onnx_side, pictures, atol=atol, data_range=spec.value_range)
        return report, onnx_side.inputs, onnx_side.outputs
